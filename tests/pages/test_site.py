"""The site: its parts in order, nothing asked of other hosts, and figures that agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowerpress.compressors import make_compressor
from flowerpress.strategies import make_strategy
from tests.pages.blocks import ROOT

DOCS = ROOT / "docs"
PARTS = [
    "Home",
    "Start in five minutes",
    "How it works",
    "Choose a method",
    "Compare methods",
    "Every algorithm",
    "Compressors",
    "Bring your own",
    "Deploy",
    "Faults and security",
    "Wire format",
    "Results",
    "Questions people ask",
]


def test_its_parts_are_in_order() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    assert re.findall(r"^  - ([^:]+):", nav, re.MULTILINE) == PARTS
    pages = re.findall(r"([\w/-]+\.md)", nav)
    assert len(pages) == len(set(pages))
    assert {*pages} == {*(path.name for path in DOCS.glob("*.md")), "algorithms/index.md"}


def test_it_asks_no_other_host_for_anything(tmp_path: Path) -> None:
    """A link may lead elsewhere; a page that is read loads only what was built with it."""
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)", text)
        sheets = re.findall(r"<link\b[^>]*>", text)
        loaded += [
            found
            for sheet in sheets
            if "canonical" not in sheet
            for found in re.findall(r"href=\"?([^\s\">]+)", sheet)
        ]
        assert loaded
        assert [each for each in loaded if "//" in each] == [], page
        assert "mermaid" not in text, "which the theme would fetch"
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?https?:", sheet.read_text("utf-8"))
    assert (tmp_path / "how-it-works.svg").exists()


def rows(page: str, columns: int) -> list[list[str]]:
    text = (DOCS / page).read_text("utf-8")
    lines = (line for line in text.splitlines() if line.startswith("| "))
    cells = ([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    return [row for row in cells if len(row) == columns]


def test_the_choice_has_the_figures_of_the_results() -> None:
    results = {row[0]: row for row in rows("presets.md", 9)}
    chosen = [row for row in rows("choose.md", 7) if row[1] != "try it"]
    assert len(chosen) >= 10
    for _, command, compressor, _, lost, up, down in chosen:
        strategy = command.strip("`").removeprefix("flowerpress run mnist --strategy ")
        row = results[f"`{strategy}`"]
        assert (lost, up, down) == (row[4], row[5], row[7]), strategy
        assert re.findall(r"`(.+?)`", compressor)[0] == re.findall(r"`(.+?)`", row[1])[0]


def test_a_choice_can_be_made() -> None:
    """Each compressor is one, and those for error feedback are taken by it."""
    table = [row for row in rows("choose.md", 3) if row[0] != "what you have"]
    assert len(table) >= 6
    for need, take, _ in table:
        for spec in re.findall(r"`([^`]+)`", take):
            assert make_compressor(spec)
            if "error feedback" in need or "after a top-k" in need:
                make_strategy("ef21", compressor=spec)


def test_the_drop_ins_figures_are_those_of_its_page() -> None:
    page = (DOCS / "dropin.md").read_text("utf-8")
    assert "| topk:0.01, ef14 | 98.2 |" in page
    assert "| 58.8 |" in page
    assert "| FedMedian | 92.2 | 85.3 | **73.6** | 91.4 |" in page
    text = (DOCS / "choose.md").read_text("utf-8")
    assert "58.8 times fewer bytes up, 98.2 % for 98.9 % dense" in text
    assert "FedMedian 91.4 % for 92.2 % dense; with `ef14` 73.6 %" in text


def test_threads_lead_where_they_say() -> None:
    text = (DOCS / "questions.md").read_text("utf-8")
    threads = re.findall(
        r"\[([\w-]+)#(\d+)\]\(https://github.com/([\w-]+)/([\w-]+)/(\w+)/(\d+)\)", text
    )
    assert len(threads) == text.count("](https://") > 20
    for said, number, _, repository, kind, led in threads:
        assert said.lower() in repository.lower()
        assert number == led
        assert kind in ("issues", "pull")
    questions = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
    assert len(questions) > 20
    assert all(each[-1] in "?." for each in questions)
