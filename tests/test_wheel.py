"""The wheel has all that it needs, and works where there is no checkout."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import flowerpress
from flowerpress.cli.new_app import START
from tests.pages.blocks import all_commands

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

pytest.importorskip("hatchling")
if find_spec("pip") is None:
    pytest.skip("needs pip", allow_module_level=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*PIP, "wheel", *offline, "--wheel-dir", folder, ROOT], check=True, timeout=300)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """Install the wheel in a folder of its own."""
    folder = wheel.parent / "site"
    command = [*PIP, "install", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(command, check=True, timeout=300)
    return folder


def run(site: Path, folder: Path, *words: object) -> str:
    """Run a program in a folder that is no checkout, with the installed copy first."""
    env = {**os.environ, "PYTHONPATH": str(site), "FLOWERPRESS_KERNELS": "numpy"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_every_file_of_the_package(wheel: Path) -> None:
    kept = {"__pycache__", ".mypy_cache", ".ruff_cache"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "flowerpress").rglob("*")
        if path.is_file() and not kept & set(path.parts) and path.suffix not in (".nbi", ".nbc")
    }
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {"flowerpress/py.typed", "flowerpress/transport/link.proto"} <= wanted
    assert {name for name in names if name.startswith("flowerpress/")} == wanted
    others = {name.split("/")[0] for name in names - wanted}
    assert others == {f"flowerpress-{flowerpress.__version__}.dist-info"}, "no tests, no docs"


def test_it_works_outside_of_the_checkout(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    python = [sys.executable, "-m", "flowerpress"]
    where = "import flowerpress; print(flowerpress.__file__)"
    assert Path(run(site, tmp_path, sys.executable, "-c", where).strip()).is_relative_to(site)
    said = run(site, tmp_path, *python, "--version")
    assert said.startswith(f"flowerpress {flowerpress.__version__} (Python ")
    assert run(site, tmp_path, site / "bin" / "flowerpress", "--version") == said
    assert "ef21-sgdm" in run(site, tmp_path, *python, "list")
    small = ["--clients", "2", "--rounds", "2", "--strategy", "ef21"]
    assert "round 2/2" in run(site, tmp_path, *python, "run", "digits", *small)
    assert next(tmp_path.glob("runs/*/model.safetensors")).stat().st_size > 2600
    run(site, tmp_path, *python, "new", "my-app")
    words = ["run", "my-app/my_app/task.py", *START.split(), "--rounds", "2"]
    assert "round 2/2" in run(site, tmp_path, *python, *words)


def test_the_readmes_install() -> None:
    """Pip finds a set of versions for it, of those that are here; nothing is installed."""
    for package in ("torch", "ray", "mlxtend", "sklearn", "matplotlib", "flwr_datasets"):
        pytest.importorskip(package)
    pages = ("README.md", "start.md")
    (command, other) = [c for c in all_commands() if c.page in pages and c.words[0] == "pip"]
    assert (
        command.words
        == other.words
        == tuple(shlex.split("pip install -c constraints.txt '.[demo]'"))
    )
    dry = ["--dry-run", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*PIP[:-1], *command.words[1:], *dry],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == f"Would install flowerpress-{flowerpress.__version__}"
