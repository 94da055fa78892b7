"""Names, spec strings, and compressors of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress import plugins
from flowerpress.compressors import compressor_names, decompress, make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.quantized.qsgd import QSGD
from flowerpress.compressors.quantized.sign import Sign
from flowerpress.compressors.sparse.randk import RandK
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.compressors.spec import registry


def test_names():
    assert {"identity", "topk", "randk", "sign", "qsgd"} <= set(compressor_names())
    assert compressor_names() == sorted(compressor_names())


@pytest.mark.parametrize(
    ("spec", "compressor"),
    [
        ("identity", Identity()),
        ("topk:0.01", TopK(ratio=0.01)),
        ("topk:k=200", TopK(k=200)),
        ("topk: ratio=1e-3", TopK(ratio=0.001)),
        ("randk:0.5,law=stratified", RandK(ratio=0.5, law="stratified")),
        ("sign", Sign()),
        ("sign:scale=l2,block=tensor", Sign("l2", "tensor")),
        ("sign:block=4096", Sign(block=4096)),
        ("qsgd:levels=7,bucket=512", QSGD()),
        ("qsgd:3", QSGD(levels=3)),
    ],
)
def test_spec_round_trips(spec, compressor):
    assert make_compressor(spec) == compressor
    assert make_compressor(compressor.spec) == compressor
    assert make_compressor(compressor) is compressor


@given(st.floats(min_value=1e-12, max_value=1))
def test_any_ratio_round_trips(ratio):
    assert make_compressor(TopK(ratio=ratio).spec).ratio == ratio


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "unknown compressor '': choose one of bf16, "),
        ("zip:9", "unknown compressor 'zip'"),
        ("identity:1", "'1' is not a field: fields are none"),
        ("topk", "either ratio or k"),
        ("topk:0.1,k=3", "either ratio or k"),
        ("topk:k=0", "k must be an integer >= 1, got 0"),
        ("topk:2", r"got 2\.0; if the count is meant, write topk:k=2$"),
        ("randk:50", r"got 50\.0; if the count is meant, write randk:k=50$"),
        ("signtopk:3", r"got 3\.0; if the count is meant, write signtopk:k=3$"),
        ("countsketch:ratio=9", r"got 9\.0; if the count is meant, write countsketch:columns=9$"),
        ("topk:2.5", r"ratio must be in \(0, 1\], got 2.5$"),
        ("topk:1e300", r"ratio must be in \(0, 1\], got 1e\+300$"),
        ("blocked(topk:3, 10)", r"^compressor 'topk:3': ratio must be in"),
        ("topk:nan", r"ratio must be in \(0, 1\], got nan"),
        ("topk:many", "must be a number, got 'many'"),
        ("topk:k=2.5", "must be an integer, got '2.5'"),
        ("topk:0.1,size=3", "'size=3' is not a field: fields are ratio, k"),
        ("topk:0.1,0.2", "'0.2' is not a field"),
        ("topk:k=1,k=2", "k is given twice"),
        ("randk:0.1,law=fair", "law must be one of uniform, stratified, got 'fair'"),
        ("sign:l3", "scale must be one of l1, l2"),
        ("sign:block=-1", "block must be an integer in"),
        ("sign:block=layer", "must be an integer, got 'layer'"),
        ("qsgd:0", r"levels must be an integer in \[1, 32767\], got 0"),
        ("qsgd:32768", "levels must be"),
        ("qsgd:7,bucket=-1", "bucket must be"),
    ],
)
def test_a_wrong_spec_says_what_is_right(spec, says):
    with pytest.raises(ValueError, match=says):
        make_compressor(spec)


class Half(Identity):
    """A compressor of another package."""

    name = "half"
    codec = 200


class Thief(Identity):
    name = "thief"


@pytest.fixture
def _fresh_registry():
    for cached in (registry._plugins, registry._made):
        cached.cache_clear()
    yield
    for cached in (registry._plugins, registry._made):
        cached.cache_clear()


def _install(monkeypatch, cls):
    point = EntryPoint(name=cls.name, value=f"{__name__}:{cls.__name__}", group=registry.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [point])


@pytest.mark.usefixtures("_fresh_registry")
def test_entry_points_add_compressors(monkeypatch):
    _install(monkeypatch, Half)
    assert "half" in compressor_names()
    packet = make_compressor("half").compress(np.arange(3.0))
    assert packet.compressor == "half"
    assert decompress(packet.data).tolist() == [0, 1, 2]


@pytest.mark.usefixtures("_fresh_registry")
def test_a_codec_number_has_one_owner(monkeypatch, caplog):
    """One line that names the package, and all else works."""
    _install(monkeypatch, Thief)
    assert "thief" not in compressor_names()
    said = "compressor 'thief' of a package cannot be used: codec 1 is 'identity''s"
    assert [said in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(ValueError, match="codec 1 is 'identity''s: choose another number"):
        make_compressor("thief")
    assert decompress(make_compressor("topk:k=1").compress(np.arange(3.0)).data)[2] == 2
