"""Safetensors files whose long vectors are written from where they are, and read to where they go.

`safetensors.numpy.save` gives the same bytes in one run, as long as all that is in them, and
`safetensors.safe_open` maps a file beside the copies that it returns.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from io import BufferedReader
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.wire.packet import bytes_of
from flowerpress.protocol.rooms import room_for

# The kinds of numbers, and the order in which a file has them.
_KINDS = {
    np.dtype(name): code
    for name, code in (
        *(("uint64", "U64"), ("int64", "I64"), ("float64", "F64"), ("float32", "F32")),
        *(("uint32", "U32"), ("int32", "I32"), ("float16", "F16"), ("uint16", "U16")),
        *(("int16", "I16"), ("int8", "I8"), ("uint8", "U8"), ("bool", "BOOL")),
    )
}
_OF_CODE = {code: kind for kind, code in _KINDS.items()}
_RANKS = {kind: rank for rank, kind in enumerate(_KINDS)}
_ALIGNED = 8  # bytes


def pieces_of(
    arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Return the file of some arrays: a head, and views of the arrays, which must not change.

    Examples
    --------
    >>> from safetensors.numpy import save
    >>> arrays = {"a": np.zeros(3, np.uint8), "b": np.ones(2)}
    >>> b"".join(pieces_of(arrays, {"numbers": "1"})) == save(arrays, metadata={"numbers": "1"})
    True
    """
    names = sorted(arrays, key=lambda name: (_RANKS[arrays[name].dtype], name))
    found = [np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape) for name in names]
    head: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in zip(names, found, strict=True):
        start, end = end, end + array.nbytes
        kind = _KINDS[array.dtype]
        head[name] = {"dtype": kind, "shape": [*array.shape], "data_offsets": [start, end]}
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    views = [bytes_of(array.reshape(-1)) for array in found if array.size]
    return [len(text).to_bytes(8, "little") + text, *views]


def read(file: BufferedReader) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Return the arrays of a file that is open, the caller's own, and its metadata.

    Raises
    ------
    ValueError, LookupError, TypeError, AttributeError
        It is no such file; every length is checked before memory is taken.
    OSError
        It cannot be read.
    """
    size = os.fstat(file.fileno()).st_size  # of this one, whatever has its name by now
    length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    head = json.loads(file.read(length))
    metadata = head.pop("__metadata__", {})
    arrays, at = dict[str, npt.NDArray[Any]](), 0
    for name, entry in sorted(head.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        kind, shape = _OF_CODE[entry["dtype"]], tuple(entry["shape"])
        if not all(type(n) is int and n >= 0 for n in (start, end, *shape)):
            raise ValueError(f"{name!r} is {entry}: no array")
        nbytes = math.prod(shape) * kind.itemsize
        if start != at or end - start != nbytes or end > size - length - 8:
            raise ValueError(f"{name!r} of {nbytes} bytes is at {start} to {end}, after {at}")
        array = room_for(math.prod(shape), kind)
        if file.readinto(array.view(np.uint8).data) != nbytes:
            raise ValueError(f"{name!r} ends before its end")
        arrays[name], at = array.reshape(shape), end
    if at != size - length - 8:
        raise ValueError(f"arrays of {at} bytes, {size - length - 8} are there")
    return arrays, metadata
