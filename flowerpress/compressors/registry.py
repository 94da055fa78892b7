"""Compressors by name and by codec number.

Other packages add compressors through the entry-point group ``flowerpress.compressors``; each entry
point's name is the compressor's name and its object the class.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points

from flowerpress.compressors.base import Compressor
from flowerpress.compressors.chain import Chain
from flowerpress.compressors.drive import Drive
from flowerpress.compressors.eden import Eden
from flowerpress.compressors.front import Front
from flowerpress.compressors.hadamard import Hadamard
from flowerpress.compressors.halves import BF16, FP16
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.natural import Natural
from flowerpress.compressors.nesting import MAX_DEPTH
from flowerpress.compressors.packet import PacketError
from flowerpress.compressors.permk import PermK
from flowerpress.compressors.qsgd import QSGD
from flowerpress.compressors.randk import RandK
from flowerpress.compressors.sign import Sign
from flowerpress.compressors.topk import TopK
from flowerpress.compressors.uniform import Uniform

GROUP = "flowerpress.compressors"
_OWN: tuple[type[Compressor], ...] = (
    Identity,
    TopK,
    RandK,
    Sign,
    QSGD,
    FP16,
    BF16,
    Uniform,
    Natural,
    PermK,
    *(Chain, Hadamard, Drive, Eden),
)

# Between stages, and not in a number such as 1e+3: names start with a letter.
_PLUS = re.compile(r"\+(?=\s*[A-Za-z_]|\s*$)")


@cache
def _classes() -> dict[str, type[Compressor]]:
    classes = {cls.name: cls for cls in _OWN}
    for point in entry_points(group=GROUP):
        if point.name not in classes:
            classes[point.name] = point.load()
    owners: dict[int, str] = {}
    for name, cls in classes.items():
        other = owners.setdefault(cls.codec, name)
        if other != name:
            raise ValueError(f"compressors {other!r} and {name!r} both claim codec {cls.codec}")
    return classes


def compressor_names() -> list[str]:
    """Return the names of all compressors, sorted.

    >>> "topk" in compressor_names()
    True
    """
    return sorted(name for name in _classes() if name != Chain.name)


def compressor_class(name: str) -> type[Compressor]:
    """Return the class of that name; ValueError lists the known names."""
    if name not in compressor_names():
        known = ", ".join(compressor_names())
        raise ValueError(f"unknown compressor {name!r}; known are {known}")
    return _classes()[name]


def codec(number: int) -> type[Compressor]:
    """Return the class whose packets carry `number`; `PacketError` if there is none."""
    for cls in _classes().values():
        if cls.codec == number:
            return cls
    known = ", ".join(f"{cls.codec} ({name})" for name, cls in _classes().items())
    raise PacketError(f"frame: codec {number} at byte 5 is not known; known are {known}")


def make_compressor(spec: str | Compressor) -> Compressor:
    """Build a compressor from its spec string ``name[:value][,key=value]...``.

    Stages are written with ``+``, left to right: ``topk:0.01+qsgd:7`` quantizes the kept values.

    Parameters
    ----------
    spec : str or Compressor
        The bare value is the compressor's first field. A compressor is returned as it is.

    Raises
    ------
    ValueError
        If the name or a field is unknown (the message lists the valid ones), or a value is wrong.

    Examples
    --------
    >>> make_compressor("topk:0.01")
    TopK(ratio=0.01, k=None)
    >>> make_compressor("qsgd:levels=3,bucket=64").spec
    'qsgd:3,bucket=64'
    >>> make_compressor("topk:k=3 + sign").spec
    'topk:k=3+sign'
    >>> make_compressor("zip")
    Traceback (most recent call last):
    ...
    ValueError: unknown compressor 'zip'; known are bf16, ...
    """
    if isinstance(spec, Compressor):
        return spec
    stages = _PLUS.split(spec)
    if len(stages) > MAX_DEPTH:
        raise ValueError(f"compressor {spec!r}: {len(stages)} stages, at most {MAX_DEPTH} are read")
    *fronts, compressor = [_stage(stage) for stage in stages]
    for front in reversed(fronts):
        compressor = _chain(front, compressor)
    return compressor


def _stage(spec: str) -> Compressor:
    name, _, rest = spec.partition(":")
    cls = compressor_class(name.strip())
    values: dict[str, object] = {}
    for position, item in enumerate(rest.split(",") if rest.strip() else []):
        key, text = _split(cls, item, position, spec)
        if key in values:
            raise ValueError(f"compressor {spec!r}: {key} is given twice")
        try:
            values[key] = cls.parsers[key](text)
        except ValueError as error:
            raise ValueError(f"compressor {spec!r}: {key}={text!r}: {error}") from error
    return cls(**values)


def _chain(front: Compressor, rest: Compressor) -> Chain:
    if not isinstance(front, Front):
        able = ", ".join(name for name in compressor_names() if issubclass(_classes()[name], Front))
        raise ValueError(f"{front.spec!r} can't stand before '+'; what can: {able}")
    return Chain(front, rest)


def _split(cls: type[Compressor], item: str, position: int, spec: str) -> tuple[str, str]:
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals and position == 0 and cls.parsers:
        return next(iter(cls.parsers)), key
    if not equals or key not in cls.parsers:
        valid = ", ".join(cls.parsers) or "none"
        raise ValueError(f"compressor {spec!r}: {item.strip()!r} is not a field; fields: {valid}")
    return key, text
