"""The unrolled kernels are what their generator writes."""

from __future__ import annotations

import runpy
from pathlib import Path

GENERATOR = Path(__file__).parents[2] / "scripts" / "generate_packing.py"


def test_generated_files_are_up_to_date():
    sources = runpy.run_path(str(GENERATOR))["sources"]()
    assert sources
    for path, text in sources.items():
        assert path.read_text("utf-8") == text, f"run python {GENERATOR} to rewrite {path}"
