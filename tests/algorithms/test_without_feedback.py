"""`feedback=none`: the methods with error feedback as their papers compare them, without it."""

import numpy as np
import pytest

from flowerpress.clients import FunctionTask
from flowerpress.compressors import Draw, decompress, make_compressor
from flowerpress.simulations import Faults
from flowerpress.strategies import (
    CheckpointError,
    make_strategy,
    offered,
    strategy_class,
    strategy_names,
)
from tests.algorithms.lives import assert_same, killed_at, run, whole_run
from tests.algorithms.problems import SEED, Quadratics, cohorts, trajectory
from tests.algorithms.test_adam import OPERATORS, constant, down, follow, local_steps, up
from tests.algorithms.test_adam_faults import state_of
from tests.reference import adam, error_feedback

N, ROUNDS, LR, LOCAL_LR, WARMUP = 4, 30, 0.03, 0.05, 5
CLOSE = {"rtol": 0, "atol": 1e-9}  # sums of a few float64 numbers, in another order
MOMENTS = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3}
SWITCHED = {
    "ef14": {},
    "efficient-adam": MOMENTS,
    "onebit-adam": {**MOMENTS, "warmup_rounds": WARMUP},
    "comp-ams": MOMENTS,
    "fedcams": {**MOMENTS, "local_lr": LOCAL_LR, "local_steps": 2},
}
TWO_WAY = ["ef14", "efficient-adam", "onebit-adam"]


def strategy_of(name, feedback="none", **options):
    given = {"lr": LR, **SWITCHED[name], **options}
    return make_strategy(name, feedback=feedback, **given)


def expected(name, problem, compress, downlink, cohort):
    """The models of the plain reference, with its errors held at 0."""
    x, n = problem.x0, problem.n
    off, rest = {"feedback": False}, (constant(LR), cohort)
    match name:
        case "ef14":
            of_round = {}

            def at(v):  # this reference does not say whose packet it is: the workers come in order
                i, r = of_round["now"]
                return compress(v, i, r)

            def gradient(i, x, r):
                of_round["now"] = i, r
                return problem.gradient(i, x, r)

            if downlink is None:
                return error_feedback.ef14(x, gradient, n, at, LR, cohort, **off)
            return error_feedback.ef14_two_way(
                x, gradient, n, at, LR, cohort, lambda v: downlink(v, of_round["now"][1]), **off
            )
        case "efficient-adam":
            both = compress, downlink
            return adam.efficient_adam(x, problem.gradient, n, *both, *rest, **MOMENTS, **off)
        case "onebit-adam":
            both = compress, downlink
            warm = {"warmup": WARMUP, **off}
            return adam.onebit_adam(x, problem.gradient, n, *both, *rest, **MOMENTS, **warm)
        case "comp-ams":
            return adam.comp_ams(x, problem.gradient, n, compress, *rest, **MOMENTS, **off)
        case "fedcams":
            local = local_steps(problem, LOCAL_LR, 2)
            return adam.fedcams(x, local, n, compress, *rest, **MOMENTS, **off)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("spec", ["topk:k=2", "sign"])
@pytest.mark.parametrize("name", SWITCHED)
def test_trajectory(name, spec, fraction):
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": spec, "fraction_train": fraction}
    options |= {"downlink": "sign"} if name in TWO_WAY else {}
    result, models = trajectory(strategy_of(name, **options), problem.task_fn, N, ROUNDS)
    both = up(OPERATORS[spec]), down(OPERATORS["sign"])
    steps = expected(name, problem, *both, cohorts(result).get)
    np.testing.assert_allclose(models[1:], follow(steps, ROUNDS), **CLOSE)
    _, owing = trajectory(strategy_of(name, "ef", **options), problem.task_fn, N, ROUNDS)
    assert np.abs(owing - models).max() > 0.01, "the memory makes a difference here"


def test_one_way_ef14_is_compressed_sgd():
    """To rounding: a sign scaled by lr is lr times the scaled sign, and dsgd has it outside."""
    problem = Quadratics(n=N, noise=0.3)
    given = {"compressor": "sign", "lr": LR}
    _, models = trajectory(make_strategy("ef14", feedback="none", **given), problem.task_fn, N, 30)
    _, plain = trajectory(make_strategy("dsgd", **given), problem.task_fn, N, 30)
    np.testing.assert_allclose(models, plain, **CLOSE)


@pytest.mark.parametrize("name", SWITCHED)
def test_an_unbiased_compressor_is_not_scaled_either_way(name, tmp_path):
    """1/(1 + omega) makes a contraction of it, which only a memory needs."""
    randk = make_compressor("randk:k=4")
    problem = Quadratics(n=N, noise=0.3)

    def sent(v, i, r):
        return decompress(randk.compress(v, Draw(SEED, r, i, N)))

    def published(v, r):
        return decompress(randk.compress(v, Draw(SEED, r, 0, 1, 1)))

    options = {"compressor": "randk:k=4"} | ({"downlink": "randk:k=4"} if name in TWO_WAY else {})
    strategy = strategy_of(name, **options)
    _, models = trajectory(strategy, problem.task_fn, N, 12, state_dir=tmp_path)
    steps = expected(name, problem, sent, published, lambda r: range(N))
    np.testing.assert_allclose(models[1:], follow(steps, 12), **CLOSE)
    assert state_of(tmp_path, 0).numbers["scale"] == 1.0
    assert strategy.model.replica.scale == 1.0
    owing = strategy_of(name, "ef", **options)
    trajectory(owing, problem.task_fn, N, 12, state_dir=tmp_path / "ef")
    assert state_of(tmp_path / "ef", 0).numbers["scale"] == 0.5
    assert owing.model.replica.scale == (0.5 if name in TWO_WAY else 1.0)


