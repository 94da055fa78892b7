"""Which compressors suit an algorithm: the values of its options `compressor` and `downlink`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from flowerpress.compressors import make_compressor
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.contraction import contraction
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.compressors.quantized.ranges import SHARED
from flowerpress.protocol.rules import NO_FEEDBACK
from flowerpress.server.options import Values, one_of, option, text

# Whether a compressor has a class depends on the dimension where stages are chained: these are of a
# small model and of one of ordinary size. The model's own is looked at when it is there.
_SOME_DIMS = (2**10, 2**20)


def normalised(spec: str) -> str:
    """Return a compressor's spec as it says it itself; `ValueError` where there is none."""
    return make_compressor(spec).spec


def require_contraction(spec: str) -> str:
    """Return `spec`, normalised; raise `ValueError` if error feedback cannot use the compressor."""
    made = make_compressor(spec)
    wrong = {dim: why for dim in _SOME_DIMS if (why := _why_none(spec, ((dim,),)))}
    if len(wrong) == len(_SOME_DIMS):  # whatever the model's size is
        raise ValueError(f"compressor {spec!r}: {wrong[_SOME_DIMS[0]]}")
    for dim, why in wrong.items():
        raise ValueError(f"compressor {spec!r} for a model of, say, {dim} numbers: {why}")
    return made.spec


def check_contraction(spec: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `ValueError` if error feedback cannot use the compressor for such tensors."""
    make_compressor(spec)
    if why := _why_none(spec, shapes):
        dim = sum(math.prod(shape) for shape in shapes)
        raise ValueError(f"compressor {spec!r} for a model of {dim} numbers: {why}")


def _why_none(spec: str, shapes: Sequence[tuple[int, ...]]) -> str:
    """Return why error feedback cannot use the compressor for such tensors; empty: it can."""
    try:
        contraction(spec, shapes)
    except ValueError as error:
        return str(error)
    return ""


@lru_cache
def correlated(spec: str) -> tuple[CQ, ...]:
    """Return the correlated quantizers that a compressor is made of."""
    parts = nesting.parts(make_compressor(spec)) if spec else ()
    return tuple(part for part in parts if isinstance(part, CQ) and part.correlates)


def correlates(spec: str) -> bool:
    """Return whether the workers of a round quantize against each other."""
    return bool(correlated(spec))


@lru_cache
def shares_range(spec: str) -> bool:
    """Return whether they do so over one range, by the norm of the round before."""
    return any(part.range == SHARED for part in correlated(spec))


def _unbiased(spec: object) -> bool:
    """Whether a compressor is unbiased, with known variance: in any dimension, if in one."""
    if not isinstance(spec, str):
        return False
    traits = make_compressor(spec).traits(_SOME_DIMS[0])
    return traits.unbiased and traits.omega is not None


CONTRACTIVE = "Contractive, or unbiased with known variance (then scaled by 1/(1 + omega))."
"""What an algorithm with error feedback says of its compressor."""
_SPEC = "a string that names a compressor"
ANY_COMPRESSOR = text(normalised, _SPEC)
CONTRACTION = text(require_contraction, _SPEC)
CONTRACTION_OR_DENSE = text(lambda spec: require_contraction(spec) if spec else "", _SPEC)
CONTRACTION_OF_STEPS = Values(
    lambda spec: isinstance(spec, str) and spec != "",
    "a compressor: steps are sent, not models (identity: uncompressed)",
    require_contraction,
)
UNBIASED = Values(
    _unbiased, "unbiased, with known variance: randk, qsgd, natural; or use ef21", normalised
)
OF_GRADIENTS = Values(
    lambda spec: isinstance(spec, str) and "randsign" not in spec,
    "a compressor of gradients (randsign is for birder alone)",
    normalised,
)
FEEDBACK = option(
    "ef",
    one_of("ef", NO_FEEDBACK),
    "ef: what a compressor drops is owed and sent later; none, for comparison: it is gone, both "
    "ways, and so is a lost packet. With none an unbiased compressor is not scaled.",
    sent="changed",
)
"""The option of an algorithm that its paper compares with itself without error feedback."""
OWES_NOTHING = "none: what is sent dense leaves nothing to owe"
