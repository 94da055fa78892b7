"""Options as text: `KEY=VALUE` on a command line, flat keys in a run configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Option: TypeAlias = bool | int | float | str
"""The value of an option, as run configurations hold them."""


def merge_options(
    flag: str, pairs: Iterable[str] | None, **explicit: Option | None
) -> dict[str, Option]:
    """Return the options that were given, by flags of their own and as `KEY=VALUE` together.

    Parameters
    ----------
    flag : str
        What the pairs were given with, for the error message.
    pairs : iterable of str or None
        What was given as `KEY=VALUE`; kebab-case keys are as good as Python names.
    **explicit
        What was given by flags of their own; None: not given.

    Raises
    ------
    ValueError
        For a pair without `=`, or a key that is given twice.

    Examples
    --------
    >>> merge_options("-S", ["min-train-nodes=5", "weights=uniform"], lr=0.5, momentum=None)
    {'lr': 0.5, 'min_train_nodes': 5, 'weights': 'uniform'}
    """
    options = {key: value for key, value in explicit.items() if value is not None}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"{flag} {pair!r} is not of the form KEY=VALUE")
        if name in options:
            raise ValueError(f"option {key.strip()!r} is given twice")
        options[name] = parse_value(text.strip())
    return options


def parse_value(text: str) -> Option:
    """Return the boolean, integer or number that `text` spells, or else `text` itself.

    Examples
    --------
    >>> [parse_value(text) for text in ("true", "12", "1e-3", "topk:0.1")]
    [True, 12, 0.001, 'topk:0.1']
    """
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
