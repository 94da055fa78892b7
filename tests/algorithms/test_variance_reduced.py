"""MARINA's family, DIANA and DASHA: plain references, exact reductions, linear convergence."""

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.server.theory import Smoothness, best_p, marina_lr
from flowerpress.strategies import make_strategy
from tests.algorithms.problems import SEED, Quadratics, cohorts, trajectory
from tests.reference import compressors as C
from tests.reference import variance_reduced as reference

ROUNDS = 50
# As in test_references: 50 rounds of sums of a few float64 numbers, in another order.
CLOSE = {"rtol": 0, "atol": 1e-9}
N = 5


def plain(compress):
    return lambda v, i, r: compress(v)


def drawn(spec, ranks=None):
    """The package's own operator, with the documented randomness of worker i in round r."""

    def compress(v, i, r):
        asked = list(range(N)) if ranks is None else ranks(r)
        draw = Draw(SEED, r, asked.index(i), len(asked))
        return decompress(make_compressor(spec).compress(v, draw))

    return compress


OPERATORS = {"identity": plain(C.identity), "topk:k=2": plain(C.topk(2)), "sign": plain(C.sign)}
DRAWN = ["randk:k=2", "cq", "permk", "qsgd:3"]


class Deterministic(Quadratics):
    """Its data are all of the data: no noise."""

    def full(self, i, x):
        return self.A[i] @ (x - self.b[i])

    def task_fn(self, i, n):
        return FunctionTask(self.x0, lambda x, _: (0.0, self.full(i, x)))


class Sums(Deterministic):
    """f_i is the mean of four parts; a batch is one of them."""

    def __init__(self, **options):
        super().__init__(**options)
        rng = np.random.default_rng(5)
        bent = 0.2 * rng.standard_normal((self.n, 4, self.dim))
        self.bent = bent - bent.mean(axis=1, keepdims=True)

    def part(self, i, x, j):
        return self.full(i, x) + self.bent[i, j] * x

    def batch(self, i, x, r):
        return self.part(i, x, np.random.default_rng([SEED, i, r]).integers(4))

    def task_fn(self, i, n):
        def gradient(x, j):
            return 0.0, self.full(i, x) if j is None else self.part(i, x, j)

        return FunctionTask(self.x0, gradient, draw=lambda rng: rng.integers(4))


def coin(p):
    return lambda r: np.random.default_rng([SEED, r, 0xC0]).random() < p


def follow(steps, rounds=ROUNDS):
    return np.array([next(steps)[0] for _ in range(rounds)])


@pytest.mark.parametrize("spec", [*OPERATORS, *DRAWN])
def test_marina_follows_its_reference(spec):
    problem = Deterministic(n=N)
    strategy = make_strategy("marina", compressor=spec, lr=0.02, p=0.3)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    compress = OPERATORS.get(spec) or drawn(spec)
    steps = reference.marina(problem.x0, problem.full, N, compress, 0.02, coin(0.3))
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


@pytest.mark.parametrize("spec", [*OPERATORS, "randk:k=2"])
def test_vr_marina_follows_its_reference(spec):
    problem = Sums(n=N)
    strategy = make_strategy("vr-marina", compressor=spec, lr=0.02, p=0.3)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    compress = OPERATORS.get(spec) or drawn(spec)
    steps = reference.marina(
        problem.x0, problem.full, N, compress, 0.02, coin(0.3), batch=problem.batch
    )
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


def test_vr_marina_online_averages_batches_where_gradients_go_whole():
    problem = Sums(n=1)
    strategy = make_strategy("vr-marina", compressor="identity", lr=0.1, p=1.0, sync_batches=3)
    _, models = trajectory(
        strategy,
        problem.task_fn,
        1,
        1,
    )
    parts = np.random.default_rng([SEED, 0, 1]).integers(4, size=3)
    mean = np.mean([problem.part(0, problem.x0, j) for j in parts], axis=0)
    np.testing.assert_allclose(models[1], problem.x0 - 0.1 * mean, **CLOSE)


