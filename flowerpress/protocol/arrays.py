"""Flower's `Array` for large models: bytes that lie in pieces, or are made when asked for.

A server's model goes to many workers, and to whoever evaluates it, as it is in memory: a copy of it
is made by whoever needs one, and where nobody does there is none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array

from flowerpress.compressors.vectors import blocks
from flowerpress.compressors.wire.packet import Buffer, bytes_of

_NUMPY = "numpy.ndarray"  # Flower's serialization type of arrays in the format of np.save
ALIGNED = 8  # bytes: what any float is aligned to


def all_finite(vector: npt.NDArray[Any]) -> bool:
    """Whether a vector holds neither NaN nor infinity, found without an array as long as it."""
    for part in blocks(vector.size):  # noqa: SIM110 - most are one part: not worth a generator
        if not np.isfinite(vector[part]).all():
            return False
    return True


class Pieces:
    """Bytes that lie in several places, such as a packet's head and the vector it frames.

    Parameters
    ----------
    pieces : iterable of buffers
        In order; the first has at least what is asked for by a slice.

    Examples
    --------
    >>> pieces = Pieces([b"abc", b"de"])
    >>> len(pieces), bytes(pieces), pieces[:2]
    (5, b'abcde', b'ab')
    """

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self.pieces: Sequence[memoryview] = list(map(bytes_of, pieces))

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    def __getitem__(self, part: slice) -> bytes:
        return bytes(self.pieces[0][part])


class _OwnData(Array):
    """An `Array` that has its data by a property; to Flower's serialization it is an `Array`."""

    __qualname__ = "Array"
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str) -> None:
        self.dtype, self.shape, self.stype = dtype, shape, stype

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        mine, its = ((each.dtype, each.shape, each.stype) for each in (self, other))
        return mine == its and self.data == other.data

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)

    def __deepcopy__(self, memo: object) -> Array:
        return Array(self.dtype, self.shape, self.stype, self.data)


class PiecedArray(_OwnData):
    """An `Array` whose data lie in several places, and are joined where they are asked for.

    Parameters
    ----------
    pieces : Pieces
    stype : str
        Its serialization type.

    Attributes
    ----------
    nbytes : int
        Bytes of the data.

    Examples
    --------
    >>> PiecedArray(Pieces([b"abc", b"de"]), "text").data
    b'abcde'
    """

    __qualname__ = "Array"

    def __init__(self, pieces: Pieces, stype: str) -> None:
        nbytes = len(pieces)
        super().__init__("uint8", (nbytes,), stype)
        self.pieces, self.nbytes = pieces, nbytes
        self._joined: bytes | None = None

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes; joined once, and kept."""
        if self._joined is None:
            self._joined = bytes(self.pieces)
        return self._joined


class LaterArray(_OwnData):
    """An `Array` that is serialized when its data are asked for, and each time anew.

    Parameters
    ----------
    values : ndarray
        It must not change while somebody holds the `Array`.
    dtype : str
        Of the array; that of `values` may be wider.

    Examples
    --------
    >>> later = LaterArray(np.array([1.0, 2.0]), "float32")
    >>> later == Array(np.array([1.0, 2.0], np.float32)), later.numpy()
    (True, array([1., 2.], dtype=float32))
    """

    __qualname__ = "Array"

    def __init__(self, values: npt.NDArray[Any], dtype: str) -> None:
        super().__init__(dtype, values.shape, _NUMPY)
        self._values = values

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes, in the format of `numpy.save`."""
        values = np.ascontiguousarray(self._values, self.dtype).reshape(self.shape)
        head = io.BytesIO()  # np.save writes the whole to a file that grows, which copies it twice
        facts = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(head, facts)
        return b"".join([head.getvalue(), values.data.cast("B") if values.size else b""])

    def numpy(self) -> npt.NDArray[Any]:
        """Return a copy of the values."""
        return self._values.astype(self.dtype)


def view_of(array: Array) -> npt.NDArray[Any]:
    """Return the values of one of Flower's arrays, read-only: where it can be, no copy of them."""
    if isinstance(array, LaterArray) or array.stype != _NUMPY:
        return array.numpy()
    file = io.BytesIO(array.data)
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        return array.numpy()
    shape, fortran, dtype = readers[version](file)
    if fortran or dtype.hasobject:
        return array.numpy()
    count = math.prod(shape)
    return np.frombuffer(array.data, dtype, count, file.tell()).reshape(shape)


def misplaced(data: memoryview, start: int = 0) -> int:
    """Return how many bytes after a place for any float ``data[start]`` lies."""
    return (np.frombuffer(data, np.uint8).ctypes.data + start) % ALIGNED if len(data) else 0


def aligned(view: memoryview) -> bytes | memoryview:
    """Return a view of bytes that begins where any float may lie, or else a copy that does."""
    return bytes(view) if misplaced(view) else view
