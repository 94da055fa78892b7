"""Which compressors error feedback can use, and the weight that makes the others so."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flowerpress.compressors.base import Compressor, Traits
from flowerpress.compressors.spec.registry import make_compressor


def contraction_scale(traits: Traits) -> float:
    """Return the weight that makes a compressor contractive: 1, or 1/(1+omega) if unbiased.

    If C is in U(omega) then C/(1+omega) is in B(1/(1+omega)): expand E|C(x)/(1+omega) - x|^2
    (Beznosikov et al. 2020, arXiv:2002.12410).

    Raises
    ------
    ValueError
        The compressor is neither contractive nor unbiased with a known variance.

    Examples
    --------
    >>> contraction_scale(Traits(unbiased=True, omega=3.0, alpha=None, ab=None, bits=8.0))
    0.25
    """
    if traits.alpha is not None:
        return 1.0
    if traits.unbiased and traits.omega is not None:
        return 1.0 / (1.0 + traits.omega)
    raise ValueError(
        "error feedback needs a contractive compressor, or an unbiased one with known variance; "
        "this one is neither (sign with scale=l2 enlarges a one-hot vector's error, a quantizer a "
        "long block's): use sign:scale=l1, topk, randk, qsgd, topk:0.01+qsgd:7,bucket=16"
    )


def contraction(spec: str, shapes: Sequence[tuple[int, ...]]) -> tuple[Compressor, float]:
    """Return the compressor `spec` for tensors of these shapes, and its `contraction_scale`."""
    compressor = make_compressor(spec).bind_shapes(shapes)
    dim = sum(math.prod(shape) for shape in shapes)
    return compressor, contraction_scale(compressor.traits(dim))
