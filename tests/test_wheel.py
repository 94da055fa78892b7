"""The wheel has all that it needs, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import flowerpress
from flowerpress.cli.new_app import START
from tests.pages.blocks import blocks

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


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_readmes_install(tmp_path: Path) -> None:
    """The block as it is, in a new environment that sees the packages of this one, offline.

    So pip has nothing to fetch, but finds out whether what is pinned goes together.
    """
    for package in ("torch", "ray", "mlxtend", "sklearn", "matplotlib", "flwr_datasets"):
        pytest.importorskip(package)
    found = [b for page in ("README.md", "start.md") for b in blocks(page, "bash")]
    block, same = [each for each in found if "pip install" in each.text]
    assert block.text == same.text
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    no_caches = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    shutil.copytree(ROOT / "flowerpress", tmp_path / "flowerpress", ignore=no_caches)
    here = [each for each in sys.path if each.endswith("-packages")]
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "VIRTUAL"))
    }
    env |= {"PYTHONPATH": os.pathsep.join(here), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
    env |= {"PIP_NO_BUILD_ISOLATION": "false"}  # "false" is pip's word for: not isolated
    env |= {"PATH": f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    script = f"set -e\n{block.text}command -v flowerpress\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, version, where = done.stdout.strip().splitlines()
    assert version.startswith(f"flowerpress {flowerpress.__version__} (Python ")
    assert Path(where) == tmp_path / ".venv" / "bin" / "flowerpress"
    assert "Successfully installed flowerpress" in done.stdout
