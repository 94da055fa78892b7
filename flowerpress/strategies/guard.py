"""Absurd updates: what is too large to be believed, and refused.

The rule: an update is refused if its norm (l2, of the decoded packet times its scale) is more than
``max_scale`` times the *reference*: the median, over the clients heard so far, of the largest norm
accepted of each. Norms of zero are left out; of two in the middle the larger counts. In the first
round with answers, when nothing was accepted yet, the reference is the median of that round's own
norms: these answers are therefore looked at twice. The reference stands still within a round.

- Fewer than half of the clients cannot move the median out of the range of the others' norms; half
  of them can raise it a thousandfold a round. The clients' weights play no part in it.
- A run whose updates truly grow a thousandfold in one round is not stuck: what was refused counts
  too, as far as more than half of the clients have sent as much. It costs such a run one round.
- The largest norm so far counts because of methods that first send gradients and then differences,
  which shrink: EF21, MARINA between its rounds of whole gradients, gossip. What was right once is
  not absurd later.
- Of two clients one is half. In the first round both pass; later each is measured by the larger of
  what was accepted of both. An only client is measured by itself, and so, after one refusal, by
  anything it sends.
- Sketches are measured by their cells. Exact values asked for in a second exchange, models that are
  collected whole, and buffers (batch-norm statistics) have references of their own. Of buffers
  the real and complex numbers count that the server's model has otherwise: a mask with -3e38 that
  nobody changes is none of them.

Apart from that, numbers whose weighted norm cannot be squared in the model's dtype (1.8e19 in
float32) count as infinite, as they are to Adam's second moment: they are refused whatever came
before, and a run in which all clients send such has diverged.

What this does not prevent: a hostile client may send a thousand times what is usual, in every
round, in any direction. That is enough to spoil a model. The rule keeps a run from being ended or
overwritten by one message; it is no robust aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flowerpress.compressors import PacketError, norm
from flowerpress.protocol import Reply
from flowerpress.strategies.population import Client, Population

UPDATES, EXACT, MODELS, BUFFERS = range(4)  # what has references of its own
_WHAT = ("update", "second update", "model", "buffers")
KINDS = (UPDATES, UPDATES, EXACT, MODELS)
"""What each stage of `flowerpress.strategies.run.Run.take` brings, beside buffers."""
Sizes = dict[int, float]


class OversizedError(PacketError):
    """An update is too large to be believed."""


class Guard:
    """Compares norms with what is usual.

    Parameters
    ----------
    population : Population
        Whose clients keep what was accepted and what was sent: `Client.largest`, `Client.claimed`.
    max_scale : float
        How many times the reference a norm may be; 0: nothing is measured, all is believed.
    scaled : bool
        Whether an update counts times its scale; not where an algorithm applies it without.
    buffers_norm : callable
        Returns the norm of an answer's buffers, of their bytes.
    """

    def __init__(
        self,
        population: Population,
        max_scale: float,
        *,
        scaled: bool = True,
        buffers_norm: Callable[[bytes], float] = norm,
    ) -> None:
        self._population, self.max_scale, self._scaled = population, max_scale, scaled
        self._buffers_norm = buffers_norm
        self._references = [0.0] * len(_WHAT)

    def sizes(self, reply: Reply, kind: int) -> Sizes:
        """Return the norms of an update and of its buffers; raises `PacketError` if damaged."""
        if not self.max_scale:
            return {}
        found = {}
        if reply.packets:
            scale = reply.scale if self._scaled else 1.0
            found[kind] = scale * math.hypot(*map(norm, reply.packets))
        if reply.buffers:
            found[BUFFERS] = self._buffers_norm(reply.buffers)
        return found

    def begin(self, kind: int, glances: Iterable[Reply]) -> None:
        """Settle the references of an exchange, before its answers are taken.

        `glances` are all its answers; they are looked at only where nothing was accepted yet.
        """
        if not self.max_scale:
            return
        clients = self._population.clients.values()
        for i in range(len(_WHAT)):
            accepted = median([client.largest[i] for client in clients], upper=True)
            sent = median([client.claimed[i] for client in clients], upper=False)
            self._references[i] = max(accepted, sent if accepted else 0.0)
        if not self._references[kind]:
            first = list(self._measured(kind, glances))
            for i, reference in enumerate(self._references):
                if not reference:
                    every = [sizes.get(i, 0.0) for sizes in first]
                    self._references[i] = median(every, upper=True)

    def _measured(self, kind: int, glances: Iterable[Reply]) -> Iterator[Sizes]:
        for reply in glances:
            try:
                sizes = self.sizes(reply, kind)
            except PacketError:  # counted when it is refused
                continue
            finally:
                del reply  # before the next one is opened
            yield sizes

    def check(self, client: Client, sizes: Sizes, mass: float, dtype: np.dtype[Any]) -> None:
        """Raise `OversizedError` if an answer is too large, saying how much."""
        largest = math.sqrt(float(np.finfo(dtype).max))
        for kind, size in sizes.items():
            client.claimed[kind] = max(client.claimed[kind], size)
            if not mass * size < largest:
                client.failing = (
                    f"{_WHAT[kind]} of norm {size:.3g}, too large for {dtype}: lower lr"
                )
                raise OversizedError(client.failing)
        for kind, size in sizes.items():
            reference = self._references[kind]
            if reference and size > self.max_scale * reference:
                raise OversizedError(
                    f"{_WHAT[kind]} of norm {size:.3g}, {size / reference:.3g} times the median "
                    f"{reference:.3g}; max_scale is {self.max_scale:g}"
                )

    def accept(self, client: Client, sizes: Sizes) -> None:
        """Remember an answer that went in."""
        for kind, size in sizes.items():
            client.largest[kind] = max(client.largest[kind], size)


def median(values: Sequence[float], *, upper: bool) -> float:
    """Return the median of the values above zero, the upper or the lower; 0 if there are none.

    >>> median([0.0, 3.0, 1.0, 2.0, 9.0], upper=True)
    3.0
    >>> median([0.0, 3.0, 1.0, 2.0, 9.0], upper=False)
    2.0
    """
    positive = sorted(value for value in values if value > 0)
    if not positive:
        return 0.0
    return positive[len(positive) // 2 if upper else (len(positive) - 1) // 2]
