"""The memory around a compressor: what a sender still owes, and the commit rule.

A compressor alone forgets what it dropped. Feedback is the memory that makes biased compression
converge: EF14 (Seide et al. 2014; Stich et al. 2018; Karimireddy et al. 2019) remembers the error,
EF21 (Richtarik, Sokolov, Fatkhullin 2021, Algorithm 1) remembers what the receiver already has.

======== =============== ============= ==============================
feedback sender sends    sender keeps  receiver keeps
======== =============== ============= ==============================
plain    C(x)            nothing       nothing
EF14     C(x + e)        e             nothing
EF21     C(x - g)        g             g (or the mean over senders)
======== =============== ============= ==============================

EF14 switched off, which papers compare it with, is plain (``feedback="none"`` of an algorithm).
Then nothing is owed, and an unbiased compressor goes unscaled: it is the memory that needs a
contraction, and without one a scaled packet would only be a shorter, biased step.

**The commit rule.** Delivery is at most once, and a sender cannot know whether a packet arrived
until the receiver's next message names the last packet it applied. So a sender holds its memory and
the one packet in flight, and settles when it is told:

* EF14 keeps p = x + e and the packet q. Delivered: e = p - q. Lost: e = p, all of it is owed.
* EF21 leaves g untouched and keeps q. Delivered: g += q. Lost: q is dropped.

This costs one packet of memory and no second copy, and it is exact: a lost packet is the same as
not having taken part.

**Refused is not lost.** A receiver may have had the packet and not believed it, because it was too
large: absurd. What made it so must not be owed, or every later packet is as absurd. So EF14 keeps e
beside p while the packet is in flight (a second vector), and an absurd packet leaves e as it was.
For EF21 it is the same as a lost one. A packet that was damaged on the way counts as lost: what it
said is owed.

**Versions.** A packet's version is the number of the question it answers. The receiver numbers its
questions 1, 2, 3, ...; each names the last version it applied from this sender (0: it holds
nothing of this sender), and closes the question before it. So an answer to an older question is
never applied, and the sender's settled version is the receiver's applied version at every answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Compressor, Draw, Packet, Traits, add_to, vectors
from flowerpress.compressors.base import traits_of
from flowerpress.compressors.contraction import contraction, contraction_scale  # noqa: F401
from flowerpress.compressors.wire.recent import RECENT

FloatVector = npt.NDArray[np.floating[Any]]


class Settlement(Enum):
    """What a sender learned when it was told the last version applied."""

    STALE = "an older question than the last one heard"
    REPEAT = "the last question heard, again"
    NOTHING = "nothing was in flight"
    DELIVERED = "the packet in flight was applied"
    LOST = "the packet in flight was not applied"
    ABSURD = "the packet in flight was refused as too large: as if it had never been made"
    RESET = "the receiver holds nothing of this sender: start over"
    MISMATCH = "the receiver applied a version this sender does not know"


class Acceptance(Enum):
    """What a receiver decides about an answer."""

    APPLY = "apply"
    STALE = "not the open question: a duplicate, or too late"
    MISMATCH = "built on another version than the receiver's"


@dataclass
class Receiver:
    """One sender as its receiver sees it: versions applied, asked for, refused, each the last.

    `absurd` is the last that was refused as too large, `refused` the last for whatever reason.
    """

    applied: int = 0
    asked: int = 0
    refused: int = 0
    absurd: int = 0

    def ask(self, version: int) -> int:
        """Open question `version`, close any before it, and return the version applied last."""
        if version <= self.asked or version <= self.applied:
            raise ValueError(
                f"question {version} does not follow {max(self.asked, self.applied)}: "
                "versions only grow"
            )
        self.asked = version
        return self.applied

    def judge(self, base: int, version: int, *, shared: bool) -> Acceptance:
        """Decide about a packet; `shared`: sender and receiver must agree on what came before."""
        if version != self.asked or version <= self.applied:
            return Acceptance.STALE
        if shared and base != self.applied:
            return Acceptance.MISMATCH
        return Acceptance.APPLY

    def apply(self, version: int) -> None:
        """Record that the packet `version` was applied; from now on it counts as delivered."""
        self.applied = version

    def refuse(self, *, absurd: bool) -> None:
        """Record that the answer to the open question was had, and not taken."""
        self.refused = self.asked
        if absurd:
            self.absurd = self.asked


@dataclass
class Sender(ABC):
    """One sender's memory and its packet in flight.

    Parameters
    ----------
    memory : vector or None
        e (or p while a packet is in flight) for EF14, g for EF21, None for plain or before the
        first packet. 1-D, the dtype of the vectors sent. Where these are tensors
        (`flowerpress.compressors.vectors`), it is one too, on their device.
    settled : int
        Version of the last packet known to be applied; 0 for none.
    pending : int
        Version of the packet in flight; 0 for none.
    heard : int
        The last question heard; older ones are refused, so that a late question cannot roll back
        what a newer one settled.
    packet : bytes
        The frame in flight.
    scale : float
        Weight of the frame in flight: it stands for ``scale * decompress(packet)``.
    before : vector or None
        The memory without the packet in flight, where it cannot be had from what else is kept.
    """

    memory: FloatVector | None = None
    settled: int = 0
    pending: int = 0
    heard: int = 0
    packet: bytes = b""
    scale: float = 1.0
    before: FloatVector | None = None

    shared = False  # True: the receiver holds a state that must agree with this sender's
    remembers = True  # False: nothing is kept, and a question may be answered again from scratch
    optional = False  # True: a run may do without the memory, as ``feedback="none"``

    def settle(self, applied: int, question: int, absurd: int = 0) -> Settlement:
        """Hear `question`, which names the last versions applied and `absurd`; act accordingly.

        Never raises on a version it does not know: that is `Settlement.MISMATCH`, and the memory
        is left as it was. On `STALE` and `REPEAT` nothing changes; a packet still in flight for a
        repeated question may be sent again as it is.
        """
        if question <= self.heard:
            return Settlement.REPEAT if question == self.heard else Settlement.STALE
        self.heard = question
        return self._settle(applied, undo=0 < self.pending == absurd)

    def _settle(self, applied: int, *, undo: bool) -> Settlement:
        if self.pending and applied == self.pending:
            self._delivered()
            self.settled = self.pending
            self._clear()
            return Settlement.DELIVERED
        if applied == self.settled:
            outcome = Settlement.LOST if self.pending else Settlement.NOTHING
            if undo:
                outcome = Settlement.ABSURD
                self._undo()
            self._clear()
            return outcome
        if applied == 0 or not self.shared:
            # Nothing of ours is applied that we do not know of, or nobody needs to agree with us.
            if undo:
                self._undo()
            elif applied > self.pending > 0:
                self._delivered()  # our memory is an older one: count nothing twice
            self._clear()
            self._reset()
            self.settled = applied
            return Settlement.RESET
        return Settlement.MISMATCH

    def send(
        self,
        x: FloatVector,
        compressor: Compressor,
        version: int,
        draw: Draw | None = None,
        room: FloatVector | None = None,
    ) -> Packet:
        """Compress what is to be sent of `x`, remember it as in flight, and return the packet.

        Parameters
        ----------
        room : vector, optional
            Memory like `x`, and apart from it, for what is owed; the sender may keep it.

        Raises
        ------
        ValueError
            `x` has a NaN or an infinity (nothing is changed), or a packet is still in flight.
        """
        if self.pending:
            raise ValueError(f"packet {self.pending} is still in flight: settle it first")
        draw = draw or Draw()
        owed = self._owed(x, room)
        scale = self._scale(traits_of(compressor, len(x), draw.cohort))  # permk's are of a cohort
        packet = compressor.compress(owed, draw)
        self._sent(owed)
        if self.remembers:
            self.pending, self.packet, self.scale = version, packet.data, scale
        return packet

    def _clear(self) -> None:
        self.pending, self.packet, self.scale, self.before = 0, b"", 1.0, None

    def _scale(self, traits: Traits) -> float:
        """Weight of a packet: 1, or 1/(1+omega) where the method needs a contraction."""
        return contraction_scale(traits)

    @abstractmethod
    def _owed(self, x: FloatVector, room: FloatVector | None) -> FloatVector:
        """Return what is to be compressed, in `room` where there is some."""

    @abstractmethod
    def _sent(self, owed: FloatVector) -> None:
        """Remember `owed` where the method does."""

    @abstractmethod
    def _delivered(self) -> None:
        """Commit the packet in flight."""

    def _undo(self) -> None:
        """Undo what sending the packet in flight has changed."""
        self.before = None  # nothing was kept

    @abstractmethod
    def _reset(self) -> None:
        """Forget what only a receiver that lost it could have needed."""


@dataclass
class PlainSender(Sender):
    """No memory: C(x), unscaled. A lost packet is gone."""

    remembers = False

    def _scale(self, traits: Traits) -> float:
        return 1.0

    def _owed(self, x: FloatVector, room: FloatVector | None) -> FloatVector:
        return x

    def _sent(self, owed: FloatVector) -> None:
        return None

    def _delivered(self) -> None:
        return None

    def _reset(self) -> None:
        return None


@dataclass
class EF14Sender(Sender):
    """Error feedback: C(x + e), then e = x + e - C(x + e)."""

    optional = True

    def _owed(self, x: FloatVector, room: FloatVector | None) -> FloatVector:
        absent = self.memory is None
        owed: FloatVector = vectors.copied(x, room) if absent else vectors.add(x, self.memory, room)
        return owed

    def _sent(self, owed: FloatVector) -> None:
        self.before, self.memory = self.memory, owed

    def _delivered(self) -> None:
        if self.memory is not None:
            add_to(RECENT.take(self.packet), self.memory, -self.scale)

    def _undo(self) -> None:
        self.memory = self.before

    def _reset(self) -> None:
        return None  # what is owed stays owed, whatever the receiver forgot


@dataclass
class EF21Sender(Sender):
    """Differences to what the receiver holds: C(x - g), then g += C(x - g)."""

    shared = True

    def _owed(self, x: FloatVector, room: FloatVector | None) -> FloatVector:
        owed: FloatVector = x if self.memory is None else vectors.subtract(x, self.memory, room)
        return owed

    def _sent(self, owed: FloatVector) -> None:
        return None  # g is nothing until the first packet is known to be applied

    def _delivered(self) -> None:
        if self.memory is None:
            first = Packet.parse(self.packet)
            self.memory = np.zeros(first.dim, first.dtype)
        add_to(RECENT.take(self.packet), self.memory, self.scale)

    def _reset(self) -> None:
        self.memory = None
