"""Numpy's kernels for as long as numba's are not compiled, and then numba's.

A process that waited for the compiler would wait for seconds, at first for nearly a minute in all.
Both kernels give the same bytes and the same sums, so when one takes the place of the other
changes nothing but the time. Each call has at most one kernel that writes into its caller's arrays,
and that is its last: a call that finds a kernel missing has changed nothing, and numpy's begins
from where it began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

Kernel = Callable[..., Any]

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0  # seconds until a kernel that was missing is looked for again


class NotCompiledError(Exception):
    """The kernel is not on disk yet, and another process was asked for it."""


_thread = threading.local()


def waits() -> bool:
    """Return whether this thread, when it needs a kernel, waits until it is compiled."""
    return not getattr(_thread, "hurries", False)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Raise `NotCompiledError` inside the block where a kernel is not on disk."""
    _thread.hurries = True
    try:
        yield
    finally:
        _thread.hurries = False


class Agreement:
    """Whether compiled kernels give the numbers that they should; not known until they are there.

    Parameters
    ----------
    check : callable
        Returns whether they do; may raise `NotCompiledError`.
    disagree : callable
        Called once if they do not.
    """

    def __init__(self, check: Callable[[], bool], disagree: Callable[[], None]) -> None:
        self.reached: bool | None = None
        self._check, self._disagree = check, disagree

    def require(self) -> bool:
        """Return whether compiled kernels may be used; `NotCompiledError` if that is not known."""
        if self.reached is None:
            self.reached = agree = self._check()
            if not agree:
                self._disagree()
        return self.reached


def switched(plain: ModuleType, compiled: ModuleType, agreement: Agreement) -> ModuleType:
    """Return a module of a file's kernels: each is compiled's where that is there, else plain's."""
    found = ModuleType(compiled.__name__, compiled.__doc__)
    for name, kernel in vars(compiled).items():
        own = isinstance(kernel, FunctionType) and kernel.__module__ == compiled.__name__
        if own and not name.startswith("_") and name in vars(plain):
            setattr(found, name, _switch(getattr(plain, name), kernel, agreement))
    return found


def _switch(plain: Kernel, compiled: Kernel, agreement: Agreement) -> Kernel:
    look_again = wait = 0.0

    def kernel(*arguments: Any) -> Any:
        nonlocal look_again, wait
        if look_again and time.monotonic() < look_again:
            return plain(*arguments)
        _thread.hurries = True  # not `without_waiting`: a call is short
        try:
            if agreement.reached or agreement.require():
                result = compiled(*arguments)
                if look_again:
                    look_again = wait = 0.0
                return result
            look_again = float("inf")
        except NotCompiledError:
            wait = min(2 * wait or _FIRST_WAIT, _LONGEST_WAIT)
            look_again = time.monotonic() + wait
        finally:
            _thread.hurries = False
        return plain(*arguments)

    kernel.__name__, kernel.__doc__ = compiled.__name__, compiled.__doc__
    return kernel
