"""FetchSGD, Sketched-SGD, SketchedAMSGrad: references, exact reductions, published numbers."""

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.simulations import simulate
from flowerpress.strategies import RoundError, make_strategy
from tests.algorithms.problems import Quadratics, trajectory, vector
from tests.algorithms.sketching import signs_of
from tests.reference import sketched as reference
from tests.reference.sketched import Events

ROUNDS = 50
# As in test_references: 50 rounds of sums of a few float64 numbers, in another order.
CLOSE = {"rtol": 0, "atol": 1e-9}
N, DIM, K = 4, 30, 3
WEIGHTS = np.ones(N)
EVERYONE = Events(*(list(range(N)) for _ in range(3)))
SKETCHES = [("identity", 1, DIM), ("countsketch:rows=3,columns=12", 3, 12)]
PAPER = {"error_update": "subtract", "mask_momentum": False}
BETAS = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-3}


def follow(steps, rounds=ROUNDS):
    states = [next(steps) for _ in range(rounds)]
    return np.array([x for x, _ in states])


def everyone(r):
    return EVERYONE


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("update", ["subtract", "zero"])
@pytest.mark.parametrize(("spec", "rows", "columns"), SKETCHES, ids=["identity", "countsketch"])
def test_fetchsgd_follows_its_reference(spec, rows, columns, update, mask, noise):
    problem = Quadratics(n=N, dim=DIM, noise=noise)
    options = {"error_update": update, "mask_momentum": mask, "momentum": 0.8}
    strategy = make_strategy("fetchsgd", compressor=spec, k=K, lr=0.02, **options)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    steps = reference.fetchsgd(
        problem.x0,
        problem.gradient,
        WEIGHTS,
        signs_of(rows, columns, DIM),
        0.02,
        K,
        everyone,
        0.8,
        zero=update == "zero",
        mask=mask,
    )
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(("spec", "rows", "columns"), SKETCHES, ids=["identity", "countsketch"])
def test_sketched_sgd_follows_its_reference(spec, rows, columns, candidates, momentum, noise):
    problem = Quadratics(n=N, dim=DIM, noise=noise)
    strategy = make_strategy(
        "sketched-sgd", compressor=spec, k=K, lr=0.02, momentum=momentum, candidates=candidates
    )
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    signs = signs_of(rows, columns, DIM)
    steps = reference.sketched_sgd(
        problem.x0, problem.gradient, WEIGHTS, signs, 0.02, K, everyone, momentum, candidates
    )
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(("spec", "rows", "columns"), SKETCHES, ids=["identity", "countsketch"])
def test_sketched_amsgrad_follows_its_reference(spec, rows, columns, candidates, noise):
    """With a step size that falls from round to round: what is owed is rescaled."""
    problem = Quadratics(n=N, dim=DIM, noise=noise)

    def lr(r):
        return 0.05 / np.sqrt(r)

    strategy = make_strategy(
        "sketched-amsgrad", compressor=spec, k=K, candidates=candidates, **BETAS
    )

    def set_lr(record):
        strategy.lr = lr(record.round + 1)

    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS, on_round=set_lr)
    signs = signs_of(rows, columns, DIM)
    steps = reference.sketched_amsgrad(
        problem.x0,
        problem.gradient,
        WEIGHTS,
        signs,
        lr,
        K,
        everyone,
        **BETAS,
        candidates=candidates,
    )
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


def test_workers_count_for_their_examples():
    problem = Quadratics(n=N, dim=DIM)
    weights = np.array([1.0, 5.0, 2.0, 10.0])

    def task_fn(i, n):
        return FunctionTask(
            problem.x0, lambda x, _: (0.0, problem.gradient(i, x, 1)), num_examples=int(weights[i])
        )

    _, fetched = trajectory(
        make_strategy("fetchsgd", columns=12, k=K, lr=0.02, **PAPER), task_fn, N, 20
    )
    signs = signs_of(5, 12, DIM)
    arguments = problem.x0, problem.gradient, weights, signs, 0.02, K, everyone, 0.9
    np.testing.assert_allclose(fetched[1:], follow(reference.fetchsgd(*arguments), 20), **CLOSE)
    _, found = trajectory(
        make_strategy("sketched-sgd", columns=12, k=K, lr=0.02, momentum=0.9), task_fn, N, 20
    )
    steps = reference.sketched_sgd(*arguments, candidates=4)
    np.testing.assert_allclose(found[1:], follow(steps, 20), **CLOSE)


# --- exact reductions --------------------------------------------------------------------------


def heavy_ball(problem, lr, momentum, rounds):
    x, u, models = problem.x0, 0.0, []
    for _ in range(rounds):
        u = momentum * u + problem.full_gradient(x)
        x = x - lr * u
        models.append(x)
    return np.array(models)


