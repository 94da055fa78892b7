"""The Adam family: plain references, exact values, reductions, what converges and what not."""

import logging

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Draw, Packet, decompress, make_compressor
from flowerpress.strategies import make_strategy
from tests.algorithms import toy
from tests.algorithms.problems import SEED, Quadratics, cohorts, trajectory
from tests.reference import adam as reference
from tests.reference import compressors as C

ROUNDS = 50
# As in test_references: 50 rounds of sums of a few float64 numbers, in another order.
CLOSE = {"rtol": 0, "atol": 1e-9}
N = 5
OPERATORS = {"identity": C.identity, "topk:k=2": C.topk(2), "sign": C.sign}
TOY_OPERATORS = {
    **OPERATORS,
    "topk:k=1": C.topk(1),
    "sign:scale=l2": C.sign_l2,
    "loggrid:3": C.loggrid(3),
}
ADAM = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3}
TWO_WAY = {
    "efficient-adam": (reference.efficient_adam, {}, {}),
    "onebit-adam": (reference.onebit_adam, {"warmup": 7}, {"warmup_rounds": 7}),
    "cdadam": (reference.cdadam, {}, {}),
}


def up(compress):
    return lambda v, i, r: compress(v)


def down(compress):
    return lambda v, r: compress(v)


def constant(lr):
    return lambda r: lr


def everyone(r):
    return range(N)


def follow(steps, rounds=ROUNDS):
    return np.array([next(steps)[0] for _ in range(rounds)])


@pytest.mark.parametrize(
    ("compressor", "downlink", "noise"),
    [(c, d, 0.3) for c in OPERATORS for d in OPERATORS] + [(c, c, 0.0) for c in OPERATORS],
)
@pytest.mark.parametrize("name", TWO_WAY)
def test_two_way_methods_follow_their_references(name, compressor, downlink, noise):
    problem = Quadratics(n=N, noise=noise)
    steps, settings, options = TWO_WAY[name]
    options = {"compressor": compressor, "downlink": downlink, "lr": 0.01, **options, **ADAM}
    _, models = trajectory(make_strategy(name, **options), problem.task_fn, N, ROUNDS)
    operators = up(OPERATORS[compressor]), down(OPERATORS[downlink])
    settings = {"lr": constant(0.01), "cohort": everyone, **settings, **ADAM}
    expected = steps(problem.x0, problem.gradient, N, *operators, **settings)
    np.testing.assert_allclose(models[1:], follow(expected), **CLOSE)


@pytest.mark.parametrize("name", TWO_WAY)
def test_two_way_methods_with_sampled_workers_and_decay(name):
    problem = Quadratics(n=N, noise=0.3)
    steps, settings, options = TWO_WAY[name]
    options = {"compressor": "topk:k=2", "downlink": "sign", "lr": 0.03, **options, **ADAM}
    strategy = make_strategy(name, fraction_train=0.4, decay="sqrt", **options)
    result, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    asked = cohorts(result)
    first = N if name == "cdadam" else 2  # who shares a state with the server starts at once
    assert [len(asked[r]) for r in range(1, ROUNDS + 1)] == [first] + [2] * (ROUNDS - 1)
    assert len({tuple(cohort) for cohort in asked.values()}) > 5, "the same workers every round"
    settings = {"lr": lambda r: 0.03 / np.sqrt(r), "cohort": asked.get, **settings, **ADAM}
    expected = steps(problem.x0, problem.gradient, N, up(C.topk(2)), down(C.sign), **settings)
    np.testing.assert_allclose(models[1:], follow(expected), **CLOSE)


