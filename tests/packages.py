"""Packages that are not there, or broken, for as long as a test lasts."""

from __future__ import annotations

import sys

import pytest


def without(
    monkeypatch: pytest.MonkeyPatch, package: str, error: ImportError | None = None
) -> None:
    """Let every import of a package fail, as if it were missing, or with this error."""
    missing = ModuleNotFoundError(f"No module named {package!r}", name=package)

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == package:
                raise error or missing

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