@pytest.mark.parametrize("spec", [*OPERATORS, "randk:k=2"])
def test_pp_marina_follows_its_reference(spec):
    problem = Deterministic(n=N)
    strategy = make_strategy("pp-marina", compressor=spec, lr=0.02, p=0.2, fraction_train=0.4)
    result, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    asked = cohorts(result)
    assert {len(cohort) for cohort in asked.values()} == {2, N}
    compress = OPERATORS.get(spec) or drawn(spec, asked.get)
    steps = reference.marina(
        problem.x0, problem.full, N, compress, 0.02, coin(0.2), cohort=asked.get
    )
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)
    # Two models only for those who were not asked in the round before.
    dense = 8 * problem.dim + 24
    for row in result.ledger.rows:
        if row.purpose == "train" and row.direction == "down":
            whole = len(asked[row.round]) == N
            knows = whole or row.client in asked[row.round - 1]
            assert row.payload == (dense if knows else 2 * dense)


@pytest.mark.parametrize("fraction", [1.0, 0.4])
@pytest.mark.parametrize("name", ["diana", "dasha"])
@pytest.mark.parametrize("spec", ["identity", "randk:k=2", "qsgd:3", "permk"])
def test_diana_and_dasha_follow_their_references(name, spec, fraction):
    problem = Deterministic(n=N)
    strategy = make_strategy(name, compressor=spec, lr=0.02, fraction_train=fraction)
    result, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    asked = cohorts(result)
    # Perm-k's depends on how many there are: each sends its share of the coordinates. In the first
    # round DASHA asks all, for whole gradients.
    omega = make_compressor(spec).traits(problem.dim, len(asked[2])).omega
    steps = getattr(reference, name)(
        problem.x0, problem.full, N, drawn(spec, asked.get), 0.02, omega, asked.get
    )
    np.testing.assert_allclose(models[1:], follow(steps), **CLOSE)


@pytest.mark.parametrize("name", ["marina", "vr-marina", "pp-marina", "diana", "dasha"])
def test_identity_is_gradient_descent(name):
    problem = Deterministic(n=N)
    x, expected = problem.x0, []
    for _ in range(30):
        x = x - 0.1 * problem.full_gradient(x)
        expected.append(x)
    options = {"p": 0.3} if name.endswith("marina") else {}
    if name == "pp-marina":
        options["fraction_train"] = 1.0
    strategy = make_strategy(name, compressor="identity", lr=0.1, **options)
    _, models = trajectory(strategy, problem.task_fn, N, 30)
    np.testing.assert_allclose(models[1:], expected, rtol=0, atol=1e-12)


def test_marina_with_permk_and_identical_workers_is_gradient_descent():
    problem = Deterministic(n=4, dim=8)
    problem.A[:], problem.b[:] = problem.A[0], problem.b[0]
    strategy = make_strategy("marina", compressor="permk", lr=0.1, p=0.2)
    _, models = trajectory(strategy, problem.task_fn, 4, 40)
    x = problem.x0
    for r in range(1, 41):
        x = x - 0.1 * problem.full(0, x)
        np.testing.assert_allclose(models[r], x, rtol=0, atol=1e-12)


def test_one_coin_for_all_and_p_is_how_often_it_shows():
    problem = Deterministic(n=3)
    strategy = make_strategy("marina", compressor="randk:k=1", lr=0.01, p=0.25)
    result, _ = trajectory(strategy, problem.task_fn, 3, 400)
    sizes = {}
    for row in result.ledger.rows:
        if row.purpose == "train" and row.direction == "up":
            sizes.setdefault(row.round, set()).add(row.payload)
    assert all(len(each) == 1 for each in sizes.values())
    dense = sum(each == {8 * problem.dim + 24} for each in sizes.values())
    # Binomial: 100 expected, standard deviation 8.7; the first round is one more.
    assert 101 - 4 * 8.7 < dense < 101 + 4 * 8.7


CONVERGES = ["marina", "pp-marina", "diana", "dasha"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name != "pp-marina" else [])
        for name in CONVERGES
    ],
)
def test_linear_convergence_on_heterogeneous_quadratics_with_theory_steps(name):
    problem = Deterministic(n=6, dim=6)
    L, plus = problem.smoothness
    each = max(np.linalg.eigvalsh(a)[-1] for a in problem.A)
    options = {"fraction_train": 0.5} if name == "pp-marina" else {}
    strategy = make_strategy(
        name,
        compressor="randk:k=2",
        lr="theory",
        smoothness=L,
        smoothness_plus=each if name == "diana" else plus,
        **options,
    )
    _, models = trajectory(strategy, problem.task_fn, 6, 1500)
    assert np.sum((models[-1] - problem.solution()) ** 2) < 1e-20


