"""Step sizes that change, and those by theory: one mechanism for all, against plain references."""

import math

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.compressors import make_compressor
from flowerpress.server.schedule import make_schedule
from flowerpress.server.theory import (
    Smoothness,
    dsgd_lr,
    ef21_lr,
    ef21_momentum_lr,
    ef21_pp_lr,
)
from flowerpress.simulations import simulate
from flowerpress.strategies import CheckpointError, make_strategy, strategy_names
from tests.algorithms import lives
from tests.algorithms.problems import Quadratics, Triangle, trajectory
from tests.reference import adam
from tests.reference import compressors as C
from tests.reference import error_feedback as feedback

N, ROUNDS = 4, 25
# As in test_references: sums of a few float64 numbers, in another order.
CLOSE = {"rtol": 0, "atol": 1e-9}
SPEC = "cosine:rounds=20,least=0.1,warmup=3"


def factor(r):
    """By hand: three rounds of warm-up, then half a cosine over 17, which then stays."""
    if r <= 3:
        return r / 4
    return 0.1 + 0.9 * (1 + math.cos(math.pi * min(r - 4, 16) / 17)) / 2


def everyone(r):
    return range(N)


REFERENCES = {
    "dsgd": (feedback.dsgd, {}),
    "ef14": (feedback.ef14, {}),
    "ef21": (feedback.ef21, {}),
    "ef21-sgdm": (feedback.ef21, {"momentum": 0.1}),
}
TWO_WAY = {"ef14": feedback.ef14_two_way, "ef21": feedback.ef21_bc}


@pytest.mark.parametrize("schedule", [SPEC, factor], ids=["text", "function"])
@pytest.mark.parametrize("name", REFERENCES)
def test_a_schedule_follows_the_reference(name, schedule):
    """EF14's memory is in units of x: what is owed at an old step size stays worth that."""
    problem = Quadratics(n=N, noise=0.3)
    strategy = make_strategy(name, compressor="topk:k=2", lr=0.05, schedule=schedule)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    steps, settings = REFERENCES[name]
    expected = steps(
        problem.x0,
        problem.gradient,
        N,
        C.topk(2),
        lambda r: 0.05 * factor(r),
        everyone,
        **settings,
    )
    np.testing.assert_allclose(models[1:], [next(expected)[0] for _ in range(ROUNDS)], **CLOSE)


@pytest.mark.parametrize("name", TWO_WAY)
def test_a_schedule_with_a_compressed_downlink(name):
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": "topk:k=2", "downlink": "sign", "lr": 0.05, "schedule": SPEC}
    _, models = trajectory(make_strategy(name, **options), problem.task_fn, N, ROUNDS)
    rates = (lambda r: 0.05 * factor(r)), everyone
    expected = TWO_WAY[name](problem.x0, problem.gradient, N, C.topk(2), *rates, C.sign)
    np.testing.assert_allclose(models[1:], [next(expected)[0] for _ in range(ROUNDS)], **CLOSE)


def test_a_schedule_of_the_adam_family():
    problem = Quadratics(n=N, noise=0.3)
    options = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3}
    strategy = make_strategy("comp-ams", compressor="sign", lr=0.05, schedule=SPEC, **options)
    _, models = trajectory(strategy, problem.task_fn, N, ROUNDS)
    compress, rates = (lambda v, i, r: C.sign(v)), (lambda r: 0.05 * factor(r))
    expected = adam.comp_ams(problem.x0, problem.gradient, N, compress, rates, everyone, **options)
    np.testing.assert_allclose(models[1:], [next(expected)[0] for _ in range(ROUNDS)], **CLOSE)


