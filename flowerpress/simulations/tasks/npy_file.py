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

    They are read, not mapped: of a mapped file every page that was touched counts as resident, and
    a page may be 2 MB. With 32 scattered rows, that was 60 MB.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    stamp: tuple[int, int]

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """Return the rows of a slice without a step, or of indices from 0 on.

        Raises
        ------
        ValueError
            If they hold NaN or infinity, or the file is no longer the one that was opened.
        """
        if _stamp(self.path) != self.stamp:
            raise ValueError(f"{self.path}: was changed while in use; start this client again")
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            places = np.arange(start, stop)
            values = self._read(places[:1], stop - start)
        else:
            places = np.asarray(rows)
            values = self._read(places, 1)
        if self.dtype.kind == "f" and not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            raise ValueError(f"{self.path}: row {places[bad][0]} holds NaN or infinity")
        return values

    def _read(self, starts: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
        """Return `count` rows from each of `starts` on."""
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        data = np.empty((len(starts), count * size), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for part, row in zip(data, starts.tolist(), strict=True):
                file.seek(self.offset + size * row)
                if file.readinto(part.data) != part.nbytes:
                    raise ValueError(f"{self.path}: ends before its {self.shape[0]} rows do")
        return data.view(self.dtype).reshape(-1, *self.shape[1:])


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
