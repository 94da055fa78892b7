"""Compressors by name and by codec number.

Other packages add compressors through the entry-point group ``flowerpress.compressors``; each entry
point's name is the compressor's name and its object the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

from flowerpress.compressors.base import Compressor
from flowerpress.compressors.composed.blocked import Blocked
from flowerpress.compressors.composed.chain import Chain
from flowerpress.compressors.composed.entropy import Entropy, Rans
from flowerpress.compressors.composed.huffman import Huffman
from flowerpress.compressors.composed.induced import Induced
from flowerpress.compressors.composed.scaled import Scaled
from flowerpress.compressors.front import Front
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.linear.countsketch import CountSketch
from flowerpress.compressors.linear.powersgd import PowerSGD
from flowerpress.compressors.quantized.cq import CQ
from flowerpress.compressors.quantized.halves import BF16, FP16
from flowerpress.compressors.quantized.loggrid import LogGrid
from flowerpress.compressors.quantized.natural import Natural
from flowerpress.compressors.quantized.qsgd import QSGD
from flowerpress.compressors.quantized.randsign import RandSign
from flowerpress.compressors.quantized.sign import Sign
from flowerpress.compressors.quantized.terngrad import TernGrad
from flowerpress.compressors.quantized.uniform import Uniform
from flowerpress.compressors.rotated.drive import Drive
from flowerpress.compressors.rotated.eden import Eden
from flowerpress.compressors.rotated.hadamard import Hadamard
from flowerpress.compressors.sparse.permk import PermK
from flowerpress.compressors.sparse.randk import RandK
from flowerpress.compressors.sparse.signtopk import SignTopK
from flowerpress.compressors.sparse.threshold import Threshold
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.compressors.spec import grammar
from flowerpress.compressors.wire import codecs, reading
from flowerpress.compressors.wire.packet import Packet, PacketError
from flowerpress.plugins import Plugins
from flowerpress.suggestions import unknown

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
    CQ,
    *(Induced, Scaled, Rans, Huffman),
    Blocked,
    CountSketch,
    TernGrad,
    LogGrid,
    PowerSGD,
    RandSign,
    SignTopK,
    Threshold,
)
# Written with parentheses, around so many others.
_OPERANDS: dict[type[Compressor], int] = {Scaled: 1, Induced: 2, Blocked: 1}


_BY_NAME = {cls.name: cls for cls in _OWN}


def _classes() -> dict[str, type[Compressor]]:
    return _BY_NAME | _plugins().found


def _find(name: str) -> type[Compressor] | None:
    """Return the class of that name; other packages' are loaded for names that are not our own."""
    if name in _BY_NAME:
        if name in _plugins().claimed:
            _plugins().warn_if_taken(name)
        return _BY_NAME[name]
    return _plugins().found.get(name)


@cache
def _plugins() -> Plugins[type[Compressor]]:
    return Plugins("compressor", GROUP, _BY_NAME, _read)


def _others() -> Iterable[type[Compressor]]:
    return _plugins().found.values()


def _read(name: str, cls: Any, good: dict[str, type[Compressor]]) -> type[Compressor]:
    """Return another package's class; raises `ValueError` where it is none, or not its own."""
    if not (isinstance(cls, type) and issubclass(cls, Compressor)):
        raise ValueError(f"{cls!r} is no subclass of flowerpress.compressors.Compressor")
    if cls.name != name:
        raise ValueError(f"the class's name is {cls.name!r}")
    for other in (*_OWN, *good.values()):
        if other.codec == cls.codec:
            raise ValueError(f"codec {cls.codec} is {other.name!r}'s: choose another number")
    return cls


def compressor_names() -> list[str]:
    """Return the names of all compressors, sorted.

    >>> "topk" in compressor_names()
    True
    """
    return sorted(name for name in _classes() if name != Chain.name)


def compressor_class(name: str) -> type[Compressor]:
    """Return the class of that name; ValueError lists the known names, or says what is wrong."""
    found = _find(name)
    if found is not None and found is not Chain:
        return found
    if name in compressor_faults():
        raise ValueError(compressor_faults()[name])
    where = "`flowerpress list compressors` shows all"
    raise ValueError(unknown(f"unknown compressor {name!r}", name, compressor_names(), where=where))


