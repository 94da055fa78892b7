"""A compressor applied several times, each time to what it has lost so far, as one packet."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from flowerpress.compressors.base import Compressor
from flowerpress.compressors.composed import nesting
from flowerpress.compressors.composed.induced import Induced
from flowerpress.compressors.composed.scaled import Scaled
from flowerpress.compressors.wire import budget


def repeated(compressor: Compressor, times: int, dim: int) -> Compressor:
    """Return what sends C(x) + C(x - C(x)) + ..., `times` times.

    Each time takes off a share of what is left, if C is a contraction; an unbiased C is scaled into
    one first. Fewer times where packets would go too deep, or cost more than a receiver pays.

    Parameters
    ----------
    compressor : Compressor
        C: contractive, or unbiased with known variance.
    times : int
        At least 1.
    dim : int
        Length of the vectors.

    Examples
    --------
    >>> from flowerpress.compressors import make_compressor
    >>> repeated(make_compressor("topk:k=1"), 3, 10).spec
    'induced(topk:k=1; induced(topk:k=1; topk:k=1))'
    >>> round(repeated(make_compressor("randk:k=1"), 2, 10).traits(10).alpha, 6)
    0.19
    """
    if times > 1 and compressor.traits(dim).alpha is None:
        compressor = Scaled(compressor)
    total = compressor
    for _ in range(min(times, nesting.MAX_DEPTH - nesting.depth(compressor) + 1) - 1):
        if nesting.frames(compressor) + nesting.frames(total) >= budget.MOST_FRAMES:
            break
        longer = Induced(compressor, total)
        if not _is_read(longer, dim):
            break
        total = longer
    return total


@lru_cache(maxsize=256)
def _is_read(compressor: Compressor, dim: int) -> bool:
    """Return whether a receiver decodes what `compressor` makes of some vector."""
    x = np.random.default_rng(0).standard_normal(dim, dtype=np.float32)
    try:
        compressor.compress(x)
    except ValueError:
        return False
    return True
