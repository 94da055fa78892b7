"""The pictures are what `scripts/pictures.py` draws, and the measured one is what is measured."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from flowerpress.compressors import Draw, make_compressor
from tests.pages.blocks import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "scripts" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_they_are_current(pictures: ModuleType) -> None:
    assert (DOCS / "how-it-works.svg").read_text("utf-8") == pictures.halves()
    drawn = (DOCS / "bytes.svg").read_text("utf-8")
    assert drawn == pictures.chart(pictures.figures(drawn))


@pytest.mark.parametrize("name", ["how-it-works", "bytes"])
def test_they_need_nothing_else(name: str) -> None:
    text = (DOCS / f"{name}.svg").read_text("utf-8")
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    assert {each.tag.rpartition("}")[2] for each in root.iter()} <= {
        "svg", "title", "desc", "rect", "text", "path", "polyline", "defs", "marker",
    }  # fmt: skip
    assert text.count("http") == 1, "the name of the format"


def test_the_packet_of_the_picture_is_a_packet(pictures: ModuleType) -> None:
    x = np.arange(9, dtype=np.float32)
    data = bytes(make_compressor("topk:k=2").compress(x, Draw(0, 0, 0, 1)).data)
    assert (data[:4], data[4], data[5], data[6], data[7]) == (b"FPRS", 1, 2, 1, 0)
    words = [each.text for each in ET.fromstring(pictures.halves()).iter() if each.text]
    at = words.index("FPRS")
    assert words[at : at + 10 : 2] == ["FPRS", "1", "2", "f32", "0"]


def compare(pictures: ModuleType, name: str, rounds: int) -> None:
    """Train again. Another machine rounds in another way, so a point or so may be another."""
    drawn = pictures.figures((DOCS / "bytes.svg").read_text("utf-8"))
    assert [title.split()[0] for title in drawn] == list(pictures.RUNS)
    title, curve = pictures.measure(name, rounds)
    assert len(drawn[title]) == pictures.ROUNDS // 2
    for (sent, accuracy), (sent_now, now) in zip(drawn[title], curve, strict=False):
        assert sent_now == pytest.approx(sent, rel=0.02)
        assert now == pytest.approx(accuracy, abs=4)


@pytest.mark.parametrize("name", ["fedavg", "fedcams"])
def test_the_first_rounds_are_as_drawn(pictures: ModuleType, name: str) -> None:
    pytest.importorskip("mlxtend")
    pytest.importorskip("torch")
    compare(pictures, name, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedavg", "ef21-sgdm", "dsgd", "fedcams"])
def test_all_rounds_are_as_drawn(pictures: ModuleType, name: str) -> None:
    compare(pictures, name, pictures.ROUNDS)
