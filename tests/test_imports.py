"""The graph of imports: files import each other in no circle, and rooms only those below them.

Imports in functions count, and those that only type checkers read: a file that needs another one to
be understood needs it, whenever Python loads it.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flowerpress

ROOT = Path(flowerpress.__file__).parent
LEVELS = {"cli": 4, "transport": 3, "simulations": 3, "strategies": 2, "clients": 2}
LEVELS |= {"protocol": 1, "compressors": 0}


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


def test_a_circle_would_be_found() -> None:
    a = ast.parse("if TYPE_CHECKING:\n    from p.b import x\n")
    b = ast.parse("def f():\n    import p.a\n")
    files = {"p.a", "p.b"}
    with pytest.raises(CycleError):
        TopologicalSorter({"p.a": imported(a, files), "p.b": imported(b, files)}).prepare()
