"""What the grid reads of Flower's messages, and how it makes others of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, Error, Message, RecordDict

from flowerpress.dropin.arrays import Place, form, name_of, refilled
from flowerpress.protocol.layout import FLOATS

_MOST_ROUND = 2**31


def round_of(content: RecordDict, push: int) -> int:
    """Return the app's own number of the round, if it says one."""
    for config in content.config_records.values():
        number = config.get("server-round")
        if type(number) is int and 0 <= number < _MOST_ROUND:
            return number
    return push


def purpose_of(message: Message) -> str:
    """Return what a message is for: "train", "evaluate", "query"."""
    return message.metadata.message_type.partition(".")[0]


def identity(message: Message) -> tuple[int, ...]:
    """Return what is the same for messages that carry the same arrays."""
    if not message.has_content():
        return ()
    records = message.content.array_records.values()
    return tuple(id(array) for record in records for array in record.values())


def changed(message: Message, content: RecordDict) -> Message:
    """Return a message that was not sent yet with another content."""
    kept = message.metadata
    return Message(
        content, kept.dst_node_id, kept.message_type, ttl=kept.ttl, group_id=kept.group_id
    )


class Casts:
    """Evaluations whose arrays go as they are, in the dtypes in which they were first sent.

    Parameters
    ----------
    dtypes : mapping
        By the arrays' names, see `flowerpress.dropin.arrays.name_of`.
    """

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        self._dtypes = dtypes
        self._done: dict[tuple[int, ...], dict[Place, Array]] = {}  # alike for many nodes

    def of(self, message: Message) -> Message:
        """Return what is sent in place of a message."""
        if purpose_of(message) != "evaluate" or not message.has_content():
            return message
        key, content = identity(message), message.content
        if key not in self._done:
            self._done[key] = self._cast(content)
        arrays = self._done[key]
        orders = {record: () for record, _ in arrays}
        return changed(message, refilled(content, arrays, orders)) if arrays else message

    def _cast(self, content: RecordDict) -> dict[Place, Array]:
        found = {}
        for record, arrays in content.array_records.items():
            for name, array in arrays.items():
                first = self._dtypes.get(name_of(str(record), str(name)))
                if first and form(array)[0] in FLOATS and form(array)[0] != first:
                    found[str(record), str(name)] = Array(array.numpy().astype(first))
        return found


def answer_with(
    message: Message, content: RecordDict | None = None, error: Error | None = None
) -> Message:
    """Return an answer with another content, or an error instead, from where it came."""
    make: Any = Message  # Flower's own way, which its overloads leave out
    whole: Message = make(metadata=message.metadata, content=content, error=error)
    return whole
