"""What others read of the project: how to cite it, its workflows, and its forms."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(
    set((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) - {GITHUB / "ISSUE_TEMPLATE/config.yml"}
)


def read(path: Path) -> dict[Any, Any]:
    found = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def test_how_to_cite_it() -> None:
    """What CFF 1.2.0 asks for, and what the project says of itself elsewhere."""
    cff = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    optional = {"abstract", "type", "version", "license", "keywords"}
    assert set(cff) <= {"cff-version", "message", "title", "authors"} | optional
    assert cff["cff-version"] == "1.2.0"
    assert cff["type"] == "software"
    assert cff["authors"]
    assert all(set(each) == {"name"} for each in cff["authors"])
    assert str(cff["version"]) == PROJECT["version"]
    assert cff["license"] == PROJECT["license"]
    assert cff["abstract"].rstrip(".") == PROJECT["description"]
    assert set(cff["keywords"]) <= set(PROJECT["keywords"])


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_runs_is_there(path: Path) -> None:
    workflow = read(path)
    assert workflow[True], "`on`, which YAML takes for a truth value"
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    (command,) = [step["run"] for step in steps(workflow) if "run" in step]
    assert os.access(ROOT / command, os.X_OK)
    assert all(
        re.fullmatch(r"actions/[\w-]+@v\d+", s["uses"]) for s in steps(workflow) if "uses" in s
    )
    (setup,) = [step["with"] for step in steps(workflow) if "setup-python" in step.get("uses", "")]
    pythons = setup["python-version"].split()
    assert pythons[-1] == "3.11", "the version that the tests are written for"
    for each in pythons:
        assert each in SpecifierSet(PROJECT["requires-python"])
        assert f"Programming Language :: Python :: {each}" in PROJECT["classifiers"]
    assert (ROOT / setup["cache-dependency-path"]).exists()


def test_every_change_and_every_night() -> None:
    ci, nightly = (read(GITHUB / "workflows" / f"{name}.yml") for name in ("ci", "nightly"))
    assert {"push", "pull_request"} <= set(ci[True])
    assert [step["run"] for step in steps(ci) if "run" in step] == [".ci/run"]
    assert "schedule" in nightly[True]
    assert [step["run"] for step in steps(nightly) if "run" in step] == ["scripts/nightly"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one(path: Path) -> None:
    """By GitHub's rules for issue forms: else it shows none, and says nothing."""
    form = read(path)
    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "body", "labels"}
    kinds = {"textarea", "input", "dropdown", "checkboxes", "markdown"}
    assert {field["type"] for field in form["body"]} <= kinds
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in form["body"])
    for field in form["body"]:
        if field["type"] in ("dropdown", "checkboxes"):
            assert field["attributes"]["options"]
    for page in re.findall(r"docs/[\w-]+\.md", path.read_text("utf-8")):
        assert (ROOT / page).exists()


def test_a_report_has_what_is_needed() -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    asked = {field["id"]: field for field in form["body"]}
    assert asked["version"]["validations"]["required"]
    assert "flowerpress --version" in asked["version"]["attributes"]["label"]
    assert asked["command"]["validations"]["required"]
    assert "results.json" in asked["results"]["attributes"]["label"]
    assert {path.stem for path in FORMS} == {"bug", "feature", "question"}
