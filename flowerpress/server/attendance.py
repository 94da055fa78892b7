"""Who took part in a run, and what kept the others from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 5  # lines; many may be left out for one reason
_LEAST = 0.5  # of the rounds that asked it: who is in fewer updates than that is named


@dataclass
class Presence:
    """One worker's part in a run.

    Attributes
    ----------
    asked, taken : int
        Rounds in which it was asked for an update, and in which its update went in.
    trouble : str
        Why its last update that did not go in did not; empty if all did.
    failing : bool
        Whether nothing went in since, and not because an answer was lost or late.
    """

    asked: int = 0
    taken: int = 0
    trouble: str = ""
    failing: bool = False


@dataclass
class Attendance:
    """Who was asked in a run, whose updates went in, and in how many rounds the model moved.

    Attributes
    ----------
    clients : dict of int to Presence
        By the worker's id.
    steps : int
        Rounds in which the model took a step.
    unevaluated : int
        Rounds that asked for evaluations while none has come yet; -1: one has.
    no_evaluation : str
        Why none came in the last of these.
    strangers : dict of str to str
        Nodes that are there at the end and were never admitted: what to call each, and why not.

    Examples
    --------
    >>> attendance = Attendance()
    >>> for _ in range(3):
    ...     attendance.ask([0, 1])
    ...     attendance.take(0)
    ...     attendance.miss(1, "failed: no data")
    >>> attendance.lines()
    ['client 1 took part in 0 of the 3 rounds that asked it: failed: no data']
    """

    clients: dict[int, Presence] = field(default_factory=dict)
    steps: int = 0
    unevaluated: int = 0
    no_evaluation: str = ""
    strangers: dict[str, str] = field(default_factory=dict)

    def ask(self, clients: Iterable[int]) -> None:
        """Hear whom a round asks."""
        for client in clients:
            self.clients.setdefault(client, Presence()).asked += 1

    def note(
        self, asked: set[int], taken: set[int], troubles: Mapping[int, str], *, final: bool
    ) -> None:
        """Hear what became of an exchange; only in the `final` one of a round do updates go in."""
        for client in sorted(asked - taken):
            self.miss(client, troubles.get(client, ""))
        for client in sorted(taken) if final else ():
            self.take(client)

    def take(self, client: int) -> None:
        """Hear that an update went in."""
        presence = self.clients.setdefault(client, Presence())
        presence.taken += 1
        presence.failing = False

    def miss(self, client: int, why: str) -> None:
        """Hear that no update of a worker that was asked went in; `why` is empty for no answer."""
        presence = self.clients.setdefault(client, Presence())
        presence.trouble, presence.failing = why or "it did not answer in time", bool(why)

    def evaluate(self, missing: Mapping[int, str], came: int) -> None:
        """Hear how many evaluations of a round came, and why those of others did not."""
        if came:
            self.unevaluated = -1
        elif missing and self.unevaluated >= 0:
            self.unevaluated += 1
            client, why = min(missing.items())
            self.no_evaluation = f"client {client}: {why}"

    @property
    def taken(self) -> int:
        """Updates that went in, of all workers and rounds."""
        return sum(presence.taken for presence in self.clients.values())

    def lines(self) -> list[str]:
        """Say what did not come: one line each, at most five and one that counts the others."""
        found = list[str]()
        if self.unevaluated > 0:
            rounds = f"any of the {self.unevaluated} rounds that asked for it"
            found.append(f"no client's evaluation came in {rounds}; {self.no_evaluation}")
        found += [f"{name} never took part: {why}" for name, why in self.strangers.items()]
        for client, presence in sorted(self.clients.items()):
            if presence.failing or presence.taken < _LEAST * presence.asked:
                found.append(
                    f"client {client} took part in {presence.taken} of the {presence.asked} rounds "
                    f"that asked it: {presence.trouble}"
                )
        more = len(found) - _SHOWN
        return found if more <= 0 else [*found[:_SHOWN], f"{more} more were left out likewise"]

    def state(self) -> Any:
        """Return what a checkpoint needs of it."""
        clients = {client: asdict(each) for client, each in self.clients.items()}
        return [self.steps, clients, self.unevaluated, self.no_evaluation]

    def restore(self, state: Any) -> None:
        """Take what `state` returned."""
        self.steps, clients, *more = state
        self.clients = {client: Presence(**fields) for client, fields in clients.items()}
        if more:  # an earlier version has none
            self.unevaluated, self.no_evaluation = more
