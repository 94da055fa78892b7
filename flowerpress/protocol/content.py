"""A message's content: one Flower record with the blob, and one with the metrics."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from flwr.app import ArrayRecord, MetricRecord, RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.blob import ProtocolError

ARRAYS, METRICS = "arrays", "metrics"
MESSAGE, MODEL = "message", "model"
_MAX_METRICS = 100


def content_bytes(content: RecordDict) -> int:
    """Bytes of a message's content as handed to the engine: data, keys and numbers."""
    return sum(len(key) + record.count_bytes() for key, record in content.items())


def wrap(data: bytes, metrics: Mapping[str, float] | None = None) -> RecordDict:
    """Return the content that carries a blob, and `metrics` beside it."""
    content = RecordDict({ARRAYS: ArrayRecord({MESSAGE: blob.to_array(data)})})
    if metrics is not None:
        content[METRICS] = MetricRecord(dict(metrics))
    return content


def unwrap(content: RecordDict) -> bytes:
    """Take the blob out of a content; raises `ProtocolError` where there is none."""
    record = content.array_records.get(ARRAYS)
    if record is None or MESSAGE not in record or set(record) - {MESSAGE, MODEL}:
        raise ProtocolError(f"message must carry array {MESSAGE!r} in record {ARRAYS!r}")
    return blob.from_array(record[MESSAGE])


def metrics_of(content: RecordDict) -> dict[str, float]:
    """Return the metrics that are single finite numbers."""
    record: Mapping[str, object] = content.metric_records.get(METRICS) or {}
    return {
        str(name)[:80]: float(value)
        for name, value in list(record.items())[:_MAX_METRICS]
        if isinstance(value, int | float) and abs(value) < sys.float_info.max
    }