@pytest.mark.parametrize(("fraction", "noise"), [(1.0, 0.0), (1.0, 0.3), (0.4, 0.3)])
@pytest.mark.parametrize("compressor", OPERATORS)
def test_comp_ams_follows_its_reference(compressor, noise, fraction):
    problem = Quadratics(n=N, noise=noise)
    options = {"compressor": compressor, "lr": 0.05, "fraction_train": fraction, **ADAM}
    result, models = trajectory(make_strategy("comp-ams", **options), problem.task_fn, N, ROUNDS)
    cohort = cohorts(result).get
    compress = up(OPERATORS[compressor])
    expected = reference.comp_ams(
        problem.x0, problem.gradient, N, compress, constant(0.05), cohort, **ADAM
    )
    np.testing.assert_allclose(models[1:], follow(expected), **CLOSE)


def local_steps(problem, lr, steps):
    def local(i, x, r):
        rng, y = np.random.default_rng([SEED, i, r]), x
        for _ in range(steps):
            noise = problem.noise * rng.standard_normal(problem.dim)
            y = y - lr * (problem.A[i] @ (y - problem.b[i]) + noise)
        return y

    return local


@pytest.mark.parametrize("fraction", [1.0, 0.4])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("compressor", OPERATORS)
def test_fedcams_follows_its_reference(compressor, steps, fraction):
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": compressor, "lr": 0.05, "local_lr": 0.02, "local_steps": steps}
    strategy = make_strategy("fedcams", fraction_train=fraction, **options, **ADAM)
    result, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    local, cohort = local_steps(problem, 0.02, steps), cohorts(result).get
    compress = up(OPERATORS[compressor])
    expected = reference.fedcams(problem.x0, local, N, compress, constant(0.05), cohort, **ADAM)
    np.testing.assert_allclose(models[1:], follow(expected), **CLOSE)


def signs(rank_of, cohort_of):
    """The package's own random signs, with the documented randomness of both directions."""
    randsign = make_compressor("randsign")

    def compress(v, i, r):
        return decompress(randsign.compress(v, Draw(SEED, r, rank_of(i, r), cohort_of(r))))

    return compress, lambda v, r: decompress(randsign.compress(v, Draw(SEED, r, 0, 1, 1)))


@pytest.mark.parametrize("fraction", [1.0, 0.6])
@pytest.mark.parametrize("compressor", ["randsign", "identity"])
def test_birder_follows_its_reference(compressor, fraction):
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": compressor, "downlink": compressor, "fraction_train": fraction}
    strategy = make_strategy("birder", lr=0.05, decay="sqrt", beta1=0.8, **options)
    result, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    asked = cohorts(result)
    operators = up(C.identity), down(C.identity)
    if compressor == "randsign":
        operators = signs(lambda i, r: asked[r].index(i), lambda r: len(asked[r]))
    expected = reference.birder(
        problem.x0,
        problem.gradient,
        N,
        *operators,
        lambda r: 0.05 / np.sqrt(r),
        asked.get,
        0.8,
    )
    np.testing.assert_allclose(models[1:], follow(expected), **CLOSE)


# Exact values --------------------------------------------------------------------------------


def on_toy(name, x0, rounds, **options):
    strategy = make_strategy(name, **options)
    _, models = trajectory(strategy, toy.task_fn(x0), toy.WORKERS, rounds)
    return strategy, models


def both(spec):
    return {"compressor": spec, "downlink": spec}


START = np.array([0.3, -0.7, 1.1, 0.2])
# Given to ten digits.
DIGITS = {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("identity", [2.4371100708, 2.4398201871, 2.4407142019, 2.4366038133]),
        ("sign", 2.4385651968),
        ("loggrid:3", 2.4360982712),
    ],
)
def test_efficient_adam_after_four_steps(spec, expected):
    options = {"lr": 0.1, "beta2": 0.99, "eps": 0.0, **both(spec)}
    _, models = on_toy("efficient-adam", 3.0, 4, **options)
    np.testing.assert_allclose(models[4], np.zeros(4) + expected, **DIGITS)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("identity", [0.4284195625, 0.9325838494, 1.6803590996, -0.5359600050]),
        ("sign:scale=l2", [1.6126277583, 0.5551183715, 2.0627337192, -1.3080781377]),
    ],
)
def test_onebit_adam_after_two_and_four_steps(spec, expected):
    _, models = on_toy("onebit-adam", START, 4, lr=0.1, warmup_rounds=2, **both(spec))
    warm = [0.2420389716, 0.0330514258, 1.7597752180, -0.4793090184]
    np.testing.assert_allclose(models[2], warm, **DIGITS)
    np.testing.assert_allclose(models[4], expected, **DIGITS)


