"""The project's own files agree with each other."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flowerpress

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = ["demo", "deploy", "lint", "nightly", "test"]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every constraint is one exact version"
    return {canonicalize_name(name): version for name, version in pairs}


def test_one_version() -> None:
    assert flowerpress.__version__ == PROJECT["project"]["version"]
    assert importlib.metadata.version("flowerpress") == flowerpress.__version__


def test_every_requirement_is_pinned_within_its_range() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    pins = _pins()
    for text in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        requirement = Requirement(text)
        if requirement.name != "flowerpress":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_no_pin_names_a_build() -> None:
    assert not [version for version in _pins().values() if "+" in version]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run_and_parse(name: str) -> None:
    script = ROOT / "scripts" / name
    assert script.stat().st_mode & 0o111, "not executable"
    subprocess.run(["bash", "-n", script], check=True)


def test_setup_says_what_to_do_without_a_python(tmp_path: Path) -> None:
    # A copy, so that no .venv is there.
    (tmp_path / "scripts").mkdir()
    for name in ("setup", "test"):
        (tmp_path / "scripts" / name).write_text(
            (ROOT / "scripts" / name).read_text("utf-8"), "utf-8"
        )
    done = subprocess.run(
        ["bash", "scripts/test"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "FLOWERPRESS_PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python >= 3.11" in done.stderr
    assert "FLOWERPRESS_PYTHON=" in done.stderr


def test_files_stay_short() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in sorted((ROOT / "flowerpress").rglob("*.py"))
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}


def test_importing_flowerpress_does_not_import_torch_or_plots() -> None:
    modules = "flowerpress.clients, flowerpress.simulations, flowerpress.cli"
    heavy = "{'torch', 'matplotlib', 'flwr_datasets'}"
    code = f"import sys, {modules}; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def _imported(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


def test_only_flowers_public_packages_are_imported() -> None:
    public = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
    # Each of these says why it needs more.
    private = {
        "identity.py": {"flwr.supercore.task_identity"},
        "grids.py": {"flwr.supercore.run"},
    }
    for path in sorted((ROOT / "flowerpress").rglob("*.py")):
        flower = {name for name in _imported(path) if name.split(".")[0] == "flwr"}
        assert flower - public <= private.get(path.name, set()), path


def test_readme_names_only_what_is_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:scripts|docs|examples|benchmarks)/[\w./-]+)`", readme):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(((?!https?:)[\w./-]+)\)", readme):
        assert (ROOT / path).exists(), path
