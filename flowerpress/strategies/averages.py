"""What travels beside the vector: buffers that are not trained, and the workers' metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import MetricRecord, RecordDict

from flowerpress.compressors import decompress, make_compressor
from flowerpress.protocol import Layout

MetricsFn = Callable[[list[RecordDict], str], MetricRecord]
FloatVector = npt.NDArray[np.floating[Any]]


def pack_buffers(buffers: FloatVector) -> bytes:
    """Return the packet of a model's buffers; empty where it has none."""
    if not buffers.size:
        return b""
    return make_compressor("identity").compress(buffers).data


def unpack_buffers(packet: bytes, layout: Layout) -> FloatVector:
    """Return the buffers in a worker's packet; raises `PacketError` where they are damaged."""
    if not layout.buffer_dim:
        return np.empty(0, layout.dtype)
    return decompress(packet, max_dim=layout.buffer_dim)


def average_buffers(
    buffers: FloatVector, received: Sequence[FloatVector], masses: Sequence[float]
) -> FloatVector:
    """Return the weighted mean of the buffers received; as they were if none were."""
    if not buffers.size or not received:
        return buffers
    mean = np.average(np.asarray(received, np.float64), axis=0, weights=masses)
    return mean.astype(buffers.dtype)


def average_metrics(
    reports: Sequence[tuple[float, Mapping[str, float]]], weight_key: str, own: MetricsFn | None
) -> MetricRecord:
    """Average each metric over the workers that gave it, by their mass.

    Parameters
    ----------
    reports : sequence of (mass, metrics)
        In order of the workers' ids.
    weight_key : str
        The metric that says what a worker counts for: not averaged, and the mass for `own`.
    own : callable, optional
        Flower's aggregation function of a user, called instead, with the metrics all workers gave.
    """
    if own is not None:
        common = set.intersection(*(set(metrics) for _, metrics in reports))
        contents = []
        for mass, metrics in reports:
            values: dict[str, Any] = {name: metrics[name] for name in sorted(common)}
            contents.append(RecordDict({"metrics": MetricRecord({**values, weight_key: mass})}))
        return own(contents, weight_key)
    means = {}
    for name in sorted({name for _, metrics in reports for name in metrics} - {weight_key}):
        given = [(mass, metrics[name]) for mass, metrics in reports if name in metrics]
        total = sum(mass for mass, _ in given)
        means[name] = sum(mass / total * value for mass, value in given)
    return MetricRecord(dict(means))
