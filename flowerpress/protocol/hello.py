"""What a server asks a new node, and what a worker says of itself before its first round."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.blob import ProtocolError
from flowerpress.protocol.content import unwrap, wrap
from flowerpress.protocol.layout import Layout


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself.

    Its id, number of examples and layout; the model version it holds; and the last session of which
    it remembers anything (0: none).
    """

    client: int
    examples: int
    layout: Layout
    held: int = -1
    session: int = 0

    def encode(self) -> RecordDict:
        """Return the Flower message content."""
        header = {
            "client": self.client,
            "examples": self.examples,
            "layout": self.layout.to_json(),
            "held": self.held + 1,
            "session": self.session,
        }
        return wrap(blob.encode_blob(header))

    @classmethod
    def decode(cls, content: RecordDict) -> Hello:
        """Read a hello; raises `ProtocolError` naming the field that is wrong."""
        header, _ = blob.decode_blob(unwrap(content)[0])
        examples = blob.field(header, "examples", int)
        if not 1 <= examples < 2**53:
            raise ProtocolError(f"message field 'examples' is {examples}, expected at least 1")
        session = blob.field(header, "session", int)
        if session >= 2**53:
            raise ProtocolError(f"message field 'session' is {session}, expected less than 2**53")
        return cls(
            client=blob.field(header, "client", int),
            examples=examples,
            layout=Layout.from_json(header.get("layout")),
            held=blob.field(header, "held", int) - 1,
            session=session,
        )


def question() -> RecordDict:
    """Return the content of the message that asks for a `Hello`."""
    return wrap(blob.encode_blob({}))
