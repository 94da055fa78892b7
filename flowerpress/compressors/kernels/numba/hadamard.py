"""Randomised Hadamard transforms in blocks: the compiled half; see `kernels.numpy.hadamard`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.intrinsics import butterflies
from flowerpress.compressors.kernels.numba.jit import WEYL, block_keys, first_word, jit, state
from flowerpress.compressors.kernels.scratch import scratch

Floats = npt.NDArray[np.floating[Any]]

_FIRST, _LAST = np.uint32(31), np.uint32(30)


def rotate(x: Floats, size: int, key: tuple[int, int]) -> Floats:
    """Return the transform of `x`; blocks of `size`, a power of two of at most ``x.size``."""
    out = scratch.empty(x.nbytes).view(x.dtype)
    scale = x.dtype.type(size**-0.5)
    _rotate(x, size, np.uint32(key[0]), np.uint32(key[1]), scale, out)
    return out


def unrotate(y: Floats, size: int, key: tuple[int, int]) -> Floats:
    """Return the vector whose transform is `y`, up to rounding."""
    out = np.empty(y.nbytes, dtype=np.uint8).view(y.dtype)
    scale = y.dtype.type(size**-0.5)
    _unrotate(y, size, np.uint32(key[0]), np.uint32(key[1]), scale, out)
    return out


@jit
def _flip(
    x: Floats, first: int, k0: np.uint32, k1: np.uint32, bit: np.uint32, scale: Any, out: Floats
) -> None:
    """Write `x`, which starts at coordinate `first`, times `scale` with random signs to `out`."""
    at = 0
    while at < x.size:
        place = (first + at) % 1024
        count = min(1024 - place, x.size - at)
        b0, b1 = block_keys(k0, k1, (first + at) // 1024)
        source, target = x[at : at + count], out[at : at + count]
        weyl = WEYL[place : place + count]
        for i in range(count):
            word = first_word(state(weyl[i], b0, b1))
            negative = np.uint32(np.uint32(word >> bit) & np.uint32(1))
            target[i] = source[i] * (-scale if negative else scale)
        at += count


@jit
def _flip_in_place(
    x: Floats, first: int, k0: np.uint32, k1: np.uint32, bit: np.uint32, scale: Any
) -> None:
    """Multiply `x`: one array instead of two that overlap, which would not be vectorized."""
    at = 0
    while at < x.size:
        place = (first + at) % 1024
        count = min(1024 - place, x.size - at)
        b0, b1 = block_keys(k0, k1, (first + at) // 1024)
        piece, weyl = x[at : at + count], WEYL[place : place + count]
        for i in range(count):
            word = first_word(state(weyl[i], b0, b1))
            negative = np.uint32(np.uint32(word >> bit) & np.uint32(1))
            piece[i] = piece[i] * (-scale if negative else scale)
        at += count


@jit
def _eight(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Do three distances at once: a third of the traffic, the same roundings."""
    a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
    a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
    return a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h


@jit
def _first_distances(x: Floats) -> None:
    for at in range(0, x.size, 16):
        butterflies(x, at)


# One function for each distance: with constant strides the compiler knows that the eight places
# differ, and does eight or sixteen butterflies with one instruction.


@jit
def _distances_16_32_64(x: Floats) -> None:
    for at in range(0, x.size, 128):
        v = x[at : at + 128]
        for i in range(16):
            v[i], v[i + 16], v[i + 32], v[i + 48], v[i + 64], v[i + 80], v[i + 96], v[i + 112] = (
                _eight(
                    v[i],
                    v[i + 16],
                    v[i + 32],
                    v[i + 48],
                    v[i + 64],
                    v[i + 80],
                    v[i + 96],
                    v[i + 112],
                )
            )


@jit
def _distances_128_256_512(x: Floats) -> None:
    for at in range(0, x.size, 1024):
        u, v = x[at : at + 512], x[at + 512 : at + 1024]
        for i in range(128):
            u[i], u[i + 128], u[i + 256], u[i + 384], v[i], v[i + 128], v[i + 256], v[i + 384] = (
                _eight(
                    u[i],
                    u[i + 128],
                    u[i + 256],
                    u[i + 384],
                    v[i],
                    v[i + 128],
                    v[i + 256],
                    v[i + 384],
                )
            )


@jit
def _distances_1024_2048_4096(x: Floats) -> None:
    for at in range(0, x.size, 8192):
        u, v = x[at : at + 4096], x[at + 4096 : at + 8192]
        for i in range(1024):
            (
                u[i],
                u[i + 1024],
                u[i + 2048],
                u[i + 3072],
                v[i],
                v[i + 1024],
                v[i + 2048],
                v[i + 3072],
            ) = _eight(
                u[i],
                u[i + 1024],
                u[i + 2048],
                u[i + 3072],
                v[i],
                v[i + 1024],
                v[i + 2048],
                v[i + 3072],
            )


@jit
def _distance(x: Floats, distance: int) -> None:
    for at in range(0, x.size, 2 * distance):
        low, high = x[at : at + distance], x[at + distance : at + 2 * distance]
        for i in range(distance):
            a, b = low[i], high[i]
            low[i], high[i] = a + b, a - b


@jit
def _transform(x: Floats) -> None:
    """Do all butterflies of one block, from the shortest distance to the longest."""
    distance = 1
    if x.size >= 16:
        _first_distances(x)
        distance = 16
    if x.size >= 128:
        _distances_16_32_64(x)
        distance = 128
    if x.size >= 1024:
        _distances_128_256_512(x)
        distance = 1024
    if x.size >= 8192:
        _distances_1024_2048_4096(x)
        distance = 8192
    while distance < x.size:
        _distance(x, distance)
        distance *= 2


@jit
def _rotate(x: Floats, size: int, k0: np.uint32, k1: np.uint32, scale: Any, out: Floats) -> None:
    for at in range(0, x.size - size + 1, size):
        block = out[at : at + size]
        _flip(x[at : at + size], at, k0, k1, _FIRST, scale, block)
        _transform(block)
    whole = x.size // size * size
    if whole < x.size:
        out[whole:] = x[whole:]
        block = out[x.size - size :]
        _flip_in_place(block, x.size - size, k0, k1, _LAST, scale)
        _transform(block)


@jit
def _times(x: Floats, scale: Any, out: Floats) -> None:
    for i in range(x.size):
        out[i] = x[i] * scale


@jit
def _times_in_place(x: Floats, scale: Any) -> None:
    for i in range(x.size):
        x[i] = x[i] * scale


@jit
def _unrotate(y: Floats, size: int, k0: np.uint32, k1: np.uint32, scale: Any, out: Floats) -> None:
    one = scale / scale
    last = y.size  # from here on the last block has been turned back already
    if y.size % size:
        last = y.size - size
        block = out[last:]
        _times(y[last:], scale, block)
        _transform(block)
        _flip_in_place(block, last, k0, k1, _LAST, one)
    for at in range(0, y.size - size + 1, size):
        block = out[at : at + size]
        before = max(0, min(size, last - at))
        _times(y[at : at + before], scale, block[:before])
        _times_in_place(block[before:], scale)
        _transform(block)
        _flip_in_place(block, at, k0, k1, _FIRST, one)
