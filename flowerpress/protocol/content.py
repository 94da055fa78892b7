"""A message's content: one Flower record with the blob, and one with the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.arrays import PiecedArray, Pieces
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.metrics import Metric, Metrics, peer_metrics

ARRAYS, METRICS = "arrays", "metrics"
MESSAGE, MODEL = "message", "model"


def content_bytes(content: RecordDict) -> int:
    """Bytes of a message's content as handed to the engine: data, keys and numbers."""
    return sum([len(key) + _count(record) for key, record in content.items()])


def _count(record: Any) -> int:
    """Return Flower's count of a record, of which nothing is joined for it."""
    pieced = isinstance(record, ArrayRecord) and any(
        isinstance(array, PiecedArray) for array in record.values()
    )
    if not pieced:
        return int(record.count_bytes())
    return sum(
        len(name) + (array.size if isinstance(array, PiecedArray) else len(array.data))
        for name, array in record.items()
    )


def wrap(
    data: bytes | Pieces, metrics: Mapping[str, Metric] | None = None, model: Array | None = None
) -> RecordDict:
    """Return the content that carries a blob, and `metrics` and the `model` beside it."""
    arrays = ArrayRecord()  # filled one by one: given a dictionary, it makes a copy of each array
    if isinstance(data, Pieces):
        arrays[MESSAGE] = PiecedArray(data, blob.STYPE)
    else:
        arrays[MESSAGE] = blob.to_array(data)
    if model is not None:
        arrays[MODEL] = model
    content = RecordDict({ARRAYS: arrays})
    if metrics is not None:
        content[METRICS] = MetricRecord(dict(metrics))
    return content


def unwrap(content: RecordDict) -> tuple[blob.Data, Array | None]:
    """Take the blob, and the model if there is one, out of a content.

    Raises
    ------
    ProtocolError
        There is no blob, or something else beside it.
    """
    record = content.get(ARRAYS)
    if not isinstance(record, ArrayRecord) or not {MESSAGE} <= set(record) <= {MESSAGE, MODEL}:
        raise ProtocolError(f"message must carry array {MESSAGE!r} in record {ARRAYS!r}")
    return blob.from_array(record[MESSAGE]), record.get(MODEL)


def config_of(content: RecordDict) -> dict[str, Any]:
    """Return what a user's train_config or evaluate_config says; empty where there is none."""
    records = (record for record in content.values() if isinstance(record, ConfigRecord))
    return dict(next(records, {}))


HELD = "flowerpress-held"  # in the metrics of an evaluation: the model version the worker holds


def metrics_of(content: RecordDict) -> Metrics:
    """Return a peer's metrics: numbers and lists of numbers, see `peer_metrics`."""
    record = content.get(METRICS)
    return peer_metrics(record.items()) if isinstance(record, MetricRecord) else {}


def release(message: Message) -> None:
    """Let go of a message's content, where it can be had again (see `LargeMessage` of the link)."""
    let_go = getattr(message, "release", None)
    if let_go is not None:
        let_go()