@pytest.mark.parametrize("name", strategy_names())
def test_it_is_the_same_as_setting_lr_before_each_round(name):
    """Server and workers go by it alike: local steps, thresholds, what is owed."""

    def run(by_hand):
        options = {"lr": 0.05, **lives.OPTIONS.get(name, {})}
        lr = options["lr"]
        strategy = make_strategy(name, **options, schedule="" if by_hand else SPEC)
        if by_hand:
            strategy.lr = lr * factor(1)

        def on_round(record):
            if by_hand:
                strategy.lr = lr * factor(record.round + 1)

        return trajectory(strategy, lives.task_fn, lives.N, 7, on_round=on_round)[1]

    np.testing.assert_array_equal(run(by_hand=False), run(by_hand=True))


LAWS = {
    "constant": [1, 1, 1, 1],
    "1/sqrt": [1, 2**-0.5, 3**-0.5, 0.5],
    "sqrt": [1, 2**-0.5, 3**-0.5, 0.5],
    "inverse:after=2": [1, 2 / 3, 1 / 2, 2 / 5],
    "step:every=2": [1, 1, 0.1, 0.1],
    "step:every=1,factor=2": [1, 2, 4, 8],
    "linear:rounds=4": [1, 0.75, 0.5, 0.25],
    "linear:rounds=2,least=0.5": [1, 0.75, 0.75, 0.75],
    "linear:rounds=3,warmup=1": [0.5, 1, 0.5, 0.5],
    "constant:warmup=3": [0.25, 0.5, 0.75, 1],
    "cosine:rounds=2": [1, 0.5, 0.5, 0.5],
}


@pytest.mark.parametrize("law", LAWS)
def test_laws(law):
    found = [make_schedule(law)(r) for r in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, LAWS[law], rtol=1e-15)


def test_cosine_is_torchs():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    law = make_schedule("cosine:rounds=10")
    for r in range(1, 11):
        assert law(r) == pytest.approx(annealing.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        annealing.step()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("cosin:rounds=3", "one of constant, 1/sqrt, inverse, step, linear, cosine"),
        ("cosine", "rounds is 0: expected a whole number >= 1, as in cosine:rounds=100"),
        ("step:30:0.5", "step with every, factor, warmup alone, each as name=number"),
        ("cosine:rounds=5,warmup=5", "rounds is 5: expected a whole number >= 6"),
        ("cosine:rounds=5,most=1", "cosine with rounds, least, warmup alone"),
        ("cosine:rounds=many", "a number for rounds, not 'many'"),
        ("cosine:rounds=5,rounds=6", "rounds once"),
        ("step:every=0", "every is 0: expected a whole number >= 1"),
        ("step:every=2,factor=0", "factor is 0: expected a number > 0"),
        ("step:every=2,factor=nan", "factor is nan: expected a number > 0"),
        ("linear:rounds=5,least=2", r"least is 2: expected a number in \[0, 1\]"),
        ("inverse:after=0", "after is 0: expected a number > 0"),
        ("constant:warmup=-1", "warmup is -1: expected a whole number >= 0"),
        (3, "a text such as cosine:rounds=100, a function"),
    ],
)
def test_what_is_no_schedule_is_refused_when_made(spec, says):
    with pytest.raises(ValueError, match=f"schedule.*{says}"):
        make_strategy("ef21", schedule=spec)


def test_a_function_must_give_positive_numbers():
    strategy = make_strategy("dsgd", schedule=lambda r: 2 - r)
    with pytest.raises(ValueError, match="factor of round 2 is 0: expected a number > 0"):
        simulate(strategy, Quadratics(n=2).task_fn, 2, 4)
    with pytest.raises(ValueError, match="decay is 'sqrt': expected none where a schedule"):
        make_strategy("comp-ams", decay="sqrt", schedule="1/sqrt")