def test_birder_after_twenty_and_sixty_steps():
    _, models = on_toy("birder", 3.0, 60, lr=0.1, beta1=0.9, **both("identity"))
    np.testing.assert_allclose(models[20], [1.0, 1.3620361816, 1.3620361816, 1.0], **DIGITS)
    expected = [-0.0263293371, 1.1876320167, 1.1876320167, -0.5729421497]
    np.testing.assert_allclose(models[60], expected, **DIGITS)


def test_cdadam_after_three_steps():
    strategy, models = on_toy("cdadam", 0.0, 3, lr=0.1, **both("sign"))
    expected = [-0.2740079708, 0.3609645650, 0.3734506932, -0.3609645650]
    np.testing.assert_allclose(models[3], expected, **DIGITS)
    g = [1.1275154812, -0.3724845188, -3.0400156145, 0.3724845188]
    np.testing.assert_allclose(strategy.model.replica.kept["g"], g, **DIGITS)


@pytest.mark.parametrize(
    ("spec", "errors"),
    [
        ("sign", [1.92028644, 0.79056942, 0.25, 0.0]),
        ("topk:k=1", [2.29128785, 1.11803399, 0.5, 0.0]),
    ],
)
def test_cdadam_learns_a_constant_gradient(spec, errors):
    constant_gradient = np.array([3.0, -1.0, 0.5, 2.0])
    strategy = make_strategy("cdadam", lr=0.01, **both(spec))
    found = []

    def check(record):
        if record.round:
            found.append(np.linalg.norm(constant_gradient - strategy.h))

    def task_fn(i, n):
        return FunctionTask(np.zeros(4), lambda x, _: (0.0, constant_gradient))

    trajectory(strategy, task_fn, 1, 4, on_round=check)
    np.testing.assert_allclose(found, errors, rtol=0, atol=1e-8)  # given to eight digits


# Exact reductions ----------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-2])
def test_one_worker_of_efficient_adam_is_torch_adam(eps):
    """With its bias correction only: without, as in the paper, the first steps are shorter."""
    torch = pytest.importorskip("torch")
    problem = Quadratics(n=1, noise=0.3)
    options = {"lr": 0.05, "eps": eps, **both("identity")}
    strategy = make_strategy("efficient-adam", bias_correction=True, **options)
    _, models = trajectory(strategy, problem.task_fn, 1, ROUNDS)
    x = torch.tensor(problem.x0, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.05, betas=(0.9, 0.999), eps=eps)
    expected = []
    for r in range(1, ROUNDS + 1):
        x.grad = torch.from_numpy(problem.gradient(0, x.detach().numpy(), r))
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    # The same formula, with its divisions in another order.
    np.testing.assert_allclose(models[1:], expected, rtol=0, atol=1e-12)
    _, plain = trajectory(make_strategy("efficient-adam", **options), problem.task_fn, 1, ROUNDS)
    assert np.abs(plain - models).max() > 0.01


def mean_gradient(problem):
    return lambda x, r: np.mean([problem.gradient(i, x, r) for i in range(N)], axis=0)


def test_onebit_adam_uncompressed_is_adam_with_its_variance_frozen():
    problem = Quadratics(n=N, noise=0.3)
    options = {"lr": 0.05, "warmup_rounds": 8, **both("identity")}
    _, models = trajectory(make_strategy("onebit-adam", **options), problem.task_fn, N, ROUNDS)
    gradient = mean_gradient(problem)
    steps = reference.adam(problem.x0, gradient, constant(0.05), 0.9, 0.999, 1e-8, frozen_after=8)
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


