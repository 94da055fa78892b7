"""One question to each worker of a cohort, and what may be believed of the answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

from flwr.app import ConfigRecord, Message, RecordDict

from flowerpress.compressors import Packet, PacketError
from flowerpress.compressors.feedback import Acceptance
from flowerpress.protocol import (
    Instruction,
    Layout,
    Ledger,
    LedgerRow,
    ModelPart,
    ProtocolError,
    Reply,
    content_bytes,
    printable,
    release,
)
from flowerpress.protocol.cohort import Letters
from flowerpress.server.client import Client
from flowerpress.server.packets import check_packets
from flowerpress.server.population import Population

log = logging.getLogger("flowerpress")


class Arrival(NamedTuple):
    """A message, and the worker at the node it comes from."""

    client: Client
    message: Message


_OWN_ERRORS = (1, 2, 6)  # Flower's codes: its ClientApp cannot be loaded, or raised; or a mod did
_MOST = 2**53  # questions a worker may claim to have heard


@dataclass
class Exchange:
    """The server's end of the wire: numbers the questions, enters the ledger, checks the answers.

    Attributes
    ----------
    question : int
        Number of the last question asked; all workers of a cohort are asked the same one.
    refused : int
        Answers that were damaged, wrong, or too large.
    oversized : int
        Of these, answers that were too large (`flowerpress.server.guard`).
    held : int
        Answers that nothing was known yet to compare with; they are as if not asked for.
    resyncs : int
        Workers that could not continue from what the server believed they had.
    troubles : dict of int to str
        Why the last question has no answer of a client, or one that was not applied.
    looked : list of Packet
        The packets, checked, of an answer that is looked at before it is taken; see `glances`.
    """

    population: Population
    ledger: Ledger = field(default_factory=Ledger)
    question: int = 0
    refused: int = 0
    oversized: int = 0
    held: int = 0
    resyncs: int = 0
    troubles: dict[int, str] = field(default_factory=dict)
    looked: list[Packet] = field(default_factory=list)

    def orders(
        self,
        order: Instruction,
        cohort: Sequence[Client],
        purpose: str,
        part_for: Callable[[Client], ModelPart],
        beside: Mapping[str, ConfigRecord] | None = None,
        compressor_for: Callable[[Client], str] | None = None,
    ) -> list[Message]:
        """Return `order` as one message to each of the cohort, entered in the ledger.

        Each gets the model's part it lacks; where it is to answer with packets, also its rank and
        the version applied last. `beside` are records that go along. Where compressors differ from
        worker to worker, `compressor_for` says which each is to use.
        """
        messages, letters = [], dict[str, Letters]()
        self.troubles.clear()
        # A collection's question brings what training would have brought with its next one.
        kind = "evaluate" if purpose == "evaluate" else "train"
        for rank, client in enumerate(cohort):
            model, own = part_for(client), {"session": client.session}
            if kind == "train":
                of = client.receiver
                own |= {"rank": rank, "refused": of.refused, "absurd": of.absurd}
                own["applied"] = of.ask(order.version)
            spec = compressor_for(client) if compressor_for is not None else ""
            if spec not in letters:
                hyper = {**order.hyper, "compressor": spec} if spec else order.hyper
                letters[spec] = Letters(replace(order, hyper=hyper))
            content, payload = letters[spec].to(model, **own)
            for key, record in (beside or {}).items():
                content[key] = record
            self.enter(order.round, client.id, "down", content, payload, kind)
            messages.append(Message(content, client.node, kind))
        return messages

    def arrivals(
        self, server_round: int, cohort: Sequence[Client], messages: Iterable[Message]
    ) -> list[Arrival]:
        """Return the cohort's answers in order of the workers' ids, not opened yet."""
        expected = {client.node: client for client in cohort}
        found, unheard, nobodys = [], dict(expected), []
        for message in messages:
            client = expected.get(message.metadata.src_node_id)
            unheard.pop(message.metadata.src_node_id, None)
            if message.has_error():
                # Errors the SuperLink makes itself come from node 1, those of some mods from the
                # server: nobody's in particular.
                who = f"client {client.id}" if client else "a client"
                why = printable(str(message.error.reason)) or f"error {message.error.code}"
                log.warning("round %d: %s: %s", server_round, who, why)
                if client is not None:
                    self.troubles[client.id] = why
                if message.error.code in _OWN_ERRORS and client:
                    client.failing = why
                elif message.error.code in _OWN_ERRORS:
                    nobodys.append(why)
            elif client is None:
                self.refuse(server_round, "an answer of a node that was not asked")
            else:
                found.append(Arrival(client, message))
        if nobodys and len(nobodys) == len(unheard):
            for client, why in zip(unheard.values(), nobodys, strict=True):
                client.failing = why
        return sorted(found, key=attrgetter("client.id"))

    def answers(
        self, server_round: int, arrivals: Iterable[Arrival], purpose: str = "train"
    ) -> Iterator[tuple[Client, Reply]]:
        """Yield the readable answers, one at a time, entered in the ledger.

        A message's content may be read from disk whenever it is asked for: so it is asked for once,
        and no answer is kept here when the next one is opened.
        """
        last = None
        for client, message in arrivals:
            if client.id == last:
                self.refuse(server_round, f"client {client.id} answers twice", client)
                continue
            reply = self._decode(server_round, client, message.content, purpose)
            release(message)
            if reply is not None:
                last = client.id
                yield client, reply
            del reply

    def glances(
        self,
        arrivals: Iterable[Arrival],
        layout: Layout,
        length: int,
        *,
        bare: bool = False,
    ) -> Iterator[Reply]:
        """Yield those of the answers that may be updates, without a trace; see `judge`.

        While one is looked at, `looked` has its packets.
        """
        last = None
        for client, message in arrivals:
            if client.id == last:
                continue
            try:
                reply = Reply.decode(message.content)
                release(message)
                self.looked = check_packets(reply, layout, length, bare=bare)
            except (PacketError, ProtocolError):  # counted when it is refused
                continue
            if reply.client == client.id:
                last = client.id
                yield reply
            del reply
            self.looked = []

    def _decode(
        self, server_round: int, client: Client, content: RecordDict, purpose: str
    ) -> Reply | None:
        try:
            reply = Reply.decode(content)
        except ProtocolError as error:
            self.enter(server_round, client.id, "up", content, 0, purpose)
            self.refuse_answer(server_round, client, str(error))
            return None
        self.enter(server_round, client.id, "up", content, reply.payload, purpose)
        if reply.client != client.id:
            self.refuse_answer(server_round, client, f"it answers as client {reply.client}")
            return None
        return reply

    def judge(
        self,
        server_round: int,
        client: Client,
        reply: Reply,
        *,
        shared: bool,
        silence: bool = False,
    ) -> Acceptance:
        """Decide about an answer by its head; what cannot be applied is counted and logged.

        With `silence`, a worker may answer that it has no packets.
        `Acceptance.MISMATCH` says that worker and server no longer agree on what came before;
        `Acceptance.STALE` stands for every other answer that is not applied.
        """
        where = f"round {server_round}: client {client.id}"
        if (
            reply.status in ("resync", "snapshot", "stale")
            and reply.version != client.receiver.asked
        ):
            self.refuse(server_round, f"client {client.id}: {Acceptance.STALE.value}", client)
            return Acceptance.STALE
        if reply.status == "stale":
            # Asked by an earlier life of this server: the next question must be new to it.
            self.question = max(self.question, min(reply.base, _MOST))
            log.warning("%s has heard question %d already", where, reply.base)
            return Acceptance.STALE
        if reply.status == "resync":
            self.resyncs += 1
            self.troubles[client.id] = f"it has lost its state: {reply.reason}"
            log.warning("%s has lost its state: %s", where, reply.reason)
            return Acceptance.MISMATCH
        if reply.status not in ("update", "silent"):
            self.troubles[client.id] = f"{reply.status}: {reply.reason}"
        if reply.status == "failed":
            client.failing = reply.reason or "no reason given"
        if reply.status != "update" and not (silence and reply.status == "silent"):
            level = logging.WARNING if reply.status == "failed" else logging.INFO
            log.log(level, "%s (%s): %s", where, reply.status, reply.reason)
            return Acceptance.STALE
        verdict = client.receiver.judge(reply.base, reply.version, shared=shared)
        if verdict is Acceptance.STALE:
            self.refuse(server_round, f"client {client.id}: {verdict.value}", client)
        elif verdict is Acceptance.MISMATCH:
            self.resyncs += 1
            self.troubles[client.id] = "it builds on an update that was not applied"
            log.warning(
                "%s builds on version %d, applied is %d", where, reply.base, client.receiver.applied
            )
        return verdict

    def refuse_answer(
        self, server_round: int, client: Client, reason: str, *, absurd: bool = False
    ) -> None:
        """Refuse a worker's answer to the open question; the next question tells it so."""
        client.receiver.refuse(absurd=absurd)
        self.oversized += absurd
        self.refuse(server_round, f"client {client.id}: {reason}", client)

    def hold(self, server_round: int, client: Client, reason: str) -> None:
        """Leave out an answer whose size cannot be judged yet; its worker goes back to before."""
        client.receiver.refuse(absurd=True)
        self.held += 1
        self.troubles[client.id] = reason
        log.info("round %d: client %d: %s", server_round, client.id, reason)

    def refuse(self, server_round: int, reason: str, client: Client | None = None) -> None:
        """Count and log an answer that is damaged or wrong, of a client that was asked or not."""
        self.refused += 1
        if client is not None:
            self.troubles[client.id] = f"refused: {reason.removeprefix(f'client {client.id}: ')}"
        log.warning("round %d: refused %s", server_round, reason)

    def enter(
        self,
        server_round: int,
        client: int,
        direction: str,
        content: RecordDict,
        payload: int,
        purpose: str,
    ) -> None:
        framing = content_bytes(content) - payload
        self.ledger.add(LedgerRow(server_round, client, direction, payload, framing, purpose))
