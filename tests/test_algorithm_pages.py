"""Each line of a paper is found in the code, in order, and the pages that show it are current."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flowerpress.algorithms import OWN
from flowerpress.server.ask import Ask
from flowerpress.strategies.ef21 import EF21

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "algorithm_pages.py"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("algorithm_pages", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(OWN))
@pytest.mark.parametrize("side", ["strategy", "worker"])
def test_each_line_of_a_paper_has_its_statement(pages, name, side):
    lines, found = pages.half(OWN[name].load(side))
    assert list(lines) == list(range(1, len(lines) + 1))
    assert len(lines) >= 2
    assert all(each.code and set(each.lines) <= set(lines) for each in found)


def test_pages_are_what_the_source_says(pages):
    stale = [path for path, text in pages.pages().items() if path.read_text("utf-8") != text]
    assert stale == [], "run python scripts/algorithm_pages.py"


def write(tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(f"class Mine:\n    def round(self):\n{body}")
    return path


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("        yield 1  # 1-3\n        x = 4\n", "no statement says that it does lines .4."),
        ("        x = 4  # 4\n        yield 1  # 1-3\n", "not in order"),
        ("        yield 1  # 1-5\n", "no lines .5."),
    ],
)
def test_a_line_without_its_statement_is_found(pages, monkeypatch, tmp_path, body, why):
    class Mine(EF21):
        pass

    function = pages.ast.parse(write(tmp_path, body).read_text()).body[0].body[0]
    function.source = str(tmp_path / "mine.py")
    monkeypatch.setattr(pages, "functions", lambda cls: [function])
    with pytest.raises(ValueError, match=why):
        pages.half(Mine)


def test_a_question_says_what_its_answers_are():
    kinds = [Ask([], what=what) for what in ("update", "sketch", "values", "model", "evaluation")]
    assert [each.applied for each in kinds] == [True, False, True, False, False]
    assert [each.compressed for each in kinds] == [True, True, False, False, False]
    assert [each.bare for each in kinds] == [False, False, True, False, False]
    assert [each.stage for each in kinds] == [1, 1, 2, 2, 1]
    assert [each.purpose for each in kinds] == ["train", "train", "train", "collect", "evaluate"]
