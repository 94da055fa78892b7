"""What ends a run: a compressor that does not go with the model, or clients that all fail."""

from __future__ import annotations

from collections.abc import Collection

from flowerpress.protocol import Layout, Rule
from flowerpress.server.algorithm import Algorithm
from flowerpress.server.client import Client
from flowerpress.server.errors import RoundError
from flowerpress.server.suitable import check_contraction

_BARREN = 3  # rounds in which all that were asked fail, until the others need not be asked


class Failures:
    """Rounds in a row after which all clients that were asked so far were failing."""

    def __init__(self) -> None:
        self._barren = 0

    def check(self, server_round: int, clients: Collection[Client], *, last: bool) -> None:
        """Hear of a round without an update; raise `RoundError` where no client can make one.

        A run whose clients all fail must not end as if it had trained: it ends when all clients
        known were asked, after three such rounds, and in the `last` round.
        """
        asked = [client for client in clients if client.receiver.asked]
        self._barren = self._barren + 1 if all(client.failing for client in asked) else 0
        everyone = len(asked) == len(clients)
        if asked and self._barren and (everyone or last or self._barren >= _BARREN):
            first = min(asked, key=lambda client: client.id)
            of = "" if everyone else f" that were asked, of {len(clients)},"
            raise RoundError(
                f"round {server_round}: all {len(asked)} clients{of} fail; "
                f"client {first.id}: {first.failing}"
            )


def check_model(strategy: Algorithm, rule: Rule, layout: Layout) -> None:
    """Raise `RoundError` where a compressor is not what the algorithm needs for this model.

    What a chain of compressors is depends on the model's length: when the strategy was made, only
    some lengths could be tried.
    """
    try:
        if strategy.contractive:
            for compressor in strategy.compressors:
                check_contraction(compressor, layout.shapes)
        if strategy.downlink:
            rule.bind(strategy.downlink, layout.shapes)
    except ValueError as error:
        raise RoundError(str(error)) from None
