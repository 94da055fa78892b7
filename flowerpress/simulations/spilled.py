"""Answers that wait for the others of their round: beyond a number of bytes in a file.

An answer whose packets its worker keeps anyway (`Unjoined.held`) takes no memory of its own. Of the
others, such as the models of a thousand clients of FedAvg, `KEPT` bytes wait in memory, and the
rest in a temporary file, from which the server reads one at a time.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Message

from flowerpress.protocol.content import ARRAYS, MESSAGE, entries
from flowerpress.protocol.unjoined import Unjoined
from flowerpress.worker.aside import Aside, Attic

KEPT = 512 * 2**20  # bytes of a round's answers


class Spilled(Array):
    """An `Array` whose data are read from a file whenever they are asked for."""

    __qualname__ = "Array"  # what Flower writes of an object's class, and looks up again

    def __init__(self, aside: Aside, array: Array) -> None:
        self.__dict__.update(dtype=array.dtype, shape=array.shape, stype=array.stype)
        self._aside, self.nbytes = aside, aside.shape[0]

    @property
    def data(self) -> bytes:
        """The bytes, read anew each time."""
        return self._aside.read().tobytes()

    @data.setter
    def data(self, data: bytes) -> None:
        raise AttributeError("the data of an answer in a file cannot be changed")

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


def spill(message: Message, attic: Attic) -> None:
    """Put the packets of an answer aside where they take memory that `attic` has no more of."""
    record = entries(message.content).get(ARRAYS)
    array = entries(record).get(MESSAGE) if isinstance(record, ArrayRecord) else None
    if not isinstance(array, Unjoined) or array.held or not isinstance(record, ArrayRecord):
        return
    if not attic.room(array.nbytes):
        aside = attic.put(object(), np.frombuffer(array.data, np.uint8))
        if aside is not None:
            record[MESSAGE] = Spilled(aside, array)
