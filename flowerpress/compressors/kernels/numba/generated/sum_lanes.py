"""Sums over the lanes of 512 coordinates, unrolled, in the order of `kernels.sums`.

Written by ``scripts/generate_packing.py``: change it there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.numba.jit import jit

Floats = npt.NDArray[np.floating[Any]]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@jit
def add_magnitudes(x: Floats, lanes: F64) -> None:
    """Add coordinates w, w + 32, ..., w + 480 to lane w, in order."""
    for w in range(32):
        s = lanes[w]
        s += np.float64(abs(x[w + 0]))
        s += np.float64(abs(x[w + 32]))
        s += np.float64(abs(x[w + 64]))
        s += np.float64(abs(x[w + 96]))
        s += np.float64(abs(x[w + 128]))
        s += np.float64(abs(x[w + 160]))
        s += np.float64(abs(x[w + 192]))
        s += np.float64(abs(x[w + 224]))
        s += np.float64(abs(x[w + 256]))
        s += np.float64(abs(x[w + 288]))
        s += np.float64(abs(x[w + 320]))
        s += np.float64(abs(x[w + 352]))
        s += np.float64(abs(x[w + 384]))
        s += np.float64(abs(x[w + 416]))
        s += np.float64(abs(x[w + 448]))
        s += np.float64(abs(x[w + 480]))
        lanes[w] = s


@jit
def add_squares(x: Floats, lanes: F64) -> None:
    """Add coordinates w, w + 32, ..., w + 480 to lane w, in order."""
    for w in range(32):
        s = lanes[w]
        a = np.float64(x[w + 0])
        s += a * a
        a = np.float64(x[w + 32])
        s += a * a
        a = np.float64(x[w + 64])
        s += a * a
        a = np.float64(x[w + 96])
        s += a * a
        a = np.float64(x[w + 128])
        s += a * a
        a = np.float64(x[w + 160])
        s += a * a
        a = np.float64(x[w + 192])
        s += a * a
        a = np.float64(x[w + 224])
        s += a * a
        a = np.float64(x[w + 256])
        s += a * a
        a = np.float64(x[w + 288])
        s += a * a
        a = np.float64(x[w + 320])
        s += a * a
        a = np.float64(x[w + 352])
        s += a * a
        a = np.float64(x[w + 384])
        s += a * a
        a = np.float64(x[w + 416])
        s += a * a
        a = np.float64(x[w + 448])
        s += a * a
        a = np.float64(x[w + 480])
        s += a * a
        lanes[w] = s


@jit
def add_squares_32(x: Floats, lanes: F32) -> None:
    """Add coordinates w, w + 32, ..., w + 480 to lane w, in order."""
    for w in range(32):
        s = lanes[w]
        s = np.float32(s + np.float32(x[w + 0] * x[w + 0]))
        s = np.float32(s + np.float32(x[w + 32] * x[w + 32]))
        s = np.float32(s + np.float32(x[w + 64] * x[w + 64]))
        s = np.float32(s + np.float32(x[w + 96] * x[w + 96]))
        s = np.float32(s + np.float32(x[w + 128] * x[w + 128]))
        s = np.float32(s + np.float32(x[w + 160] * x[w + 160]))
        s = np.float32(s + np.float32(x[w + 192] * x[w + 192]))
        s = np.float32(s + np.float32(x[w + 224] * x[w + 224]))
        s = np.float32(s + np.float32(x[w + 256] * x[w + 256]))
        s = np.float32(s + np.float32(x[w + 288] * x[w + 288]))
        s = np.float32(s + np.float32(x[w + 320] * x[w + 320]))
        s = np.float32(s + np.float32(x[w + 352] * x[w + 352]))
        s = np.float32(s + np.float32(x[w + 384] * x[w + 384]))
        s = np.float32(s + np.float32(x[w + 416] * x[w + 416]))
        s = np.float32(s + np.float32(x[w + 448] * x[w + 448]))
        s = np.float32(s + np.float32(x[w + 480] * x[w + 480]))
        lanes[w] = s
