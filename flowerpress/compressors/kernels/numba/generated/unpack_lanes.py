"""Unpacking of 1024 codes of one to eight bits, unrolled; `kernels.packing` has the layout.

Written by ``scripts/generate_packing.py``: change it there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import jit

U32 = npt.NDArray[np.uint32]


@jit
def unpack_1(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 1 bits."""
    for c in range(32):
        mask = np.uint32(1)
        w0 = packed[c + 0]
        codes[c + 0] = np.uint32(w0 & mask)
        codes[c + 32] = np.uint32((w0 >> np.uint32(1)) & mask)
        codes[c + 64] = np.uint32((w0 >> np.uint32(2)) & mask)
        codes[c + 96] = np.uint32((w0 >> np.uint32(3)) & mask)
        codes[c + 128] = np.uint32((w0 >> np.uint32(4)) & mask)
        codes[c + 160] = np.uint32((w0 >> np.uint32(5)) & mask)
        codes[c + 192] = np.uint32((w0 >> np.uint32(6)) & mask)
        codes[c + 224] = np.uint32((w0 >> np.uint32(7)) & mask)
        codes[c + 256] = np.uint32((w0 >> np.uint32(8)) & mask)
        codes[c + 288] = np.uint32((w0 >> np.uint32(9)) & mask)
        codes[c + 320] = np.uint32((w0 >> np.uint32(10)) & mask)
        codes[c + 352] = np.uint32((w0 >> np.uint32(11)) & mask)
        codes[c + 384] = np.uint32((w0 >> np.uint32(12)) & mask)
        codes[c + 416] = np.uint32((w0 >> np.uint32(13)) & mask)
        codes[c + 448] = np.uint32((w0 >> np.uint32(14)) & mask)
        codes[c + 480] = np.uint32((w0 >> np.uint32(15)) & mask)
        codes[c + 512] = np.uint32((w0 >> np.uint32(16)) & mask)
        codes[c + 544] = np.uint32((w0 >> np.uint32(17)) & mask)
        codes[c + 576] = np.uint32((w0 >> np.uint32(18)) & mask)
        codes[c + 608] = np.uint32((w0 >> np.uint32(19)) & mask)
        codes[c + 640] = np.uint32((w0 >> np.uint32(20)) & mask)
        codes[c + 672] = np.uint32((w0 >> np.uint32(21)) & mask)
        codes[c + 704] = np.uint32((w0 >> np.uint32(22)) & mask)
        codes[c + 736] = np.uint32((w0 >> np.uint32(23)) & mask)
        codes[c + 768] = np.uint32((w0 >> np.uint32(24)) & mask)
        codes[c + 800] = np.uint32((w0 >> np.uint32(25)) & mask)
        codes[c + 832] = np.uint32((w0 >> np.uint32(26)) & mask)
        codes[c + 864] = np.uint32((w0 >> np.uint32(27)) & mask)
        codes[c + 896] = np.uint32((w0 >> np.uint32(28)) & mask)
        codes[c + 928] = np.uint32((w0 >> np.uint32(29)) & mask)
        codes[c + 960] = np.uint32((w0 >> np.uint32(30)) & mask)
        codes[c + 992] = np.uint32((w0 >> np.uint32(31)) & mask)


