"""A message's bytes as the pieces that they are the sum of.

A message is a header and packets. Where it stays in this process nobody needs them in one run of
bytes: the reader takes the very packets that the sender holds, and both together keep them once.
Whatever asks for the array's `data`, such as Flower's own engines or the link, gets them joined.
"""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import Array

STYPE = "flowerpress.v1"


class Unjoined(Array):
    """The `Array` of a message, not joined yet; what is pickled of it is a plain `Array`.

    Parameters
    ----------
    parts : sequence of bytes
        The header with what stands before it, then each packet.
    held : bool, default False
        Whether this process keeps the packets anyway, so that to let go of them would free nothing.

    Attributes
    ----------
    nbytes : int
        The length of all pieces together.
    parts : tuple of bytes
        The pieces; one of all bytes, after somebody has asked for them, or has put others.
    """

    __qualname__ = "Array"  # what Flower writes of an object's class, and looks up again

    def __init__(self, parts: Sequence[bytes | memoryview], *, held: bool = False) -> None:
        nbytes = sum(map(len, parts))
        # Not by the attributes: each of Flower's is checked and noted as a change.
        self.__dict__.update(
            dtype="uint8",
            shape=(nbytes,),
            stype=STYPE,
            nbytes=nbytes,
            held=held,
            parts=tuple(parts),
        )

    nbytes: int
    held: bool
    parts: tuple[bytes | memoryview, ...]

    @property
    def data(self) -> bytes:
        """All pieces as one run of bytes; what was joined stays so, in place of the pieces."""
        parts = self.parts  # once: others may join them meanwhile
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        data = b"".join(parts)
        self.data = data
        return data

    @data.setter
    def data(self, data: bytes) -> None:
        self.__dict__.update(parts=(data,), nbytes=len(data), held=False)

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        return Array, (self.dtype, self.shape, self.stype, self.data)
