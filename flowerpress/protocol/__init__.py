"""What crosses the network between a strategy and a worker, and how it is counted."""

from flowerpress.protocol.blob import STYPE, ProtocolError
from flowerpress.protocol.content import content_bytes, metrics_of
from flowerpress.protocol.layout import Layout
from flowerpress.protocol.ledger import Ledger, LedgerRow, RoundBytes
from flowerpress.protocol.messages import (
    Hello,
    Hyper,
    Instruction,
    ModelPart,
    Reply,
    printable,
    question,
)
from flowerpress.protocol.replica import DeltaLog, Replica, ReplicaError

__all__ = [
    "STYPE",
    "DeltaLog",
    "Hello",
    "Hyper",
    "Instruction",
    "Layout",
    "Ledger",
    "LedgerRow",
    "ModelPart",
    "ProtocolError",
    "Replica",
    "ReplicaError",
    "Reply",
    "RoundBytes",
    "content_bytes",
    "metrics_of",
    "printable",
    "question",
]