def test_plain_quantization_has_a_floor_where_diana_has_none():
    problem = Deterministic(n=6, dim=6)
    strategy = make_strategy("dsgd", compressor="randk:k=2", lr=0.05)
    _, models = trajectory(strategy, problem.task_fn, 6, 600)
    assert np.sum((models[-1] - problem.solution()) ** 2) > 1e-3


@pytest.mark.slow
def test_the_mean_of_an_estimate_is_the_papers():
    """E g^1 = grad f(x^1) + (1 - p) (g^0 - grad f(x^0)), over coins and draws, from a wrong g^0."""
    problem, p = Deterministic(n=2, dim=4), 0.3
    wrong = np.array([5.0, -3.0, 0.0, 1.0])
    x0 = problem.x0
    x1 = x0 - 0.1 * (problem.full_gradient(x0) + wrong)
    seen = []
    for seed in range(400):
        strategy = make_strategy("marina", compressor="randk:k=1", lr=0.1, p=p, seed=seed)

        def spoil(record, strategy=strategy):
            if record.round == 1:
                strategy.g = strategy.g + wrong
                strategy.model.replica.x = x1.copy()

        trajectory(strategy, problem.task_fn, 2, 2, seed, on_round=spoil)
        seen.append(strategy.g)
    expected = problem.full_gradient(x1) + (1 - p) * wrong
    # 4 standard errors a coordinate; a wrong p would show as 0.1 |wrong|, some 5 of them.
    error = np.std(seen, axis=0) / np.sqrt(len(seen))
    assert (np.abs(np.mean(seen, axis=0) - expected) <= 4 * error + 1e-12).all()
    assert (error[:2] < 0.13).all()


@pytest.mark.parametrize(
    ("size", "ratio"), [(32, 2.63), (100, 3.53), (1000, 5.14), (10**4, 6.17), (10**6, 7.02)]
)
def test_best_coin_gives_the_gain_of_correlation(size, ratio):
    """Bits of MARINA with independent over correlated 1-bit quantizers at d = n, L_pm = 0.

    With A = d / (4 n) and d / (4 n^2), as Panferov et al. have them: the ratio tends to 7.29.
    """
    share = (32 + size) / (32 * size)

    def bits(a):
        def lr(p):
            return marina_lr(Smoothness(1.0, L_pm=0.0), (a, 0.0), p)

        p = best_p(lr, share)
        return (p + (1 - p) * share) / lr(p)

    found = bits(size / (4 * size)) / bits(size / (4 * size**2))
    assert found == pytest.approx(ratio, abs=0.011)  # given to two digits


def test_the_coin_counts_what_a_sample_sends():
    """PP-MARINA's bits for a unit of progress are least at its p."""
    problem = Deterministic(n=20, dim=40)
    strategy = make_strategy(
        "pp-marina", compressor="randk:k=2", lr="theory", smoothness=1.0, fraction_train=0.1
    )
    trajectory(strategy, problem.task_fn, 20, 2)
    traits = make_compressor("randk:k=2").traits(40, 20)
    dense, pressed = (
        make_compressor(spec).compress(problem.x0).nbytes for spec in ("identity", "randk:k=2")
    )

    def bits(p):
        sent = p * 20 * dense + (1 - p) * 2 * pressed  # by all twenty, or by two
        return sent / strategy.lr_for(traits, 20, p)

    # The optimum is flat: 1.25 times p costs a percent or two more.
    assert all(bits(strategy.coin) < bits(strategy.coin * f) for f in (0.5, 0.8, 1.25, 2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("marina", {"fraction_train": 0.5}, "use pp-marina"),
        ("marina", {"lr": "theory"}, "smoothness is 0.0: expected L > 0"),
        ("marina", {"local_steps": 2}, "expected 1: no local steps here"),
        ("marina", {"p": 1.5}, r"p is 1.5: expected a number in \[0, 1\]"),
        ("vr-marina", {"sync_batches": -1}, "sync_batches is -1"),
        ("vr-marina", {"sync_batches": 0.5}, "sync_batches is 0.5"),
        ("vr-marina", {"smoothness_batch": -1.0}, "smoothness_batch is -1.0"),
        ("diana", {"compressor": "topk:0.1"}, "expected unbiased, with known variance"),
        ("dasha", {"compressor": "sign"}, "expected unbiased, with known variance"),
        ("dasha", {"lr": "fast"}, "lr is 'fast': expected a number > 0"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, **options)
