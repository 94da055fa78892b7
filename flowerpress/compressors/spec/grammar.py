"""The grammar of spec strings.

::

    spec     = stage *("+" stage)
    stage    = name "(" spec *(";" spec) ")"  |  name [":" item *("," item)]
    item     = [field "="] value              the first may leave out "field="
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from flowerpress.compressors.wire.budget import MOST_DEPTH as MAX_DEPTH
from flowerpress.suggestions import unknown

# Between stages, and not in a number such as 1e+3: names start with a letter.
_PLUS = re.compile(r"\+(?=\s*[A-Za-z_]|\s*$)")
_OPERATOR = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


def stages(spec: str) -> list[str]:
    """Return what stands between the ``+`` outside parentheses.

    >>> stages("hadamard+scaled(randk:0.1+qsgd)+rans")
    ['hadamard', 'scaled(randk:0.1+qsgd)', 'rans']
    """
    cuts = [match.start() for match in _PLUS.finditer(spec)]
    found = _pieces(spec, cuts)
    if len(found) > MAX_DEPTH:
        raise ValueError(f"compressor {spec!r}: {len(found)} stages, at most {MAX_DEPTH} are read")
    return found


def operands(stage: str) -> tuple[str, list[str]] | None:
    """Return the name before the parentheses and the specs inside; None without parentheses.

    >>> operands("induced(topk:0.1; randk:0.1)")
    ('induced', ['topk:0.1', 'randk:0.1'])
    """
    match = _OPERATOR.fullmatch(stage)
    if match is None:
        return None
    name, inside = match.groups()
    cuts = [place for place, letter in enumerate(inside) if letter == ";"]
    return name, [part.strip() for part in _pieces(inside, cuts)]


def fields(parsers: Mapping[str, Callable[[str], Any]], text: str, spec: str) -> dict[str, object]:
    """Return the values of ``[value][,key=value]...``; ValueError lists the valid fields."""
    values: dict[str, object] = {}
    for position, item in enumerate(text.split(",") if text.strip() else []):
        key, value = _item(parsers, item, position, spec)
        if key in values:
            raise ValueError(f"compressor {spec!r}: {key} is given twice")
        try:
            values[key] = parsers[key](value)
        except ValueError as error:
            raise ValueError(f"compressor {spec!r}: {key}={value!r}: {error}") from error
    return values


def _item(
    parsers: Mapping[str, Callable[[str], Any]], item: str, position: int, spec: str
) -> tuple[str, str]:
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals and position == 0 and parsers:
        return next(iter(parsers)), key
    if not equals or key not in parsers:
        what = f"compressor {spec!r}: {item.strip()!r} is not a field"
        raise ValueError(unknown(what, key, parsers, "fields are"))
    return key, text


def _pieces(text: str, cuts: list[int]) -> list[str]:
    """Cut `text` at those of the places that no parentheses enclose."""
    level, levels = 0, []
    for letter in text:
        level += letter == "("
        levels.append(level)
        level -= letter == ")"
        if level < 0 or level > MAX_DEPTH:
            break
    if level:
        what = "do not match" if level <= MAX_DEPTH else f"go more than {MAX_DEPTH} deep"
        raise ValueError(f"compressor {text[:80]!r}: the parentheses {what}")
    starts = [0, *(cut + 1 for cut in cuts if not levels[cut])]
    ends = [*(cut for cut in cuts if not levels[cut]), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]