@pytest.mark.parametrize("name", ["ef14", "ef21", "efficient-adam", "sketched-amsgrad", "d-psgd"])
def test_a_resumed_run_goes_on_with_its_schedule(name, tmp_path, monkeypatch):
    options = {"schedule": "step:every=2,factor=0.3"}
    whole, ends = lives.whole_run(monkeypatch, name, options=options)
    result = lives.killed_at(monkeypatch, name, tmp_path, [ends[3] + 1], ends, options=options)
    lives.assert_same(result, whole)
    again = {"checkpoint": tmp_path, "resume": True}
    with pytest.raises(CheckpointError, match=r"schedule = 'step:every=2,factor=0.3', this one"):
        lives.run(name, **again)
    with pytest.raises(CheckpointError, match=r"schedule = .*, this one has 'a function'"):
        lives.run(name, options={"schedule": lambda r: 1.0}, **again)


# By theory -------------------------------------------------------------------------------------


def test_ef21_by_theory_is_the_formula_of_its_theorem():
    triangle = Triangle()
    s = {"smoothness": triangle.L, "smoothness_plus": triangle.Ltilde}
    strategy = make_strategy("ef21", compressor="topk:k=1", lr="theory", **s)
    _, models = trajectory(strategy, triangle.task_fn, 3, 900)
    root = math.sqrt(2 / 3)
    assert strategy.lr == pytest.approx(1 / (17 + 1 / 6 + 34.5 * root / (1 - root)), rel=1e-12)
    assert np.linalg.norm(models[-1]) < 0.2 * np.linalg.norm(models[0])
    # An unbiased compressor is scaled into a contraction: randk of one in three has alpha 1/3 too.
    other = make_strategy("ef21", compressor="randk:k=1", lr="theory", **s)
    trajectory(other, triangle.task_fn, 3, 1)
    assert other.lr == pytest.approx(strategy.lr, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fedavg", {}, dsgd_lr(Smoothness(2.0, 3.0), 0.0, 4, 4)),
        ("dsgd", {"compressor": "randk:k=2"}, dsgd_lr(Smoothness(2.0, 3.0), 3 / 4, 4, 4)),
        ("dsgd", {"compressor": "identity", "fraction_train": 0.5}, 1 / (2 + 6 * 2 / (2 * 3))),
        ("ef21", {"fraction_train": 0.5}, ef21_pp_lr(Smoothness(2.0, 3.0), 0.25, 0.5)),
        ("ef21", {}, ef21_lr(Smoothness(2.0, 3.0), 0.25)),
        ("ef21-sgdm", {"momentum": 0.02}, min(0.25 / 60, 0.02 / 14)),
        ("ef21-sgdm", {"momentum": 1.0}, 0.25 / 60),
        ("ef21-sgd2m", {}, ef21_momentum_lr(Smoothness(2.0, 3.0), 0.25, 0.1, 60, 16)),
    ],
)
def test_other_step_sizes_by_theory(name, options, expected):
    options = {"compressor": "topk:k=2", **options} if name.startswith("ef21") else options
    strategy = make_strategy(
        name, lr="theory", smoothness=2.0, smoothness_plus=3.0, schedule="step:every=1", **options
    )
    _, models = trajectory(strategy, Quadratics(n=4).task_fn, 4, 2)
    assert strategy.lr == pytest.approx(expected, rel=1e-12)
    assert strategy.rate == pytest.approx(0.1 * expected, rel=1e-12)  # of round 2
    assert np.isfinite(models).all()


