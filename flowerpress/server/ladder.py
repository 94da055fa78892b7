"""``compressor="auto:deadline=2s"``: each worker's updates as long as its own link carries in time.

The server measures how many bytes a second each worker's answers come with, and tells it in each
round which compressor of a ladder to use: the one whose update is the longest that is up within the
deadline. What a shorter update leaves out, error feedback owes and sends later, as always.

    auto:deadline=2s                                a ladder that suits the algorithm
    auto(topk:0.001; topk:0.01; sign):deadline=2s   one of your own

Per answer whose b bytes took s seconds after its first frame, as the server measures it:

    rate    <- b / s at first, then sqrt(rate * b/s): half-way, in factors
    budget  =  min(deadline * rate, 4 * b)
    next    =  the longest step of at most `budget` bytes (a longer one than the last: of at most
               budget / 1.1); the shortest where none is so short

So a worker begins with the shortest step, and climbs to four times the bytes a round until its link
shows what it carries, as TCP does when it starts.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flowerpress.compressors import make_compressor
from flowerpress.protocol.grids import Upload
from flowerpress.server.client import Client
from flowerpress.server.suitable import correlates

log = logging.getLogger("flowerpress")
_FORM = re.compile(r"\s*auto\s*(?:\((?P<steps>.*)\))?\s*:\s*(?P<rest>[^()]*)", re.DOTALL)
_SECONDS = re.compile(r"deadline\s*=\s*(?P<number>[0-9.eE+-]+)\s*(?P<unit>ms|s|)\s*")
_SHARES = ("0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2")
_BIASED = (*(f"topk:{share}" for share in _SHARES), "topk:0.5", "identity")
_UNBIASED = (
    "randk:0.01",
    "randk:0.02",
    "randk:0.05",
    "randk:0.1",
    "randk:0.2",
    "randk:0.5",
    "identity",
)
_AROUND = 300  # bytes of a message beside its payload: the packet's header, the reply's, gRPC's
_CLIMB = 4.0  # times the bytes of its last update that a worker may be asked for
# Bytes from which an answer's time says what a link carries, and no buffer on the way.
_SAYS = 2**15
_ROOM = 1.1  # times the bytes of a longer step that the budget must have
_CREEP = 1.25  # times a rate that a shorter answer may raise it by


def is_auto(compressor: object) -> bool:
    """Return whether a compressor's text is one of this page.

    >>> is_auto("auto:deadline=2s"), is_auto("topk:0.1")
    (True, False)
    """
    return isinstance(compressor, str) and re.match(r"\s*auto\b", compressor) is not None


@dataclass(frozen=True)
class Ladder:
    """Compressors from the shortest updates to the longest, and how long one may travel.

    Parameters
    ----------
    deadline : float
        Seconds in which a worker's update is to be up.
    steps : tuple of str
        Specs, the shortest first.
    own : bool
        Whether the steps were given; if not, they are those that suit the algorithm.

    Examples
    --------
    >>> ladder = Ladder.parse("auto(sign; topk:0.01):deadline=500ms")
    >>> ladder.deadline, ladder.steps
    (0.5, ('topk:0.01', 'sign'))
    >>> ladder.text
    'auto(topk:0.01; sign):deadline=0.5s'
    """

    deadline: float
    steps: tuple[str, ...]
    own: bool = True

    @classmethod
    def parse(cls, text: str, accept: Callable[[str], Any] = str, *, owing: bool = True) -> Ladder:
        """Return the ladder that a text describes.

        Parameters
        ----------
        text : str
            As on top of this page.
        accept : callable
            Raises `ValueError` for a compressor that the algorithm cannot use, else returns it as
            it is known. A default ladder has the steps that it accepts.
        owing : bool
            Whether the algorithm sends later what a compressor drops: else a default ladder is of
            unbiased compressors.

        Raises
        ------
        ValueError
            The text is not of this form, or names what cannot be a step.
        """
        form = _FORM.fullmatch(text)
        found = _SECONDS.fullmatch(form["rest"]) if form else None
        if form is None or found is None:
            raise ValueError(
                f"compressor is {text!r}: expected auto:deadline=2s, or with steps of your own "
                "auto(topk:0.001; topk:0.01):deadline=2s"
            )
        deadline = _seconds(text, found["number"], found["unit"])
        if form["steps"] is None:
            ladder = _BIASED if owing else _UNBIASED
            return cls(deadline, _suiting(text, accept, ladder), own=False)
        given = [accept(step.strip()) for step in form["steps"].split(";")]
        if len(set(given)) < max(2, len(given)):
            raise ValueError(f"compressor is {text!r}: expected at least two steps, none twice")
        for step in given:
            if correlates(step):
                raise ValueError(
                    f"compressor is {text!r}: {step} rounds against the other workers', so all "
                    "must use it at the same time"
                )
        return cls(deadline, tuple(sorted(given, key=lambda step: _bytes(step, 2**20))))

    @property
    def text(self) -> str:
        """The ladder as a text that `parse` reads."""
        steps = f"({'; '.join(self.steps)})" if self.own else ""
        return f"auto{steps}:deadline={self.deadline:g}s"

    def sizes(self, dim: int) -> list[float]:
        """Return how many bytes an update of each step has, as its compressor expects."""
        return [_bytes(step, dim) for step in self.steps]

    def hear(self, client: Client, upload: Upload | None) -> None:
        """Note what a worker's answer says of its link; None: nothing was measured."""
        if upload is None or upload.seconds <= 0 or upload.bytes <= 0:
            return
        said = upload.bytes / upload.seconds
        # Buffers on the way take a short answer at once: it may raise the rate by little.
        sure = upload.bytes >= _SAYS or upload.seconds >= self.deadline / _CLIMB
        if client.rate:
            most = client.rate * (_CLIMB**2 if sure else _CREEP)
            client.rate = math.sqrt(client.rate * min(said, most))
        elif sure:
            client.rate = said

    def choose(self, client: Client, dim: int) -> str:
        """Return the compressor of a worker's next update of `dim` numbers, and note it."""
        sizes = self.sizes(dim)
        last = sizes[client.step] if client.step >= 0 else sizes[0] / _CLIMB
        budget = _CLIMB * last
        if client.rate:
            budget = min(budget, self.deadline * client.rate)
        # What is longer than the last update needs some room: rates go up and down a little.
        room = [size * (_ROOM if i > client.step >= 0 else 1) for i, size in enumerate(sizes)]
        step = max((i for i, size in enumerate(room) if size <= budget), default=0)
        if step != client.step:
            rate = f"{client.rate / 1e3:.0f} kB/s" if client.rate else "not measured yet"
            log.info("client %d: %s (its link: %s)", client.id, self.steps[step], rate)
        client.step = step
        return self.steps[step]

    def told(self, clients: Iterable[Client]) -> dict[str, float]:
        """Return what a round tells: the shortest and the longest step in use, numbered from 1."""
        used = [client.step + 1 for client in clients if client.step >= 0]
        return (
            {"auto-step-min": float(min(used)), "auto-step-max": float(max(used))} if used else {}
        )


def _seconds(text: str, number: str, unit: str) -> float:
    try:
        value = float(number) * (1e-3 if unit == "ms" else 1.0)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"compressor is {text!r}: the deadline must be a number of seconds above 0"
        )
    return value


def _suiting(text: str, accept: Callable[[str], Any], ladder: tuple[str, ...]) -> tuple[str, ...]:
    """Return the steps of a ladder that an algorithm can use."""
    steps, why = [], ""
    for step in ladder:
        try:
            steps.append(str(accept(step)))
        except ValueError as error:
            why = str(error)
    if len(steps) < 2:
        raise ValueError(f"compressor is {text!r}, which has no steps for this algorithm: {why}")
    return tuple(steps)


@lru_cache(maxsize=4096)
def _bytes(step: str, dim: int) -> float:
    return make_compressor(step).traits(dim).bits / 8 + _AROUND