@pytest.mark.parametrize("name", ["cdadam", "comp-ams", "fedcams"])
def test_uncompressed_is_amsgrad(name):
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": "identity", "beta2": 0.9, "lr": 0.05, "eps": 1e-12}
    options |= {"cdadam": {"downlink": "identity"}, "fedcams": {"local_lr": 1.0}}.get(name, {})
    _, models = trajectory(make_strategy(name, **options), problem.task_fn, N, ROUNDS)
    steps = reference.amsgrad(problem.x0, mean_gradient(problem), constant(0.05), 0.9, 0.9, 1e-12)
    # w + eps and max(w, eps) are the same up to eps, 1e-12 of w.
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


# What converges where workers differ, and what does not --------------------------------------


def distance(models):
    return float(np.linalg.norm(models[-1] - toy.SOLUTION))


@pytest.mark.parametrize("name", ["efficient-adam", "birder"])
def test_normalised_by_itself_stops_elsewhere_and_says_so(name, caplog):
    with caplog.at_level(logging.WARNING, "flowerpress"):
        _, models = on_toy(name, 0.0, 300, lr=0.5, decay="sqrt", **both("identity"))
    assert "where workers' data differ it does not stop at the solution" in caplog.text
    assert distance(models) > 0.5


def test_efficient_adam_does_not_move_where_the_workers_steps_cancel():
    _, models = on_toy(
        "efficient-adam", START, 100, lr=0.1, beta2=0.99, eps=0.0, **both("identity")
    )
    # Two roundings a step, of numbers of size 0.1.
    np.testing.assert_allclose(models, np.tile(START, (101, 1)), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "options", "bound"),
    [
        ("cdadam", {"lr": 0.03, "rounds": 700, **both("sign")}, 1e-12),
        ("cdadam", {"lr": 0.03, "rounds": 700, **both("topk:k=1")}, 1e-10),
        ("onebit-adam", {"lr": 0.01, "rounds": 500, "warmup_rounds": 100}, 0.01),
        ("comp-ams", {"lr": 0.01, "rounds": 500, "compressor": "topk:k=1"}, 5e-3),
        ("comp-ams", {"lr": 0.01, "rounds": 500, "compressor": "sign"}, 0.05),
    ],
)
def test_others_converge_where_workers_differ(name, options, bound, caplog):
    options = dict(options)
    with caplog.at_level(logging.WARNING, "flowerpress"):
        _, models = on_toy(name, 0.0, options.pop("rounds"), **options)
    assert distance(models) < bound
    assert caplog.text == ""


@pytest.mark.parametrize(("compressor", "least"), [("topk:k=1", 0.25), ("sign", 0.5)])
def test_comp_ams_without_error_feedback_would_stop_far_away(compressor, least):
    steps = reference.comp_ams(
        np.zeros(4),
        toy.gradient,
        2,
        up(TOY_OPERATORS[compressor]),
        constant(0.01),
        lambda r: range(2),
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        feedback=False,
    )
    assert distance(follow(steps, 500)) > least


# Signs ---------------------------------------------------------------------------------------


def test_birders_first_step_is_the_sign_of_the_gradient():
    strategy = make_strategy("birder", lr=0.125)
    start = np.array([3.0, -2.0, 1.0, 0.25])
    _, models = trajectory(strategy, toy.task_fn(start), 1, 1)
    np.testing.assert_array_equal(models[1], start - 0.125 * np.sign(toy.gradient(0, start)))


def test_random_signs_of_both_directions_are_independent_and_unbiased():
    u = np.tile([[0.5, -0.25, 0.0, 1.0], [0.1, 0.75, 0.0, -1.0]], 50_000)
    compress, downlink = signs(lambda i, r: i, lambda r: 2)
    sent = np.array([compress(u[i], i, 1) for i in range(2)])
    mean = downlink(sent.mean(axis=0), 1)
    # Means of 50000 signs: standard deviation at most 0.0045.
    near = {"rtol": 0, "atol": 0.02}
    np.testing.assert_allclose(sent.reshape(2, -1, 4).mean(axis=1), u[:, :4], **near)
    np.testing.assert_allclose(mean.reshape(-1, 4).mean(axis=0), u[:, :4].mean(axis=0), **near)


