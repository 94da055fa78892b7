"""The two pages on compressors say what the code does."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from flowerpress.compressors import compressor_names
from flowerpress.compressors.spec import registry

DOCS = Path(__file__).parents[2] / "docs"


def test_examples():
    outcome = doctest.testfile(str(DOCS / "compressors.md"), module_relative=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", compressor_names())
def test_every_compressor_is_on_both_pages(name):
    assert f"`{name}" in (DOCS / "compressors.md").read_text()
    heading = f"### {registry._classes()[name].codec}: {name}\n"
    assert heading in (DOCS / "wire-format.md").read_text()
