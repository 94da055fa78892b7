"""A compressor of another package, built and installed for real, next to this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "middle"

USE = """
import numpy as np
from flowerpress.compressors import compressor_names, decompress, make_compressor
from flowerpress.compressors.testing import check_compressor

assert "middle" in compressor_names()
compressor = make_compressor("middle:2")
assert type(compressor).__module__ == "flowerpress_middle"
packet = compressor.compress(np.array([1.0, 3.0, 5.0]))
assert packet.compressor == "middle:2"
assert decompress(packet.data).tolist() == [2, 2, 5]

# It composes with the package's own.
both = make_compressor("topk:k=3+middle:1")
assert both.compress(np.arange(5.0)).compressor == "topk:k=3+middle:1"

check_compressor("middle:3", draws=40)
print("kept every promise")
"""

BREAK = """
from flowerpress.compressors.testing import check_compressor
import flowerpress_middle

def traits(self, dim, cohort=1):
    return flowerpress_middle.Traits(True, 0.5, None, None, 16 + 32 * -(-dim // self.block))

flowerpress_middle.Middle.traits = traits
check_compressor("middle:3", draws=40)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package installed in it, from a copy of its sources, offline."""
    if find_spec("pip") is None or find_spec("setuptools") is None:
        pytest.skip("needs pip and setuptools to build a package")
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    command += ["--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, timeout=300)
    return folder / "site"


def python(code, site):
    path = os.pathsep.join([str(site), *sys.path])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_is_found_used_and_conforms(site):
    done = python(USE, site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "kept every promise"


def test_the_kit_catches_its_lies(site):
    done = python(BREAK, site)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
    assert "about" in done.stderr or "at most" in done.stderr
