"""The layout: names, shapes and order of a model's arrays, and the way to one vector and back.

Two sides that meet compare the digest of their layouts before anything else: a vector has no names,
so a model with swapped layers would train silently and wrongly.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.protocol.blob import ProtocolError

FloatVector = npt.NDArray[np.floating[Any]]
MAX_ARRAYS = 10_000
FLOATS = ("float16", "float32", "float64", "bfloat16")
DTYPES = (*FLOATS, "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


@dataclass(frozen=True)
class Entry:
    """One array of a model: name, shape, dtype, and whether it is trained."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trained: bool = True

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)  # exact, unlike numpy's, whatever a peer says it is


def _entry(row: Any) -> Entry:
    """Read one array of a layout's JSON."""
    match row:
        case [str(name), list(shape), str(dtype), bool(trained)]:
            sizes = [n for n in shape if type(n) is int and 0 <= n < 2**32]
            if sizes == shape and len(shape) <= 32 and dtype in DTYPES:
                return Entry(name, tuple(sizes), dtype, trained)
    raise ProtocolError(f"layout entry is {row!r:.80}, expected [name, shape, dtype, trained]")


@dataclass(frozen=True)
class Layout:
    """Order, names, shapes and dtypes of a model's arrays.

    The trained arrays, flattened in C order and joined in order, are the vector; the others (batch
    norm statistics, counters) are the buffers, which travel beside it uncompressed.
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, arrays: ArrayRecord, buffers: Iterable[str] = ()) -> Layout:
        """Return the layout of `arrays`; the names in `buffers` are not trained.

        Raises
        ------
        ValueError
            A name in `buffers` is no array, or an array that is trained is not of a float dtype.
        """
        untrained = set(buffers)
        if unknown := untrained - set(arrays):
            raise ValueError(f"buffers {sorted(unknown)} are not among the arrays {list(arrays)}")
        for name, array in arrays.items():
            if name not in untrained and array.dtype not in FLOATS:
                raise ValueError(
                    f"array {name!r} of dtype {array.dtype} cannot be trained: "
                    "give its name in the task's buffer_names()"
                )
        return cls(
            tuple(
                Entry(str(name), tuple(array.shape), str(array.dtype), name not in untrained)
                for name, array in arrays.items()
            )
        )

    @classmethod
    def from_json(cls, rows: Any) -> Layout:
        """Read what `to_json` wrote; raises `ProtocolError` where it is anything else."""
        if not isinstance(rows, list) or len(rows) > MAX_ARRAYS:
            raise ProtocolError(f"layout must list at most {MAX_ARRAYS} arrays")
        return cls(tuple(map(_entry, rows)))

    def to_json(self) -> list[list[Any]]:
        """Return the layout as JSON: [[name, shape, dtype, trained], ...]."""
        return [[e.name, list(e.shape), e.dtype, e.trained] for e in self.entries]

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that tell layouts apart."""
        text = json.dumps(self.to_json(), separators=(",", ":")).encode()
        return hashlib.sha256(text).hexdigest()[:16]

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each trained array, in order; what `Compressor.bind_shapes` takes."""
        return tuple(entry.shape for entry in self.entries if entry.trained)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each trained array, in order."""
        return tuple(entry.size for entry in self.entries if entry.trained)

    @cached_property
    def dim(self) -> int:
        """Length d of the vector."""
        return sum(self.sizes)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The vector's dtype: float64 if every trained array is, else float32."""
        trained = [entry.dtype for entry in self.entries if entry.trained]
        if trained and all(dtype == "float64" for dtype in trained):
            return np.dtype(np.float64)
        return np.dtype(np.float32)

    @cached_property
    def buffer_dim(self) -> int:
        """Number of buffer elements."""
        return sum(entry.size for entry in self.entries if not entry.trained)

    def flatten(self, arrays: ArrayRecord) -> tuple[FloatVector, FloatVector]:
        """Return (vector, buffers) of `arrays`, both 1-D of this layout's dtype.

        Raises
        ------
        ValueError
            `arrays` have another layout: says the first difference.
        """
        self.check(Layout.of(arrays, [e.name for e in self.entries if not e.trained]))
        values = {str(name): array.numpy() for name, array in arrays.items()}
        return self._join(values, trained=True), self._join(values, trained=False)

    def _join(self, values: Mapping[str, npt.NDArray[Any]], *, trained: bool) -> FloatVector:
        parts = [values[e.name].reshape(-1) for e in self.entries if e.trained == trained]
        joined = np.empty(sum(part.size for part in parts), dtype=self.dtype)
        if parts:
            np.concatenate(parts, out=joined, casting="unsafe")
        return joined

    def join_buffers(self, values: Mapping[str, npt.NDArray[Any]]) -> FloatVector:
        """Return the buffers `values` (by name) as one vector of this layout's dtype."""
        return self._join(values, trained=False)

    def split_buffers(self, buffers: FloatVector) -> dict[str, npt.NDArray[Any]]:
        """Return the buffers by name, in their shapes and dtypes (whole numbers are rounded)."""
        return self._split(buffers, trained=False)

    def _split(self, joined: FloatVector, *, trained: bool) -> dict[str, npt.NDArray[Any]]:
        values: dict[str, npt.NDArray[Any]] = {}
        start = 0
        for entry in (e for e in self.entries if e.trained == trained):
            part = joined[start : start + entry.size].reshape(entry.shape)
            if np.issubdtype(np.dtype(entry.dtype), np.integer):
                part = np.rint(part)
            values[entry.name] = np.asarray(part).astype(entry.dtype)  # rint of () gives a scalar
            start += entry.size
        return values

    def unflatten(self, vector: FloatVector, buffers: FloatVector | None = None) -> ArrayRecord:
        """Return the arrays of a vector and its buffers, in this layout's order."""
        empty = np.zeros(self.buffer_dim, dtype=self.dtype)
        values = self._split(vector, trained=True)
        values |= self._split(empty if buffers is None else buffers, trained=False)
        return ArrayRecord({entry.name: Array(values[entry.name]) for entry in self.entries})

    def check(self, other: Layout) -> None:
        """Raise `ValueError` naming the first difference unless `other` is the same layout."""
        if other == self:
            return
        if len(self.entries) != len(other.entries):
            counts = f"{len(self.entries)} arrays against {len(other.entries)}"
            raise ValueError(f"layouts differ: {counts}")
        for entry, its in zip(self.entries, other.entries, strict=True):
            if entry != its:
                raise ValueError(
                    f"layouts differ at array {entry.name!r}: {entry} against {its!r:.200}"
                )
