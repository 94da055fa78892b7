"""What a server asks a new node, and what a worker says of itself before its first round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flwr.app import RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.content import unwrap, wrap
from flowerpress.protocol.layout import MAX_ARRAYS, Kept, Layout

_LONGEST_SPEC = 1000  # characters


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself.

    Its id, number of examples and layout; the model version it holds; the last session of which it
    anything (0: none); what its model has that never travels (see `Layout.match`); and the
    compressor that it has chosen for itself (empty: none).
    """

    client: int
    examples: int
    layout: Layout
    held: int = -1
    session: int = 0
    kept: Kept = field(default_factory=dict)
    compressor: str = ""

    def encode(self) -> RecordDict:
        """Return the Flower message content."""
        header: dict[str, Any] = {
            "client": self.client,
            "examples": self.examples,
            "layout": self.layout.to_json(),
            "held": self.held + 1,
            "session": self.session,
            **({"compressor": self.compressor} if self.compressor else {}),
        }
        if self.kept:
            header["kept"] = dict(self.kept)
        return wrap(blob.unjoined(header))

    @classmethod
    def decode(cls, content: RecordDict) -> Hello:
        """Read a hello; raises `ProtocolError` naming the field that is wrong."""
        header, _ = blob.decode_array(unwrap(content)[0])
        examples = blob.field(header, "examples", int)
        if not 1 <= examples < 2**53:
            raise ProtocolError(f"message field 'examples' is {examples}, expected 1 to 2**53 - 1")
        session = blob.field(header, "session", int)
        if session >= 2**53:
            raise ProtocolError(f"message field 'session' is {session}, expected less than 2**53")
        compressor = blob.field(header, "compressor", str) if "compressor" in header else ""
        if len(compressor) > _LONGEST_SPEC:
            raise ProtocolError(f"message field 'compressor' has {len(compressor)} characters")
        return cls(
            client=blob.field(header, "client", int),
            examples=examples,
            layout=Layout.from_json(header.get("layout")),
            held=blob.field(header, "held", int) - 1,
            session=session,
            kept=_kept(header.get("kept", {})),
            compressor=compressor,
        )


def _kept(value: Any) -> Kept:
    if (
        not isinstance(value, dict)
        or len(value) > MAX_ARRAYS
        or not all(type(v) is str or (type(v) is int and 0 <= v < 2**32) for v in value.values())
    ):
        raise ProtocolError("message field 'kept' must hold checksums and names by name")
    return value


def question() -> RecordDict:
    """Return the content of the message that asks for a `Hello`."""
    return wrap(blob.unjoined({}))