@pytest.mark.parametrize("name", ["efficient-adam", "onebit-adam", "birder", "cdadam"])
def test_one_bit_both_ways(name):
    """After the first rounds, d bits and less than 40 bytes of scale and frame, up and down."""
    dim = 4096
    rng = np.random.default_rng(0)
    ends = rng.standard_normal((3, dim)).astype(np.float32)

    def task_fn(i, n):
        return FunctionTask(np.zeros(dim, np.float32), lambda x, _: (0.0, x - ends[i]))

    options = both("randsign" if name == "birder" else "sign")
    options |= {"warmup_rounds": 2} if name == "onebit-adam" else {}
    strategy = make_strategy(name, lr=0.01, **options)
    result, _ = trajectory(strategy, task_fn, 3, 6)
    rows = [row for row in result.ledger.rows if row.purpose == "train" and row.round > 3]
    assert len(rows) == 3 * 3 * 2
    assert all(dim // 8 <= row.payload < dim // 8 + 40 for row in rows)


def test_what_is_published_is_compressed(tmp_path):
    """Errors are added before compression: a sign's delta has one magnitude."""
    for name in TWO_WAY:
        strategy, _ = on_toy(name, START, 30, lr=0.01, **both("sign"))
        deltas = [packet for packet, _ in strategy.model.log.deltas]
        assert deltas
        for packet in deltas:
            assert Packet.parse(packet).compressor == "sign"
            assert len(set(np.abs(decompress(packet)))) == 1


# Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "efficient-adam",
            {"downlink": ""},
            "downlink is '': expected a compressor: steps are sent",
        ),
        ("efficient-adam", {"compressor": "sign:scale=l2"}, "neither"),
        ("efficient-adam", {"downlink": "sign:scale=l2"}, "neither"),
        ("efficient-adam", {"beta1": 1.0}, r"beta1 is 1.0: expected a number in \[0, 1\)"),
        ("efficient-adam", {"beta2": -0.1}, "beta2 is -0.1"),
        ("efficient-adam", {"eps": -1e-8}, "eps is -1e-08: expected a number >= 0"),
        ("efficient-adam", {"decay": "cosine"}, "decay is 'cosine': expected none or sqrt"),
        ("efficient-adam", {"bias_correction": 1}, "expected true or false"),
        ("onebit-adam", {"downlink": ""}, "sends momenta, not models"),
        ("onebit-adam", {"warmup_rounds": 0}, "warmup_rounds is 0: .*v starts at zero"),
        ("onebit-adam", {"warmup_rounds": 2.5}, "warmup_rounds is 2.5"),
        ("onebit-adam", {"compressor": "randsign"}, "neither"),
        ("birder", {"compressor": "sign"}, "compressor is 'sign': expected randsign, or identity"),
        ("birder", {"downlink": "randsign:range=2"}, "downlink is 'randsign:range=2'"),
        ("birder", {"downlink": ""}, "downlink is ''"),
        ("birder", {"beta2": 0.9}, "birder has no option 'beta2'"),
        ("cdadam", {"downlink": ""}, "steps are sent, not models"),
        ("cdadam", {"eps": 0.0}, "eps is 0.0: expected a number > 0"),
        ("cdadam", {"compressor": "sign:scale=l2"}, "neither"),
        ("comp-ams", {"downlink": "sign"}, "comp-ams has no option 'downlink'"),
        ("comp-ams", {"eps": 0}, "eps is 0: expected a number > 0"),
        ("fedcams", {"local_lr": 0.0}, "local_lr is 0.0: expected a number > 0"),
        ("fedcams", {"eps": "small"}, "eps is 'small'"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, **options)