@pytest.mark.parametrize("name", SWITCHED)
def test_uncompressed_there_is_nothing_to_owe(name):
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": "identity"} | ({"downlink": "identity"} if name in TWO_WAY else {})
    runs = [
        trajectory(strategy_of(name, feedback, **options), problem.task_fn, N, ROUNDS)[1]
        for feedback in ("ef", "none")
    ]
    np.testing.assert_array_equal(*runs)


def answered(result):
    """Whose updates came in, by round."""
    found = {r: [] for r in range(1, ROUNDS + 1)}
    for row in result.ledger.rows:
        if row.purpose == "train" and row.direction == "up":
            found[row.round].append(row.client)
    assert all(found.values())
    assert sum(map(len, found.values())) < 0.9 * N * ROUNDS, "messages were lost indeed"
    return found


@pytest.mark.parametrize("name", SWITCHED)
def test_a_lost_packet_is_gone(name, tmp_path):
    """Messages lost both ways and workers killed: as if these had not taken part."""
    problem = Quadratics(n=N, noise=0.3)
    options = {"compressor": "topk:k=2"} | ({"downlink": "sign"} if name in TWO_WAY else {})
    strategy = strategy_of(name, **options)
    # Efficient-Adam's moments keep the gradient of a lost packet, as they do with error feedback,
    # and its reference has no such packets: there orders alone are lost, before one is computed.
    lost_up = 0.0 if name == "efficient-adam" else 0.15
    faults = Faults(down=0.15, up=lost_up, kill={8: [1], 15: [1, 2]}, seed=3)
    result, models = trajectory(
        strategy, problem.task_fn, N, ROUNDS, state_dir=tmp_path, faults=faults
    )
    both = up(OPERATORS["topk:k=2"]), down(OPERATORS["sign"])
    steps = expected(name, problem, *both, answered(result).get)
    np.testing.assert_allclose(models[1:], follow(steps, ROUNDS), **CLOSE)
    for i in range(N):
        vectors = state_of(tmp_path, i).vectors
        assert not {each for each in vectors if each.startswith("memory")}
    assert strategy.model.error is None
    assert strategy.exchange.resyncs == 0


@pytest.mark.parametrize("name", SWITCHED)
def test_an_absurd_gradient_is_as_if_its_worker_had_been_away(name):
    """To the bit: moments go back to what they were; there are no errors that could."""

    def models(event):
        problem = Quadratics(n=N)

        def task_fn(i, n):
            count = [0]

            def gradient(x, batch):
                count[0] += 1
                g = problem.A[i] @ (x - problem.b[i])
                return 0.0, event(g) if (i, count[0]) == (1, 4) else g

            return FunctionTask(problem.x0, gradient)

        options = {"local_steps": 1, "compressor": "topk:k=2"} if name == "fedcams" else {}
        strategy = strategy_of(name, **options)
        return strategy, trajectory(strategy, task_fn, N, 12)[1]

    def absent(g):
        raise ValueError("not today")

    strategy, spiky = models(lambda g: g + 1e9)
    assert strategy.exchange.oversized == strategy.exchange.refused == 1
    np.testing.assert_array_equal(spiky, models(absent)[1])
    assert not np.array_equal(spiky, models(lambda g: g)[1])


@pytest.mark.parametrize("name", SWITCHED)
def test_a_server_that_is_killed_goes_on(name, tmp_path, monkeypatch):
    options = {"feedback": "none"}
    whole, ends = whole_run(monkeypatch, name, options=options)
    positions = [ends[1] - 1, ends[2], ends[3], ends[4] - 2]
    assert_same(killed_at(monkeypatch, name, tmp_path, positions, ends, options=options), whole)


def test_a_run_is_not_resumed_with_the_memory_of_another_kind(tmp_path):
    run("ef14", rounds=2, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"with feedback = 'ef', this one has 'none'"):
        run("ef14", options={"feedback": "none"}, checkpoint=tmp_path, resume=True)


def test_the_workers_hear_of_it_where_it_is_not_the_default():
    """So all other messages have the bytes that they had before there was the option."""
    for name in SWITCHED:
        assert "feedback" not in make_strategy(name).hyper()
        assert "feedback" not in make_strategy(name, feedback="ef").hyper()
        assert make_strategy(name, feedback="none").hyper()["feedback"] == "none"


def test_nobody_else_has_the_option():
    having = {name for name in strategy_names() if "feedback" in offered(strategy_class(name))}
    assert having == set(SWITCHED)
    for name in ("ef21", "cdadam", "dsgd", "squarm-sgd", "fetchsgd"):
        with pytest.raises(ValueError, match=f"^strategy {name} has no option 'feedback'"):
            make_strategy(name, feedback="none")
    for name in ("amsgrad", "fedams"):
        with pytest.raises(ValueError, match=r"^feedback is 'ef': expected none: what is sent"):
            make_strategy(name, feedback="ef")
    with pytest.raises(ValueError, match=r"^feedback is 'ef21': expected ef or none$"):
        make_strategy("ef14", feedback="ef21")


def test_a_worker_takes_the_word_from_those_who_owe_alone():
    """An own strategy's `feedback` may be something else, and its sender none of error feedback."""
    from flowerpress.clients import EF14Sender, EF21Sender, PlainSender

    assert EF14Sender.optional
    assert not EF21Sender.optional
    assert not PlainSender.optional
