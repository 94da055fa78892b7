"""Packages that pages of the documentation show, written to a folder."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_package(page: str, folder: Path) -> Path:
    """Write the files that `page` shows whole, and return their folder."""
    folder.mkdir(parents=True)
    found = FILE.findall((DOCS / page).read_text("utf-8"))
    assert sorted(Path(name).suffix for name, _ in found) == [".py", ".toml"], page
    for name, text in found:
        (folder / name).write_text(text, encoding="utf-8")
    return folder
