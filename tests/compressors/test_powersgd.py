"""PowerSGD: the projection, its guarantee, and what it is a projection onto."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, decompress, make_compressor
from flowerpress.compressors.kernels import lowrank
from flowerpress.compressors.linear.powersgd import MOST_TENSORS, PowerSGD

DTYPES = [np.float32, np.float64]
SHAPES = [(40, 30), (30, 40), (500, 7), (7, 500), (40_000, 5), (5, 40_000)]


def gaussian(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def sent(matrix, rank, seed=0):
    """Return what is decoded of one matrix."""
    compressor = PowerSGD(rank).bind_shapes([matrix.shape])
    return decompress(compressor.compress(matrix.reshape(-1), Draw(seed=seed))).reshape(
        matrix.shape
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_matrix_of_that_rank_comes_back(shape, rank, dtype):
    a, b = shape
    matrix = (gaussian(a, rank) @ gaussian(rank, b, seed=1)).astype(dtype)
    lost = np.linalg.norm(sent(matrix, rank) - matrix) / np.linalg.norm(matrix)
    assert lost < 1000 * np.finfo(dtype).eps  # a start may be near to missing a direction


def test_sparse_directions_come_back_too():
    """Two columns that a start of signs would lose half of the time, and of one parity."""
    matrix = np.zeros((20, 20))
    matrix[:, 3] = matrix[:, 5] = np.arange(20)
    matrix[4, :] = 1
    for seed in range(50):
        assert np.allclose(sent(matrix, 2, seed), matrix, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_a_projection(shape):
    matrix = gaussian(*shape)
    kept = sent(matrix, 3)
    assert np.isclose(((matrix - kept) ** 2).sum(), (matrix**2).sum() - (kept**2).sum())
    again = sent(kept, 3)
    assert np.allclose(again, kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_are_those_of_the_definition(shape):
    """P spans M S and Q = M' P, written with plain matrix products."""
    matrix, rank = gaussian(*shape), 3
    tall = shape[0] >= shape[1]
    begin = lowrank.start((1, 2), 17, rank, min(shape))
    left, right = lowrank.factors(matrix, begin)
    long, basis, other = (matrix, left, right) if tall else (matrix.T, right, left)
    assert np.allclose(basis @ basis.T, np.eye(rank))
    expected, _ = np.linalg.qr(long @ begin.T)
    assert np.allclose(basis.T @ (basis @ expected), expected)
    assert np.allclose(other, basis @ long)


def test_the_start():
    numbers = lowrank.start((1, 2), 1000, 3, 1000)
    assert np.array_equal(numbers.reshape(-1)[500:], lowrank.start((1, 2), 1500, 1, 2500)[0])
    assert [int(n * 2**32) for n in numbers[0, :3]] == [-1150949641, -2685435529, -4044040701]
    assert abs(numbers).max() < 1
    assert np.array_equal(numbers * 2.0**32 % 2, np.ones((3, 1000)))
    assert abs(numbers.mean()) < 4 * math.sqrt(1 / 3 / 3000)
    assert abs((numbers**2).mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / 3000)


def spectrum(values, a, b, seed=3):
    """Return an a x b matrix of these singular values."""
    left, _ = np.linalg.qr(gaussian(a, a, seed=seed))
    right, _ = np.linalg.qr(gaussian(b, b, seed=seed + 1))
    return left[:, : len(values)] * values @ right[:, : len(values)].T


MATRICES = {
    "equal": spectrum(np.ones(9), 14, 9),
    "equal, wide": spectrum(np.ones(9), 9, 14),
    "unit vectors": np.eye(14, 9),
    "slow decay": spectrum(0.9 ** np.arange(9), 14, 9),
    "one and the rest": spectrum(np.array([1.0] + [0.3] * 8), 14, 9),
    "gaussian": gaussian(9, 14),
    "ones and noise": 1 + 0.5 * gaussian(14, 9),
}


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", MATRICES)
def test_alpha_is_true_and_tight(name, rank):
    """The share that is kept is r / min(a, b) for equal singular values, else more."""
    matrix = MATRICES[name]
    x = matrix.reshape(-1)
    compressor = PowerSGD(rank).bind_shapes([matrix.shape])
    alpha = compressor.traits(x.size).alpha
    assert alpha == rank / 9
    draws = [decompress(compressor.compress(x, Draw(seed=s))) for s in range(200)]
    errors = np.array([((y - x) ** 2).sum() for y in draws]) / (x**2).sum()
    room = 4 * errors.std() / math.sqrt(len(errors)) + 1e-9
    assert errors.mean() <= 1 - alpha + room
    if name.startswith(("equal", "unit")):
        assert abs(errors.mean() - (1 - alpha)) <= room


def test_tensors_are_matrices_or_go_as_they_are():
    shapes = [(8, 3, 3, 3), (8,), (), (0, 4), (2, 2), (30, 20), (5, 1, 1)]
    compressor = PowerSGD(2).bind_shapes(shapes)
    assert compressor.matrices == ((8, 27), (8, 1), (1, 1), (2, 2), (30, 20), (5, 1))
    x = gaussian(216 + 8 + 1 + 4 + 600 + 5, dtype=np.float32)
    packet = compressor.compress(x)
    y = decompress(packet)
    assert packet.nbytes == 24 + 8 + 6 * 8 + 4 * (2 * 35 + 8 + 1 + 4 + 2 * 50 + 5)
    assert np.array_equal(y[216:229], x[216:229])
    assert np.array_equal(y[829:], x[829:])
    for part in (slice(0, 216), slice(229, 829)):
        assert 0 < ((y[part] - x[part]) ** 2).sum() < (x[part] ** 2).sum()
    assert compressor.traits(x.size).alpha == 2 / 20
    assert packet.compressor == "powersgd"


