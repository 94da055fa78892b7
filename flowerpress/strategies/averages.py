"""What travels beside the vector: buffers that are not trained, and the workers' metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import MetricRecord, RecordDict

from flowerpress.compressors import add_to, make_compressor
from flowerpress.protocol import Reply
from flowerpress.strategies.population import Client

FloatVector = npt.NDArray[np.floating[Any]]


def pack_buffers(buffers: FloatVector) -> bytes:
    """Return the packet of a model's buffers; empty where it has none."""
    if not buffers.size:
        return b""
    return make_compressor("identity").compress(buffers).data


def average_buffers(
    buffers: FloatVector, packets: Sequence[bytes], masses: Sequence[float]
) -> FloatVector:
    """Return the weighted mean of the buffers of those who answered."""
    if not buffers.size:
        return buffers
    mean = np.zeros_like(buffers)
    for packet, mass in zip(packets, masses, strict=True):
        add_to(packet, mean, mass / sum(masses))
    return mean


def metric_contents(applied: Sequence[tuple[Client, Reply]], weight_key: str) -> list[RecordDict]:
    """Return the metrics that all workers gave, as Flower's aggregation functions take them."""
    names = sorted(set.intersection(*(set(reply.metrics) for _, reply in applied)))
    contents = []
    for client, reply in applied:
        values: dict[str, Any] = {name: reply.metrics[name] for name in names}
        values[weight_key] = client.examples
        contents.append(RecordDict({"metrics": MetricRecord(values)}))
    return contents
