"""What a shell completes, and the versions: nothing slow is imported before it is asked for."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import flowerpress

_PACKAGES = ("flwr", "numpy", "numba", "torch")


def versions() -> str:
    """Return flowerpress's version in a line, with those of what it stands on."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"flowerpress {flowerpress.__version__} ({', '.join(found)})"


def tasks(incomplete: str) -> list[str]:
    """Return the tasks that a word may become: those with a name, and Python files."""
    from flowerpress.simulations.own_task import all_task_names

    folder, slash, _ = incomplete.rpartition("/")
    there = (path for path in Path(folder or ".").glob("*") if path.suffix == ".py")
    files = (f"{folder}{slash}{path.name}" for path in there)
    return _starting(incomplete, (*all_task_names(), *sorted(files)))


def strategies(incomplete: str) -> list[str]:
    """Return the strategies that a word may become."""
    from flowerpress.strategies import strategy_names

    return _starting(incomplete, strategy_names())


def compressors(incomplete: str) -> list[str]:
    """Return the compressors that a word may become; after a ``+`` the next stage."""
    from flowerpress.compressors import compressor_names

    stages, plus, last = incomplete.rpartition("+")
    return [f"{stages}{plus}{name}" for name in _starting(last, compressor_names())]


def named(incomplete: str) -> list[str]:
    """Return what `flowerpress list` can be asked for."""
    kinds = ("all", "apps", "compressors", "dropin", "strategies", "tasks")
    every = (*strategies(incomplete), *compressors(incomplete), *tasks(incomplete))
    return [*_starting(incomplete, kinds), *every]


def claims(incomplete: str) -> list[str]:
    """Return the papers and claims that a word may become."""
    from flowerpress.simulations.reproduce import papers

    every = [(paper.name, *(claim.name for claim in paper.claims)) for paper in papers()]
    return _starting(incomplete, [name for group in every for name in group])


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
