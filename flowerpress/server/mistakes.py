"""What a server half of somebody's own may have wrong, said by its class and with what to do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np

from flowerpress.protocol import Layout
from flowerpress.server.algorithm import Algorithm
from flowerpress.server.ask import WHATS, Ask, Steps
from flowerpress.server.client import Client

_ASKS = "its round must be a generator with S = yield Ask(S, into=...)"


def checked(strategy: Algorithm, steps: Any) -> Steps:
    """Go through a round; `ValueError` where it is none, or asks what cannot be asked."""
    owner = type(strategy).__name__
    if not isinstance(steps, Generator):
        raise ValueError(f"{owner}.round returned {_named(steps)}: {_ASKS}")
    went_in, asked = None, False
    with closing(steps):
        while True:
            try:
                ask = steps.send(went_in)
            except StopIteration:
                break
            check_question(owner, ask, strategy.model.layout)
            went_in, asked = (yield ask), True
    if not asked:
        raise ValueError(f"{owner}.round asked nobody: {_ASKS}")


def check_question(owner: str, ask: Any, layout: Layout) -> None:
    """Raise `ValueError` where what a round of the class `owner` yielded cannot be asked."""
    if not isinstance(ask, Ask):
        raise ValueError(f"{owner}.round yielded {_named(ask)}: {_ASKS}")
    wrong = ""
    if ask.what not in WHATS:
        wrong = f"what={ask.what!r}: it is one of {', '.join(WHATS)}"
    elif not _is_cohort(ask.cohort):
        wrong = f"cohort={ask.cohort!r:.60}: give what self.sample(server_round) returns"
    elif not callable(ask.into) and ask.what != "evaluation":
        wrong = _wrong_sum(ask.into, ask.length(layout))
    if wrong:
        raise ValueError(f"{owner}.round yielded an Ask with {wrong}")


def _wrong_sum(into: Any, length: int) -> str:
    remedy = "give self.zeros(), or a function of the update"
    if not isinstance(into, np.ndarray):
        return f"into={into!r:.60}: {remedy}"
    if into.shape != (length,) or into.dtype.kind != "f":
        of = f"shape {into.shape} and {into.dtype}"
        return f"an into of {of}, where the answers have {length} numbers: {remedy}"
    return ""


def _is_cohort(cohort: Any) -> bool:
    return isinstance(cohort, list) and all(isinstance(each, Client) for each in cohort[:1])


def _named(value: Any) -> str:
    kind = type(value).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    return "None" if value is None else f"{article} {kind}"