@pytest.mark.parametrize(
    ("name", "options", "momentum"),
    [
        ("fetchsgd", {**PAPER}, 0.9),
        ("fetchsgd", {**PAPER, "mask_momentum": True}, 0.0),
        ("fetchsgd", {}, 0.0),
        ("sketched-sgd", {"momentum": 0.0}, 0.0),
        ("sketched-sgd", {"momentum": 0.9}, 0.0),  # all of u is masked
    ],
)
def test_with_an_injective_sketch_and_all_coordinates_it_is_sgd(name, options, momentum):
    """Heavy ball without masking, plain SGD with it."""
    problem = Quadratics(n=N)
    strategy = make_strategy(name, compressor="identity", k_ratio=1.0, lr=0.02, **options)
    _, models = trajectory(strategy, problem.task_fn, N, 100)
    expected = heavy_ball(problem, 0.02, momentum, 100)
    np.testing.assert_allclose(models[1:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("columns", [8, 100])
def test_sketched_amsgrad_with_all_coordinates_is_amsgrad(columns):
    problem = Quadratics(n=N)
    strategy = make_strategy("sketched-amsgrad", columns=columns, k=8, lr=0.05, **BETAS)
    _, models = trajectory(strategy, problem.task_fn, N, 100)
    steps = reference.amsgrad(problem.x0, lambda x, r: problem.full_gradient(x), 0.05, **BETAS)
    expected = [next(steps) for _ in range(100)]
    np.testing.assert_allclose(models[1:], expected, rtol=0, atol=1e-12)


# --- published and computed numbers --------------------------------------------------------------


@pytest.mark.parametrize(("k", "rounds"), [(2, [(0.28, 0.34), (0.172, 0.204)]), (1, [(0.0, 0.34)])])
def test_the_two_workers_of_the_authors_unit_test(k, rounds):
    """The authors sum the loss over all data with lr 0.005; the mean of two workers needs twice."""
    data = np.arange(8.0).reshape(2, 2, 2)
    targets = np.arange(4.0).reshape(2, 2)

    def task_fn(i, n):
        def gradient(w, _):
            return 0.0, 2 * (data[i] @ w - targets[i]) @ data[i]

        return FunctionTask(np.zeros(2), gradient)

    strategy = make_strategy("sketched-sgd", columns=2, k=k, lr=0.01, momentum=0.0)
    _, models = trajectory(strategy, task_fn, 2, len(rounds))
    np.testing.assert_allclose(models[1:], rounds, rtol=0, atol=1e-12)


class Toy:
    """Two workers with f_i = 0.5 (x - b_i)' diag(1, 2, 3, 4) (x - b_i), known to the last digit."""

    n, x0 = 2, np.zeros(4)
    A = np.array([1.0, 2, 3, 4])
    b = np.array([[1, -1, 2, 0.5], [-0.5, 2, 1, -1]])
    solution = np.array([0.25, 0.5, 1.5, -0.25])

    def gradient(self, i, x, r):
        return self.A * (x - self.b[i])

    def task_fn(self, i, n):
        return FunctionTask(self.x0, lambda x, _: (0.0, self.gradient(i, x, 0)))


@pytest.mark.parametrize(("k", "reached", "trapped"), [(1, 2.5e-4, 112.6), (2, 2.0e-4, 13.4)])
def test_unseen_coordinates_do_not_take_giant_steps(k, reached, trapped):
    """Where v is refreshed at the k largest gradients only, it stays eps elsewhere: x flies off."""
    toy, settings = Toy(), {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    both = Events([0, 1], [0, 1], [0, 1])
    arguments = toy.x0, toy.gradient, np.ones(2), signs_of(1, 4, 4), lambda r: 0.01, k
    trap = reference.sketched_amsgrad(
        *arguments, lambda r: both, **settings, candidates=4, trap=True
    )
    assert np.linalg.norm(follow(trap, 500)[-1] - toy.solution) == pytest.approx(trapped, rel=0.01)
    strategy = make_strategy("sketched-amsgrad", compressor="identity", k=k, lr=0.01, **settings)
    _, models = trajectory(strategy, toy.task_fn, 2, 500)
    distances = np.linalg.norm(models - toy.solution, axis=1)
    assert distances[-1] == pytest.approx(reached, rel=0.02)
    assert distances.max() < 1.1 * distances[0]


@pytest.mark.parametrize("columns", [250, 1000])
def test_exact_values_of_nearly_all_of_the_largest(columns):
    """Twenty values of 10 among ten thousand of N(0, 0.01), four workers, P = 4."""
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        g = 0.1 * rng.standard_normal((4, 10_000))
        hitters = rng.choice(10_000, 20, replace=False)
        g[:, hitters] += 10 * rng.choice([-1, 1], 20)
        strategy = make_strategy("sketched-sgd", rows=5, columns=columns, k=20, lr=1.0)
        result = simulate(
            strategy,
            lambda i, n, g=g: FunctionTask(np.zeros(10_000), lambda x, _: (0.0, g[i])),
            4,
            1,
            seed,
        )
        step = -vector(result.arrays)
        places = np.flatnonzero(step)
        found.append(len(set(places) & set(hitters)))
        # A mean of four float64 numbers near 10.
        np.testing.assert_allclose(step[places], g.mean(axis=0)[places], rtol=0, atol=1e-14)
    assert np.mean(found) >= 19.5


class Wide:
    """A quadratic of 1000 coordinates, of curvatures i ** -0.5, on one worker."""

    A = np.arange(1.0, 1001) ** -0.5
    x0 = np.random.default_rng(4).standard_normal(1000)

    def run(self, lr, rounds, **options):
        """Return the norm of the gradient, at first and at last."""
        strategy = make_strategy("fetchsgd", columns=500, k=20, lr=lr, momentum=0.9, **options)
        result = simulate(
            strategy,
            lambda i, n: FunctionTask(self.x0, lambda x, _: (0.0, self.A * x)),
            1,
            rounds,
        )
        return [np.linalg.norm(self.A * x) for x in (self.x0, vector(result.arrays))]


@pytest.mark.slow
def test_fetchsgd_on_a_thousand_coordinates():
    """Subtracting goes on where zeroing stalls; a large lr diverges: what is owed comes late."""
    wide = Wide()
    first, subtracted = wide.run(0.05, 2000, **PAPER)
    _, zeroed = wide.run(0.05, 2000)
    assert subtracted < 1e-4
    assert 0.01 < zeroed < 0.1
    _, large = wide.run(0.3, 1000, **PAPER)
    assert large > 10 * first


# --- bytes, options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "exact"), [("fetchsgd", 0), ("sketched-sgd", 1), ("sketched-amsgrad", 2)]
)
def test_bytes_are_a_table_up_and_k_values_down(name, exact):
    problem = Quadratics(n=2, dim=500)
    strategy = make_strategy(name, rows=3, columns=16, k=5, lr=0.01)
    result, _ = trajectory(strategy, problem.task_fn, 2, 6)
    sent = {"up": [], "down": []}
    for row in result.ledger.rows:
        if row.purpose == "train" and row.round == 4 and row.client == 0:
            sent[row.direction].append(row.payload)
    frame = 24
    table, values = frame + 16 + 8 * 3 * 16, frame + 8 * 20 * exact
    # Ids take about log2(d / k) + 1.5 bits each, in whole bytes: a byte or two at this size.
    step = range(frame + 8 + 8 * 5 + 5, frame + 8 + 8 * 5 + 11)
    places = range(8 + 15, 8 + 30)
    assert sent["up"] == [table, values] if exact else [table]
    assert sent["down"][0] in step
    assert [size in places for size in sent["down"][1:]] == [True] * bool(exact)


@pytest.mark.parametrize("name", ["fetchsgd", "sketched-sgd", "sketched-amsgrad"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressor": "topk:0.1"}, "adds up what workers send before it is read"),
        ({"columns": 10, "ratio": 0.1}, r"columns is 10: expected 0 where ratio is given \(0.1\)"),
        ({"rows": 4}, "rows must be odd"),
        ({"ratio": 1.5}, r"ratio is 1.5: expected a number in \[0, 1\]"),
        ({"k": -1}, "k is -1: expected a whole number >= 0"),
        ({"k_ratio": 0.0}, r"k_ratio is 0.0: expected a number in \(0, 1\]"),
        ({"client_compressors": True}, "client_compressors is True: expected False"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fetchsgd", {"error_update": "keep"}, "error_update is 'keep': expected zero or subtract"),
        ("fetchsgd", {"mask_momentum": 1}, "mask_momentum is 1: expected true or false"),
        ("fetchsgd", {"momentum": 1.5}, r"momentum is 1.5: expected a number in \[0, 1\]"),
        ("sketched-sgd", {"momentum": -0.1}, r"momentum is -0.1: expected a number in \[0, 1\]"),
        ("sketched-sgd", {"candidates": 0}, "candidates is 0: expected a whole number >= 1"),
        ("sketched-amsgrad", {"eps": 0.0}, "eps is 0.0: expected a number > 0"),
        ("sketched-amsgrad", {"beta1": 2.0}, r"beta1 is 2.0: expected a number in \[0, 1\]"),
        ("sketched-amsgrad", {"beta2": 2.0}, r"beta2 is 2.0: expected a number in \[0, 1\]"),
    ],
)
def test_wrong_options_of_one(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, **options)


@pytest.mark.parametrize("name", ["fetchsgd", "sketched-sgd", "sketched-amsgrad"])
def test_divergence_ends_the_run_with_the_remedy(name):
    problem = Quadratics(n=2)
    options = {"beta1": 0.0} if name == "sketched-amsgrad" else {}
    with pytest.raises(RoundError, match="lower lr"):
        simulate(make_strategy(name, k=2, lr=1e200, **options), problem.task_fn, 2, 50)
