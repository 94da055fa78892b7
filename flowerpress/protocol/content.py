"""A message's content: one Flower record with the blob, and one with the metrics."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.blob import ProtocolError

ARRAYS, METRICS = "arrays", "metrics"
MESSAGE, MODEL = "message", "model"
_MAX_METRICS = 100


def content_bytes(content: RecordDict) -> int:
    """Bytes of a message's content as handed to the engine: data, keys and numbers."""
    return sum(len(key) + record.count_bytes() for key, record in content.items())


def wrap(
    data: bytes, metrics: Mapping[str, float] | None = None, model: Array | None = None
) -> RecordDict:
    """Return the content that carries a blob, and `metrics` and the `model` beside it."""
    arrays = ArrayRecord()  # filled one by one: given a dictionary, it makes a copy of each array
    arrays[MESSAGE] = blob.to_array(data)
    if model is not None:
        arrays[MODEL] = model
    content = RecordDict({ARRAYS: arrays})
    if metrics is not None:
        content[METRICS] = MetricRecord(dict(metrics))
    return content


def unwrap(content: RecordDict) -> tuple[bytes, Array | None]:
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


HELD = "flowerpress-held"  # in the metrics of an evaluation: the model version the worker holds


def metrics_of(content: RecordDict) -> dict[str, float]:
    """Return the metrics that are single finite numbers."""
    record = content.get(METRICS)
    if not isinstance(record, MetricRecord):
        return {}
    return {
        str(name)[:80]: float(value)
        for name, value in list(record.items())[:_MAX_METRICS]
        if isinstance(value, int | float) and abs(value) < sys.float_info.max
    }


def release(message: Message) -> None:
    """Let go of a message's content, where it can be had again (see `LargeMessage` of the link)."""
    let_go = getattr(message, "release", None)
    if let_go is not None:
        let_go()
