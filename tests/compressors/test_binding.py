"""The shapes of a model's tensors reach the compressors, also those inside others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from flowerpress.compressors import make_compressor
from flowerpress.compressors.composed.chain import Chain
from flowerpress.compressors.composed.entropy import Rans
from flowerpress.compressors.composed.induced import Induced
from flowerpress.compressors.composed.scaled import Scaled
from flowerpress.compressors.feedback import contraction
from flowerpress.compressors.quantized.qsgd import QSGD
from flowerpress.compressors.sparse.topk import TopK

SHAPES = ((2, 3), (), (4,))


@dataclass(frozen=True)
class Bound(TopK):
    """Top-k that remembers what it was bound to."""

    shapes: tuple[tuple[int, ...], ...] = ()
    codec: ClassVar[int] = 127

    def bind_shapes(self, shapes):
        return replace(self, shapes=tuple(shapes))


FREE, BOUND = Bound(k=2), Bound(k=2, shapes=SHAPES)


@pytest.mark.parametrize(
    ("free", "bound"),
    [
        (Chain(FREE, QSGD()), Chain(BOUND, QSGD())),
        (Rans(FREE), Rans(BOUND)),
        (Scaled(FREE), Scaled(BOUND)),
        (Induced(FREE, FREE), Induced(BOUND, BOUND)),
        (Chain(TopK(k=5), FREE), Chain(TopK(k=5), FREE)),  # values after a front are of no tensor
    ],
    ids=["chain", "rans", "scaled", "induced", "second"],
)
def test_what_is_inside_is_bound(free, bound):
    assert free.bind_shapes(SHAPES) == bound


def test_who_knows_sizes_only_is_bound_to_sizes():
    sign = make_compressor("sign:block=tensor")
    assert sign.bind_shapes(SHAPES) == sign.bind((6, 1, 4))
    compressor, scale = contraction("sign:block=tensor", SHAPES)
    assert (compressor, scale) == (sign.bind((6, 1, 4)), 1.0)
    assert contraction("randk:k=1", SHAPES)[1] == pytest.approx(1 / 11)
