"""One instruction as it goes to a cohort: what is the same for all is written once."""

from __future__ import annotations

from typing import Any

from flwr.app import RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.content import wrap
from flowerpress.protocol.messages import Instruction
from flowerpress.protocol.model_part import ModelPart

_OF_THE_MODEL = "model"


class Letters:
    """Writes an instruction to each of a cohort.

    Parameters
    ----------
    order : Instruction
        What all are told. Its model, session, rank and versions are no one's.

    Examples
    --------
    >>> from dataclasses import replace
    >>> order = Instruction("ef21", 1, 1, 0, "digest", {"lr": 0.1}, ModelPart(0, 0))
    >>> content, payload = Letters(order).to(ModelPart(0, 0), session=2, rank=3)
    >>> Instruction.decode(content) == replace(order, session=2, rank=3)
    True
    """

    def __init__(self, order: Instruction) -> None:
        self._tail = [part for part in (order.buffers, order.places) if part]
        self._shared = blob.texts(order.header())
        self._models: dict[int, tuple[ModelPart, str]] = {}  # the same part goes to many

    def to(self, model: ModelPart, **own: int) -> tuple[RecordDict, int]:
        """Return a worker's content, and the bytes of packets in it.

        `own` are its session, and, where it is to answer with packets, its rank and what was
        applied and refused of it, as in `Instruction`.
        """
        known = self._models.get(id(model))
        if known is None:
            known = self._models[id(model)] = model, blob.text(model.head)
        texts: dict[str, Any] = {**self._shared, _OF_THE_MODEL: known[1]}
        for name, number in own.items():
            if number or name not in Instruction.TOLD_IF_ANY:
                texts[name] = repr(number)
        inline = [] if model.array else model.packets
        packets = [*inline, *self._tail]
        payload = sum(map(len, self._tail)) + sum(map(len, model.packets))
        return wrap(blob.unjoined_of(texts, packets), model=model.array), payload
