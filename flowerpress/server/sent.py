"""What a worker may send: packets of the run's compressors, and of no others.

Which compressors there are is no secret, and any packet describes itself; but a run reads what its
own clients make, so that a packet that costs much, or means something else, is refused by its name.

- An update is of the strategy's compressor, or of the one that the worker said in its hello that it
  has chosen, where the strategy lets it choose (``client_compressors``): that one alone, and not
  another one later.
- Gossip's workers may send several packets of it in one
  (`flowerpress.compressors.composed.repeat`).
- Whatever goes whole is of ``identity``: first updates, exact values, models, buffers.

Whatever the codec, a packet's budget bounds what it costs (`flowerpress.compressors.wire.budget`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache

from flowerpress.compressors import make_compressor
from flowerpress.compressors.spec.allowed import Allowed
from flowerpress.compressors.wire.budget import only
from flowerpress.protocol import Hello, Reply
from flowerpress.server.algorithm import Algorithm
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client
from flowerpress.server.population import Population

log = logging.getLogger("flowerpress")
_WHOLE = "identity"


class Sent:
    """What each worker of a strategy may send."""

    def __init__(self, strategy: Algorithm, population: Population) -> None:
        self._strategy, self._population = strategy, population

    def admit(self, hello: Hello) -> None:
        """Raise `ValueError` for a choice that is no compressor; say so where it is not used."""
        if not hello.compressor:
            return
        try:
            make_compressor(hello.compressor)
        except ValueError as error:
            raise ValueError(f"the compressor in its node config: {error}") from None
        if not self._strategy.client_compressors:
            log.warning(
                "client %d has chosen compressor %r, this run lets none choose: it uses %r",
                hello.client,
                hello.compressor,
                self._strategy.compressor,
            )

    def allowed(self, client: Client | None, ask: Ask) -> Allowed:
        """Return what is read of a worker's answer: an update, or what goes whole."""
        if not ask.compressed or client is None:
            return _allowed(_WHOLE)
        own = client.compressor if self._strategy.client_compressors else ""
        specs = self._strategy.compressors
        return _allowed(*specs, *([own] if own else []), _WHOLE, repeated=ask.several)

    def only(self, glances: Iterable[Reply], ask: Ask) -> Iterator[Reply]:
        """Yield answers; while one is looked at, only what its worker may send is read."""
        for reply in glances:
            client = self._population.clients.get(reply.client)
            with only(self.allowed(client, ask)):
                yield reply
            del reply  # before the next one is opened


@lru_cache(maxsize=1024)
def _allowed(*specs: str, repeated: bool = False) -> Allowed:
    allowed = Allowed.of(*specs)
    return allowed.repeated() if repeated else allowed
