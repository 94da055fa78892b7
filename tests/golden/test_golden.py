"""Packets written by earlier releases decode to what they held, and are still written."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from flowerpress.compressors import Draw, Packet, decompress, make_compressor
from flowerpress.compressors.spec.registry import _OWN
from flowerpress.compressors.testing.conformance import forced_kernels
from tests.golden import reader
from tests.golden.make import CASES, FOLDER, vector

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name):
    case = json.loads((FOLDER / f"{name}.json").read_text())
    for key in ("input", "packet", "decoded"):
        case[key] = base64.b64decode(case[key])
    return case


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("name", NAMES)
def test_golden(name, kernels):
    case = load(name)
    x = np.frombuffer(case["input"], dtype=case["dtype"])
    compressor = make_compressor(case["spec"]).bind(tuple(case["sizes"]))
    with forced_kernels(kernels):
        assert decompress(case["packet"]).tobytes() == case["decoded"]
        assert compressor.compress(x, Draw(**case["draw"])).data == case["packet"]


@pytest.mark.parametrize("name", NAMES)
def test_the_format_page_is_enough_to_read_a_packet(name):
    case = load(name)
    decoded = np.frombuffer(case["decoded"], dtype=case["dtype"])
    assert np.array_equal(reader.read(case["packet"]), decoded)


def test_every_case_has_its_file():
    assert sorted(CASES) == NAMES


def test_every_codec_has_a_case():
    codecs = {Packet(load(name)["packet"]).header.codec for name in NAMES}
    assert codecs == {cls.codec for cls in _OWN}


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_as_described(name):
    """The vector's formula, the same on every platform."""
    _, dim, dtype = CASES[name]
    assert load(name)["input"] == vector(dim, dtype).tobytes()


def test_bitmap_varint_and_rice_ids_occur():
    """Raw ids win only for places beyond 2**28: too long a vector for a file."""
    tags = {name: load(name)["packet"][28] for name in NAMES if name.startswith("topk")}
    assert set(tags.values()) == {1, 2, 3}, tags
