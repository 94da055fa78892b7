"""Count sketches: linear, unbiased, and good at finding what is large."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, decompress, make_compressor
from flowerpress.compressors.kernels.numba import countsketch as jit_countsketch
from flowerpress.compressors.kernels.numpy import countsketch
from flowerpress.compressors.linear.countsketch import CountSketch, merge


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 7, 300, 1024, 5000])
@pytest.mark.parametrize("rows", [1, 3, 15])
def test_twins(rows, columns, dtype):
    x = np.random.default_rng(0).standard_normal(5000).astype(dtype)
    tables = [each.sketch(x, rows, columns, (1, 2)) for each in (countsketch, jit_countsketch)]
    assert tables[0].tobytes() == tables[1].tobytes()
    read = [each.unsketch(tables[0], 5000, (1, 2)) for each in (countsketch, jit_countsketch)]
    assert read[0].tobytes() == read[1].tobytes()


def test_each_coordinate_is_in_one_cell_of_each_row():
    table = np.stack([countsketch.sketch(row, 3, 10, (5, 6)) for row in np.eye(35)])
    assert (np.abs(table).sum(axis=2) == 1).all()
    for chunk in range(0, 35, 10):
        used = np.abs(table[chunk : chunk + 10]).sum(axis=0)
        assert used.max() == 1  # coordinates of one chunk never meet


def test_meetings_are_as_rare_as_they_should_be():
    """Coordinates of two chunks share a cell with chance 1 / c, and a sign with chance 1/2."""
    c, draws = 20, 4000
    first, second = np.zeros(40), np.zeros(40)
    first[3], second[27] = 1, 1
    meet = same = 0
    for seed in range(draws):
        key = Draw(seed=seed).shared_key(43)
        a, b = countsketch.sketch(first, 1, c, key), countsketch.sketch(second, 1, c, key)
        if (a * b).any():
            meet += 1
            same += (a * b).sum() > 0
    assert abs(meet - draws / c) < 4 * math.sqrt(draws / c)
    assert abs(same - meet / 2) < 4 * math.sqrt(meet) / 2


def test_one_row_has_the_variance_of_its_formula():
    """Of coordinate i: the squares in other chunks, over c."""
    x = np.random.default_rng(1).standard_normal(100)
    sketch = CountSketch(rows=1, columns=20)
    draws = 3000
    errors = np.array([decompress(sketch.compress(x, Draw(seed=s))) - x for s in range(draws)])
    chunks = (x**2).reshape(5, 20).sum(axis=1)
    stated = np.repeat(chunks.sum() - chunks, 20).sum() / 20
    squares = (errors**2).sum(axis=1)
    assert abs(squares.mean() - stated) < 4 * squares.std() / math.sqrt(draws)
    assert abs(errors.mean(axis=0)).max() < 5 * errors.std() / math.sqrt(draws)


@pytest.mark.parametrize(
    ("rows", "columns", "least"), [(5, 1000, 18.5), (5, 4000, 19.9), (3, 1000, 14)]
)
def test_large_values_are_found(rows, columns, least):
    """Twenty values of 10 among ten thousand of N(0, 0.01): most of the largest are these."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = 0.1 * rng.standard_normal(10_000)
        hitters = rng.choice(10_000, 20, replace=False)
        x[hitters] = 10 * rng.choice([-1, 1], 20)
        y = decompress(CountSketch(rows, columns=columns).compress(x, Draw(seed=seed)))
        found.append(len(set(np.argsort(-abs(y))[:20]) & set(hitters)))
    assert np.mean(found) >= least


def test_sketches_add():
    rng = np.random.default_rng(2)
    vectors = rng.integers(-99, 99, (4, 500)).astype(np.float64)  # sums are exact
    sketch = CountSketch(rows=5, columns=60)
    packets = [
        sketch.compress(vector, Draw(seed=1, rank=rank, cohort=4))
        for rank, vector in enumerate(vectors)
    ]
    assert merge(packets) == sketch.compress(vectors.sum(axis=0), Draw(seed=1))
    mean = merge(packets, weights=[0.25] * 4)
    assert mean == sketch.compress(vectors.mean(axis=0), Draw(seed=1))
    assert mean.compressor == "countsketch:columns=60"
    assert merge(packets[:1]) == packets[0]


def test_what_does_not_add_up_is_refused():
    x = np.ones(100)
    packet = CountSketch(columns=10).compress(x)
    others = {
        "rows": CountSketch(rows=3, columns=10).compress(x),
        "columns": CountSketch(columns=11).compress(x),
        "key": CountSketch(columns=10).compress(x, Draw(seed=9)),
        "dim": CountSketch(columns=10).compress(x[:50]),
        "dtype": CountSketch(columns=10).compress(x.astype(np.float32)),
    }
    for what, other in others.items():
        with pytest.raises(PacketError, match=f"packet 1 has another {what}"):
            merge([packet, other])
    large = CountSketch(columns=10).compress(np.full(10, 1e308))
    with pytest.raises(PacketError, match=r"is -?inf in float64"):
        merge([large, large])
    with pytest.raises(PacketError, match="codec 1 is not a sketch"):
        merge([make_compressor("identity").compress(x)])
    with pytest.raises(ValueError, match="at least one"):
        merge([])
    with pytest.raises(ValueError, match="1 weights for 2"):
        merge([packet, packet], weights=[1.0])


def test_enough_columns_keep_all():
    x = np.random.default_rng(0).standard_normal(50)
    sketch = CountSketch(columns=50)
    assert np.array_equal(decompress(sketch.compress(x)), x)
    assert sketch.traits(50).omega == 0
    assert sketch.traits(50).alpha == 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("countsketch:4,columns=9", "rows must be odd"),
        ("countsketch:17,columns=9", r"rows must be an integer in \[1, 15\]"),
        ("countsketch", "either ratio or columns"),
        ("countsketch:5,ratio=0.1,columns=9", "either ratio or columns"),
        ("countsketch:5,columns=0", "must be an integer >= 1"),
        ("countsketch:5,ratio=2", r"ratio must be in \(0, 1\]"),
    ],
)
def test_a_wrong_spec_says_what_is_right(spec, says):
    with pytest.raises(ValueError, match=says):
        make_compressor(spec)
