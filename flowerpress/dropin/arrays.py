"""Which arrays of a message are pressed, and the way to one vector and back; on both sides."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, RecordDict

from flowerpress.protocol import Layout, ProtocolError
from flowerpress.protocol.layout import DTYPES, FLOATS, Entry

FloatVector = npt.NDArray[np.floating[Any]]
Place = tuple[str, str]
"""A record's name and an array's in it."""

KEY = "flowerpress"
"""The record that goes along with a pressed message, either way."""
_NUMPY = "numpy.ndarray"
FORM = "form"
"""In the record of an answer: what of its arrays is not as they were sent."""
CORRELATED = re.compile(r"\b(cq|permk)\b")
"""Compressors whose errors cancel in the plain mean of all clients, and nowhere else."""
LEAST = 2048
"""Bytes of floats from which a message is pressed: below, what goes along takes more."""


def form(array: Array) -> tuple[str, tuple[int, ...]]:
    """Return an array's dtype and shape; those of Flower's old clients say neither.

    What is no array of numpy has none that could be pressed.
    """
    if array.dtype or array.stype != _NUMPY:
        return array.dtype, tuple(array.shape)
    value = array.numpy()
    return value.dtype.name, value.shape


def name_of(record: str, key: str) -> str:
    """Return one name for an array in a record.

    >>> name_of("a", "b/c"), name_of("a/b", "c")
    ('["a", "b/c"]', '["a/b", "c"]')
    """
    return json.dumps([record, key])


@dataclass(frozen=True)
class Slot:
    """One array of a message: its record, name, dtype and shape, and whether it is pressed."""

    record: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    pressed: bool

    @property
    def place(self) -> Place:
        """The record's name and the array's."""
        return self.record, self.key

    @property
    def name(self) -> str:
        """Both in one, so that no two places have one name."""
        return name_of(self.record, self.key)


@dataclass(frozen=True)
class Plan:
    """The arrays of a message in order; those that are pressed make one vector.

    Examples
    --------
    >>> weights = ArrayRecord({"w": Array(np.ones(600, np.float32)), "n": Array(np.arange(2))})
    >>> content = RecordDict({"arrays": weights})
    >>> plan = Plan.of(content)
    >>> [slot.key for slot in plan.taken], plan.gather(content).size
    (['w'], 600)
    >>> list(plan.peeled(content)["arrays"])
    ['n']
    """

    slots: tuple[Slot, ...]

    @classmethod
    def of(
        cls,
        content: RecordDict,
        dense: Sequence[str] = (),
        skip: Collection[str] = (),
        dtypes: Mapping[str, str] | None = None,
    ) -> Plan:
        """Return the plan of a message: floats are pressed, but for some.

        Parameters
        ----------
        dense : sequence of str
            Patterns of the names of arrays that go as they are, as ``"*running_mean"``.
        skip : collection of str
            Names, see `name_of`, that go as they are.
        dtypes : mapping, optional
            The dtypes of arrays that are sent as another than they have, by name.
        """
        slots = []
        for record, arrays in content.array_records.items():
            for key, array in arrays.items():
                dtype, shape = form(array)
                name = name_of(str(record), str(key))
                pressed = (
                    dtype in FLOATS
                    and array.stype == _NUMPY
                    and math.prod(shape) > 0
                    and name not in skip
                    and not any(fnmatchcase(str(key), pattern) for pattern in dense)
                )
                if pressed and dtypes:
                    dtype = dtypes.get(name, dtype)
                slots.append(Slot(str(record), str(key), dtype, shape, pressed))
        plan = cls(tuple(slots))
        return plan if plan.nbytes >= LEAST else plan.unpressed()

    def unpressed(self) -> Plan:
        """Return the plan in which all goes as it is."""
        return Plan(tuple(Slot(*slot.place, slot.dtype, slot.shape, False) for slot in self.slots))

    @cached_property
    def taken(self) -> tuple[Slot, ...]:
        """The arrays that are pressed."""
        return tuple(slot for slot in self.slots if slot.pressed)

    @cached_property
    def layout(self) -> Layout:
        """The layout of their vector."""
        return Layout(tuple(Entry(slot.name, slot.shape, slot.dtype) for slot in self.taken))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that are pressed."""
        return sum(math.prod(slot.shape) * np.dtype(slot.dtype).itemsize for slot in self.taken)

    @property
    def orders(self) -> dict[str, list[str]]:
        """The names of each record's arrays, in order."""
        found: dict[str, list[str]] = {}
        for slot in self.slots:
            found.setdefault(slot.record, []).append(slot.key)
        return found

    def arrays(self, content: RecordDict, records: Mapping[str, str] | None = None) -> list[Array]:
        """Return what is pressed; `records` says under which name each record is found."""
        places = [((records or {}).get(s.record, s.record), s.key) for s in self.taken]
        return [content.array_records[record][key] for record, key in places]

    def gather(self, content: RecordDict, records: Mapping[str, str] | None = None) -> FloatVector:
        """Return the vector; `records` as of `arrays`."""
        return self.joined(self.arrays(content, records))

    def joined(self, arrays: Sequence[Array]) -> FloatVector:
        """Return the vector that arrays make."""
        vector = np.empty(self.layout.dim, self.layout.dtype)
        parts = [array.numpy().reshape(-1) for array in arrays]
        np.concatenate(parts, out=vector, casting="unsafe")
        return vector

    def scatter(self, vector: FloatVector) -> dict[Place, npt.NDArray[Any]]:
        """Return the arrays that a vector is made of, each in its dtype."""
        found, at = {}, 0
        for slot in self.taken:
            size = math.prod(slot.shape)
            part = vector[at : at + size].reshape(slot.shape)
            found[slot.place] = np.asarray(part, dtype=slot.dtype, order="C")
            at += size
        return found

    def peeled(self, content: RecordDict, records: Mapping[str, str] | None = None) -> RecordDict:
        """Return a message without what is pressed; records that become empty stay, as places."""
        out = copied(content)
        for slot in self.taken:
            del out.array_records[(records or {}).get(slot.record, slot.record)][slot.key]
        return out

    def to_json(self) -> str:
        """Return the plan as text."""
        return json.dumps([[*s.place, s.dtype, list(s.shape), s.pressed] for s in self.slots])

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote; raises `ProtocolError` where it is anything else."""
        try:
            rows = json.loads(text)
            return cls(
                tuple(
                    Slot(
                        str(record), str(key), _dtype(dtype), tuple(map(int, shape)), bool(pressed)
                    )
                    for record, key, dtype, shape, pressed in rows
                )
            )
        except (ValueError, TypeError) as error:
            raise ProtocolError(f"a plan of arrays cannot be read: {error}") from None


def _dtype(name: Any) -> str:
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r}")
    return str(name)


def copied(content: RecordDict) -> RecordDict:
    """Return a content with array records of its own; the arrays are the same, and do not change.

    Clients in one process would else write into each other's messages, and the strategy's.
    """
    out = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            own = ArrayRecord()
            for key, array in record.items():
                own[key] = array
            out[name] = own
        else:
            out[name] = record
    return out


def refilled(
    content: RecordDict,
    values: Mapping[Place, npt.NDArray[Any] | Array],
    orders: Mapping[str, Sequence[str]],
) -> RecordDict:
    """Return a message with `values` in its records, whose arrays are in `orders`."""
    out = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord) and name in orders:
            keys = [*orders[name], *(key for key in record if key not in orders[name])]
            whole = ArrayRecord()
            for key in keys:
                value = values.get((name, key))
                if value is not None:
                    whole[key] = value if isinstance(value, Array) else Array(value)
                elif key in record:
                    whole[key] = record[key]
            out[name] = whole
        else:
            out[name] = record
    return out


def paired(sent: Iterable[str], content: RecordDict) -> dict[str, str]:
    """Return under which name each record that was sent came back: its own, or the only one."""
    there = [name for name in content.array_records if name != KEY]
    names = list(sent)
    if len(names) == len(there) == 1:
        return {names[0]: there[0]}
    return {name: name for name in names if name in there}
