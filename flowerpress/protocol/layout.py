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
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.protocol.arrays import LaterArray, all_finite, view_of
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.rooms import room_for

FloatVector = npt.NDArray[np.floating[Any]]
MAX_ARRAYS = 10_000
FLOATS = ("float16", "float32", "float64")
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
DTYPES = (*FLOATS, "complex64", "complex128", "bool", *INTEGERS)
Kept: TypeAlias = Mapping[str, int | str]
"""What a client has of a model and never sends: see `flowerpress.clients.Task.kept_names`."""


@dataclass(frozen=True)
class Entry:
    """One array of a model: name, shape, dtype, and whether it is trained."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trained: bool = True

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)  # exact, unlike numpy's, whatever a peer says it is

    @property
    def nbytes(self) -> int:
        """Bytes of the array in its own dtype."""
        return self.size * np.dtype(self.dtype).itemsize


def _entry(row: Any) -> Entry:
    """Read one array of a layout's JSON."""
    match row:
        case [str(name), list(shape), str(dtype), bool(trained)]:
            sizes = [n for n in shape if type(n) is int and 0 <= n < 2**32]
            allowed = FLOATS if trained else DTYPES
            if sizes == shape and len(shape) <= 32 and dtype in allowed:
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
            A name in `buffers` is no array; an array that is trained is not of a float dtype, or a
            buffer of none that can travel.
        """
        untrained = set(buffers)
        if unknown := untrained - set(arrays):
            raise ValueError(f"buffers {sorted(unknown)} are not among the arrays {list(arrays)}")
        for name, array in arrays.items():
            if name in untrained and array.dtype not in DTYPES:
                raise ValueError(f"buffer {name!r} of dtype {array.dtype} cannot travel")
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
        entries = tuple(map(_entry, rows))
        if len({entry.name for entry in entries}) != len(entries):
            raise ProtocolError("layout names an array twice")
        return cls(entries)

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
    def buffers(self) -> tuple[Entry, ...]:
        """The arrays that are not trained, in order."""
        return tuple(entry for entry in self.entries if not entry.trained)

    @cached_property
    def buffer_dim(self) -> int:
        """Number of buffer elements."""
        return sum(entry.size for entry in self.buffers)

    def flatten(self, arrays: ArrayRecord) -> tuple[FloatVector, dict[str, npt.NDArray[Any]]]:
        """Return the vector and the buffers of `arrays`, which are found by name.

        Their order is free, and what the layout does not name is left out: `match` refuses it.

        Raises
        ------
        ValueError
            An array is missing, or has another shape or dtype.
        """
        self._require(arrays)
        vector, start = room_for(self.dim, self.dtype), 0
        for entry in self.entries:
            if entry.trained:  # one after the other: a copy of all would take as much once more
                vector[start : start + entry.size] = view_of(arrays[entry.name]).reshape(-1)
                start += entry.size
        return vector, {e.name: np.array(arrays[e.name].numpy(), order="C") for e in self.buffers}

    def unflatten(
        self, vector: FloatVector, buffers: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> ArrayRecord:
        """Return the arrays of a vector and its buffers (zero if not given), in this order."""
        arrays, start = ArrayRecord(), 0
        for entry in self.entries:
            if entry.trained:
                part = vector[start : start + entry.size].reshape(entry.shape)
                value = np.asarray(part).astype(entry.dtype)
                start += entry.size
            else:
                value = np.zeros(entry.shape, entry.dtype)
                if buffers is not None:
                    value = buffers[entry.name]
            arrays[entry.name] = Array(value)
        return arrays

    def unflatten_later(
        self, vector: FloatVector, buffers: Mapping[str, npt.NDArray[Any]]
    ) -> ArrayRecord:
        """Return what `unflatten` does, of which each array is made when it is asked for.

        `vector` and `buffers` must not change while somebody holds the record.
        """
        arrays, start = ArrayRecord(), 0
        for entry in self.entries:
            if entry.trained:
                part = vector[start : start + entry.size].reshape(entry.shape)
                arrays[entry.name] = LaterArray(part, entry.dtype)
                start += entry.size
            else:
                arrays[entry.name] = Array(buffers[entry.name])
        return arrays

    @cached_property
    def exact(self) -> bool:
        """Whether the vector holds every trained number as it is, in whatever dtype it came."""
        return all(np.can_cast(e.dtype, self.dtype, "safe") for e in self.entries if e.trained)

    def match(self, arrays: ArrayRecord, kept: Kept) -> None:
        """Check that `arrays` are a model of this layout, in any order.

        They may also name what clients have and never send, as a ``state_dict`` does.

        Parameters
        ----------
        kept : mapping
            That, by name: a CRC-32 of a frozen array's values, or the name under which a tied one
            travels.

        Raises
        ------
        ValueError
            A name is missing or not known; or a shape, a dtype, or a frozen or tied array's values
            differ: says which and what to do.
        """
        self._require(arrays)
        extra = [str(name) for name in arrays if name not in self._names]
        unknown = [name for name in extra if name not in kept]
        if unknown:
            raise ValueError(
                f"the arrays name {_listed(unknown)}, which the clients' model does not have: "
                "leave out what it lacks, or check the spelling"
            )
        for name in extra:
            here, there = arrays[name].numpy(), kept[name]
            if isinstance(there, int):
                if values_crc(here) != there:
                    raise ValueError(other_values(name))
            elif there not in self._names or not _same(here, arrays[there].numpy()):
                raise ValueError(
                    f"{name!r} and {there!r} are one array on a client, but not the same here: tie "
                    f"them here too, or leave {name!r} out"
                )

    def check_finite(self, arrays: ArrayRecord) -> None:
        """Raise `ValueError` naming the first trained array that holds NaN or infinity."""
        for entry in self.entries:
            if not entry.trained:
                continue
            values = view_of(arrays[entry.name])
            if not all_finite(values.reshape(-1)):
                place = np.argwhere(~np.isfinite(values))[0].tolist()
                raise ValueError(
                    f"{entry.name!r} is trained, but not finite at {place}: give it another value, "
                    "or make a buffer of it"
                )

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.entries)

    def _require(self, arrays: ArrayRecord) -> None:
        missing = [entry.name for entry in self.entries if entry.name not in arrays]
        if missing:
            raise ValueError(
                f"the arrays lack {_listed(missing)} of the clients' model: give all that it "
                "trains, and its buffers (ArrayRecord(model.state_dict()) has them)"
            )
        for entry in self.entries:
            array = arrays[entry.name]
            if (tuple(array.shape), array.dtype) != (entry.shape, entry.dtype):
                raise ValueError(
                    f"array {entry.name!r} is {array.dtype} {tuple(array.shape)}, in the clients' "
                    f"model {entry.dtype} {entry.shape}"
                )

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


def other_values(name: str) -> str:
    """Say that a client's own values of an array are not those of `initial_arrays`."""
    return (
        f"{name!r} never travels, and a client has other values of it: give all clients those of "
        "the server, or leave it out on the server and let each client keep its own"
    )


def values_crc(array: npt.NDArray[Any]) -> int:
    """Return the CRC-32 of an array's elements, little-endian, in C order."""
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return crc32(data.reshape(-1).view(np.uint8).data)


def _same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _listed(names: list[str]) -> str:
    """Return the first few names as they are read in a sentence.

    >>> _listed(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + rest
