"""Open files: how many this process may have, and how many of them connections may take.

A connection takes a descriptor before anybody has proven who he is, and a process that has none
left can save no checkpoint. So connections get a number of their own, and the rest is kept.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("flowerpress")
STRANGERS = 512  # connections besides two of each client: handshakes, and whoever comes by
_FILES = 64  # for checkpoints, results, libraries, and what a ServerApp opens
_ANSWERS = 2  # temporary files of each client: the answer that comes, and the one that is read
_LEAST = 32  # connections besides one of each client
_SPARE = 128  # connections besides those, where nobody has said how many clients there may be
_MOST = 65_536  # descriptors that are asked for, where nothing limits them


def room_for_connections(clients: int) -> int:
    """Raise this process's limit of open files, and return how many connections may be open.

    Parameters
    ----------
    clients : int
        Clients that may be connected at once.

    Raises
    ------
    ValueError
        So many clients do not fit: says how many open files they take, and what to raise.
    """
    wanted = 2 * clients + STRANGERS
    others = _open_now() + _FILES + _ANSWERS * clients
    allowed = _raised_limit(others + wanted)
    if allowed is None:
        return wanted
    room = min(wanted, allowed - others)
    least = clients + _LEAST
    if room < least:
        raise ValueError(
            f"{clients} clients take {others + least} open files, and this process may have "
            f"{allowed}: raise `ulimit -n` (the hard limit, `ulimit -Hn`, by root or in "
            "/etc/security/limits.conf; of a systemd unit: LimitNOFILE; of a container: --ulimit "
            "nofile), or allow fewer clients (--max-clients)"
        )
    if room < wanted:
        log.info("%d connections at once, of %d open files", room, allowed)
    return room


def clients_that_fit(clients: int) -> int:
    """Return how many clients the limit of open files has good room for, at most so many."""
    others = _open_now() + _FILES + _SPARE
    allowed = _raised_limit(others + (_ANSWERS + 2) * clients + STRANGERS)
    return clients if allowed is None else min(clients, (allowed - others) // (_ANSWERS + 1))


def _raised_limit(needed: int) -> int | None:
    """Raise the soft limit of open files as far as is of use, and return it; None: there is none.

    A little more than is needed does no harm: to the hard one, or `_MOST`.
    """
    try:
        import resource
    except ImportError:  # Windows, where sockets are no files
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(_MOST, needed)
    if hard != resource.RLIM_INFINITY:
        wanted = min(hard, wanted)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a system that allows less than it says
        return soft
    return wanted


def _open_now() -> int:
    """Return how many files are open; a guess where the system does not tell."""
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        if folder.is_dir():
            return sum(1 for _ in folder.iterdir())
    return 64
