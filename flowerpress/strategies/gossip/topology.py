"""Who talks with whom in decentralized training: graphs by name, and their weights.

Random graphs are drawn by networkx, which the extra ``gossip`` brings; the others need nothing but
their rule. Weights are those of Metropolis and Hastings, w_ij = 1 / (1 + max(deg_i,
deg_j)) on each edge and what is left on the diagonal: symmetric and doubly stochastic whatever the
graph (Xiao, Boyd, Kim 2007, "Distributed average consensus with least-mean-square deviation"). The
spectral gap 1 - |lambda_2| says how fast such a graph agrees; a disconnected one never does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.extras import import_failure
from flowerpress.suggestions import did_you_mean

Graph = dict[int, set[int]]  # the neighbours of each node

_TRIES = 100  # random graphs drawn until one is connected
_RANDOM_STREAM = 0x70
_PARAMETERS = {
    "complete": "",
    "edges": "FILE",
    "erdos-renyi": "P",
    "random-regular": "D",
    "ring": "",
    "star": "",
    "torus": "",
}


@dataclass(frozen=True)
class Topology:
    """A graph with its weights.

    Attributes
    ----------
    name : str
        How it was asked for.
    weights : mapping of int to mapping of int to float
        For each node, in order of ids, w_ij of its neighbours j, in order of ids.

    Examples
    --------
    >>> ring = make_topology("ring", range(4))
    >>> ring.weights[0], round(ring.gap, 6)
    ({1: 0.3333333333333333, 3: 0.3333333333333333}, 0.666667)
    >>> print(ring)
    ring of 4 nodes: 4 edges, spectral gap 0.667
    """

    name: str
    weights: Mapping[int, Mapping[int, float]]

    @property
    def nodes(self) -> tuple[int, ...]:
        """Ids of the nodes, ascending."""
        return tuple(self.weights)

    @property
    def edges(self) -> int:
        """Number of edges."""
        return sum(map(len, self.weights.values())) // 2

    def own(self, node: int) -> float:
        """Return the sum of the weights of a node's edges; 0 for one that is not there."""
        return math.fsum(self.weights.get(node, {}).values())

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """W, in order of ids."""
        place = {node: k for k, node in enumerate(self.weights)}
        w = np.zeros((len(place), len(place)))
        for node, row in self.weights.items():
            for other, weight in row.items():
                w[place[node], place[other]] = weight
            w[place[node], place[node]] = 1 - self.own(node)
        return w

    @cached_property
    def gap(self) -> float:
        """1 - the second largest magnitude of an eigenvalue of W; 0 for a disconnected graph."""
        sizes = np.sort(np.abs(np.linalg.eigvalsh(self.matrix)))
        return max(0.0, float(1 - sizes[-2])) if sizes.size > 1 else 1.0

    @cached_property
    def connected(self) -> bool:
        """Whether every node reaches every other."""
        return _is_connected(self.weights)

    def __str__(self) -> str:
        counts = f"{len(self.weights)} nodes: {self.edges} edges"
        return f"{self.name} of {counts}, spectral gap {self.gap:.3g}"


def topology_names() -> list[str]:
    """Names of the graphs, as `make_topology` takes them."""
    return [f"{name}:{wants}" if wants else name for name, wants in _PARAMETERS.items()]


def ring(nodes: Iterable[int]) -> Topology:
    """Return the ring of any nodes, also of two, or of one alone."""
    ids = sorted(set(nodes))
    return make_topology("ring", ids) if len(ids) > 1 else Topology("ring", {i: {} for i in ids})


def parse_topology(spec: str) -> tuple[str, str]:
    """Return a graph's name and its parameter, or raise `ValueError` with the known ones."""
    name, colon, parameter = spec.partition(":")
    wants = bool(_PARAMETERS.get(name))
    if name not in _PARAMETERS or (bool(colon), bool(parameter)) != (wants, wants):
        guess = "" if name in _PARAMETERS else did_you_mean(name, _PARAMETERS)
        expected = ", ".join(topology_names())
        raise ValueError(f"topology is {spec!r}: expected one of {expected}{guess}")
    return name, parameter


def make_topology(
    spec: str, nodes: Iterable[int], seed: int = 0, *, connected: bool = True
) -> Topology:
    """Return the graph `spec` on these nodes.

    Parameters
    ----------
    spec : str
        ``ring``, ``star`` (around the first node), ``complete``, ``torus`` (two-dimensional, as
        square as the number of nodes allows), ``random-regular:4`` (all of this degree),
        ``erdos-renyi:0.3`` (each edge with this probability; drawn again until connected), or
        ``edges:FILE``: a text file with two ids a line, ``#`` for comments.
    nodes : iterable of int
        Ids; at least 2. Those of a file that are not among them are left out, with their edges.
    seed : int
        Of the random graphs.
    connected : bool
        Refuse a graph that is not connected.

    Raises
    ------
    ValueError
        Unknown name, a wrong parameter or file, or a graph that does not exist on so many nodes or
        is not connected: says which, and what to do.
    OSError
        The file cannot be read.
    ImportError
        A random graph, and networkx cannot be imported.
    """
    name, parameter = parse_topology(spec)
    ids = sorted(set(nodes))
    if len(ids) < 2:
        raise ValueError(f"topology {spec!r} needs at least 2 nodes, got {len(ids)}")
    graph = _graph(name, parameter, ids, seed)
    found = Topology(spec, _metropolis({i: sorted(graph[i]) for i in ids}))
    if connected and not found.connected:
        raise ValueError(
            f"topology {spec!r} of {len(ids)} nodes is not connected: its parts would never agree; "
            "add edges"
        )
    return found


