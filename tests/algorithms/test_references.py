"""Trajectories of the strategies, digit by digit those of the plain references."""

import numpy as np
import pytest

from flowerpress.strategies import make_strategy
from tests.algorithms.problems import Quadratics, cohorts, trajectory, worker_memory
from tests.reference import compressors as C
from tests.reference import error_feedback as reference

ROUNDS = 50
# 50 rounds of sums of a few float64 numbers of size 1 to 10, in another order than the reference:
# differences seen are below 1e-13; a wrong formula shows at 1e-3 and more.
CLOSE = {"rtol": 0, "atol": 1e-9}
COMPRESSORS = [("identity", C.identity), ("topk:k=2", C.topk(2)), ("sign", C.sign)]
SPECS = [spec for spec, _ in COMPRESSORS]
ALGORITHMS = {
    "dsgd": (reference.dsgd, {}, {}),
    "ef14": (reference.ef14, {}, {}),
    "ef21": (reference.ef21, {}, {}),
    "ef21, compressed init": (reference.ef21, {"dense_init": False}, {"init": "compressed"}),
    "ef21-sgdm": (reference.ef21, {"momentum": 0.2}, {"momentum": 0.2}),
    "ef21-sgd2m": (reference.ef21, {"momentum": 0.2, "double": True}, {"momentum": 0.2}),
}


def follow(steps, rounds):
    return np.array([next(steps)[0] for _ in range(rounds)])


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(("spec", "compress"), COMPRESSORS, ids=SPECS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trajectory(algorithm, spec, compress, noise):
    steps, settings, options = ALGORITHMS[algorithm]
    problem = Quadratics(noise=noise)
    strategy = make_strategy(algorithm.split(",")[0], compressor=spec, lr=0.05, **options)
    _, models = trajectory(strategy, problem.task_fn, problem.n, ROUNDS)
    everyone = range(problem.n)
    expected = steps(
        problem.x0, problem.gradient, problem.n, compress, 0.05, lambda r: everyone, **settings
    )
    np.testing.assert_allclose(models[1:], follow(expected, ROUNDS), **CLOSE)


@pytest.mark.parametrize(("down", "downlink"), COMPRESSORS, ids=SPECS)
@pytest.mark.parametrize(("up", "compress"), COMPRESSORS, ids=SPECS)
@pytest.mark.parametrize(
    ("name", "steps"), [("ef14", reference.ef14_two_way), ("ef21", reference.ef21_bc)]
)
def test_two_way_trajectory(name, steps, up, compress, down, downlink):
    problem = Quadratics(noise=0.3)
    strategy = make_strategy(name, compressor=up, downlink=down, lr=0.05)
    _, models = trajectory(strategy, problem.task_fn, problem.n, ROUNDS)
    everyone = range(problem.n)
    expected = steps(
        problem.x0, problem.gradient, problem.n, compress, 0.05, lambda r: everyone, downlink
    )
    np.testing.assert_allclose(models[1:], follow(expected, ROUNDS), **CLOSE)


@pytest.mark.parametrize("name", ["ef21", "ef21-sgdm", "ef14"])
def test_partial_participation(name):
    problem = Quadratics(n=6, noise=0.3)
    strategy = make_strategy(name, compressor="topk:k=2", lr=0.05, fraction_train=0.5)
    result, models = trajectory(strategy, problem.task_fn, problem.n, ROUNDS)
    asked = cohorts(result)
    first = 3 if name == "ef14" else 6  # who shares a state with the server starts at once
    assert [len(asked[r]) for r in range(1, ROUNDS + 1)] == [first] + [3] * (ROUNDS - 1)
    assert len({tuple(cohort) for cohort in asked.values()}) > 5, "the same workers every round"
    steps = reference.ef14 if name == "ef14" else reference.ef21
    settings = {"momentum": 0.1} if name == "ef21-sgdm" else {}
    expected = steps(
        problem.x0, problem.gradient, problem.n, C.topk(2), 0.05, lambda r: asked[r], **settings
    )
    # All workers say hello in round 1, so n is 6 from the start whoever is asked.
    np.testing.assert_allclose(models[1:], follow(expected, ROUNDS), **CLOSE)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("name", ["ef21", "ef21-sgdm", "ef21-sgd2m"])
def test_server_g_is_the_mean_of_the_workers_g_at_every_round(name, fraction, tmp_path):
    problem = Quadratics(n=4, noise=0.3)
    strategy = make_strategy(name, compressor="topk:k=2", lr=0.05, fraction_train=fraction)
    checked = []

    def check(record):
        if not record.round:
            return
        met = [c for c in strategy.population.clients.values() if c.receiver.applied]
        total = sum(worker_memory(tmp_path, c.id, c.receiver.applied) for c in met)
        # Both sides add the same packets in the same order: only the order of the sum over
        # workers differs.
        np.testing.assert_allclose(strategy.g, total / problem.n, rtol=0, atol=1e-12)
        checked.append(record.round)

    trajectory(strategy, problem.task_fn, 4, 20, state_dir=tmp_path, on_round=check)
    assert checked == list(range(1, 21))


@pytest.mark.parametrize("downlink", ["", "sign"])
def test_ef14_owes_exactly_what_uncompressed_sgd_has_done(downlink, tmp_path):
    """Telescoping: x^t - mean(e_i) - e = x^0 - lr * (sum of the mean gradients), for any C."""
    problem = Quadratics(n=4, noise=0.3)
    strategy = make_strategy("ef14", compressor="topk:k=1", downlink=downlink, lr=0.05)
    _, models = trajectory(strategy, problem.task_fn, 4, 30, state_dir=tmp_path)
    owed = []
    for client in strategy.population.clients.values():
        (path,) = tmp_path.glob(f"run-*/client-{client.id}.safetensors")
        from flowerpress.compressors import decompress
        from flowerpress.worker.stores import DiskStore

        state = DiskStore(path).load()
        owed.append(state.vectors["memory"] - state.numbers["scale"] * decompress(state.packet))
    error = strategy.model.error if downlink else 0.0
    uncompressed = problem.x0 - 0.05 * sum(
        np.mean([problem.gradient(i, models[r - 1], r) for i in range(4)], axis=0)
        for r in range(1, 31)
    )
    # 30 rounds of additions of numbers below 10.
    np.testing.assert_allclose(
        models[-1] - np.mean(owed, axis=0) - error, uncompressed, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["dsgd", "ef14", "ef21", "ef21-sgdm", "ef21-sgd2m", "fedavg"])
def test_local_steps_are_the_pseudo_gradient(name):
    """With the identity and momentum 1, K local steps are FedAvg: the mean of the local models."""
    problem = Quadratics(n=3, noise=0.3)
    options = {"momentum": 1.0} if name.startswith("ef21-") else {}
    if name != "fedavg":
        options["compressor"] = "identity"
    strategy = make_strategy(name, lr=0.05, local_steps=4, **options)
    _, models = trajectory(strategy, problem.task_fn, 3, 10)
    x = problem.x0
    for r in range(1, 11):
        local = []
        for i in range(3):
            rng = np.random.default_rng([11, i, r])
            y = x.copy()
            for _ in range(4):
                noise = 0.3 * rng.standard_normal(problem.dim)
                y = y - 0.05 * (problem.A[i] @ (y - problem.b[i]) + noise)
            local.append(y)
        x = np.mean(local, axis=0)
        np.testing.assert_allclose(models[r], x, **CLOSE)
