"""Output that any console can take: none stops half way at a letter that it does not know."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata

_READABLE = "flowerpress-readable"
_ALIKE = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),  # hyphens, dashes, minus
    **dict.fromkeys("\u2018\u2019\u201a\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u2033", '"'),
    **dict.fromkeys("\u2022\u00b7\u22c5", "*"),
    "\u2026": "...",
    "\u00d7": "x",
    "\u00f8": "o",
    "\u00d8": "O",
    "\u0142": "l",
    "\u00df": "ss",
    "\u2190": "<-",
    "\u2192": "->",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2248": "~",
    "\u221e": "inf",
}


def readable_anywhere() -> None:
    """Let this process's output replace what its encoding lacks by what is read alike."""
    codecs.register_error(_READABLE, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_READABLE)


def without_reader() -> None:
    """Let the rest of this process's output go nowhere: who read it has ended."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def plain(text: str) -> str:
    """Return the ASCII text that is read alike.

    Examples
    --------
    >>> plain("Richt\u00e1rik \u2192 2\u00d7")
    'Richtarik -> 2x'
    """
    return "".join(map(_plain, text))


def _plain(letter: str) -> str:
    if letter.isascii():
        return letter
    if letter in _ALIKE:
        return _ALIKE[letter]
    name = unicodedata.name(letter, "")
    if name.startswith("BOX DRAWINGS"):
        return "+" if " AND " in name else "-" if "HORIZONTAL" in name else "|"
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the letters that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end