def test_more_of_the_bound_for_sampling():
    """All workers: EF21's own; fewer: smaller; alpha = 1 and all: gradient descent's."""
    s = Smoothness(1.0, 1.5)
    assert ef21_pp_lr(s, 0.3, 1.0) == pytest.approx(ef21_lr(s, 0.3), rel=1e-3)  # by a grid
    sizes = [ef21_pp_lr(s, 0.3, p) for p in (1.0, 0.5, 0.2, 0.05)]
    assert sizes == sorted(sizes, reverse=True)
    assert ef21_lr(s, 1.0) == 1.0
    # The guaranteed descent of the recursion that the bound comes from, for p = 0.2.
    assert 0.001 < sizes[2] < sizes[1] / 2


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ef21", {"downlink": "topk:k=2"}, "no theorem here has a downlink"),
        ("ef21-sgdm", {"fraction_train": 0.5}, "the theorem has no sampling"),
        ("ef21", {"local_steps": 2}, "local_steps is 2: expected 1 for lr=theory"),
        ("ef21", {"smoothness": 0.0}, "smoothness is 0.0: expected L > 0"),
        ("ef14", {}, "has no option 'smoothness'"),
    ],
)
def test_where_there_is_no_theory_it_is_refused_when_made(name, options, says):
    options = {"lr": "theory", "smoothness": 1.0, "compressor": "topk:k=2", **options}
    with pytest.raises(ValueError, match=says):
        make_strategy(name, **options)
    able = "dasha, diana, dsgd, ef21, ef21-sgd2m, ef21-sgdm, fedavg, marina, pp-marina, vr-marina"
    with pytest.raises(ValueError, match=f"lr is 'theory': ef14 has no formula .* one: {able}"):
        make_strategy("ef14", lr="theory")


@pytest.mark.parametrize(
    ("variance", "a"), [(-1.0, None), ("alike", 8 / 16), ("authors", 8 / 64), (0.25, 0.25)]
)
def test_marinas_constant_of_cq_by_name(variance, a):
    """d / n^2, measured where workers are alike, and the authors' quarter of it."""
    options = {"compressor": "cq:range=l2", "lr": "theory", "smoothness": 2.0, "p": 0.2}
    strategy = make_strategy("marina", variance=variance, **options)
    centres = np.eye(4, 8)
    simulate(
        strategy, lambda i, n: FunctionTask(centres[0], lambda x, _: (0.0, x - centres[i])), 4, 1
    )
    if a is None:
        a = make_compressor("cq:range=l2").traits(8, 4).ab[0]
        assert a > 8 / 16, "what is proven for any workers is more"
    assert strategy.lr == pytest.approx(1 / (2 + 2 * math.sqrt(0.8 / 0.2 * a)), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "compressor", "variance", "says"),
    [
        ("marina", "cq", "theirs", "a number >= -1, alike or authors"),
        ("marina", "cq:range=1", "alike", "alike is of compressors that state it, correlated cq"),
        ("marina", "hadamard+cq", "authors", "authors is of correlated cq:range=l2"),
        ("marina", "cq:rounding=independent", "alike", "alike is of compressors that state it"),
        ("marina", "permk", "alike", "alike is of compressors that state it"),
        ("vr-marina", "cq", "alike", "it left out: the theorem has none"),
        ("pp-marina", "cq", 0.5, "it left out: the theorem has none"),
    ],
)
def test_a_constant_that_would_not_be_used_is_refused(name, compressor, variance, says):
    with pytest.raises(ValueError, match=f"variance is .*: expected .*{says}"):
        make_strategy(name, compressor=compressor, variance=variance)


def test_biased_gradient_descent_has_no_theory():
    strategy = make_strategy("dsgd", compressor="topk:k=2", lr="theory", smoothness=1.0)
    with pytest.raises(ValueError, match="dsgd has a theory for unbiased compressors only"):
        simulate(strategy, Quadratics(n=2).task_fn, 2, 1)


def test_ef21_by_theory_on_one_quadratic_with_sampling():
    """EF21-PP's bound is safe: the gradient shrinks in the mean of ten rounds, to the end."""
    problem = Quadratics(n=6, dim=6)
    L, plus = problem.smoothness
    options = {"lr": "theory", "smoothness": L, "smoothness_plus": plus, "fraction_train": 0.5}
    strategy = make_strategy("ef21", compressor="topk:k=3", **options)
    _, models = trajectory(strategy, problem.task_fn, 6, 300)
    sizes = [np.linalg.norm(problem.full_gradient(x)) for x in models]
    means = np.array(sizes[1:]).reshape(-1, 60).mean(axis=1)
    assert (np.diff(means) < 0).all()
