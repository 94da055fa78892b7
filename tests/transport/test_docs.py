"""What the pages say of the link: each claim of docs/security.md names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_each_claim_has_a_test() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("\n## The link\n")[2]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        claim, named = row.strip("| ").rsplit(" | ", 1)
        found = re.findall(r"`([\w/]+\.py)::(\w+)`", named)
        assert found, claim
        for file, name in found:
            assert f"\ndef {name}(" in (TESTS / file).read_text(encoding="utf-8"), name
