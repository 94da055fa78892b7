"""What the grid reads of Flower's messages, and how it makes others of them."""

from __future__ import annotations

from typing import Any

from flwr.app import Error, Message, RecordDict

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


def answer_with(
    message: Message, content: RecordDict | None = None, error: Error | None = None
) -> Message:
    """Return an answer with another content, or an error instead, from where it came."""
    make: Any = Message  # Flower's own way, which its overloads leave out
    whole: Message = make(metadata=message.metadata, content=content, error=error)
    return whole