def compressor_faults() -> dict[str, str]:
    """Return why other packages' compressors cannot be used, by name."""
    return _plugins().faults


def make_compressor(spec: str | Compressor) -> Compressor:
    """Build a compressor from its spec string ``name[:value][,key=value]...``.

    Stages are written with ``+``, left to right: ``topk:0.01+qsgd:7`` quantizes the kept values and
    ``qsgd:7+rans`` codes the levels by their frequency. Compressors made of others take them in
    parentheses: ``scaled(randk:0.1)``, ``induced(topk:0.01; randk:0.01)``,
    ``blocked(topk:0.01, 1048576)``.

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
    ValueError: unknown compressor 'zip': choose one of bf16, ...
    """
    return spec if isinstance(spec, Compressor) else _made(spec)


@lru_cache(maxsize=1024)  # each message of a run names one
def _made(spec: str) -> Compressor:
    built: list[Compressor] = []
    for text in grammar.stages(spec):
        name = text.strip()
        cls = _find(name) if name.isidentifier() else None  # with no fields and no parentheses
        if cls is not None and issubclass(cls, Entropy):
            if not built:
                raise ValueError(f"{name!r} stands after another compressor: 'qsgd:7+{name}'")
            built = [cls(_chain(built))]
        else:
            built.append(_stage(text))
    return _chain(built)


def _chain(stages: list[Compressor]) -> Compressor:
    *fronts, compressor = stages
    for front in reversed(fronts):
        if not isinstance(front, Front):
            able = (name for name in compressor_names() if issubclass(_classes()[name], Front))
            raise ValueError(f"{front.spec!r} can't stand before '+'; what can: {', '.join(able)}")
        compressor = Chain(front, compressor)
    return compressor


def _stage(text: str) -> Compressor:
    """Return the compressor that stands between two ``+``."""
    made_of = grammar.operands(text)
    if made_of is None:
        name, _, rest = text.partition(":")
        cls = compressor_class(name.strip())
        if cls in _OPERANDS:
            inside = "; ".join(["randk:0.1", "randk:0.1"][: _OPERANDS[cls]])
            inside += ", 65536" if cls is Blocked else ""
            raise ValueError(f"{cls.name!r} is written around others: '{cls.name}({inside})'")
        return _built(cls, grammar.fields(cls.parsers, rest, text), text)
    name, specs = made_of
    cls = compressor_class(name)
    if cls is Blocked:
        return _blocked(specs, text)
    if len(specs) != _OPERANDS.get(cls, 0):
        able = ", ".join(f"{each.name} ({count})" for each, count in _OPERANDS.items())
        raise ValueError(f"{text!r}: parentheses hold {len(specs)} compressors; what takes: {able}")
    return cls(*(make_compressor(part) for part in specs))


def _blocked(specs: list[str], text: str) -> Compressor:
    """Return what is written ``blocked(SPEC, N)``."""
    inner, comma, size = specs[0].rpartition(",")
    if len(specs) != 1 or not comma or not size.strip().isdecimal():
        raise ValueError(f"{text!r}: give the length of a block, as in 'blocked(topk:0.01, 65536)'")
    within = make_compressor(inner)
    try:
        return Blocked(within, int(size))
    except ValueError as error:
        raise ValueError(f"compressor {text!r}: {error}") from None


def _built(cls: type[Compressor], values: dict[str, object], spec: str) -> Compressor:
    """Return ``cls(**values)``; a value that is wrong or missing is a ValueError naming `spec`."""
    needed = [
        f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.init
    ]
    if missing := [name for name in needed if name in cls.parsers and name not in values]:
        raise ValueError(
            f"compressor {spec!r}: give {missing[0]}, as in '{cls.name}:{missing[0]}=1'"
        )
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"compressor {spec!r}: {error}") from None


def _spec_of(packet: Packet) -> str:
    """Return the spec of a compressor that sends packets like `packet`; see `Packet.compressor`."""
    spec = reading.whole_spec(packet)
    try:
        make_compressor(spec)
    except ValueError as error:  # a parameter that no compressor may have
        raise PacketError(f"frame: {error}") from error
    return spec


codecs.register(*_OWN)
codecs.ask_for_more(_others)
Packet.spec_reader = staticmethod(_spec_of)
