"""Ends connections that the other side keeps open: gRPC on a loop has no way to.

A call there ends when the other side has taken its status, or hangs up. Who takes nothing would
keep it, with its connection and an open file, for as long as he likes. So the connection itself is
shut down, which gRPC sees as the other side's doing, and clears up after.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Set
from pathlib import Path
from urllib.parse import unquote

_FOLDERS = (Path("/proc/self/fd"), Path("/dev/fd"))  # of Linux, and of other Unix systems
_INTERNET = (socket.AF_INET, socket.AF_INET6)
Place = tuple[str, int]


def place_of(peer: str) -> Place | None:
    """Return address and port of a peer as gRPC names it; None where it names none.

    Examples
    --------
    >>> place_of("ipv4:127.0.0.1:9400"), place_of("ipv6:%5B::ffff:10.0.0.1%5D:9400")
    (('127.0.0.1', 9400), ('10.0.0.1', 9400))
    """
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    with contextlib.suppress(ValueError):
        return _place(host.strip("[]"), int(port))
    return None


def _place(host: str, port: int) -> Place:
    """Return a place in one spelling; raises `ValueError` for what is no address."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), port


def shut_down(places: Set[Place], port: int) -> int:
    """Shut down this process's connections from these places to its own port; returns how many.

    None on Windows, where open files cannot be listed.
    """
    folder = next((each for each in _FOLDERS if each.is_dir()), None)
    if folder is None:
        return 0
    numbers = [int(name) for name in os.listdir(folder)]  # noqa: PTH208  (numbers, not paths)
    return sum(_shut_one(number, places, port) for number in numbers)


def _shut_one(number: int, places: Set[Place], port: int) -> bool:
    """Shut an open file down if it is one of these connections.

    A copy of it is looked at: the number may be another file's at any time.
    """
    try:
        copy = os.dup(number)
    except OSError:  # it was closed by now
        return False
    try:
        link = socket.socket(fileno=copy)
    except OSError:  # it is no socket
        os.close(copy)
        return False
    with link, contextlib.suppress(OSError, ValueError):  # it is connected to nothing
        if link.family in _INTERNET and link.getsockname()[1] == port:
            found = _place(*link.getpeername()[:2]) in places
            if found:
                link.shutdown(socket.SHUT_RDWR)
            return found
    return False
