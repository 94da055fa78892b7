"""Packing of 1024 codes of one to eight bits, unrolled; `kernels.packing` has the layout.

Written by ``scripts/generate_packing.py``: change it there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import jit

U32 = npt.NDArray[np.uint32]


@jit
def pack_1(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 1 bits."""
    for c in range(32):
        packed[c + 0] = np.uint32(
            codes[c + 0]
            | (codes[c + 32] << np.uint32(1))
            | (codes[c + 64] << np.uint32(2))
            | (codes[c + 96] << np.uint32(3))
            | (codes[c + 128] << np.uint32(4))
            | (codes[c + 160] << np.uint32(5))
            | (codes[c + 192] << np.uint32(6))
            | (codes[c + 224] << np.uint32(7))
            | (codes[c + 256] << np.uint32(8))
            | (codes[c + 288] << np.uint32(9))
            | (codes[c + 320] << np.uint32(10))
            | (codes[c + 352] << np.uint32(11))
            | (codes[c + 384] << np.uint32(12))
            | (codes[c + 416] << np.uint32(13))
            | (codes[c + 448] << np.uint32(14))
            | (codes[c + 480] << np.uint32(15))
            | (codes[c + 512] << np.uint32(16))
            | (codes[c + 544] << np.uint32(17))
            | (codes[c + 576] << np.uint32(18))
            | (codes[c + 608] << np.uint32(19))
            | (codes[c + 640] << np.uint32(20))
            | (codes[c + 672] << np.uint32(21))
            | (codes[c + 704] << np.uint32(22))
            | (codes[c + 736] << np.uint32(23))
            | (codes[c + 768] << np.uint32(24))
            | (codes[c + 800] << np.uint32(25))
            | (codes[c + 832] << np.uint32(26))
            | (codes[c + 864] << np.uint32(27))
            | (codes[c + 896] << np.uint32(28))
            | (codes[c + 928] << np.uint32(29))
            | (codes[c + 960] << np.uint32(30))
            | (codes[c + 992] << np.uint32(31))
        )


