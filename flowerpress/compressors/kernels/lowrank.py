"""Low-rank approximations, in one order of operations that every machine follows.

Products of a long matrix and a few vectors are elementwise products and sums folded in halves, not
calls of a BLAS, whose order of sums differs between machines. One form serves both kernel modules:
it is numpy's elementwise operations on pieces that stay in the cache.

Source: Vogels, Karimireddy and Jaggi, "PowerSGD: practical low-rank gradient compression for
distributed optimization", NeurIPS 2019, Algorithm 1 with its subspace iteration; Halko, Martinsson
and Tropp, "Finding structure with randomness", SIAM Review 2011.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.kernels.philox import words

F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

_PIECE = 1 << 14
# A column of which less than this is left, beside those before it, is rounding.
_REST = 2.0**-40
# Sums of squares of what lies within these powers of two neither overflow nor vanish in float64.
_SAFE = 400


def start(key: tuple[int, int], first: int, rank: int, size: int) -> F64:
    """Return `rank` random vectors, shape (rank, size), numbers from `first` on of the stream.

    They are uniform on the odd multiples of 2**-32 in (-1, 1): exact, and equal everywhere.
    """
    block, skipped = divmod(first, 1024)
    count = rank * size
    word = words(key, block, -(-(skipped + count) // 1024)).reshape(-1)[skipped : skipped + count]
    numbers: F64 = (word.astype(np.float64) + 0.5) / 2.0**31 - 1.0
    return numbers.reshape(rank, size)


def factors(matrix: Floats, begin: F64) -> tuple[Floats, Floats]:
    """Return L and R such that ``L.T @ R`` is near `matrix`, after one step of power iteration.

    Parameters
    ----------
    matrix : ndarray of float32 or float64, shape (a, b)
    begin : ndarray of float64, shape (rank, min(a, b))
        Where the iteration begins.

    Returns
    -------
    tuple of ndarray, shapes (rank, a) and (rank, b), of the matrix's dtype
        The rows of one, on the longer side, are orthonormal or zero. Numbers of the other that
        overflow the dtype are infinite.
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    forth, back = (_times, _transposed_times) if tall else (_transposed_times, _times)
    scaled, exponent = _moderate(matrix)
    basis = orthonormal(forth(scaled, begin)).astype(matrix.dtype)
    with np.errstate(over="ignore", under="ignore"):
        other = np.ldexp(back(scaled, basis.astype(np.float64)), exponent).astype(matrix.dtype)
    return (basis, other) if tall else (other, basis)


def orthonormal(vectors: F64) -> F64:
    """Return the rows of `vectors` made orthonormal in order; zeros for what adds no direction.

    Modified Gram-Schmidt, done twice so that nothing of the earlier rows is left.
    """
    basis: F64 = np.zeros_like(vectors)
    for k, vector in enumerate(vectors):
        rest = vector.copy()
        for _ in range(2):
            for each in basis[:k]:
                rest -= _dot(each, rest) * each
        size = math.sqrt(_dot(rest, rest))
        if size > _REST * math.sqrt(_dot(vector, vector)):
            basis[k] = rest / size
    return basis


def _moderate(matrix: Floats) -> tuple[Floats, int]:
    """Return the matrix over a power of two, and its exponent; zero unless numbers are extreme."""
    largest = max(float(matrix.max()), -float(matrix.min()))
    exponent = int(np.frexp(largest)[1])
    if abs(exponent) <= _SAFE:
        return matrix, 0
    with np.errstate(under="ignore"):
        return np.ldexp(matrix.astype(np.float64), -exponent), exponent


def _times(matrix: Floats, vectors: F64) -> F64:
    """Return the matrix times each of the vectors, shape (rank, a)."""
    a, b = matrix.shape
    out = np.zeros((len(vectors), a))
    for top, bottom, left, right in _pieces(a, b):
        block = matrix[top:bottom, left:right].astype(np.float64)
        for total, vector in zip(out, vectors, strict=True):
            terms = block * vector[left:right]
            total[top:bottom] += _folded(terms.T)
    return out


def _transposed_times(matrix: Floats, vectors: F64) -> F64:
    """Return the matrix's transpose times each of the vectors, shape (rank, b)."""
    a, b = matrix.shape
    out = np.zeros((len(vectors), b))
    for top, bottom, left, right in _pieces(a, b):
        block = matrix[top:bottom, left:right].astype(np.float64)
        for total, vector in zip(out, vectors, strict=True):
            total[left:right] += _folded(block * vector[top:bottom, None])
    return out


def _pieces(a: int, b: int) -> list[tuple[int, int, int, int]]:
    """Return pieces of a matrix: from and to which row, from and to which column."""
    width = min(b, _PIECE)
    height = _PIECE // width
    return [
        (top, min(a, top + height), left, min(b, left + width))
        for top in range(0, a, height)
        for left in range(0, b, width)
    ]


def _folded(terms: F64) -> F64:
    """Return the sum over the first axis, whose halves are added until one is left; uses `terms`.

    Of an odd number, the middle one waits.
    """
    size = len(terms)
    while size > 1:
        half = size // 2
        terms[:half] += terms[size - half : size]
        size -= half
    total: F64 = terms[0]
    return total


def _dot(a: F64, b: F64) -> float:
    return float(_folded(a * b))
