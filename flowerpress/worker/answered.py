"""A reply that is kept, so that its question asked again gets the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.protocol import Instruction, Reply
from flowerpress.protocol.messages import digest_of


@dataclass(frozen=True)
class Answered:
    """A question and the reply it got, as they are: bytes only where memory leaves the process.

    Parameters
    ----------
    question : tuple of dict and bytes
        See `Instruction.question`.
    reply : Reply
        Its packets are the very bytes that were sent, and that the sender holds in flight.
    """

    question: tuple[dict[str, Any], bytes]
    reply: Reply

    def answers(self, order: Instruction) -> bool:
        """Whether `order` is this question again."""
        return digest_of(*self.question) == order.digest

    def to_vector(self) -> npt.NDArray[np.uint8]:
        """Return the question's digest and the reply as bytes; `read` reads them."""
        data = digest_of(*self.question).to_bytes(4, "little") + self.reply.to_bytes()
        return np.frombuffer(data, np.uint8)


def read(vector: npt.NDArray[Any], order: Instruction) -> Reply | None:
    """Return the reply in what `Answered.to_vector` returned, if it answers `order`."""
    data = vector.tobytes()
    known = int.from_bytes(data[:4], "little") == order.digest
    return Reply.from_bytes(data[4:]) if known else None
