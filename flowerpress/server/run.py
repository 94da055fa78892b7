"""One run of a strategy: the workers met, the questions asked, what was done with the answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from flowerpress.compressors import Opened, PacketError, make_compressor
from flowerpress.compressors.feedback import Acceptance
from flowerpress.compressors.norms import square_sum
from flowerpress.compressors.wire.recent import RECENT
from flowerpress.protocol import (
    Hello,
    Instruction,
    Layout,
    ModelPart,
    ProtocolError,
    Reply,
    encode_places,
    make_rule,
)
from flowerpress.protocol.buffers import (
    Buffers,
    changed_norm,
    check_finite,
    unpack_buffers,
)
from flowerpress.protocol.grids import allow_answers, last_upload, measures_uploads, note_waiting
from flowerpress.protocol.layout import Kept, other_values
from flowerpress.protocol.rules import NO_FEEDBACK
from flowerpress.server.algorithm import Algorithm
from flowerpress.server.ask import Ask
from flowerpress.server.attendance import Attendance
from flowerpress.server.client import Client
from flowerpress.server.cohort import Wanted, with_starters
from flowerpress.server.dispersion import Norms
from flowerpress.server.downlink import Downlink
from flowerpress.server.exchange import Exchange
from flowerpress.server.failures import Failures, check_model
from flowerpress.server.guard import UPDATES, Guard, OversizedError, UnknownScaleError
from flowerpress.server.options import require
from flowerpress.server.packets import check_packets
from flowerpress.server.population import Population, wait_for
from flowerpress.server.sent import Sent
from flowerpress.server.unkept import Unkept, check_kept
from flowerpress.server.update import Update

FloatVector = npt.NDArray[np.floating[Any]]
log = logging.getLogger("flowerpress")


class Run:
    """What a strategy knows of the run it is in.

    Attributes
    ----------
    population : Population
        The workers met.
    exchange : Exchange
        Questions, answers, and the ledger.
    sent : Sent
        Which packets are read of whom.
    guard : Guard
        Refuses what is too large.
    model : Downlink or None
        The server's model; None until the first worker was met.
    received : list of buffers
        Buffers of the round's updates, in the order they were applied.
    buffers : dict of int to buffers
        Buffers that came in the round's last exchange, by client.
    heard : set of int
        Whose answers to the last question could be read.
    norms : Norms or None
        Of the vectors of the last question's answers; None where compressors do not correlate.
    taken : list of (Client, Reply)
        The answers to the last question that went in, without packets and buffers.
    attendance : Attendance
        Who took part.
    unkept : Unkept
        What checkpoints would lose.
    start_over : bool
        Whether all workers must forget what they share with the server.
    """

    def __init__(self, strategy: Algorithm, initial: ArrayRecord | None = None) -> None:
        self._strategy = strategy
        self.initial = initial  # what the run began with
        self.population = Population(strategy.weights, strategy.hello_timeout, strategy.max_weight)
        self.exchange = Exchange(self.population)
        self.sent = Sent(strategy, self.population)
        self.guard = Guard(
            self.population,
            strategy.max_scale,
            owing=strategy.owing and strategy.feedback != NO_FEEDBACK,
            buffers_norm=self._buffers_norm,
            model_norm=lambda: math.sqrt(square_sum(self.started.x)),
        )
        self.attendance = Attendance()
        self.model: Downlink | None = None
        self.received: list[Buffers] = []
        self.start_over = False
        self.buffers: dict[int, Buffers] = {}
        self._kept: Kept = {}  # what initial_arrays name beyond the layout
        self.heard: set[int] = set()
        self.norms: Norms | None = None
        self.taken: list[tuple[Client, Reply]] = []
        self.unkept = Unkept()
        self._failures = Failures()
        self._longest = 0  # bytes of an answer

    @property
    def started(self) -> Downlink:
        """The server's model; raises `RuntimeError` before the first worker was met."""
        if self.model is None:
            raise RuntimeError(
                "the model is not known yet, only once a worker was met: in round(), call "
                "self.sample(server_round) before self.zeros() and self.model"
            )
        return self.model

    def forget(self, server_round: int) -> None:
        """Make all workers start over from versions that nothing is shared at."""
        log.warning("round %d: all workers start over: one lost what it shared", server_round)
        self.start_over = False
        self._strategy.forget()
        for client in self.population.clients.values():
            client.receiver.applied = client.starts = 0

    def _admit(self, hello: Hello) -> None:
        """Start with the first worker's layout; refuse a worker with another one."""
        self._strategy.admit(hello)
        self.sent.admit(hello)
        if self.model is not None:
            self.model.layout.check(hello.layout)
            for name, value in self._kept.items():
                if hello.kept.get(name) != value:
                    raise ValueError(f"initial_arrays: {other_values(name)}")
            return
        if self.initial is None:
            raise ValueError("no round was started yet")
        try:
            hello.layout.match(self.initial, hello.kept)
            hello.layout.check_finite(self.initial)
        except ValueError as error:
            raise ValueError(f"initial_arrays: {error}") from None
        self._kept = {name: hello.kept[name] for name in self.initial if name in hello.kept}
        self.begin(hello.layout)

    def _buffers_norm(self, data: bytes) -> float:
        """Return the norm of what a worker has changed of the model's buffers."""
        model = self.started
        return changed_norm(unpack_buffers(data, model.layout), model.buffers)

    def begin(self, layout: Layout) -> Downlink:
        """Begin with the initial model, of this layout."""
        initial, strategy = self.initial or ArrayRecord(), self._strategy
        require(layout.dim > 0, "the model", list(initial), "at least one trained number")
        rule = make_rule(strategy.rule, strategy.hyper())
        check_model(strategy, rule, layout)
        self.model = Downlink(
            layout,
            initial,
            strategy.downlink,
            rule=rule,
            seed=strategy.seed,
        )
        before = dict(vars(strategy))
        strategy.begin()
        check_kept(strategy)
        self.unkept.hear(before, strategy)
        return self.model

    def sample(
        self, grid: Grid, server_round: int, wanted: Wanted, *, training: bool = False
    ) -> list[Client]:
        """Wait until enough workers are there, and draw a cohort, in order of their ids.

        Parameters
        ----------
        training : bool
            Whether they are to train: if so, who must start is asked besides
            (`Algorithm.init_all`), and where all must start over they forget what they share first.
        """
        strategy, population = self._strategy, self.population
        needed = strategy.needed(wanted.at_least)
        meet = partial(population.meet, grid, server_round, self._admit, self.exchange.ledger)
        online = wait_for(
            partial(meet, needed=needed),
            needed,
            strategy.available_timeout,
            partial(note_waiting, grid),
        )
        # A sum that workers share with the server is of their weights as they were.
        self.start_over |= population.weigh() and strategy.shared
        if training and self.start_over:
            self.forget(server_round)
        count = max(int(len(online) * wanted.fraction), wanted.at_least, 1)
        cohort = population.sample(online, count, strategy.seed, server_round)
        if training:
            cohort = with_starters(online, cohort, everyone=strategy.init_all)
        self._longest = self._longest or self._longest_answer()
        allow_answers(grid, self._longest)
        if self._strategy.ladder is not None and not measures_uploads(grid):
            raise ValueError(
                f"compressor is {self._strategy.ladder.text!r}, but nothing here measures how fast "
                "answers come: the link does (flowerpress serve and join), and a simulation whose "
                "clients have an `uplink` in their node config, such as uplink=0.5 (Mbit/s)"
            )
        return cohort

    def _longest_answer(self) -> int:
        """Return how many bytes an answer may have.

        2 MiB, and twice what the update takes: whole, for a first or a lost one goes so, or pressed
        with a compressor that makes it longer, such as a wide sketch. Few workers choose one of
        their own that takes more than that; for them there is ``--max-answer``.
        """
        layout, strategy = self.started.layout, self._strategy
        buffers = sum(entry.nbytes for entry in layout.buffers)
        whole = layout.dim * layout.dtype.itemsize
        made = [make_compressor(spec).bind_shapes(layout.shapes) for spec in strategy.compressors]
        bits = max(compressor.traits(layout.dim).bits for compressor in made)
        pressed = int(bits / 32 * layout.dtype.itemsize)  # stated for float32
        return 2 * (max(whole, pressed) + buffers) + 2**21

    def orders(
        self, server_round: int, ask: Ask, config: ConfigRecord | None = None
    ) -> list[Message]:
        """Make the cohort's instructions; the question gets a number, unless it is an evaluation.

        `config` goes to the workers' tasks as it is; nothing is sent where it is empty.
        """
        strategy, model = self._strategy, self.started
        if ask.what != "evaluation":
            self.exchange.question += 1
        whole = ask.buffers and ask.stage == 1 and model.layout.buffers
        order = Instruction(
            algorithm=strategy.name,
            round=server_round,
            version=self.exchange.question,
            seed=strategy.seed,
            cohort=len(ask.cohort),
            layout=model.layout.digest,
            hyper=strategy.hyper(),
            model=model.nothing(),
            buffers=model.packed_buffers() if whole else b"",
            stage=ask.stage,
            places=b"" if ask.places is None else encode_places(ask.places, model.layout.dim),
        )
        if ask.compressed:
            self.attendance.ask(map(attrgetter("id"), ask.cohort))
        part_for = ask.part_for or (lambda client: model.part_for(client.held))
        if ask.places is not None:
            part_for = self.nothing
        beside = {strategy.configrecord_key: config} if config else {}
        choose = None
        if strategy.ladder is not None and ask.compressed:
            choose = partial(
                strategy.ladder.choose, dim=ask.length(model.layout) or model.layout.dim
            )
        return self.exchange.orders(order, ask.cohort, ask.purpose, part_for, beside, choose)

    def nothing(self, client: Client) -> ModelPart:
        """Return the part of a model that the worker holds already."""
        del client
        return self.started.nothing()

    def take(
        self, server_round: int, ask: Ask, messages: Iterable[Message]
    ) -> list[tuple[Client, Reply]]:
        """Let the answers of a cohort in, by the workers' ids.

        One answer is opened at a time: the memory is that of the largest, not of their sum.

        Returns
        -------
        list of (Client, Reply)
            Those that went in, without packets and buffers.
        """
        strategy = self._strategy
        self.received.clear()
        self.heard.clear()
        measured = ask.compressed and strategy.correlates
        self.norms = Norms(ask.into) if measured else None
        if ask.what != "values":
            self.buffers.clear()
        model = self.started
        layout = model.layout
        length = ask.length(layout)
        arrivals = self.exchange.arrivals(server_round, ask.cohort, messages)
        glances = self.exchange.glances(arrivals, layout, length, bare=ask.bare)
        glances = self.sent.only(glances, ask)
        self.guard.begin(ask, glances, server_round, lambda _: self.exchange.looked)
        self.taken, went_in = [], set()
        for client, reply in self.exchange.answers(server_round, arrivals, ask.purpose):
            self.heard.add(client.id)
            if strategy.ladder is not None:
                strategy.ladder.hear(client, last_upload(strategy.grid, client.node))
            good = self._take(server_round, client, reply, ask, model, length)
            if good:
                self.taken.append((client, replace(reply, packets=[], buffers=b"")))
                went_in.add(client.id)
            del reply  # before the next one is opened
        if ask.what != "model":
            asked = {client.id for client in ask.cohort}
            self.attendance.note(asked, went_in, self.exchange.troubles, final=ask.applied)
        return self.taken

    def _take(
        self,
        server_round: int,
        client: Client,
        reply: Reply,
        ask: Ask,
        model: Downlink,
        length: int,
    ) -> bool:
        """Let one answer in, whose packet has so many numbers; returns whether it went in."""
        strategy, layout = self._strategy, model.layout
        verdict = self.exchange.judge(
            server_round, client, reply, shared=strategy.shared, silence=ask.silence
        )
        if verdict is Acceptance.MISMATCH or reply.status == "snapshot":
            client.held = reply.held
        if verdict is Acceptance.MISMATCH and strategy.shared:
            self.start_over |= strategy.disagree(client, server_round)
        if verdict is not Acceptance.APPLY:
            return False
        try:  # all packets are checked as a whole before anything is changed
            expected = length if reply.status == "update" else None
            checked = check_packets(reply, layout, expected, bare=ask.bare)
            packets = list(map(Opened, checked, repeat(self.sent.allowed(client, ask))))
            buffers: Buffers | None = None if ask.bare else {}
            if buffers is not None and layout.buffers:
                buffers = unpack_buffers(reply.buffers, layout)
                check_finite(buffers, model.buffers)
            mass = self.population.mass(client)
            sizes = self.guard.sizes(reply, packets)
            self.guard.check(client, sizes, mass, layout.dtype)
            ask.take(Update(client, mass, reply.scale, packets, reply.held))
            for opened in packets:
                RECENT.add(opened)
        except UnknownScaleError as error:
            self.exchange.hold(server_round, client, str(error))
            return False
        except (PacketError, ProtocolError) as error:
            self.guard.refused(client)
            absurd = isinstance(error, OversizedError)
            self.exchange.refuse_answer(server_round, client, str(error), absurd=absurd)
            return False
        client.accept(sizes)
        if self.norms is not None:
            self.norms.hear(mass, reply.scale, packets, sizes.get(UPDATES, 0.0))
        self._accept(client, reply, ask, buffers)
        return True

    def _accept(self, client: Client, reply: Reply, ask: Ask, buffers: Buffers | None) -> None:
        """Note what an answer that went in says of its worker."""
        client.failing, client.held = "", reply.held
        if buffers:
            self.buffers[client.id] = buffers
        if ask.applied:
            if client.id in self.buffers:
                self.received.append(self.buffers[client.id])
            if reply.packets:
                client.receiver.apply(reply.version)

    def explain(self, server_round: int) -> None:
        """Say that a round had no update; raise if all workers have failed since their last."""
        last = server_round == self._strategy.num_rounds
        self._failures.check(server_round, self.population.clients.values(), last=last)
        log.warning("round %d: no update: the model stays as it is", server_round)