@jit
def pack_2(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 2 bits."""
    for group in range(2):
        for lane in range(32):
            c, p = 512 * group + lane, 32 * group + lane
            packed[p + 0] = np.uint32(
                codes[c + 0]
                | (codes[c + 32] << np.uint32(2))
                | (codes[c + 64] << np.uint32(4))
                | (codes[c + 96] << np.uint32(6))
                | (codes[c + 128] << np.uint32(8))
                | (codes[c + 160] << np.uint32(10))
                | (codes[c + 192] << np.uint32(12))
                | (codes[c + 224] << np.uint32(14))
                | (codes[c + 256] << np.uint32(16))
                | (codes[c + 288] << np.uint32(18))
                | (codes[c + 320] << np.uint32(20))
                | (codes[c + 352] << np.uint32(22))
                | (codes[c + 384] << np.uint32(24))
                | (codes[c + 416] << np.uint32(26))
                | (codes[c + 448] << np.uint32(28))
                | (codes[c + 480] << np.uint32(30))
            )


@jit
def pack_3(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 3 bits."""
    for c in range(32):
        packed[c + 0] = np.uint32(
            codes[c + 0]
            | (codes[c + 32] << np.uint32(3))
            | (codes[c + 64] << np.uint32(6))
            | (codes[c + 96] << np.uint32(9))
            | (codes[c + 128] << np.uint32(12))
            | (codes[c + 160] << np.uint32(15))
            | (codes[c + 192] << np.uint32(18))
            | (codes[c + 224] << np.uint32(21))
            | (codes[c + 256] << np.uint32(24))
            | (codes[c + 288] << np.uint32(27))
            | (codes[c + 320] << np.uint32(30))
        )
        packed[c + 32] = np.uint32(
            (codes[c + 320] >> np.uint32(2))
            | (codes[c + 352] << np.uint32(1))
            | (codes[c + 384] << np.uint32(4))
            | (codes[c + 416] << np.uint32(7))
            | (codes[c + 448] << np.uint32(10))
            | (codes[c + 480] << np.uint32(13))
            | (codes[c + 512] << np.uint32(16))
            | (codes[c + 544] << np.uint32(19))
            | (codes[c + 576] << np.uint32(22))
            | (codes[c + 608] << np.uint32(25))
            | (codes[c + 640] << np.uint32(28))
            | (codes[c + 672] << np.uint32(31))
        )
        packed[c + 64] = np.uint32(
            (codes[c + 672] >> np.uint32(1))
            | (codes[c + 704] << np.uint32(2))
            | (codes[c + 736] << np.uint32(5))
            | (codes[c + 768] << np.uint32(8))
            | (codes[c + 800] << np.uint32(11))
            | (codes[c + 832] << np.uint32(14))
            | (codes[c + 864] << np.uint32(17))
            | (codes[c + 896] << np.uint32(20))
            | (codes[c + 928] << np.uint32(23))
            | (codes[c + 960] << np.uint32(26))
            | (codes[c + 992] << np.uint32(29))
        )


@jit
def pack_4(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 4 bits."""
    for group in range(4):
        for lane in range(32):
            c, p = 256 * group + lane, 32 * group + lane
            packed[p + 0] = np.uint32(
                codes[c + 0]
                | (codes[c + 32] << np.uint32(4))
                | (codes[c + 64] << np.uint32(8))
                | (codes[c + 96] << np.uint32(12))
                | (codes[c + 128] << np.uint32(16))
                | (codes[c + 160] << np.uint32(20))
                | (codes[c + 192] << np.uint32(24))
                | (codes[c + 224] << np.uint32(28))
            )


@jit
def pack_5(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 5 bits."""
    for c in range(32):
        packed[c + 0] = np.uint32(
            codes[c + 0]
            | (codes[c + 32] << np.uint32(5))
            | (codes[c + 64] << np.uint32(10))
            | (codes[c + 96] << np.uint32(15))
            | (codes[c + 128] << np.uint32(20))
            | (codes[c + 160] << np.uint32(25))
            | (codes[c + 192] << np.uint32(30))
        )
        packed[c + 32] = np.uint32(
            (codes[c + 192] >> np.uint32(2))
            | (codes[c + 224] << np.uint32(3))
            | (codes[c + 256] << np.uint32(8))
            | (codes[c + 288] << np.uint32(13))
            | (codes[c + 320] << np.uint32(18))
            | (codes[c + 352] << np.uint32(23))
            | (codes[c + 384] << np.uint32(28))
        )
        packed[c + 64] = np.uint32(
            (codes[c + 384] >> np.uint32(4))
            | (codes[c + 416] << np.uint32(1))
            | (codes[c + 448] << np.uint32(6))
            | (codes[c + 480] << np.uint32(11))
            | (codes[c + 512] << np.uint32(16))
            | (codes[c + 544] << np.uint32(21))
            | (codes[c + 576] << np.uint32(26))
            | (codes[c + 608] << np.uint32(31))
        )
        packed[c + 96] = np.uint32(
            (codes[c + 608] >> np.uint32(1))
            | (codes[c + 640] << np.uint32(4))
            | (codes[c + 672] << np.uint32(9))
            | (codes[c + 704] << np.uint32(14))
            | (codes[c + 736] << np.uint32(19))
            | (codes[c + 768] << np.uint32(24))
            | (codes[c + 800] << np.uint32(29))
        )
        packed[c + 128] = np.uint32(
            (codes[c + 800] >> np.uint32(3))
            | (codes[c + 832] << np.uint32(2))
            | (codes[c + 864] << np.uint32(7))
            | (codes[c + 896] << np.uint32(12))
            | (codes[c + 928] << np.uint32(17))
            | (codes[c + 960] << np.uint32(22))
            | (codes[c + 992] << np.uint32(27))
        )


@jit
def pack_6(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 6 bits."""
    for group in range(2):
        for lane in range(32):
            c, p = 512 * group + lane, 96 * group + lane
            packed[p + 0] = np.uint32(
                codes[c + 0]
                | (codes[c + 32] << np.uint32(6))
                | (codes[c + 64] << np.uint32(12))
                | (codes[c + 96] << np.uint32(18))
                | (codes[c + 128] << np.uint32(24))
                | (codes[c + 160] << np.uint32(30))
            )
            packed[p + 32] = np.uint32(
                (codes[c + 160] >> np.uint32(2))
                | (codes[c + 192] << np.uint32(4))
                | (codes[c + 224] << np.uint32(10))
                | (codes[c + 256] << np.uint32(16))
                | (codes[c + 288] << np.uint32(22))
                | (codes[c + 320] << np.uint32(28))
            )
            packed[p + 64] = np.uint32(
                (codes[c + 320] >> np.uint32(4))
                | (codes[c + 352] << np.uint32(2))
                | (codes[c + 384] << np.uint32(8))
                | (codes[c + 416] << np.uint32(14))
                | (codes[c + 448] << np.uint32(20))
                | (codes[c + 480] << np.uint32(26))
            )


@jit
def pack_7(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 7 bits."""
    for c in range(32):
        packed[c + 0] = np.uint32(
            codes[c + 0]
            | (codes[c + 32] << np.uint32(7))
            | (codes[c + 64] << np.uint32(14))
            | (codes[c + 96] << np.uint32(21))
            | (codes[c + 128] << np.uint32(28))
        )
        packed[c + 32] = np.uint32(
            (codes[c + 128] >> np.uint32(4))
            | (codes[c + 160] << np.uint32(3))
            | (codes[c + 192] << np.uint32(10))
            | (codes[c + 224] << np.uint32(17))
            | (codes[c + 256] << np.uint32(24))
            | (codes[c + 288] << np.uint32(31))
        )
        packed[c + 64] = np.uint32(
            (codes[c + 288] >> np.uint32(1))
            | (codes[c + 320] << np.uint32(6))
            | (codes[c + 352] << np.uint32(13))
            | (codes[c + 384] << np.uint32(20))
            | (codes[c + 416] << np.uint32(27))
        )
        packed[c + 96] = np.uint32(
            (codes[c + 416] >> np.uint32(5))
            | (codes[c + 448] << np.uint32(2))
            | (codes[c + 480] << np.uint32(9))
            | (codes[c + 512] << np.uint32(16))
            | (codes[c + 544] << np.uint32(23))
            | (codes[c + 576] << np.uint32(30))
        )
        packed[c + 128] = np.uint32(
            (codes[c + 576] >> np.uint32(2))
            | (codes[c + 608] << np.uint32(5))
            | (codes[c + 640] << np.uint32(12))
            | (codes[c + 672] << np.uint32(19))
            | (codes[c + 704] << np.uint32(26))
        )
        packed[c + 160] = np.uint32(
            (codes[c + 704] >> np.uint32(6))
            | (codes[c + 736] << np.uint32(1))
            | (codes[c + 768] << np.uint32(8))
            | (codes[c + 800] << np.uint32(15))
            | (codes[c + 832] << np.uint32(22))
            | (codes[c + 864] << np.uint32(29))
        )
        packed[c + 192] = np.uint32(
            (codes[c + 864] >> np.uint32(3))
            | (codes[c + 896] << np.uint32(4))
            | (codes[c + 928] << np.uint32(11))
            | (codes[c + 960] << np.uint32(18))
            | (codes[c + 992] << np.uint32(25))
        )


@jit
def pack_8(codes: U32, packed: U32) -> None:
    """Pack 1024 codes of 8 bits."""
    for group in range(8):
        for lane in range(32):
            c, p = 128 * group + lane, 32 * group + lane
            packed[p + 0] = np.uint32(
                codes[c + 0]
                | (codes[c + 32] << np.uint32(8))
                | (codes[c + 64] << np.uint32(16))
                | (codes[c + 96] << np.uint32(24))
            )
