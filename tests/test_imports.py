"""The graph of imports: files import each other in no circle, and rooms only those below them.

Imports in functions count, and those that only type checkers read: a file that needs another one to
be understood needs it, whenever Python loads it.
"""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flowerpress

ROOT = Path(flowerpress.__file__).parent
LEVELS = {"cli": 5, "transport": 4, "simulations": 4, "strategies": 3, "clients": 3}
LEVELS |= {"server": 2.5, "worker": 2.5, "tasks": 2, "protocol": 1, "compressors": 0}
MOST_ARROWS = 100  # between the rooms of `compressors`


def name_of(path: Path) -> str:
    parts = ("flowerpress", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imported(tree: ast.AST, files: set[str]) -> set[str]:
    """Return the files that are imported anywhere in a file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & files
            found |= names or {node.module}
    return found & files


def arrows(graph: dict[str, set[str]], package: str) -> set[tuple[str, str]]:
    """Return who imports whom among a package's files and folders, each folder as one."""

    def room(name: str) -> str:
        return name.removeprefix(package).split(".")[1] if name != package else ""

    inside = {name for name in graph if f"{name}.".startswith(f"{package}.")}
    found = {(room(a), room(b)) for a in inside for b in graph[a] & inside}
    return {(a, b) for a, b in found if a != b}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    paths = {name_of(path): path for path in ROOT.rglob("*.py")}
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in paths.items()}
    return {name: imported(tree, set(paths)) - {name} for name, tree in trees.items()}


def test_no_file_imports_itself_by_way_of_others(graph: dict[str, set[str]]) -> None:
    assert len(graph) > 200
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_arrow_goes_up(graph: dict[str, set[str]]) -> None:
    def room(name: str) -> str:
        return [*name.split("."), ""][1]

    arrows = {(room(a), room(b)) for a, found in graph.items() for b in found}
    both = {(a, b) for a, b in arrows if a != b and a in LEVELS and b in LEVELS}
    upward = {(a, b) for a, b in both if LEVELS[a] <= LEVELS[b]}
    assert upward == set()


def test_compressors_are_few_rooms(graph: dict[str, set[str]]) -> None:
    """A file in the folder itself is a room, and so is a folder with all that is below it."""
    found = arrows(graph, "flowerpress.compressors")
    assert len(found) <= MOST_ARROWS
    rooms: dict[str, set[str]] = {}
    for a, b in found:
        rooms.setdefault(a, set()).add(b)
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_folders_of_compressors_list_their_files() -> None:
    """Kernels in numba and torch are listed with those of numpy that have their names."""
    tables = {}
    for path in (ROOT / "compressors").rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        listed = set(re.findall(r"^`(\w+)` ", text, re.MULTILINE))
        inside = {each.stem for each in path.parent.iterdir() if not each.name.startswith("__")}
        tables[path.parent.name] = listed, inside
    assert len(tables) > 10
    twins = tables["numpy"][0]
    for folder, (listed, inside) in tables.items():
        known = twins if folder in ("numba", "torch") else set()
        assert listed <= inside <= listed | known, folder


def test_arrows_are_counted() -> None:
    graph = {
        "p.c": {"p.c.base", "p.c.sparse.topk"},
        "p.c.base": {"p.c.wire", "q.d", "p.cd.x"},
        "p.c.wire": set[str](),
        "p.c.wire.packet": {"p.c.wire"},  # inside a room
        "p.c.sparse.topk": {"p.c.base", "p.c.wire.packet", "p.c.wire"},  # two arrows
        "p.c.sparse.randk": {"p.c.base", "p.c.sparse.topk", "p.c.wire.packet"},  # the same two
        "p.cd.x": {"p.c.base"},  # of another package
        "q.d": {"p.c.base"},
    }
    assert arrows(graph, "p.c") == {
        ("", "base"),
        ("", "sparse"),
        ("base", "wire"),
        ("sparse", "base"),
        ("sparse", "wire"),
    }


def test_a_circle_would_be_found() -> None:
    a = ast.parse("if TYPE_CHECKING:\n    from p.b import x\n")
    b = ast.parse("def f():\n    import p.a\n")
    files = {"p.a", "p.b"}
    with pytest.raises(CycleError):
        TopologicalSorter({"p.a": imported(a, files), "p.b": imported(b, files)}).prepare()
