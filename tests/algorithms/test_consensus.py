"""The step towards the neighbours: the safe value is safe, and "auto" backs off when it must."""

import numpy as np
import pytest
from flwr.app import MetricRecord

from flowerpress.clients import FunctionTask
from flowerpress.protocol.layout import Entry, Layout
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.strategies.gossip.consensus import Consensus, safe_gamma
from flowerpress.strategies.gossip.topology import make_topology
from tests.algorithms.gossiping import Nodes, run, spread
from tests.algorithms.problems import SEED
from tests.reference import compressors as C

DIM = 200
COMPRESSORS = {
    "identity": C.identity,
    "sign": C.sign,
    "topk:0.3": C.topk(60),
    "topk:0.1": C.topk(20),
    "topk:0.01": C.topk(2),
    "signtopk:0.1": C.signtopk(20),
}
SPECS = sorted(set(COMPRESSORS) - {"topk:0.01"})
GRAPHS = [("ring", 8), ("complete", 8), ("star", 9), ("torus", 16)]


def gossip(spec, graph, n, gamma, steps, consensus=None):
    """Plain compressed gossip of normal vectors; returns the consensus error over its first value.

    The spec's prototype: ring of 8, d = 200, top-10 %: 6e-16 with gamma 0.1, divergence with 0.4.
    """
    w = make_topology(graph, range(n), 1).matrix
    x = np.random.default_rng(0).standard_normal((n, DIM))
    public, first, errors = np.zeros_like(x), spread(x), []
    for _ in range(steps):
        unsent = np.sum((x - public) ** 2) / n
        for i in range(n):
            public[i] += COMPRESSORS[spec](x[i] - public[i])
        pull = w @ public - public
        x = x + (gamma if consensus is None else consensus.gamma) * pull
        if consensus is not None:
            told = {"disagreement": np.sum(pull**2) / n, "moved": 0.0, "unsent": unsent}
            consensus.watch([told])
        errors.append(spread(x) / first)
        if errors[-1] > 1e6:
            break
    return np.array(errors)


def safe(spec):
    return safe_gamma(spec, Layout((Entry("x", (DIM,), "float64"),)))


@pytest.mark.parametrize(("graph", "n"), GRAPHS)
@pytest.mark.parametrize("spec", SPECS)
def test_the_safe_value_is_safe(spec, graph, n):
    gamma = safe(spec)
    assert 0 < gamma <= 1
    errors = gossip(spec, graph, n, gamma, 300)
    assert errors.max() <= 1 + 1e-9
    assert errors[-1] < 1e-2


def test_twice_the_safe_value_is_not():
    assert gossip("topk:0.1", "complete", 8, 2 * safe("topk:0.1"), 1000)[-1] > 1
    assert gossip("topk:0.3", "star", 9, 2 * safe("topk:0.3"), 1000)[-1] > 1


def test_the_figures_of_the_prototype():
    """F3: what converges and what diverges on a ring of 8."""
    assert gossip("topk:0.1", "ring", 8, 0.1, 1000)[-1] < 1e-15
    assert gossip("topk:0.1", "ring", 8, 0.4, 1000)[-1] > 1e3
    assert gossip("signtopk:0.1", "ring", 8, 0.1, 1000)[-1] < 1e-15
    assert gossip("sign", "ring", 8, 0.05, 1000)[-1] < 1e-5
    assert 1e-6 < gossip("topk:0.01", "ring", 8, 0.02, 1000)[-1] < 1e-2
    assert gossip("topk:0.01", "ring", 8, 0.1, 1000)[-1] > 1e-2, "stalls"