@jit
def unpack_2(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 2 bits."""
    for group in range(2):
        for lane in range(32):
            c, p = 512 * group + lane, 32 * group + lane
            mask = np.uint32(3)
            w0 = packed[p + 0]
            codes[c + 0] = np.uint32(w0 & mask)
            codes[c + 32] = np.uint32((w0 >> np.uint32(2)) & mask)
            codes[c + 64] = np.uint32((w0 >> np.uint32(4)) & mask)
            codes[c + 96] = np.uint32((w0 >> np.uint32(6)) & mask)
            codes[c + 128] = np.uint32((w0 >> np.uint32(8)) & mask)
            codes[c + 160] = np.uint32((w0 >> np.uint32(10)) & mask)
            codes[c + 192] = np.uint32((w0 >> np.uint32(12)) & mask)
            codes[c + 224] = np.uint32((w0 >> np.uint32(14)) & mask)
            codes[c + 256] = np.uint32((w0 >> np.uint32(16)) & mask)
            codes[c + 288] = np.uint32((w0 >> np.uint32(18)) & mask)
            codes[c + 320] = np.uint32((w0 >> np.uint32(20)) & mask)
            codes[c + 352] = np.uint32((w0 >> np.uint32(22)) & mask)
            codes[c + 384] = np.uint32((w0 >> np.uint32(24)) & mask)
            codes[c + 416] = np.uint32((w0 >> np.uint32(26)) & mask)
            codes[c + 448] = np.uint32((w0 >> np.uint32(28)) & mask)
            codes[c + 480] = np.uint32((w0 >> np.uint32(30)) & mask)


@jit
def unpack_3(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 3 bits."""
    for c in range(32):
        mask = np.uint32(7)
        w0 = packed[c + 0]
        w1 = packed[c + 32]
        w2 = packed[c + 64]
        codes[c + 0] = np.uint32(w0 & mask)
        codes[c + 32] = np.uint32((w0 >> np.uint32(3)) & mask)
        codes[c + 64] = np.uint32((w0 >> np.uint32(6)) & mask)
        codes[c + 96] = np.uint32((w0 >> np.uint32(9)) & mask)
        codes[c + 128] = np.uint32((w0 >> np.uint32(12)) & mask)
        codes[c + 160] = np.uint32((w0 >> np.uint32(15)) & mask)
        codes[c + 192] = np.uint32((w0 >> np.uint32(18)) & mask)
        codes[c + 224] = np.uint32((w0 >> np.uint32(21)) & mask)
        codes[c + 256] = np.uint32((w0 >> np.uint32(24)) & mask)
        codes[c + 288] = np.uint32((w0 >> np.uint32(27)) & mask)
        codes[c + 320] = np.uint32(((w0 >> np.uint32(30)) | (w1 << np.uint32(2))) & mask)
        codes[c + 352] = np.uint32((w1 >> np.uint32(1)) & mask)
        codes[c + 384] = np.uint32((w1 >> np.uint32(4)) & mask)
        codes[c + 416] = np.uint32((w1 >> np.uint32(7)) & mask)
        codes[c + 448] = np.uint32((w1 >> np.uint32(10)) & mask)
        codes[c + 480] = np.uint32((w1 >> np.uint32(13)) & mask)
        codes[c + 512] = np.uint32((w1 >> np.uint32(16)) & mask)
        codes[c + 544] = np.uint32((w1 >> np.uint32(19)) & mask)
        codes[c + 576] = np.uint32((w1 >> np.uint32(22)) & mask)
        codes[c + 608] = np.uint32((w1 >> np.uint32(25)) & mask)
        codes[c + 640] = np.uint32((w1 >> np.uint32(28)) & mask)
        codes[c + 672] = np.uint32(((w1 >> np.uint32(31)) | (w2 << np.uint32(1))) & mask)
        codes[c + 704] = np.uint32((w2 >> np.uint32(2)) & mask)
        codes[c + 736] = np.uint32((w2 >> np.uint32(5)) & mask)
        codes[c + 768] = np.uint32((w2 >> np.uint32(8)) & mask)
        codes[c + 800] = np.uint32((w2 >> np.uint32(11)) & mask)
        codes[c + 832] = np.uint32((w2 >> np.uint32(14)) & mask)
        codes[c + 864] = np.uint32((w2 >> np.uint32(17)) & mask)
        codes[c + 896] = np.uint32((w2 >> np.uint32(20)) & mask)
        codes[c + 928] = np.uint32((w2 >> np.uint32(23)) & mask)
        codes[c + 960] = np.uint32((w2 >> np.uint32(26)) & mask)
        codes[c + 992] = np.uint32((w2 >> np.uint32(29)) & mask)


@jit
def unpack_4(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 4 bits."""
    for group in range(4):
        for lane in range(32):
            c, p = 256 * group + lane, 32 * group + lane
            mask = np.uint32(15)
            w0 = packed[p + 0]
            codes[c + 0] = np.uint32(w0 & mask)
            codes[c + 32] = np.uint32((w0 >> np.uint32(4)) & mask)
            codes[c + 64] = np.uint32((w0 >> np.uint32(8)) & mask)
            codes[c + 96] = np.uint32((w0 >> np.uint32(12)) & mask)
            codes[c + 128] = np.uint32((w0 >> np.uint32(16)) & mask)
            codes[c + 160] = np.uint32((w0 >> np.uint32(20)) & mask)
            codes[c + 192] = np.uint32((w0 >> np.uint32(24)) & mask)
            codes[c + 224] = np.uint32((w0 >> np.uint32(28)) & mask)


@jit
def unpack_5(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 5 bits."""
    for c in range(32):
        mask = np.uint32(31)
        w0 = packed[c + 0]
        w1 = packed[c + 32]
        w2 = packed[c + 64]
        w3 = packed[c + 96]
        w4 = packed[c + 128]
        codes[c + 0] = np.uint32(w0 & mask)
        codes[c + 32] = np.uint32((w0 >> np.uint32(5)) & mask)
        codes[c + 64] = np.uint32((w0 >> np.uint32(10)) & mask)
        codes[c + 96] = np.uint32((w0 >> np.uint32(15)) & mask)
        codes[c + 128] = np.uint32((w0 >> np.uint32(20)) & mask)
        codes[c + 160] = np.uint32((w0 >> np.uint32(25)) & mask)
        codes[c + 192] = np.uint32(((w0 >> np.uint32(30)) | (w1 << np.uint32(2))) & mask)
        codes[c + 224] = np.uint32((w1 >> np.uint32(3)) & mask)
        codes[c + 256] = np.uint32((w1 >> np.uint32(8)) & mask)
        codes[c + 288] = np.uint32((w1 >> np.uint32(13)) & mask)
        codes[c + 320] = np.uint32((w1 >> np.uint32(18)) & mask)
        codes[c + 352] = np.uint32((w1 >> np.uint32(23)) & mask)
        codes[c + 384] = np.uint32(((w1 >> np.uint32(28)) | (w2 << np.uint32(4))) & mask)
        codes[c + 416] = np.uint32((w2 >> np.uint32(1)) & mask)
        codes[c + 448] = np.uint32((w2 >> np.uint32(6)) & mask)
        codes[c + 480] = np.uint32((w2 >> np.uint32(11)) & mask)
        codes[c + 512] = np.uint32((w2 >> np.uint32(16)) & mask)
        codes[c + 544] = np.uint32((w2 >> np.uint32(21)) & mask)
        codes[c + 576] = np.uint32((w2 >> np.uint32(26)) & mask)
        codes[c + 608] = np.uint32(((w2 >> np.uint32(31)) | (w3 << np.uint32(1))) & mask)
        codes[c + 640] = np.uint32((w3 >> np.uint32(4)) & mask)
        codes[c + 672] = np.uint32((w3 >> np.uint32(9)) & mask)
        codes[c + 704] = np.uint32((w3 >> np.uint32(14)) & mask)
        codes[c + 736] = np.uint32((w3 >> np.uint32(19)) & mask)
        codes[c + 768] = np.uint32((w3 >> np.uint32(24)) & mask)
        codes[c + 800] = np.uint32(((w3 >> np.uint32(29)) | (w4 << np.uint32(3))) & mask)
        codes[c + 832] = np.uint32((w4 >> np.uint32(2)) & mask)
        codes[c + 864] = np.uint32((w4 >> np.uint32(7)) & mask)
        codes[c + 896] = np.uint32((w4 >> np.uint32(12)) & mask)
        codes[c + 928] = np.uint32((w4 >> np.uint32(17)) & mask)
        codes[c + 960] = np.uint32((w4 >> np.uint32(22)) & mask)
        codes[c + 992] = np.uint32((w4 >> np.uint32(27)) & mask)


@jit
def unpack_6(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 6 bits."""
    for group in range(2):
        for lane in range(32):
            c, p = 512 * group + lane, 96 * group + lane
            mask = np.uint32(63)
            w0 = packed[p + 0]
            w1 = packed[p + 32]
            w2 = packed[p + 64]
            codes[c + 0] = np.uint32(w0 & mask)
            codes[c + 32] = np.uint32((w0 >> np.uint32(6)) & mask)
            codes[c + 64] = np.uint32((w0 >> np.uint32(12)) & mask)
            codes[c + 96] = np.uint32((w0 >> np.uint32(18)) & mask)
            codes[c + 128] = np.uint32((w0 >> np.uint32(24)) & mask)
            codes[c + 160] = np.uint32(((w0 >> np.uint32(30)) | (w1 << np.uint32(2))) & mask)
            codes[c + 192] = np.uint32((w1 >> np.uint32(4)) & mask)
            codes[c + 224] = np.uint32((w1 >> np.uint32(10)) & mask)
            codes[c + 256] = np.uint32((w1 >> np.uint32(16)) & mask)
            codes[c + 288] = np.uint32((w1 >> np.uint32(22)) & mask)
            codes[c + 320] = np.uint32(((w1 >> np.uint32(28)) | (w2 << np.uint32(4))) & mask)
            codes[c + 352] = np.uint32((w2 >> np.uint32(2)) & mask)
            codes[c + 384] = np.uint32((w2 >> np.uint32(8)) & mask)
            codes[c + 416] = np.uint32((w2 >> np.uint32(14)) & mask)
            codes[c + 448] = np.uint32((w2 >> np.uint32(20)) & mask)
            codes[c + 480] = np.uint32((w2 >> np.uint32(26)) & mask)


@jit
def unpack_7(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 7 bits."""
    for c in range(32):
        mask = np.uint32(127)
        w0 = packed[c + 0]
        w1 = packed[c + 32]
        w2 = packed[c + 64]
        w3 = packed[c + 96]
        w4 = packed[c + 128]
        w5 = packed[c + 160]
        w6 = packed[c + 192]
        codes[c + 0] = np.uint32(w0 & mask)
        codes[c + 32] = np.uint32((w0 >> np.uint32(7)) & mask)
        codes[c + 64] = np.uint32((w0 >> np.uint32(14)) & mask)
        codes[c + 96] = np.uint32((w0 >> np.uint32(21)) & mask)
        codes[c + 128] = np.uint32(((w0 >> np.uint32(28)) | (w1 << np.uint32(4))) & mask)
        codes[c + 160] = np.uint32((w1 >> np.uint32(3)) & mask)
        codes[c + 192] = np.uint32((w1 >> np.uint32(10)) & mask)
        codes[c + 224] = np.uint32((w1 >> np.uint32(17)) & mask)
        codes[c + 256] = np.uint32((w1 >> np.uint32(24)) & mask)
        codes[c + 288] = np.uint32(((w1 >> np.uint32(31)) | (w2 << np.uint32(1))) & mask)
        codes[c + 320] = np.uint32((w2 >> np.uint32(6)) & mask)
        codes[c + 352] = np.uint32((w2 >> np.uint32(13)) & mask)
        codes[c + 384] = np.uint32((w2 >> np.uint32(20)) & mask)
        codes[c + 416] = np.uint32(((w2 >> np.uint32(27)) | (w3 << np.uint32(5))) & mask)
        codes[c + 448] = np.uint32((w3 >> np.uint32(2)) & mask)
        codes[c + 480] = np.uint32((w3 >> np.uint32(9)) & mask)
        codes[c + 512] = np.uint32((w3 >> np.uint32(16)) & mask)
        codes[c + 544] = np.uint32((w3 >> np.uint32(23)) & mask)
        codes[c + 576] = np.uint32(((w3 >> np.uint32(30)) | (w4 << np.uint32(2))) & mask)
        codes[c + 608] = np.uint32((w4 >> np.uint32(5)) & mask)
        codes[c + 640] = np.uint32((w4 >> np.uint32(12)) & mask)
        codes[c + 672] = np.uint32((w4 >> np.uint32(19)) & mask)
        codes[c + 704] = np.uint32(((w4 >> np.uint32(26)) | (w5 << np.uint32(6))) & mask)
        codes[c + 736] = np.uint32((w5 >> np.uint32(1)) & mask)
        codes[c + 768] = np.uint32((w5 >> np.uint32(8)) & mask)
        codes[c + 800] = np.uint32((w5 >> np.uint32(15)) & mask)
        codes[c + 832] = np.uint32((w5 >> np.uint32(22)) & mask)
        codes[c + 864] = np.uint32(((w5 >> np.uint32(29)) | (w6 << np.uint32(3))) & mask)
        codes[c + 896] = np.uint32((w6 >> np.uint32(4)) & mask)
        codes[c + 928] = np.uint32((w6 >> np.uint32(11)) & mask)
        codes[c + 960] = np.uint32((w6 >> np.uint32(18)) & mask)
        codes[c + 992] = np.uint32((w6 >> np.uint32(25)) & mask)


@jit
def unpack_8(packed: U32, codes: U32) -> None:
    """Unpack 1024 codes of 8 bits."""
    for group in range(8):
        for lane in range(32):
            c, p = 128 * group + lane, 32 * group + lane
            mask = np.uint32(255)
            w0 = packed[p + 0]
            codes[c + 0] = np.uint32(w0 & mask)
            codes[c + 32] = np.uint32((w0 >> np.uint32(8)) & mask)
            codes[c + 64] = np.uint32((w0 >> np.uint32(16)) & mask)
            codes[c + 96] = np.uint32((w0 >> np.uint32(24)) & mask)
