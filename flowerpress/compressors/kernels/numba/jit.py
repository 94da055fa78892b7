"""How kernels are compiled, and the random words inside them.

Rules of these modules: constants and intermediates are wrapped in 32-bit types, because numba
widens integers to 64 bits and so halves the vector width; no fast-math, because each sum and
product must round as numpy's does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.disk_cache import KernelCache, config

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile `function` on first call, without the GIL, cached on disk where that is possible."""
    # error_model: division by zero is IEEE's, not an exception that would keep loops scalar.
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    if not config.DISABLE_JIT:
        compiled._cache = KernelCache(function)
    return cast(Function, compiled)


@jit
def block_keys(k0: np.uint32, k1: np.uint32, block: int) -> tuple[np.uint32, np.uint32]:
    """Return the first two words of Philox4x32-10 of the counter (block, 0, 0, 0)."""
    c0, c1, c2, c3 = np.uint32(block), np.uint32(0), np.uint32(0), np.uint32(0)
    half = np.uint64(32)
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * np.uint64(c0)
        p1 = np.uint64(0xCD9E8D57) * np.uint64(c2)
        c0 = np.uint32(np.uint32(p1 >> half) ^ c1 ^ k0)
        c2 = np.uint32(np.uint32(p0 >> half) ^ c3 ^ k1)
        c1, c3 = np.uint32(p1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
    return c0, c1


@jit
def mix(index: np.uint32, k0: np.uint32, k1: np.uint32) -> np.uint32:
    """Return one pseudo-random word."""
    return first_word(state(np.uint32(index * np.uint32(0x9E3779B9)), k0, k1))


# The products that `mix` starts with, of all places of a block: a loop over places would multiply
# in 64 bits, at a third of the speed, since its counter has 64.
WEYL = np.arange(1024, dtype=np.uint32) * np.uint32(0x9E3779B9)


@jit
def state(weyl: np.uint32, k0: np.uint32, k1: np.uint32) -> np.uint32:
    """Return what `first_word` and `second_word` make a word of; see `philox.mix_pair`."""
    x = np.uint32(weyl + k0)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(17))) * np.uint32(0xED5AD4BB))
    return np.uint32(np.uint32(np.uint32(x ^ (x >> np.uint32(11))) + k1) * np.uint32(0xAC4C1B51))


@jit
def first_word(x: np.uint32) -> np.uint32:
    """Return the word of a state, the one that `mix` returns."""
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x31848BAB))
    return np.uint32(x ^ (x >> np.uint32(14)))


@jit
def second_word(x: np.uint32) -> np.uint32:
    """Return another word of a state."""
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(13))) * np.uint32(0x7FEB352D))
    return np.uint32(x ^ (x >> np.uint32(16)))


@jit
def empty_words(count: int) -> npt.NDArray[np.uint32]:
    """Return a kernel's own 32-bit words, from the start of a cache line.

    A vector that straddles two lines takes twice as long to read or write: correlated rounding, of
    four such buffers, does so for most of its time.
    """
    room = np.empty(count + 16, dtype=np.uint32)
    skipped = -(room.ctypes.data // 4) % 16
    return room[skipped : skipped + count]
