"""What crosses the network between a strategy and a worker, and how it is counted."""

from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.content import HELD, config_of, content_bytes, metrics_of, release
from flowerpress.protocol.grids import OneRunGrid, name_message, name_reply
from flowerpress.protocol.hello import Hello, question
from flowerpress.protocol.identity import ensure_task_identity
from flowerpress.protocol.layout import Layout
from flowerpress.protocol.ledger import Ledger, LedgerRow, RoundBytes
from flowerpress.protocol.messages import (
    Hyper,
    Instruction,
    Reply,
    printable,
)
from flowerpress.protocol.metrics import (
    Metric,
    MetricReader,
    Metrics,
    as_json,
    as_metric,
    finite_numbers,
)
from flowerpress.protocol.mixing import Mix, Owed
from flowerpress.protocol.model_part import ModelPart, mark_of
from flowerpress.protocol.places import decode_places, encode_places
from flowerpress.protocol.replica import DeltaLog, Replica, ReplicaError
from flowerpress.protocol.rules import Rule, make_rule
from flowerpress.protocol.unjoined import STYPE

__all__ = [
    "HELD",
    "STYPE",
    "DeltaLog",
    "Hello",
    "Hyper",
    "Instruction",
    "Layout",
    "Ledger",
    "LedgerRow",
    "Metric",
    "MetricReader",
    "Metrics",
    "Mix",
    "ModelPart",
    "OneRunGrid",
    "Owed",
    "ProtocolError",
    "Replica",
    "ReplicaError",
    "Reply",
    "RoundBytes",
    "Rule",
    "as_json",
    "as_metric",
    "config_of",
    "content_bytes",
    "decode_places",
    "encode_places",
    "ensure_task_identity",
    "finite_numbers",
    "make_rule",
    "mark_of",
    "metrics_of",
    "name_message",
    "name_reply",
    "printable",
    "question",
    "release",
]
