"""Graphs by name: their weights are doubly stochastic, and what cannot be is refused."""

import numpy as np
import pytest

from flowerpress.strategies import make_strategy
from flowerpress.strategies.gossip.topology import listed, make_topology, topology_names
from tests.packages import without

GRAPHS = {
    "complete": 7,
    "erdos-renyi:0.4": 12,
    "random-regular:3": 10,
    "ring": 9,
    "star": 6,
    "torus": 12,
}


@pytest.mark.parametrize("spec", GRAPHS)
@pytest.mark.parametrize("first", [0, 5])
def test_weights(spec, first):
    ids = [first + 3 * i for i in range(GRAPHS[spec])]
    topology = make_topology(spec, reversed(ids), seed=3)
    w = topology.matrix
    assert topology.nodes == tuple(ids)
    np.testing.assert_allclose(w.sum(axis=0), 1, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(w, w.T)
    assert (w >= 0).all()
    assert topology.connected
    assert 0 < topology.gap <= 1
    sizes = np.sort(np.abs(np.linalg.eigvals(w)))[::-1]
    assert topology.gap == pytest.approx(1 - sizes[1], abs=1e-12)
    for node, row in topology.weights.items():
        assert list(row) == sorted(row)
        assert node not in row
        for other, weight in row.items():
            degrees = len(row), len(topology.weights[other])
            assert weight == 1 / (1 + max(degrees))


def test_known_spectra():
    """Closed forms: ring 1 - (1 + 2 cos(2 pi / n)) / 3, complete 1."""
    assert make_topology("ring", range(8)).gap == pytest.approx(1 - 0.8047378541, abs=1e-10)
    assert make_topology("complete", range(8)).gap == pytest.approx(1, abs=1e-12)
    # Of 1 - L/5 on a 4 x 4 torus: L has 2 for its smallest eigenvalue above 0.
    assert make_topology("torus", range(16)).gap == pytest.approx(2 / 5, abs=1e-12)
    assert str(make_topology("star", range(5))) == "star of 5 nodes: 4 edges, spectral gap 0.2"


@pytest.mark.parametrize("spec", ["erdos-renyi:0.4", "random-regular:3"])
def test_the_seed_fixes_random_graphs(spec):
    graphs = [make_topology(spec, range(12), seed) for seed in (1, 1, 2)]
    assert graphs[0].weights == graphs[1].weights != graphs[2].weights


def test_edges_from_a_file(tmp_path):
    path = tmp_path / "graph.edges"
    path.write_text("# a triangle and a tail\n0 1\n1 2\n2 0  # closes\n\n2 7\n7 9\n", "utf-8")
    spec = f"edges:{path}"
    assert listed(spec) == {0, 1, 2, 7, 9}
    assert listed("ring") is None
    topology = make_topology(spec, [0, 1, 2, 7])
    assert topology.weights[7] == {2: 1 / 4}
    assert topology.edges == 4
    with pytest.raises(ValueError, match="of 4 nodes is not connected"):
        make_topology(spec, [0, 1, 7, 9])
    assert not make_topology(spec, [0, 1, 7, 9], connected=False).connected
    assert make_topology(spec, [0, 9], connected=False).gap == 0


@pytest.mark.parametrize("line", ["0 1 2", "0", "a b", "0 0", "-1 2", "1.5 2"])
def test_a_broken_line_is_named(line, tmp_path):
    path = tmp_path / "graph.edges"
    path.write_text(f"0 1\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=r"line 2: expected two different ids"):
        make_topology(f"edges:{path}", range(3))


@pytest.mark.parametrize(
    ("spec", "n", "message"),
    [
        ("rang", 4, "expected one of complete, edges:FILE, erdos-renyi:P, random-regular:D, ring"),
        ("ring:4", 4, "topology is 'ring:4'"),
        ("torus:", 4, "topology is 'torus:'"),
        ("edges", 4, "topology is 'edges'"),
        ("random-regular", 4, "topology is 'random-regular'"),
        ("ring", 1, "needs at least 2 nodes, got 1"),
        ("torus", 7, "no torus of 7 nodes: a ring"),
        ("random-regular:3", 7, "the product of both even"),
        ("random-regular:7", 7, "below their number"),
        ("random-regular:x", 7, "must be a whole number"),
        ("random-regular:1", 8, "not connected"),
        ("erdos-renyi:0", 8, "a probability in"),
        ("erdos-renyi:1.5", 8, "a probability in"),
        ("erdos-renyi:p", 8, "a probability in"),
        ("erdos-renyi:0.001", 8, "not connected"),
    ],
)
def test_what_cannot_be_is_refused(spec, n, message):
    with pytest.raises(ValueError, match=message):
        make_topology(spec, range(n))


def test_names_are_those_taken(tmp_path):
    for name in topology_names():
        spec = name.replace("FILE", str(tmp_path / "x")).replace("P", "0.9").replace("D", "2")
        if spec.startswith("edges"):
            (tmp_path / "x").write_text("\n".join(f"{i} {i + 1}" for i in range(7)), "utf-8")
        assert make_topology(spec, range(8)).connected


def test_a_strategy_refuses_what_cannot_be_at_once(tmp_path):
    with pytest.raises(ValueError, match="topology is 'rang'"):
        make_strategy("squarm-sgd", topology="rang")
    with pytest.raises(FileNotFoundError):
        make_strategy("squarm-sgd", topology=f"edges:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="no torus of 7 nodes"):
        make_strategy("squarm-sgd", topology="torus").network(range(7))


@pytest.mark.parametrize("spec", ["complete", "ring", "star", "torus"])
@pytest.mark.parametrize("nodes", [2, 3, 4, 6, 12])
def test_graphs_are_those_of_networkx(spec, nodes):
    nx = pytest.importorskip("networkx")
    if spec == "torus" and nodes < 4:
        return
    rows = {4: 2, 6: 2, 12: 3}.get(nodes, 1)
    want = {
        "complete": lambda: nx.complete_graph(nodes),
        "ring": lambda: nx.cycle_graph(nodes),
        "star": lambda: nx.star_graph(nodes - 1),
        "torus": lambda: nx.grid_2d_graph(rows, nodes // rows, periodic=True),
    }[spec]()
    place = {node: k for k, node in enumerate(sorted(want))}
    got = make_topology(spec, range(nodes)).weights
    assert {k: set(row) for k, row in got.items()} == {
        place[node]: {place[other] for other in want[node]} for node in want
    }


def test_only_random_graphs_need_networkx(monkeypatch, tmp_path):
    without(monkeypatch, "networkx")
    file = tmp_path / "edges"
    file.write_text("0 1\n1 2\n2 3\n")
    for spec in ("complete", "ring", "star", "torus", f"edges:{file}"):
        assert make_topology(spec, range(4)).connected
    for spec in ("random-regular:2", "erdos-renyi:0.9"):
        with pytest.raises(ImportError, match=f"^topology '{spec}' needs 'flowerpress.gossip"):
            make_topology(spec, range(4))
