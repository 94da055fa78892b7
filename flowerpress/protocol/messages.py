"""What a strategy sends a worker in a round, and what comes back.

An `Instruction` names the algorithm and its hyperparameters, so that one ClientApp serves every
algorithm; it carries the model (dense, or as the deltas a worker missed) and the version of the
worker's state that the server applied last. A `Reply` carries the worker's update and the version
it was built on. A `Hello` is what a worker says of itself before its first round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from zlib import crc32

from flwr.app import RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.content import metrics_of, unwrap, wrap
from flowerpress.protocol.metrics import Metric
from flowerpress.protocol.model_part import ModelPart, read_head
from flowerpress.protocol.shared import shared_of

_MAX_REPLY_HEADER = 16_384
STATUSES = ("update", "silent", "resync", "snapshot", "stale", "failed")
_NUMBERS = ("round", "version", "session", "applied", "seed", "rank", "cohort", "stage")
# What must be in a header, and of which kind.
_ORDER: dict[str, type] = dict.fromkeys(_NUMBERS, int)
_ORDER |= {"algorithm": str, "layout": str, "hyper": dict, "places": bool, "buffers": bool}
_REPLY: dict[str, type] = dict.fromkeys(("client", "version", "base", "held"), int)
_REPLY |= {"status": str, "reason": str, "scale": float, "buffers": bool}
Hyper = dict[str, int | float | str | bool]


@dataclass(frozen=True)
class Instruction:
    """One round's order to one worker.

    Parameters
    ----------
    algorithm : str
        Registered name, for example "ef21-sgdm".
    round : int
        Flower's server round, from 1.
    version : int
        The number of this question (see `flowerpress.compressors.feedback`).
    applied : int
        The version of this worker's packets that the server applied last; 0 for none.
    refused, absurd : int
        The version of this worker's answers that the server refused last, as damaged or too large,
        and that it refused last as too large; 0 for none. They travel where there is one: a worker
        of an older release takes a refused answer for a lost one.
    session : int
        Number of the strategy's run among those this worker has seen; a new one starts it afresh.
    seed, rank, cohort : int
        The run's seed, the worker's place among the sampled workers, and their number.
    layout : str
        Digest of the model's layout.
    hyper : dict
        Hyperparameters: compressor, lr, momentum, local_steps, ...
    model : ModelPart
    buffers : bytes
        Packet of the buffers that are not trained; empty for none.
    stage : {1, 2}
        Which of a round's exchanges this is.
    places : bytes
        The coordinates asked for in the second exchange, see `encode_places`; empty for none.
    """

    algorithm: str
    round: int
    version: int
    seed: int
    layout: str
    hyper: Hyper
    model: ModelPart
    session: int = 1
    applied: int = 0
    refused: int = 0
    absurd: int = 0
    rank: int = 0
    cohort: int = 1
    buffers: bytes = b""
    stage: int = 1
    places: bytes = b""

    TOLD_IF_ANY: ClassVar = ("refused", "absurd")  # fields that travel where they are not 0

    @property
    def question(self) -> tuple[dict[str, Any], bytes]:
        """What makes this question this one: one asked again by a restarted server has the same.

        It is of the model that the worker has then, not of what is sent to take it there.
        """
        return {**self.header(), "model": [self.model.version, self.model.mark]}, self.places

    @property
    def digest(self) -> int:
        """Fingerprint of the question, see `digest_of`."""
        return digest_of(*self.question)

    def header(self) -> dict[str, Any]:
        """Return what is said beside the packets."""
        return {
            "algorithm": self.algorithm,
            "round": self.round,
            "version": self.version,
            "applied": self.applied,
            "session": self.session,
            "seed": self.seed,
            "rank": self.rank,
            "cohort": self.cohort,
            "layout": self.layout,
            "hyper": self.hyper,
            "model": self.model.head,
            "buffers": bool(self.buffers),
            "stage": self.stage,
            "places": bool(self.places),
            **({"refused": self.refused} if self.refused else {}),
            **({"absurd": self.absurd} if self.absurd else {}),
        }

    def encode(self) -> RecordDict:
        """Return the Flower message content: one record with one array."""
        inline = [] if self.model.array else self.model.packets
        tail = [part for part in (self.buffers, self.places) if part]
        return wrap(blob.unjoined(self.header(), [*inline, *tail]), model=self.model.array)

    @classmethod
    def decode(cls, content: RecordDict) -> Instruction:
        """Read an instruction; raises `ProtocolError` naming the field that is wrong."""
        message, model = unwrap(content)
        header, packets = blob.decode_array(message)
        told = blob.fields(header, _ORDER)
        for name in ("places", "buffers"):  # after the model's packets, in the other order
            told[name] = bytes(packets.pop()) if told[name] and packets else b""
        shared = shared_of(model)
        if model is not None and shared is not None:
            of = model
            packets = shared.once("packets", lambda: blob.decode_array(of)[1])
        elif model is not None:
            packets = blob.decode_array(model)[1]
        version, base, rates, mark = read_head(header.get("model"))
        if not set(map(type, told["hyper"].values())) <= {int, float, str, bool}:
            raise ProtocolError("message field 'hyper' must hold numbers, strings and booleans")
        for name in cls.TOLD_IF_ANY:
            if name in header:
                told[name] = blob.field(header, name, int)
        whole = model if shared is not None else None
        part = ModelPart(version, base, packets, rates, whole, mark)
        return cls(model=part, **told)

    @property
    def payload(self) -> int:
        """Bytes of packets that `encode` sends."""
        return sum(map(len, self.model.packets)) + len(self.buffers) + len(self.places)


@dataclass(frozen=True)
class Reply:
    """A worker's answer.

    Parameters
    ----------
    client : int
        The worker's stable id (its partition, not Flower's node id).
    version : int
        The question answered.
    base : int
        The worker's settled version, which the update builds on.
    status : {"update", "silent", "resync", "snapshot", "stale", "failed"}
        "silent": the worker took part, and has nothing to send (gossip's trigger). "resync": its
        memory is not at the version the server applied last. "snapshot": it does not hold the
        model the deltas start from. "stale": it has heard question `base` of this run, and the one
        it answers is none that it still knows the answer of: the server was restarted from an
        older state. "failed": it raised; `reason` says what.
    held : int
        The model version the worker holds; -1 for none.
    scale : float
        The update stands for ``scale * decompress(packets[0])``; in (0, 1].
    packets : list of bytes or memoryviews
        The update.
    buffers : bytes
        Packet of the worker's buffers; empty for none.
    gradient : float
        Norm of the largest gradient that the worker met in the round; 0: not said.
    metrics : mapping
        Numbers about the round (loss, num-examples), or lists of them, as a Flower MetricRecord.
    """

    client: int
    version: int
    base: int = 0
    status: str = "update"
    reason: str = ""
    held: int = -1
    scale: float = 1.0
    packets: list[Any] = field(default_factory=list)
    buffers: bytes = b""
    gradient: float = 0.0
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def encode(self, *, held: bool = False) -> RecordDict:
        """Return the Flower message content: one array, and the metrics.

        `held` says that this process keeps the packets anyway, see `Unjoined`.
        """
        return wrap(blob.unjoined(self._header(), self._all_packets(), held=held), self.metrics)

    def to_bytes(self) -> bytes:
        """Return the reply as one run of bytes, to be kept."""
        # NaN is not JSON, and a metric that was never set is one.
        metrics = {
            name: [float(each).hex() for each in value]
            if isinstance(value, list)
            else float(value).hex()
            for name, value in self.metrics.items()
        }
        return blob.encode_blob({**self._header(), "metrics": metrics}, self._all_packets())

    @classmethod
    def from_bytes(cls, data: bytes) -> Reply:
        """Read what `to_bytes` wrote; raises `ProtocolError` where it is anything else."""
        header, packets = blob.decode_blob(data)
        metrics = {k: _from_hex(v) for k, v in blob.field(header, "metrics", dict).items()}
        return cls._read(header, packets, metrics)

    def _header(self) -> dict[str, Any]:
        return {
            "client": self.client,
            "version": self.version,
            "base": self.base,
            "status": self.status,
            "reason": self.reason,
            "held": self.held + 1,
            "scale": self.scale,
            "buffers": bool(self.buffers),
            **({"gradient": self.gradient} if self.gradient else {}),
        }

    def _all_packets(self) -> list[bytes]:
        return [*self.packets, self.buffers] if self.buffers else self.packets

    @classmethod
    def decode(cls, content: RecordDict) -> Reply:
        """Read a reply; raises `ProtocolError` naming the field that is wrong."""
        header, packets = blob.decode_array(unwrap(content)[0], _MAX_REPLY_HEADER)
        return cls._read(header, packets, metrics_of(content))

    @classmethod
    def _read(
        cls, header: dict[str, Any], packets: list[Any], metrics: Mapping[str, Metric]
    ) -> Reply:
        told = blob.fields(header, _REPLY)
        told["buffers"] = bytes(packets.pop()) if told["buffers"] and packets else b""
        status, scale = told["status"], told["scale"]
        if status not in STATUSES:
            raise ProtocolError(f"message field 'status' is {status!r:.80}, not one of {STATUSES}")
        if not 0.0 < scale <= 1.0:
            raise ProtocolError(f"message field 'scale' is {scale}, expected 0 < scale <= 1")
        gradient = header.get("gradient", 0.0)
        if type(gradient) is not float:
            gradient = blob.field(header, "gradient", float)
        if not 0.0 <= gradient < math.inf:
            raise ProtocolError(f"message field 'gradient' is {gradient}, expected a norm")
        told["held"] -= 1
        if told["reason"]:
            told["reason"] = printable(told["reason"])
        return cls(packets=packets, gradient=gradient, metrics=metrics, **told)

    @property
    def payload(self) -> int:
        """Bytes of packets that `encode` sends."""
        return sum(map(len, self.packets)) + len(self.buffers)


def digest_of(question: Mapping[str, Any], places: bytes) -> int:
    """Return the fingerprint of an `Instruction.question`."""
    return crc32(blob.encode_blob(dict(question), [places]))


def _from_hex(value: Any) -> float | list[float]:
    """Return the number, or the list of numbers, that ``float.hex`` wrote."""
    try:
        if isinstance(value, list):
            return [float.fromhex(each) for each in value]
        return float.fromhex(value)
    except (TypeError, ValueError, OverflowError):
        raise ProtocolError(f"message field 'metrics' has {value!r:.80}, no number") from None


def printable(text: str) -> str:
    """Return a peer's text as one line of at most 300 characters that is safe to log."""
    text = text[:300]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
