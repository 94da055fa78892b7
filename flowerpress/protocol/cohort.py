"""One instruction as it goes to a cohort: what is the same for all is written once."""

from __future__ import annotations

from typing import Any

from flwr.app import RecordDict

from flowerpress.protocol import blob
from flowerpress.protocol.content import wrap
from flowerpress.protocol.messages import Instruction
from flowerpress.protocol.model_part import ModelPart
from flowerpress.protocol.unjoined import Unjoined

# What differs between the workers of a cohort.
_DIFFERING = ("absurd", "applied", "model", "rank", "refused", "session", "sizes")


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
        self._tail = list(filter(None, (order.buffers, order.places)))
        self._tail_bytes = sum(map(len, self._tail))
        self._own = {"applied": order.applied, "rank": order.rank, "session": order.session}
        self._texts = _stretches(order.header())
        # The last one, as JSON, and its bytes: mostly all get the same.
        self._model: tuple[ModelPart, str, int] | None = None

    def to(self, model: ModelPart, **own: int) -> tuple[RecordDict, int]:
        """Return a worker's content, and the bytes of packets in it.

        `own` are its session, and, where it is to answer with packets, its rank and what was
        applied and refused of it, as in `Instruction`.
        """
        if self._model is None or self._model[0] is not model:
            self._model = model, blob.text(model.head), sum(map(len, model.packets))
        packets = [*([] if model.array else model.packets), *self._tail]
        values: dict[str, int | str] = {**self._own, **own, "model": self._model[1]}
        values["sizes"] = blob.text(list(map(len, packets))) if packets else "[]"
        for name in Instruction.TOLD_IF_ANY:
            if not values.get(name):
                values.pop(name, None)
        texts = []
        for varying, alike in self._texts:
            if varying is None:
                texts.append(alike)
            elif varying in values:
                texts.append(f'"{varying}":{values[varying]}')
        payload = self._tail_bytes + self._model[2]
        head = blob.framed(f"{{{','.join(texts)}}}")
        return wrap(Unjoined([head, *packets]), model=model.array), payload


def _stretches(header: dict[str, Any]) -> list[tuple[str | None, str]]:
    """Return a header's JSON, in the order of its keys: names of what differs, and what does not.

    Each is (name, "") or (None, text).
    """
    found: list[tuple[str | None, str]] = []
    alike: dict[str, Any] = {}
    for name in [*sorted({*header, *_DIFFERING}), ""]:
        if name and name not in _DIFFERING:
            alike[name] = header[name]
            continue
        if alike:
            found.append((None, blob.text(alike)[1:-1]))
            alike = {}
        found += [(name, "")] if name else []
    return found
