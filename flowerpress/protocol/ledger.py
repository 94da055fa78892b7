"""The ledger: bytes per round, client and direction, as measured, payload and framing apart.

Payload is the length of the packets (whole frames). Framing is everything else in the message's
content as it is handed to the engine: header, keys, metrics. What an engine adds around a content
(HTTP heads, gRPC frames) is the engine's; it is not counted here. Downlink messages count when they
are sent, uplink messages when they arrive, also those that are then refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LedgerRow:
    """One message: its round, client, direction ("up" or "down"), and bytes."""

    round: int
    client: int
    direction: str
    payload: int
    framing: int
    purpose: str = "train"

    @property
    def total(self) -> int:
        """Payload and framing together."""
        return self.payload + self.framing


@dataclass
class RoundBytes:
    """The bytes of one round, over all clients.

    `up_collected` are those, payload and framing, of nodes' own models that were asked for
    (`flowerpress.strategies.gossip.squarm`); the others contain them.
    """

    round: int
    up_payload: int = 0
    up_framing: int = 0
    down_payload: int = 0
    down_framing: int = 0
    clients: int = 0
    up_collected: int = 0

    @property
    def up_bytes(self) -> int:
        """Uplink payload and framing."""
        return self.up_payload + self.up_framing

    @property
    def down_bytes(self) -> int:
        """Downlink payload and framing."""
        return self.down_payload + self.down_framing


@dataclass
class Ledger:
    """Every message of a run.

    Examples
    --------
    >>> ledger = Ledger()
    >>> ledger.add(LedgerRow(1, 0, "up", payload=100, framing=20))
    >>> ledger.add(LedgerRow(1, 1, "up", payload=50, framing=20))
    >>> ledger.up_bytes, ledger.rounds[0].up_payload, ledger.rounds[0].clients
    (190, 150, 2)
    """

    rows: list[LedgerRow] = field(default_factory=list)
    _rounds: dict[int, RoundBytes] = field(default_factory=dict)

    def add(self, row: LedgerRow) -> None:
        """Enter one message."""
        self.rows.append(row)
        total = self._rounds.setdefault(row.round, RoundBytes(row.round))
        if row.direction == "up":
            total.up_payload += row.payload
            total.up_framing += row.framing
            total.up_collected += row.total if row.purpose == "collect" else 0
            total.clients += row.purpose == "train"
        else:
            total.down_payload += row.payload
            total.down_framing += row.framing

    @property
    def rounds(self) -> list[RoundBytes]:
        """Totals per round, in order; `clients` counts training replies."""
        return [self._rounds[number] for number in sorted(self._rounds)]

    def round_bytes(self, number: int) -> RoundBytes:
        """Totals of round `number` (zeros if nothing was sent)."""
        return self._rounds.get(number, RoundBytes(number))

    @property
    def up_bytes(self) -> int:
        """All uplink bytes, payload and framing."""
        return sum(total.up_bytes for total in self._rounds.values())

    @property
    def down_bytes(self) -> int:
        """All downlink bytes, payload and framing."""
        return sum(total.down_bytes for total in self._rounds.values())

    @property
    def up_payload(self) -> int:
        """All uplink packets."""
        return sum(total.up_payload for total in self._rounds.values())

    @property
    def down_payload(self) -> int:
        """All downlink packets."""
        return sum(total.down_payload for total in self._rounds.values())

    def as_dicts(self) -> Iterator[dict[str, Any]]:
        """Yield the rounds' totals as plain dictionaries, for JSON."""
        return (asdict(total) for total in self.rounds)
