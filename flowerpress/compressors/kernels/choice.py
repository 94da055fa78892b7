"""Which kernels run: those of the folder `numpy`, `numba` or `torch`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

from flowerpress.compressors.kernels.device import DeviceVector
from flowerpress.compressors.kernels.switching import (
    Agreement,
    NotCompiledError,
    switched,
    without_waiting,
)

VARIABLE = "FLOWERPRESS_KERNELS"
log = logging.getLogger("flowerpress")
_FOLDERS = __package__
# The environment as `os.environ` keeps it: asking that for a variable that is not set takes two
# microseconds, and a packet's way takes a dozen of these.
_ENVIRONMENT: Any = getattr(os.environ, "_data", os.environ)
_NAME = os.environ.encodekey(VARIABLE) if hasattr(os.environ, "_data") else VARIABLE
_FIRST_USE = Lock()  # clients may be threads, and the first of them makes numba ready


@cache
def kernels() -> ModuleType:
    """Return the common kernels in use: numba's where numba is installed, else numpy's.

    Where numba's are not compiled yet, that is done in the background, and numpy's are used until
    then. The environment variable ``FLOWERPRESS_KERNELS`` forces ``numpy``, or ``numba`` and to
    wait for the compiler; all give the same bytes. It is read once, see `forced_kernels`.

    Raises
    ------
    ValueError
        If the variable has another value.
    ImportError
        If it asks for numba and numba is not installed.
    """
    return twin("common")


def kernels_of(x: object) -> ModuleType:
    """Return `kernels`; of a vector on a device torch's, which have what encoding needs."""
    return twin("common", x) if isinstance(x, DeviceVector) else kernels()


def twin(name: str, x: object = None) -> ModuleType:
    """Return the file `name` from the folder of the kernels in use for `x`; see `kernels`.

    >>> twin("natural").__name__.startswith("flowerpress.compressors.kernels.num")
    True
    """
    if isinstance(x, DeviceVector):
        return import_module(f"{_FOLDERS}.torch.{name}")
    return _file(_ENVIRONMENT.get(_NAME, ""), name)


@contextmanager
def waiting_for_the_compiler() -> Iterator[None]:
    """Use compiled kernels at once inside the block, unless the environment says which to use.

    For measurements. Without numba nothing changes.
    """
    if os.environ.get(VARIABLE) or not installed("numba"):
        yield
        return
    with forced_kernels("numba"):
        yield


@contextmanager
def forced_kernels(name: str) -> Iterator[None]:
    """Use the kernels "numpy" or "numba" inside the block, whatever the environment says."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    kernels.cache_clear()
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
        kernels.cache_clear()


@cache
def _file(wanted: str | bytes, name: str) -> ModuleType:
    found = _load(wanted)
    if isinstance(found, str):
        return import_module(f"{_FOLDERS}.{found}.{name}")
    plain, compiled = (import_module(f"{_FOLDERS}.{each}.{name}") for each in ("numpy", "numba"))
    return switched(plain, compiled, found)


@cache
def _load(value: str | bytes) -> str | Agreement:
    """Return the folder of the kernels in use, or what tells when numba's may be used."""
    wanted = os.fsdecode(value)
    if wanted not in ("", "numpy", "numba"):
        raise ValueError(f"{VARIABLE} must be numpy or numba, got {wanted!r}")
    there = installed("numba")
    if wanted == "numba" and not there:
        raise ImportError(
            f"{VARIABLE}=numba, but numba is missing: pip install 'flowerpress[fast]'"
        )
    if wanted == "numpy" or not there:
        return "numpy"
    with _FIRST_USE:
        return _compiled(wanted == "numba")


def installed(package: str) -> bool:
    """Return whether a package can be found."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # somebody's finder refuses it, or it was half imported
        return False


def _compiled(waits: bool) -> str | Agreement:
    """Return numba's folder, now or later; numpy's, and a line why, where numba does not work."""
    try:  # imported on first use: numba takes most of a second
        from flowerpress.compressors.kernels.numba import common as numba_kernels
        from flowerpress.compressors.kernels.numba import disk_cache
    except Exception as error:  # numba raises what it likes, for a numpy that it does not know, say
        if waits:
            raise ImportError(
                f"{VARIABLE}=numba, but numba cannot be imported ({error}): reinstall it"
            ) from error
        _fall_back(f"numba cannot be imported ({error})", "update it")
        return "numpy"
    if disk_cache.config.DISABLE_JIT:
        _fall_back("numba compiles nothing (NUMBA_DISABLE_JIT)", "unset that")
        return "numpy"
    agreement = Agreement(numba_kernels.agree, _say_wrong)
    if waits:
        return "numba" if agreement.require() else "numpy"
    with suppress(NotCompiledError), without_waiting():
        return agreement if agreement.require() else "numpy"
    return agreement


def _say_wrong() -> None:
    what = "compiled kernels do not give the numbers that they should"
    _fall_back(what, "remove their caches (NUMBA_CACHE_DIR), or update numba")


def _fall_back(why: str, remedy: str) -> None:
    log.warning(
        "%s: numpy's kernels are used, with the same bytes, several times slower; %s, "
        "or set %s=numpy",
        why,
        remedy,
        VARIABLE,
    )
