"""The table of codecs: which class reads the packets of a number. Classes put themselves in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flowerpress.compressors.wire.packet import PacketError

_classes: dict[int, type[Any]] = {}
_others: list[Callable[[], Iterable[type[Any]]]] = []


def register(*classes: type[Any]) -> None:
    """Let packets of these classes be read.

    Raises
    ------
    ValueError
        Another class reads packets of one of these numbers.
    """
    for cls in classes:
        if _classes.setdefault(cls.codec, cls) is not cls:
            other = _classes[cls.codec].name
            raise ValueError(f"codec {cls.codec} is {other!r}'s: choose another number")


def ask_for_more(load: Callable[[], Iterable[type[Any]]]) -> None:
    """Let `load`, which returns classes, be called when a number is met that none here has."""
    _others.append(load)


def codec(number: int) -> type[Any]:
    """Return the class whose packets carry `number`; `PacketError` if there is none."""
    if number not in _classes:
        for load in _others:
            register(*load())
    if number not in _classes:
        known = ", ".join(f"{each} ({cls.name})" for each, cls in _classes.items())
        raise PacketError(f"frame: codec {number} at byte 5 is not known; known are {known}")
    return _classes[number]
