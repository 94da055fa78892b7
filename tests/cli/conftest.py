from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerpress.simulations import plots


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare a run the second that its picture takes: tests/cli/test_report.py draws them."""
    monkeypatch.setattr(plots, "plot", lambda _: b"a picture")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> Iterator[Path]:
    """The current folder: a user's, with the file `own_tasks.py`."""
    shutil.copy(Path(__file__).with_name("own_tasks.py"), tmp_path / "own_tasks.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - set(before):
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