def listed(spec: str) -> frozenset[int] | None:
    """Return the ids in the file of ``edges:FILE``; None for other graphs, which take any ids."""
    name, parameter = parse_topology(spec)
    return (
        frozenset(i for edge in _read(Path(parameter)) for i in edge) if name == "edges" else None
    )


def _metropolis(neighbours: Mapping[int, list[int]]) -> dict[int, dict[int, float]]:
    degree = {node: len(others) for node, others in neighbours.items()}
    return {
        node: {other: 1.0 / (1 + max(degree[node], degree[other])) for other in others}
        for node, others in neighbours.items()
    }


def _graph(name: str, parameter: str, ids: list[int], seed: int) -> Graph:
    match name:
        case "ring":
            return {node: {ids[k - 1], ids[(k + 1) % len(ids)]} for k, node in enumerate(ids)}
        case "star":
            return {node: {ids[0]} for node in ids} | {ids[0]: set(ids[1:])}
        case "torus":
            return _torus(ids)
        case "random-regular":
            return _random_regular(ids, parameter, seed)
        case "erdos-renyi":
            return _erdos_renyi(ids, parameter, seed)
        case "edges":
            return _from_file(ids, Path(parameter))
    return {node: {*ids} - {node} for node in ids}


def _torus(ids: list[int]) -> Graph:
    n = len(ids)
    rows = next(r for r in range(math.isqrt(n), 0, -1) if n % r == 0)
    if rows == 1:
        raise ValueError(f"there is no torus of {n} nodes: a ring is what comes closest")
    grid = np.array(ids, dtype=object).reshape(rows, -1)  # ids may have 64 bits, or more
    around = [np.roll(grid, step, axis) for axis in (0, 1) for step in (1, -1)]
    return dict(zip(ids, map(set, zip(*(each.flat for each in around), strict=True)), strict=True))


def _random_regular(ids: list[int], parameter: str, seed: int) -> Graph:
    n, degree = len(ids), int(parameter) if parameter.isdecimal() else 0
    if not 1 <= degree < n or degree * n % 2:
        raise ValueError(
            f"random-regular:{parameter} of {n} nodes: the degree must be a whole number below "
            "their number, and the product of both even"
        )
    nx = _networkx(f"topology 'random-regular:{parameter}'")
    return _until_connected(lambda draw: nx.random_regular_graph(degree, n, seed=draw), ids, seed)


def _erdos_renyi(ids: list[int], parameter: str, seed: int) -> Graph:
    try:
        chance = float(parameter)
    except ValueError:
        chance = math.nan
    if not 0 < chance <= 1:
        raise ValueError(f"erdos-renyi:{parameter}: expected a probability in (0, 1]")
    nx = _networkx(f"topology 'erdos-renyi:{parameter}'")
    return _until_connected(
        lambda draw: nx.gnp_random_graph(len(ids), chance, seed=draw), ids, seed
    )


def _networkx(what: str) -> Any:
    """Import networkx, or say what needs it."""
    try:
        import networkx as nx
    except ImportError as error:
        raise import_failure(error, what, "'flowerpress[gossip]'", "networkx") from error
    return nx


def _until_connected(draw: Callable[[int], Any], ids: list[int], seed: int) -> Graph:
    """Draw graphs of the places 0, 1, ... until one is connected; return the last if none is."""
    rng = np.random.default_rng([seed, _RANDOM_STREAM])
    for _ in range(_TRIES):
        drawn = draw(int(rng.integers(2**31)))
        graph = {ids[k]: {ids[other] for other in drawn[k]} for k in range(len(ids))}
        if _is_connected(graph):
            break
    return graph


def _is_connected(graph: Mapping[int, Iterable[int]]) -> bool:
    """Return whether all nodes can be reached from the first one."""
    waiting = list(graph)[:1]
    reached = set(waiting)
    while waiting:
        found = set(graph[waiting.pop()]) - reached
        reached |= found
        waiting += found
    return len(reached) == len(graph)


def _from_file(ids: list[int], path: Path) -> Graph:
    graph: Graph = {node: set() for node in ids}
    for i, j in _read(path):
        if i in graph and j in graph:
            graph[i].add(j)
            graph[j].add(i)
    return graph


def _read(path: Path) -> list[tuple[int, int]]:
    """Return the edges in a file."""
    edges = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not all(map(str.isdecimal, words)) or words[0] == words[1]:
            raise ValueError(f"{path}, line {number}: expected two different ids, got {line!r:.80}")
        edges.append((int(words[0]), int(words[1])))
    return edges
