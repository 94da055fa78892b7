"""Examples in .npy files, read from the disk as they are asked for, so that they need no memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 2**16  # labels checked at a time


@dataclass(frozen=True)
class NpyRows:
    """The rows of an array in a file; `rows[indices]` is an array of the file's dtype.

    The file is mapped for the time of one reading. A mapping that is kept would hold ever more of
    the file's pages in memory.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    stamp: tuple[int, int]

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """Return a copy of the rows of a slice or of indices.

        Raises
        ------
        ValueError
            If they hold NaN or infinity, or the file is no longer the one that was opened.
        """
        if _stamp(self.path) != self.stamp:
            raise ValueError(f"{self.path}: was changed while in use; start this client again")
        file = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        values = np.array(file[rows], subok=False)
        if self.dtype.kind == "f" and not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            row = np.arange(self.shape[0])[rows][bad][0]
            raise ValueError(f"{self.path}: row {row} holds NaN or infinity")
        return values


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def open_rows(path: Path) -> NpyRows:
    """Open an array of real numbers; axes after the first are joined to one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such array; says why.
    """
    try:
        stamp = _stamp(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}: write it with numpy.save") from None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not readable as one array of numpy.save: {error}") from error
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path}: not readable as one array of numpy.save")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: holds {array.dtype}, but must hold real numbers")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{path}: holds no example (shape {array.shape})")
    if not array.flags.c_contiguous:
        raise ValueError(f"{path}: in Fortran order; save numpy.ascontiguousarray(...) of it")
    shape = (array.shape[0], *([math.prod(array.shape[1:])] if array.ndim > 1 else []))
    return NpyRows(path, shape, array.dtype, array.offset, stamp)


def open_examples(folder: Path, suffix: str = "") -> tuple[NpyRows, NpyRows]:
    """Open `x{suffix}.npy` and `y{suffix}.npy`: inputs, one example a row, and class numbers.

    Raises
    ------
    FileNotFoundError
        If one of the files is not there.
    ValueError
        If they are not arrays of one length, and so on; says what is wrong, and in which file.
    """
    inputs, targets = (open_rows(folder / f"{name}{suffix}.npy") for name in "xy")
    if len(inputs.shape) != 2:
        raise ValueError(f"{inputs.path}: has one axis; must have an example a row")
    if len(targets.shape) != 1:
        raise ValueError(f"{targets.path}: has shape {targets.shape}; must have one axis")
    if inputs.shape[0] != targets.shape[0]:
        raise ValueError(
            f"{targets.path}: holds {targets.shape[0]} labels of {inputs.shape[0]} examples"
        )
    return inputs, targets


def count_classes(targets: NpyRows) -> int:
    """Return one more than the largest class number, having checked all of them.

    Raises
    ------
    ValueError
        If a label is no whole number from 0 on; says in which row.
    """
    largest = 0
    for start in range(0, targets.shape[0], _CHUNK):
        labels = targets[start : start + _CHUNK]
        wrong = (labels < 0) | (labels != np.trunc(labels)) | (labels >= 2**31)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"{targets.path}: row {start + row} holds {labels[row]}; classes are 0, 1, 2, ..."
            )
        largest = max(largest, int(labels.max()))
    return largest + 1
