"""Arithmetic by default rules, whatever the process has set.

Some libraries (those compiled with ``-ffast-math``) and ``torch.set_flush_denormal(True)`` tell the
processor to take numbers below the smallest normal one for zero, which saves time in training.
Scales and codes of tiny vectors would then differ from those of a process that does not. So
packets are written and read with the processor's default rules, which hold for one thread, and the
thread's own rules are restored afterwards. Likewise ``numpy.seterr(all="raise")`` does not reach in
here: what overflows is looked for, and told as what it is.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

# From its bits: a literal is read by arithmetic, which may flush it.
(_SMALLEST,) = struct.unpack("<d", b"\1" + bytes(7))
_LEAST_NORMAL = sys.float_info.min
_ENVIRONMENT_BYTES = 256  # more than any platform's fenv_t


def flushed() -> bool:
    """Return whether this thread takes subnormal numbers, or results that are such, for zero."""
    return _SMALLEST == 0.0 or _LEAST_NORMAL * 0.5 == 0.0


class _Environment:
    """C's functions for a thread's rules of arithmetic, ``fegetenv`` and ``fesetenv``."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)  # with the C library's mathematics, which Python is linked to
        self._get, self._set = library.fegetenv, library.fesetenv
        for function in (self._get, self._set):
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
        self._default = ctypes.c_void_p(-1)  # FE_DFL_ENV of glibc and musl
        if sys.platform == "darwin":
            held = (ctypes.c_char * _ENVIRONMENT_BYTES).in_dll(library, "_FE_DFL_ENV")
            self._default = ctypes.cast(held, ctypes.c_void_p)

    def default(self) -> Any:
        """Set the default rules; return the rules that held."""
        before = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
        self._get(before)
        self._set(self._default)
        return before

    def restore(self, before: Any) -> None:
        """Set what `default` returned."""
        self._set(before)


@cache
def _environment() -> _Environment | None:
    """Return the functions; None on a platform that has them elsewhere, or not at all."""
    try:
        return _Environment()
    except (OSError, AttributeError, TypeError, ValueError):
        return None


@contextmanager
def kept_subnormals() -> Iterator[None]:
    """Compute with subnormal numbers in this thread, inside the block.

    Where the platform has no such switch (Windows), they stay flushed.
    """
    environment = _environment() if flushed() else None
    if environment is None:
        yield
        return
    before = environment.default()
    try:
        yield
    finally:
        environment.restore(before)


def by_default_rules(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it keeps subnormal numbers and raises none of numpy's warnings.

    It takes about a microsecond a call.
    """

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            if _SMALLEST != 0.0 and _LEAST_NORMAL * 0.5 != 0.0:  # not flushed(), without its call
                return function(*args, **kwargs)
            with kept_subnormals():
                return function(*args, **kwargs)

    return inside
