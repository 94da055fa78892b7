"""What the strategies have in common whose workers send count sketches.

Sketches of one hash add up to the sketch of the sum, in which large values are found: so all
workers must use the same sketch, and the model moves by k coordinates a round. The step goes down
as a sparse packet, which everyone applies to a replica of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Draw, make_compressor
from flowerpress.compressors.identity import Identity
from flowerpress.compressors.kernels import kernels_of
from flowerpress.compressors.linear.countsketch import CountSketch, Table
from flowerpress.compressors.sparse.topk import TopK
from flowerpress.protocol.places import Places
from flowerpress.server.base import CompressedStrategy, FloatVector
from flowerpress.server.options import fixed, number, option, require, text, whole
from flowerpress.server.update import Update

_ALL = 2**32 - 1  # columns: more than any model has, so that nothing collides


class Sketched(CompressedStrategy):
    """A strategy with count sketches up and sparse steps down."""

    rule = "plain"

    compressor: str = option(
        "countsketch:ratio=0.02",
        text(),
        "The sketch, the same for all workers: countsketch, or identity for a sketch so wide that "
        "nothing collides.",
        letter="S",
    )
    rows: int = option(0, whole(0), "Rows of the sketch, odd; 0: as `compressor` says.", letter="r")
    columns: int = option(
        0, whole(0), "Columns of the sketch; 0: as `ratio` or `compressor` says.", letter="c"
    )
    ratio: float = option(
        0.0,
        number("[0, 1]"),
        "Columns as a share of the model's length; 0: as `columns` or `compressor` says.",
    )
    k: int = option(
        0,
        whole(0, "; 0: k_ratio"),
        "Coordinates of the model that change in a round; 0: as `k_ratio` says.",
        letter="k",
    )
    k_ratio: float = option(0.005, number("(0, 1]"), "They as a share of the model's length.")
    client_compressors: bool = fixed(False, "False: only sketches of one shape can be added")

    def check(self) -> None:
        super().check()
        self.sketch = sketch_of(self.name, self.compressor, self.rows, self.columns, self.ratio)
        self.compressor = self.sketch.spec
        self._sparse = TopK(k=self.k) if self.k else TopK(ratio=self.k_ratio)
        self.downlink = self._sparse.spec

    def begin(self) -> None:
        self.k = self._sparse.length(self.model.layout.dim)

    def table(self, server_round: int) -> Table:
        """Return an empty table, for sketches of a round."""
        x = self.model.x
        return self.sketch.empty(x.size, x.dtype, self.hash_of(server_round))

    def hash_of(self, server_round: int) -> Draw:
        """Return the hash of a round's sketches: workers draw the same."""
        return Draw(self.seed, server_round)

    def move(self, places: Places, values: FloatVector, server_round: int) -> FloatVector:
        """Publish a step of `values`, at most k of them, at `places`.

        Returns
        -------
        vector, shape (dim,)
            `values` at `places`, zero elsewhere.

        Raises
        ------
        RoundError
            The step is not finite.
        """
        step = self.zeros()
        step[places] = values
        self.model.move(step, server_round, 1.0)
        return step


def adding_to(table: Table) -> Callable[[Update], None]:
    """Return what takes an update into a sum of sketches."""
    return lambda update: table.add(update.packets[0], update.mass * update.scale)


def largest(values: FloatVector, count: int) -> npt.NDArray[np.uint32]:
    """Return the places of the `count` largest magnitudes, ascending; NaN counts as largest."""
    places: npt.NDArray[np.uint32] = kernels_of(values).top_ids(values, count)
    return places


def sketch_of(name: str, spec: str, rows: int, columns: int, ratio: float) -> CountSketch:
    """Return the sketch that strategy `name`'s options describe.

    Raises
    ------
    ValueError
        The compressor is no sketch, both `columns` and `ratio` are given, or one is out of range.

    Examples
    --------
    >>> sketch_of("fetchsgd", "countsketch:ratio=0.02", rows=3, columns=500, ratio=0).spec
    'countsketch:3,columns=500'
    """
    sketch = make_compressor(spec)
    if isinstance(sketch, Identity):
        sketch = CountSketch(rows=1, columns=_ALL)
    if not isinstance(sketch, CountSketch):
        raise ValueError(
            f"compressor is {spec!r}: {name} adds up what workers send before it is read, expected "
            "countsketch:columns=..., countsketch:ratio=..., or identity"
        )
    require(not (columns and ratio), "columns", columns, f"0 where ratio is given ({ratio})")
    if rows:
        sketch = replace(sketch, rows=rows)
    if columns or ratio:
        sketch = replace(sketch, ratio=ratio or None, columns=columns or None)
    return sketch
