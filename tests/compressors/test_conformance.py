"""Every compressor in the table keeps every promise of the conformance kit."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import Compressor, Draw, Packet, Traits, make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.quantized.sign import Sign
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.compressors.testing import conformance as testing
from flowerpress.compressors.testing.hostile import check_hostile
from tests.compressors.composed import COMPOSED
from tests.compressors.table import COMPRESSORS, RANDOM

CHECKS = (
    testing.check_spec,
    testing.check_decoding,
    testing.check_refusals,
    testing.check_extremes,
    testing.check_bits,
    testing.check_parts,
)
LONG_CHECKS = (testing.check_twins, check_hostile)


# The checks that take longest: one spec of each compressor, and a composition of each kind. The
# others are for scripts/nightly.
SOON = {
    *("hadamard", "drive", "eden", "countsketch:ratio=0.3", "scaled(randk:0.2)", "hadamard+sign"),
    *("topk:0.5+qsgd:7+rans", "induced(topk:0.1; randk:0.2)", "qsgd:127,bucket=64+huffman"),
    *{
        spec.partition(":")[0]: spec for spec in reversed(COMPRESSORS) if spec not in COMPOSED
    }.values(),
}
SIMPLE = [
    pytest.param(spec, marks=[] if spec in SOON else pytest.mark.slow) for spec in COMPRESSORS
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("spec", COMPRESSORS)
def test_promise(spec, check):
    check(make_compressor(spec))


@pytest.mark.parametrize("check", LONG_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("spec", SIMPLE)
def test_promise_at_length(spec, check):
    check(make_compressor(spec))


@pytest.mark.parametrize("spec", SIMPLE)
def test_moments(spec):
    testing.check_moments(make_compressor(spec), draws=200)


@pytest.mark.parametrize("spec", SIMPLE)
def test_cohort(spec):
    testing.check_cohort(make_compressor(spec), draws=60)


@pytest.mark.slow
@pytest.mark.parametrize("spec", COMPRESSORS)
def test_moments_of_many_draws(spec):
    testing.check_moments(make_compressor(spec), draws=2_000)
    testing.check_cohort(make_compressor(spec), draws=800)


@pytest.mark.parametrize("field", ["seed", "round", "rank", "stream"])
@pytest.mark.parametrize("spec", RANDOM)
def test_every_field_of_a_draw_matters(spec, field):
    def changed(value: int) -> Draw:
        return Draw(**{"cohort": 3, field: value})

    testing.check_randomness(make_compressor(spec), changed)


class _StatesTooMuch(TopK):
    """Top-k that claims twice its contraction."""

    def traits(self, dim, cohort=1):
        stated = super().traits(dim, cohort)
        return Traits(False, None, min(1.0, 2 * stated.alpha), None, stated.bits)


class _StatesTooFewBits(Sign):
    def traits(self, dim, cohort=1):
        stated = super().traits(dim, cohort)
        return Traits(False, None, stated.alpha, None, stated.bits / 2)


class _Biased(Identity):
    """Claims a mean that it does not have."""

    def encode(self, x, draw):
        return [x * x.dtype.type(0.99)]


class _SharesItsDraw(type(make_compressor("randk:0.5"))):
    """Rand-k whose senders all keep the same places, so averaging gains nothing."""

    def encode(self, x, draw):
        return super().encode(x, Draw(seed=draw.seed))


class _Forgets(Identity):
    """Gives different packets for equal draws."""

    def compress(self, x, draw=Draw()):  # noqa: B008 - as declared
        packet = super().compress(x, draw)
        _Forgets.calls = getattr(_Forgets, "calls", 0) + 1
        x = np.asarray(x) + x.dtype.type(_Forgets.calls)
        return Packet.build(1, x.dtype, packet.dim, [x])


@pytest.mark.parametrize(
    ("compressor", "check", "says"),
    [
        (_StatesTooMuch(ratio=0.1), testing.check_moments, "at most"),
        (_StatesTooFewBits(), testing.check_bits, "are sent"),
        (_Biased(), testing.check_moments, "is right"),
        (_SharesItsDraw(0.5), testing.check_cohort, "at most"),
        (_Forgets(), testing.check_decoding, "differ"),
        (make_compressor("topk:0.5"), lambda c: testing.check_randomness(c, Draw), "equal"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_kit_catches_a_broken_promise(compressor: Compressor, check, says):
    with pytest.raises(AssertionError, match=says):
        check(compressor)
