"""A safetensors file in pieces, so that long vectors are written from where they are.

`safetensors.numpy.save` gives the same bytes in one run, as long as all that is in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors.wire.packet import bytes_of

# The kinds of numbers, and the order in which a file has them.
_KINDS = {
    np.dtype(name): code
    for name, code in (
        *(("uint64", "U64"), ("int64", "I64"), ("float64", "F64"), ("float32", "F32")),
        *(("uint32", "U32"), ("int32", "I32"), ("float16", "F16"), ("uint16", "U16")),
        *(("int16", "I16"), ("int8", "I8"), ("uint8", "U8"), ("bool", "BOOL")),
    )
}
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
