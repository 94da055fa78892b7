"""Which kernels run: those of the folder `numpy`, `numba` or `torch`."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

from flowerpress.compressors.kernels.device import DeviceVector

VARIABLE = "FLOWERPRESS_KERNELS"
log = logging.getLogger("flowerpress")
# The environment as `os.environ` keeps it: asking that for a variable that is not set takes two
# microseconds, and a packet's way takes a dozen of these.
_ENVIRONMENT: Any = getattr(os.environ, "_data", os.environ)
_NAME = os.environ.encodekey(VARIABLE) if hasattr(os.environ, "_data") else VARIABLE
_FIRST_USE = Lock()  # clients may be threads, and the first of them makes numba ready


def kernels(x: object = None) -> ModuleType:
    """Return the common kernels in use: numba's where numba is installed, else numpy's.

    For a vector `x` that is on a device it is torch's, which has what encoding needs.

    The environment variable ``FLOWERPRESS_KERNELS`` forces ``numpy`` or ``numba``; both give the
    same bytes.

    Raises
    ------
    ValueError
        If the variable has another value.
    ImportError
        If it asks for numba and numba is not installed.
    """
    if isinstance(x, DeviceVector):
        from flowerpress.compressors.kernels.torch import common

        return common
    return _load(_ENVIRONMENT.get(_NAME, ""))


def twin(name: str, x: object = None) -> ModuleType:
    """Return the file `name` from the folder of the kernels in use for `x`; see `kernels`.

    >>> twin("natural").__name__.startswith("flowerpress.compressors.kernels.num")
    True
    """
    return _file(f"{kernels(x).__package__}.{name}")


@cache
def _file(path: str) -> ModuleType:
    return import_module(path)


@cache
def _load(value: str | bytes) -> ModuleType:
    wanted = os.fsdecode(value)
    if wanted not in ("", "numpy", "numba"):
        raise ValueError(f"{VARIABLE} must be numpy or numba, got {wanted!r}")
    installed = find_spec("numba") is not None
    if wanted == "numba" and not installed:
        raise ImportError(f"{VARIABLE}=numba, but numba is missing: pip install numba")
    if wanted == "numpy" or not installed:
        from flowerpress.compressors.kernels.numpy import common

        return common
    with _FIRST_USE:
        return _compiled(wanted == "numba")


def _compiled(wanted: bool) -> ModuleType:
    """Return numba's module; numpy's, and a line that says so, where numba does not work."""
    from flowerpress.compressors.kernels.numpy import common as numpy_kernels

    try:  # imported on first use: numba takes most of a second
        from flowerpress.compressors.kernels.numba import common as numba_kernels
        from flowerpress.compressors.kernels.numba import disk_cache
    except Exception as error:  # numba raises what it likes, for a numpy that it does not know, say
        if wanted:
            raise ImportError(
                f"{VARIABLE}=numba, but numba cannot be imported ({error}): reinstall it"
            ) from error
        _fall_back(f"numba cannot be imported ({error})", "update it")
        return numpy_kernels
    if disk_cache.config.DISABLE_JIT:
        _fall_back("numba compiles nothing (NUMBA_DISABLE_JIT)", "unset that")
        return numpy_kernels
    if numba_kernels.agree():
        return numba_kernels
    what = "compiled kernels do not give the numbers that they should"
    _fall_back(what, "remove their caches (NUMBA_CACHE_DIR), or update numba")
    return numpy_kernels


def _fall_back(why: str, remedy: str) -> None:
    log.warning(
        "%s: numpy's kernels are used, with the same bytes, several times slower; %s, "
        "or set %s=numpy",
        why,
        remedy,
        VARIABLE,
    )