@pytest.mark.parametrize(("graph", "n"), GRAPHS)
@pytest.mark.parametrize("spec", ["topk:0.1", "signtopk:0.1", "topk:0.3"])
def test_auto_backs_off_from_what_diverges(spec, graph, n):
    bold = min(1.0, 8 * safe(spec))
    plain = gossip(spec, graph, n, bold, 400)
    consensus = Consensus("auto", safe(spec), make_topology(graph, range(n), 1).gap)
    consensus.gamma = bold
    errors = gossip(spec, graph, n, None, 400, consensus)
    if plain[-1] > 1e-3:  # on some graphs even this step works
        assert consensus.halvings >= 1
    assert errors.max() < 10
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("spec", SPECS)
def test_auto_lets_a_safe_step_alone(spec):
    consensus = Consensus("auto", safe(spec), make_topology("ring", range(8)).gap)
    consensus.gamma = safe(spec)
    gossip(spec, "ring", 8, None, 400, consensus)
    assert consensus.halvings <= (spec == "sign"), "sign stalls for a while at small distances"


def test_a_number_is_never_changed():
    consensus = Consensus(0.5, 0.1, 0.2)
    for t in range(100):
        consensus.watch([{"disagreement": 10.0**t, "moved": 0.0, "unsent": 1.0}])
    assert consensus.gamma == 0.5
    assert Consensus(0.0, 0.1, 0.2).gamma == 0.1
    assert Consensus("auto", 0.1, 0.2).gamma == 0.4
    assert Consensus("auto", 0.5, 0.2).gamma == 1.0


def test_auto_in_training(monkeypatch):
    """On unlike quadratics: a bold fixed step tears the nodes apart, "auto" from there does not."""
    monkeypatch.setattr("flowerpress.strategies.gossip.consensus._BOLD", 7.0)
    problem = Nodes(n=6, dim=60)
    options = {"compressor": "topk:k=6", "topology": "complete", "lr": 0.01, "momentum": 0.5}
    bold = make_strategy("squarm-sgd", gamma=0.95, **options)
    with np.errstate(over="ignore"):
        _, torn = run(bold, problem.task_fn, 6, 60)
    auto = make_strategy("squarm-sgd", gamma="auto", **options)
    _, models = run(auto, problem.task_fn, 6, 60)
    assert spread(torn[-1]) > 50 * spread(models[-1])
    assert auto.consensus.halvings >= 1


def test_one_liar_does_not_steer_gamma():
    """The median of the nodes' figures counts."""
    honest = {"disagreement": 1.0, "moved": 1.0, "unsent": 1.0}
    consensus = Consensus("auto", 0.25, 0.2)
    for t in range(200):
        consensus.watch([honest, honest, {**honest, "disagreement": 2.0**t, "moved": 0.0}])
    assert consensus.halvings == 0
    for t in range(20):
        consensus.watch([{**honest, "disagreement": 2.0**t, "moved": 0.0}] * 3)
    assert consensus.halvings >= 1


def test_a_users_own_average_of_metrics_changes_nothing(monkeypatch):
    monkeypatch.setattr("flowerpress.strategies.gossip.consensus._BOLD", 7.0)
    problem = Nodes(n=6, dim=60)
    options = {"compressor": "topk:k=6", "topology": "complete", "lr": 0.01, "gamma": "auto"}
    options["momentum"] = 0.5
    found = []
    for own in (None, lambda contents, key: MetricRecord({})):
        strategy = make_strategy("squarm-sgd", train_metrics_aggr_fn=own, **options)
        simulate(strategy, problem.task_fn, 6, 60, SEED)
        found.append((strategy.consensus.gamma, strategy.consensus.halvings))
    assert found[0] == found[1]
    assert found[0][1] >= 1


@pytest.mark.parametrize("gamma", ["bold", -0.1, 1.1, True, None])
def test_other_values_are_refused(gamma):
    with pytest.raises((ValueError, TypeError), match="gamma"):
        make_strategy("squarm-sgd", gamma=gamma)


def test_gamma_follows_the_compressor(caplog):
    def task_fn(i, n):
        return FunctionTask(np.zeros(1000), lambda x, _: (0.0, x - i))

    for spec, expected in (("topk:0.1", 0.16), ("topk:0.01", 0.02), ("identity", 1.0)):
        strategy = make_strategy("squarm-sgd", compressor=spec, lr=0.01)
        run(strategy, task_fn, 4, 1)
        assert strategy.consensus.gamma == pytest.approx(expected, abs=0.01)
