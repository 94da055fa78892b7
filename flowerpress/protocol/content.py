"""A message's content: one Flower record with the blob, and one with the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.metrics import Metric, Metrics, peer_metrics

ARRAYS, METRICS = "arrays", "metrics"
MESSAGE, MODEL = "message", "model"
_NUMBERS = {int, float}


# A record's own entries. Flower's way to read and to set one makes a typing object at each, in five
# microseconds: a tenth of the time of a small round.
entries: Callable[[Any], Any] = (
    attrgetter("_data") if "_data" in vars(RecordDict()) else lambda record: record
)


def content_bytes(content: RecordDict) -> int:
    """Bytes of a message's content as handed to the engine: data, keys and numbers."""
    total = 0
    for key, record in entries(content).items():
        total += len(key)
        if not isinstance(record, ArrayRecord):
            total += record.count_bytes()
            continue
        for name, array in entries(record).items():
            nbytes = getattr(array, "nbytes", None)  # what is neither joined nor read for it
            total += len(name) + (len(array.data) if nbytes is None else nbytes)
    return total


def wrap(
    message: Array, metrics: Mapping[str, Metric] | None = None, model: Array | None = None
) -> RecordDict:
    """Return the content that carries a blob, and `metrics` and the `model` beside it."""
    content, arrays = RecordDict(), ArrayRecord()
    entries(arrays)[MESSAGE] = message
    if model is not None:
        entries(arrays)[MODEL] = model
    entries(content)[ARRAYS] = arrays
    if metrics is not None:
        entries(content)[METRICS] = _metric_record(metrics)
    return content


def _metric_record(metrics: Mapping[str, Metric]) -> MetricRecord:
    if not {*map(type, metrics.values())} <= _NUMBERS:
        return MetricRecord(dict(metrics))  # Flower says what is wrong, if anything is
    record = MetricRecord()
    entries(record).update(metrics)
    return record


def unwrap(content: RecordDict) -> tuple[Array, Array | None]:
    """Take the array of the blob, and the model's if there is one, out of a content.

    Raises
    ------
    ProtocolError
        There is no blob, or something else beside it.
    """
    record = entries(content).get(ARRAYS)
    arrays = entries(record) if isinstance(record, ArrayRecord) else {}
    if MESSAGE not in arrays or len(arrays) != 1 + (MODEL in arrays):
        raise ProtocolError(f"message must carry array {MESSAGE!r} in record {ARRAYS!r}")
    return arrays[MESSAGE], arrays.get(MODEL)


def config_of(content: RecordDict) -> dict[str, Any]:
    """Return what a user's train_config or evaluate_config says; empty where there is none."""
    for record in entries(content).values():
        if isinstance(record, ConfigRecord):
            return dict(record)
    return {}


HELD = "flowerpress-held"  # in the metrics of an evaluation: the model version the worker holds


def metrics_of(content: RecordDict) -> Metrics:
    """Return a peer's metrics: numbers and lists of numbers, see `peer_metrics`."""
    record = entries(content).get(METRICS)
    return peer_metrics(record.items()) if isinstance(record, MetricRecord) else {}


def release(message: Message) -> None:
    """Let go of a message's content, where it can be had again (see `LargeMessage` of the link)."""
    let_go = getattr(message, "release", None)
    if let_go is not None:
        let_go()
