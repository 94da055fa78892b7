"""A kernel and the types that it is compiled for, as a line of text.

One process asks another by such lines to compile. Nothing in them is evaluated: types are built
from names in a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

from numba import types

_PACKAGE = "flowerpress.compressors.kernels.numba."
_SCALARS: dict[str, Any] = {
    str(each): each
    for each in (
        *(types.boolean, types.float32, types.float64),
        *(types.int8, types.int16, types.int32, types.int64),
        *(types.uint8, types.uint16, types.uint32, types.uint64),
    )
}


def to_line(function: Callable[..., Any], signature: tuple[Any, ...]) -> str | None:
    """Return the line for a kernel and the types of its arguments; None where there is none.

    >>> from flowerpress.compressors.kernels.numba.jit import mix
    >>> to_line(mix.py_func, (types.uint32, types.uint32, types.uint32))
    '["jit", "mix", ["uint32", "uint32", "uint32"]]'
    """
    module = function.__module__.removeprefix(_PACKAGE)
    known = [_description(each) for each in signature]
    if module == function.__module__ or "." in function.__qualname__ or None in known:
        return None
    return json.dumps([module, function.__qualname__, known])


def from_line(line: str) -> tuple[Any, tuple[Any, ...]]:
    """Return the compiled function's dispatcher and the types of a line."""
    module, name, described = json.loads(line)
    return getattr(import_module(_PACKAGE + module), name), tuple(map(_type, described))


def _description(found: Any) -> Any:
    if _SCALARS.get(str(found)) == found:
        return str(found)
    if type(found) is types.Array and str(found.dtype) in _SCALARS:
        layout = [found.ndim, found.layout, not found.mutable, found.aligned]
        return [str(found.dtype), *layout]
    return None


def _type(described: Any) -> Any:
    if isinstance(described, str):
        return _SCALARS[described]
    dtype, ndim, layout, readonly, aligned = described
    return types.Array(_SCALARS[dtype], ndim, layout, readonly=readonly, aligned=aligned)
