"""CRC-32 by folding: the bulk of a message is reduced with vector instructions.

The CRC's polynomial P has degree 32 and 15 terms, and P(x)**1024 = P(x**1024) over the field of two
elements: it has the same terms 1024 times as far apart. A message is taken as rows of 1024 bits. A
row times x**(32 * 1024) is congruent to the sum of that row times x**(1024 e) over the other terms
x**e of P, so a row may be struck out if it is added to 14 of the 32 rows that follow it. What is
left in the last 32 rows has the CRC of the whole.

With carry-less products one row is left: 128 bits at a time, the halves of a row are multiplied by
powers of x that carry them to the next row, modulo P (Gopal et al., "Fast CRC computation for
generic polynomials using PCLMULQDQ instruction", Intel 2009).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.intrinsics import carryless_fold
from flowerpress.compressors.kernels.numba.jit import jit

U32 = npt.NDArray[np.uint32]

WORDS = 32  # of a row
ROWS = 32  # that are left
_BATCH = 96  # rows between two moves of the window: both fit the first-level cache


def _carried(bits: int) -> np.uint64:
    """Return ``x**bits`` modulo P, lowest power in the highest of 33 bits.

    >>> hex(_carried(544)), hex(_carried(480))
    ('0x154442bd4', '0x1c6e41596')
    """
    power = 1
    for _ in range(bits):
        power = power << 1 ^ (_POLYNOMIAL if power >> 31 else 0)
    return np.uint64(int(f"{power:032b}"[::-1], 2) << 1)


_POLYNOMIAL = 0x104C11DB7
# Half a row's 128 bits is carried to the next row; the products come out 32 bits short or long.
_LOW, _HIGH = _carried(1024 + 32), _carried(1024 - 32)


@jit
def fold_carryless(message: U32, state: U32) -> None:
    """Reduce `message`, of whole rows, and the row before it to one row, `state`."""
    carryless_fold(message, state, _LOW, _HIGH)


@jit
def fold(message: U32, register: np.uint32, kept: U32) -> None:
    """Reduce `message`, of whole rows and more than 32 of them, to `kept`, of 32 rows.

    The state of the CRC before it, `register`, is added to the first word.
    """
    # Aligned to cache lines: a vector that straddles two takes twice as long.
    room = np.zeros((ROWS + _BATCH) * WORDS + 16, dtype=np.uint32)
    window = room[16 - room.ctypes.data // 4 % 16 :][: (ROWS + _BATCH) * WORDS]
    window[0] = register  # row -32, which is added to row 0 alone
    struck = message.size // WORDS - ROWS
    for first in range(0, struck, _BATCH):
        count = min(_BATCH, struck - first)
        source = message[first * WORDS : (first + count) * WORDS]
        _add_earlier(source, window)
        for i in range(ROWS * WORDS):
            window[i] = window[count * WORDS + i]
    # The last 32 rows take from the struck rows alone, not from each other: as if those were zero.
    window[ROWS * WORDS :] = np.uint32(0)
    kept[:] = message[struck * WORDS :]
    for row in range(ROWS):
        target = kept[row * WORDS : (row + 1) * WORDS]
        for distance in (6, 9, 10, 16, 20, 21, 22, 24, 25, 27, 28, 30, 31, 32):
            if distance > row:
                at = (ROWS + row - distance) * WORDS
                for i in range(WORDS):
                    target[i] ^= window[at + i]


@jit
def _add_earlier(source: U32, window: U32) -> None:
    """Set rows from 32 on of `window` to those of `source` plus the rows 6, 9, ..., 32 before."""
    for i in range(source.size):
        window[i + 1024] = np.uint32(
            source[i]
            ^ window[i + 832]
            ^ window[i + 736]
            ^ window[i + 704]
            ^ window[i + 512]
            ^ window[i + 384]
            ^ window[i + 352]
            ^ window[i + 320]
            ^ window[i + 256]
            ^ window[i + 224]
            ^ window[i + 160]
            ^ window[i + 128]
            ^ window[i + 64]
            ^ window[i + 32]
            ^ window[i]
        )
