"""Where long vectors live: in memory, or in files that the system may write back.

A model whose vectors do not fit in memory fits on a disk. Where the environment variable
``FLOWERPRESS_VECTORS`` names a folder, vectors of 64 MiB and more are mapped files in it: they are
used as any others, and the system writes their pages back where memory is short. The files have no
name, so nothing is left of them once the process ends, however it ends. They are no place where
anything is kept: that is `flowerpress.worker.stores`.
"""

from __future__ import annotations

import mmap
import os
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.vectors import AnyVector, is_tensor

VARIABLE = "FLOWERPRESS_VECTORS"
LARGE = 2**26  # bytes


def room_for(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a vector that is to be filled; its pages are taken as they are written.

    Parameters
    ----------
    size : int
        How many numbers.
    dtype : dtype

    Raises
    ------
    MemoryError
        There is no room for it, in memory or in the folder: found before anything is written.
    """
    kind = np.dtype(dtype)
    if in_file(size * kind.itemsize):
        return np.frombuffer(_mapped(os.environ[VARIABLE], size * kind.itemsize), kind)
    return np.empty(size, kind)


def room_like(vector: AnyVector) -> AnyVector:
    """Return `room_for` a vector like another one; of a tensor, on its device."""
    if is_tensor(vector):
        return vector.new_empty(len(vector))
    return room_for(vector.size, vector.dtype)


def zeros(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a vector of zeros; raises as `room_for` does."""
    kind = np.dtype(dtype)
    if in_file(size * kind.itemsize):
        return room_for(size, kind)  # zeros are what a new file holds
    return np.zeros(size, kind)


def zeros_like(vector: AnyVector) -> AnyVector:
    """Return `zeros` like another vector; of a tensor, on its device."""
    if is_tensor(vector):
        return vector.new_zeros(len(vector))
    return zeros(vector.size, vector.dtype)


def in_file(nbytes: int) -> bool:
    """Whether a vector of so many bytes is to be in a file."""
    return nbytes >= LARGE and bool(os.environ.get(VARIABLE))


def _mapped(folder: str, nbytes: int) -> mmap.mmap:
    try:
        with TemporaryFile(dir=folder) as file:
            # All of it now: a page that the disk has no room for would end the process later.
            os.posix_fallocate(file.fileno(), 0, nbytes)
            return mmap.mmap(file.fileno(), nbytes)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(
            f"no room for a vector of {nbytes / 1e6:.0f} MB in {folder} ({VARIABLE}): {error}"
        ) from None