def test_each_tensor_has_its_own_start():
    matrix = gaussian(20, 20)
    y = decompress(PowerSGD(1).bind_shapes([(20, 20)] * 2).compress(np.tile(matrix.reshape(-1), 2)))
    assert not np.allclose(y[:400], y[400:])


def test_shapes_are_asked_for():
    x = np.ones(12)
    for free in (make_compressor("powersgd"), make_compressor("hadamard+powersgd:1")):
        with pytest.raises(ValueError, match="needs the tensors' shapes: call bind_shapes"):
            free.compress(x)
        with pytest.raises(ValueError, match="rows=100"):
            free.traits(12)
    with pytest.raises(ValueError, match="bound to tensors of 6 coordinates, got 12"):
        PowerSGD().bind_shapes([(2, 3)]).compress(x)
    with pytest.raises(ValueError, match="65537 tensors, at most 65536"):
        PowerSGD().bind([1] * (MOST_TENSORS + 1))
    for wrong in ({"rank": 0}, {"rank": 257}, {"rank": 1.5}, {"rows": -1}):
        with pytest.raises(ValueError, match="must be an integer in"):
            PowerSGD(**wrong)


def test_rows_make_one_matrix_of_any_vector():
    x = gaussian(11 * 9 + 4)
    packet = make_compressor("powersgd:2,rows=11").compress(x)
    assert packet == make_compressor("powersgd:2,rows=11").bind_shapes([(103,)]).compress(x)
    y = decompress(packet)
    assert np.array_equal(y[99:], x[99:])
    assert np.linalg.matrix_rank(y[:99].reshape(11, 9)) == 2


def test_without_matrices_nothing_is_lost():
    bound = make_compressor("powersgd:2").bind((3, 5))
    x = gaussian(8)
    assert np.array_equal(decompress(bound.compress(x)), x)
    traits = bound.traits(8)
    assert (traits.unbiased, traits.omega, traits.alpha) == (True, 0.0, 1.0)


@pytest.mark.parametrize("shape", [(20, 10), (10, 20)])
def test_directions_that_are_not_there_are_zeros(shape):
    matrix = np.zeros(shape)
    matrix[3] = 2.0
    begin = lowrank.start((1, 2), 0, 3, 10)
    left, right = lowrank.factors(matrix, begin)
    assert (abs(left).max(1) > 0).tolist() == [True, False, False]
    assert (abs(right).max(1) > 0).tolist() == [True, False, False]
    assert np.allclose(left.T @ right, matrix)
    for factor in lowrank.factors(np.zeros(shape), begin):
        assert not factor.any()


@pytest.mark.parametrize("exponent", [-1070, -1000, -600, 600, 1000, 1015])
def test_extreme_numbers_are_treated_alike(exponent):
    matrix = np.round(gaussian(20, 30) * 8)
    moved = np.ldexp(matrix, exponent)
    kept, expected = np.ldexp(sent(moved, 2), -exponent), sent(matrix, 2)
    room = 1e-9 if exponent > -1000 else 0.2  # subnormal numbers have few digits
    assert np.allclose(kept, expected, atol=room)


def test_overflow_is_refused_before_anything_is_changed():
    huge = np.full((20, 30), 3e38, dtype=np.float32)
    with pytest.raises(ValueError, match="factor overflows float32"):
        sent(huge, 1)
    packet = PowerSGD(1).bind_shapes([(4,), (20, 30)]).compress(np.full(604, 1e36))
    for weight, dtype in ((1e3, np.float32), (1e300, np.float64)):
        out = np.ones(604, dtype=dtype)
        with pytest.raises(PacketError, match="overflows float"):
            add_to(packet, out, weight)
        assert (out == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_is_in_the_order_of_the_format(dtype):
    """Products are rounded, then added over the rank; in pieces, whatever their size."""
    matrix = gaussian(3, 20_000, dtype=dtype)
    matrix = np.concatenate([matrix, matrix[::-1]])
    left, right = lowrank.factors(matrix, lowrank.start(Draw().key(44), 0, 4, 6))
    total = left[0][:, None] * right[0]
    for k in range(1, 4):
        total = total + left[k][:, None] * right[k]
    assert np.array_equal(sent(matrix, 4), total)


def test_sums_fold_in_halves():
    """The order that equal bytes rest upon: of seven, three and three and the middle."""
    x = 10.0 ** np.arange(7)[:, None] * np.pi
    a = [x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3]]
    b = [a[0] + a[2], a[1] + a[3]]
    assert lowrank._folded(x.copy()) == b[0] + b[1]


def test_it_loses_little_more_than_it_must():
    """Halko, Martinsson and Tropp (2011), theorem 10.5, for a Gaussian start; here it is uniform.

    The mean loss of rank k + p is at most 1 + k / (p - 1) times the best of rank k.
    """
    matrix = spectrum(0.8 ** np.arange(30), 50, 30)
    tails = [(0.64 ** np.arange(k, 30)).sum() for k in range(8)]
    bound = min((1 + k / (7 - k)) * tails[k] for k in range(7))
    losses = [((sent(matrix, 8, seed) - matrix) ** 2).sum() for seed in range(40)]
    assert tails[7] * 0.64 < np.mean(losses) < bound
