"""Count sketches: tables that can be added before they are read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowerpress.compressors.base import Compressor, Decoded, Traits, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.fields import kept, real, require_share, require_whole, whole
from flowerpress.compressors.front import require_finite_values
from flowerpress.compressors.identity import Dense
from flowerpress.compressors.kernels import twin
from flowerpress.compressors.kernels.arithmetic import by_default_rules
from flowerpress.compressors.kernels.numpy.countsketch import MOST_ROWS
from flowerpress.compressors.wire import budget, reading
from flowerpress.compressors.wire.packet import Buffer, Packet, PacketError
from flowerpress.compressors.wire.payload import Reader, require_finite
from flowerpress.compressors.wire.reading import Opened

_HASH = 1  # signs and shifts as `kernels.numpy.countsketch` makes them
_PLACES = 43  # purpose of the key
_MOST_WORK = 13.0  # steps of an estimate of a packet that is in no other

# Two words of the key, the hash, the rows, two zero bytes, the columns.
_HEAD = struct.Struct("<IIBBHI")


@dataclass(frozen=True)
class Table:
    """A sketch, and what it was made with.

    Parameters
    ----------
    cells : Vector, shape (rows * columns,)
    rows, columns, dim : int
    key : tuple of int
        Of the signs and the shifts.
    level : int
        How many frames are around the cells, its own included.
    """

    cells: Vector
    rows: int
    columns: int
    dim: int
    key: tuple[int, int]
    level: int = 1

    def unlike(self, other: Table) -> str:
        """Return the first thing in which a table differs that cannot be added; empty for none."""
        for what in ("dim", "rows", "columns", "key"):
            if getattr(self, what) != getattr(other, what):
                return what
        return "dtype" if self.cells.dtype != other.cells.dtype else ""

    @by_default_rules
    def add(self, packet: Packet | Buffer | Opened, weight: float = 1.0) -> None:
        """Add `weight` times the sketch in `packet` to the cells, in place.

        Raises
        ------
        PacketError
            If the packet is damaged, of another key, shape, dim or dtype, or the sum overflows;
            the cells are unchanged.
        """
        packet, decoded, _ = reading.parse(packet)
        table = decoded if isinstance(decoded, Table) else _read(packet)
        if what := self.unlike(table):
            raise PacketError(f"countsketch: the packet has another {what} than the sum")
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.cells + self.cells.dtype.type(weight) * table.cells
        if not np.isfinite(total).all():
            raise PacketError(f"countsketch: the sum of the cells overflows {total.dtype}")
        self.cells[:] = total

    @by_default_rules
    def estimates(self) -> Vector:
        """Return the estimate of each coordinate, shape (dim,)."""
        table = self.cells.reshape(self.rows, self.columns)
        values: Vector = twin("countsketch").unsketch(table, self.dim, self.key)
        return values

    def add_to(self, out: Vector, weight: float) -> None:
        """Do ``out += weight * estimates``, with one temporary as long as the vector."""
        Dense(self.vector()).add_to(out, weight)

    def vector(self) -> Vector:
        """Return the estimates."""
        budget.charge(self._work() * self.dim)
        budget.hold(self.dim * self.cells.itemsize)
        return self.estimates()

    def _work(self) -> float:
        """Return the steps of an estimate."""
        if self.level == 1:
            return min(_MOST_WORK, float(self.rows))  # any sketch is read, by itself
        row = 2.6 if self.columns < 64 else 1.3 + 160 / self.columns  # short chunks take longer
        return 0.5 + row * self.rows


@dataclass(frozen=True)
class CountSketch(Compressor):
    """Add the coordinates, with random signs, to a few cells each; read the median. Unbiased.

    (Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", ICALP 2002; in
    federated learning Rothchild et al., "FetchSGD: communication-efficient federated learning with
    sketching", ICML 2020). Sketches are linear: all senders of a round use one key, so that tables
    may be added, see :func:`merge`, and large values found in the sum. Errors of senders are alike
    for like vectors, hence A = omega.

    Parameters
    ----------
    rows : int, default 5
        Estimates of each coordinate, of which the median is taken: odd, 1 to 15.
    ratio : float, optional
        Columns as a share of the coordinates, in (0, 1].
    columns : int, optional
        Columns; more than d keep all exactly. Exactly one of `ratio` and `columns` is given.

    Notes
    -----
    With c columns the error of one row at a coordinate has mean zero, is symmetric, and has a
    variance of at most ``|x|^2 / c``, of coordinates in other chunks of c only. The median of an
    odd number of such errors is symmetric too and has no larger variance, since more than half must
    be above t for it to be. So ``omega = (d - m) / c`` for m the size of the smallest chunk.

    Examples
    --------
    >>> from flowerpress.compressors import decompress
    >>> x = np.array([0.0, 9.0, 0.0, 0.0])
    >>> packet = CountSketch(rows=3, columns=2).compress(x)
    >>> packet.nbytes, decompress(packet)[1]
    (88, np.float64(9.0))
    """

    rows: int = 5
    ratio: float | None = None
    columns: int | None = None

    name: ClassVar[str] = "countsketch"
    codec: ClassVar[int] = 23
    reading_work: ClassVar[float] = 0.5  # of the cells; that of the estimates comes with them
    parsers: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "rows": whole,
        "ratio": real,
        "columns": whole,
    }

    def __post_init__(self) -> None:
        require_whole("rows", self.rows, 1, MOST_ROWS)
        if self.rows % 2 == 0:
            raise ValueError(f"rows must be odd, so that there is a median; got {self.rows}")
        if (self.ratio is None) == (self.columns is None):
            raise ValueError("give either ratio or columns, for example ratio=0.01")
        require_share(self.ratio, self.columns, f"{self.name}:columns=")

    def encode(self, x: Vector, draw: Draw) -> Sequence[Buffer]:
        """Return the key, the shape and the table, row after row."""
        columns = kept(self.ratio, self.columns, x.size)
        key = draw.shared_key(_PLACES)
        with np.errstate(over="ignore", invalid="ignore"):
            cells = twin("countsketch").sketch(x, self.rows, columns, key).reshape(-1)
        require_finite(cells, "the cell")
        return [_HEAD.pack(*key, _HASH, self.rows, 0, columns), cells]

    def empty(self, dim: int, dtype: np.dtype[Any], draw: Draw = Draw()) -> Table:  # noqa: B008
        """Return the sketch of zeros, to which packets of the same draw can be added.

        Examples
        --------
        >>> sketch = CountSketch(columns=100)
        >>> total = sketch.empty(100, np.dtype(float))
        >>> for place in (3, 4):
        ...     total.add(sketch.compress(np.eye(100)[place]), 0.5)
        >>> np.flatnonzero(total.estimates())
        array([3, 4])
        """
        columns = kept(self.ratio, self.columns, dim)
        cells: Vector = np.zeros(self.rows * columns, dtype)
        return Table(cells, self.rows, columns, dim, draw.shared_key(_PLACES))

    @classmethod
    def decode(cls, packet: Packet) -> Decoded:
        """Check the shape and every cell."""
        return _read(packet)

    @classmethod
    def spec_of(cls, packet: Packet) -> str:
        """Return ``countsketch`` with its rows and columns."""
        _, rows, columns = _read_head(Reader(packet, cls.name), packet.dim)
        return cls(rows, columns=columns).spec

    def traits(self, dim: int, cohort: int = 1) -> Traits:
        """Return the constants; one key for all senders, so averaging does not help."""
        columns = kept(self.ratio, self.columns, dim)
        omega = (dim - ((dim - 1) % columns + 1)) / columns
        bits = 8.0 * _HEAD.size + 32 * self.rows * columns
        return Traits(True, omega, 1.0 if not omega else None, (omega, 0.0), bits)


@by_default_rules
def merge(packets: Sequence[Packet], weights: Sequence[float] | None = None) -> Packet:
    """Return the packet of the weighted sum of the vectors that were sketched.

    Parameters
    ----------
    packets : sequence of Packet
        At least one; all of one key (that is: one seed, round and stream), shape, dim and dtype.
    weights : sequence of float, optional
        One for each packet; ones by default.

    Raises
    ------
    PacketError
        If a packet is damaged, differs from the first in any of these, or the sum overflows.
    ValueError
        If there are no packets, or another number of weights.

    Examples
    --------
    >>> from flowerpress.compressors import decompress
    >>> sketch = CountSketch(columns=100)
    >>> parts = [sketch.compress(np.eye(100)[place]) for place in (3, 4)]
    >>> np.flatnonzero(decompress(merge(parts)))
    array([3, 4])
    """
    if not packets:
        raise ValueError("merge: give at least one packet")
    weights = [1.0] * len(packets) if weights is None else weights
    if len(weights) != len(packets):
        raise ValueError(f"merge: {len(weights)} weights for {len(packets)} packets")
    tables = [_read(Packet.parse(packet)) for packet in packets]
    first = tables[0]
    total: Vector = np.zeros_like(first.cells)
    for position, (table, weight) in enumerate(zip(tables, weights, strict=True)):
        if what := first.unlike(table):
            raise PacketError(f"countsketch: packet {position} has another {what} than the first")
        with np.errstate(over="ignore", invalid="ignore"):
            total += total.dtype.type(weight) * table.cells
    require_finite_values(total)
    head = _HEAD.pack(*first.key, _HASH, first.rows, 0, first.columns)
    return Packet.build(CountSketch.codec, total.dtype, first.dim, [head, total])


def _read(packet: Packet) -> Table:
    if packet.header.codec != CountSketch.codec:
        raise PacketError(f"countsketch: codec {packet.header.codec} is not a sketch's")
    reader = Reader(packet, CountSketch.name)
    key, rows, columns = _read_head(reader, packet.dim)
    cells = reader.finite(rows * columns, packet.dtype, "cell")
    reader.done()
    return Table(cells, rows, columns, packet.dim, key, budget.current().level)


def _read_head(reader: Reader, dim: int) -> tuple[tuple[int, int], int, int]:
    k0, k1, scheme, rows, spare, columns = reader.unpack(_HEAD)
    if scheme != _HASH:
        raise reader.error(f"hash {scheme} is not known; known is {_HASH}")
    if not (rows % 2 and rows <= MOST_ROWS):
        raise reader.error(f"rows is {rows}, must be odd and at most {MOST_ROWS}")
    if spare:
        raise reader.error("bytes 10 and 11 must be zero")
    if not 1 <= columns <= dim:
        raise reader.error(f"columns is {columns}, must be in [1, {dim}]")
    return (k0, k1), rows, columns
