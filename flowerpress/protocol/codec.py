"""A message's content as bytes, by Flower's public API alone.

For engines that are not Flower's own: what crosses them is bytes, so a sender cannot share memory
with a receiver by accident, and sizes are lengths. Arrays keep their serialization type and data
untouched; numbers, strings and byte strings of the other records travel in the JSON header.
"""

from __future__ import annotations

import base64
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flowerpress.protocol.blob import ProtocolError, decode_blob, encode_blob


def encode_content(content: RecordDict) -> bytes:
    """Return `content` as bytes.

    Examples
    --------
    >>> data = encode_content(RecordDict({"m": MetricRecord({"loss": 0.5})}))
    >>> decode_content(data)["m"]["loss"]
    0.5
    """
    arrays: list[list[Any]] = []
    packets: list[bytes] = []
    for key, arrays_of in content.array_records.items():
        for name, array in arrays_of.items():
            arrays.append([key, name, array.dtype, list(array.shape), array.stype])
            packets.append(array.data)
    header = {
        "arrays": arrays,
        "order": list(content),
        "metrics": {k: dict(record) for k, record in content.metric_records.items()},
        "configs": {
            k: {name: _to_json(value) for name, value in record.items()}
            for k, record in content.config_records.items()
        },
    }
    return encode_blob(_exact(header), packets)


def decode_content(data: bytes) -> RecordDict:
    """Return the content `encode_content` wrote; raises `ProtocolError` for anything else."""
    header, packets = decode_blob(data)
    try:
        records: dict[str, Any] = {}
        for (key, name, dtype, shape, stype), packet in zip(header["arrays"], packets, strict=True):
            records.setdefault(key, {})[name] = Array(dtype, tuple(shape), stype, packet)
        found: dict[str, Any] = {key: ArrayRecord(value) for key, value in records.items()}
        found |= {k: MetricRecord(_floats(v)) for k, v in header["metrics"].items()}
        found |= {
            k: ConfigRecord({name: _from_json(value) for name, value in record.items()})
            for k, record in header["configs"].items()
        }
        return RecordDict({key: found.get(key, ArrayRecord()) for key in header["order"]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"message content is damaged: {error!r}") from None


def _exact(header: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: metrics that are not finite travel as strings."""
    header["metrics"] = {
        key: {name: _number_to_json(value) for name, value in record.items()}
        for key, record in header["metrics"].items()
    }
    return header


def _number_to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_number_to_json(item) for item in value]
    if isinstance(value, float) and value not in (float("inf"), -float("inf")) and value == value:
        return value
    return value if isinstance(value, int) else {"float": repr(value)}


def _floats(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _number_from_json(value) for name, value in record.items()}


def _number_from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_number_from_json(item) for item in value]
    return float(value["float"]) if isinstance(value, dict) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return _number_to_json(value) if isinstance(value, float) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        return (
            base64.b64decode(value["bytes"], validate=True)
            if "bytes" in value
            else float(value["float"])
        )
    return value
