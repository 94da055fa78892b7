"""The conformance kit: checks that a compressor keeps its promises.

Anyone who writes a compressor can run it; the package's own tests do. The compressor's class must
be registered (for another package: by its entry point), since packets are decoded through the
registry.

>>> check_compressor("topk:0.1", draws=40)

Statistics use fixed seeds: a check that passes once passes always. Bounds on means leave room for
four standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from flowerpress.compressors.base import Compressor, Vector
from flowerpress.compressors.draw import Draw
from flowerpress.compressors.kernels.choice import forced_kernels, installed
from flowerpress.compressors.spec.registry import make_compressor
from flowerpress.compressors.testing.hostile import check_hostile
from flowerpress.compressors.wire.apply import add_to, decompress
from flowerpress.compressors.wire.packet import HEADER_BYTES
from flowerpress.compressors.wire.reading import Divisible, Opened

DTYPES: tuple[np.dtype[np.floating[Any]], ...] = (np.dtype(np.float32), np.dtype(np.float64))
DIMS = (1, 2, 3, 31, 64, 257, 1024, 1500)
_STANDARD_ERRORS = 4.0


def check_compressor(spec: str | Compressor, *, draws: int = 400) -> None:
    """Run every check; an AssertionError says which promise is broken.

    Parameters
    ----------
    spec : str or Compressor
        The compressor under test.
    draws : int, default 400
        Random draws for each statistical check.
    """
    compressor = make_compressor(spec)
    check_spec(compressor)
    check_decoding(compressor)
    check_refusals(compressor)
    check_extremes(compressor)
    check_bits(compressor)
    check_twins(compressor)
    check_parts(compressor)
    check_moments(compressor, draws=draws)
    check_cohort(compressor, draws=draws // 2)
    check_hostile(compressor)


def inputs(dim: int, seed: int = 0) -> dict[str, Vector]:
    """Return named float64 vectors of length `dim` that are hard for one compressor or another."""
    rng = np.random.default_rng(seed)
    gauss = rng.standard_normal(dim)
    places = np.arange(dim)
    return {
        "gaussian": gauss,
        "heavy-tailed": gauss * np.exp(2 * rng.standard_normal(dim)),
        "one-hot": np.where(places == dim // 2, -3.0, 0.0),
        "equal": np.full(dim, 0.3),
        "alternating": np.where(places % 2 == 0, 1.0, -1.0),
        "sparse": np.where(rng.random(dim) < 0.1, gauss, 0.0),
        "decaying": 0.9**places + 1e-6,
    }


def check_spec(compressor: Compressor) -> None:
    """Check that the spec string gives the compressor back."""
    again = make_compressor(compressor.spec).spec
    _require(again == compressor.spec, f"spec {compressor.spec!r} comes back as {again!r}")
    hash(compressor)


def check_decoding(compressor: Compressor) -> None:
    """Check that packets say what they hold, do not vary, and decode alike into any `out`."""
    for dim in DIMS:
        bound = compressor.bind((dim,))
        for name, values in inputs(dim).items():
            for dtype in DTYPES:
                x = values.astype(dtype)
                kept, draw = x.copy(), Draw(seed=7, round=3, rank=1, cohort=2)
                packet = bound.compress(x, draw)
                where = f"{name}, d={dim}, {dtype}"
                _require(np.array_equal(x, kept), f"{where}: compress changed its input")
                _require(bound.compress(x, draw) == packet, f"{where}: two packets differ")
                _require(packet.dim == dim and packet.dtype == dtype, f"{where}: wrong header")
                make_compressor(packet.compressor)
                y = decompress(packet.data)
                _require(y.dtype == dtype and bool(np.isfinite(y).all()), f"{where}: decoded {y}")
                for out_dtype in DTYPES:
                    out = np.ones(dim, dtype=out_dtype)
                    add_to(packet, out, 0.5)
                    gap = np.abs(out - (1 + 0.5 * y.astype(out_dtype)))
                    room = 4 * np.finfo(np.float32).eps * (1 + np.abs(y))
                    _require((gap <= room).all(), f"{where}: add_to and decompress differ")


def check_refusals(compressor: Compressor) -> None:
    """Check that NaN and infinity are refused by position, and wrong shapes and dtypes too."""
    bound = compressor.bind((1500,))
    for wrong in (np.nan, np.inf, -np.inf):
        for position in (0, 700, 1499):
            x = np.ones(1500, dtype=np.float32)
            x[position] = wrong
            _refuses(bound, x, f"x[{position}]")
    _refuses(bound, np.ones((1500, 1), dtype=np.float32), "shape (1500, 1)")
    _refuses(bound, np.ones(1500, dtype=np.int64), "int64")
    _refuses(bound, np.ones(0, dtype=np.float32), "got 0")


def check_extremes(compressor: Compressor) -> None:
    """Check that zeros of any sign stay zeros, and tiny and huge vectors finite or are refused."""
    for dim in DIMS:
        bound = compressor.bind((dim,))
        for dtype in DTYPES:
            limits = np.finfo(dtype)
            for every in (dim + 1, 2, 1):  # none, some or all with a sign, as -1 times 0.0 has
                zeros = np.zeros(dim, dtype)
                zeros[every - 1 :: every] = -0.0
                zero = decompress(bound.compress(zeros))
                _require(not zero.any(), f"d={dim}: {zeros} comes back as {zero}")
            # Neither an attribute that warns where subnormal numbers are flushed, nor a product.
            smallest = np.nextafter(dtype.type(0), dtype.type(1))
            for value in (smallest, limits.tiny, limits.max):
                x = np.full(dim, value, dtype=dtype)
                x[::2] = -value
                try:
                    packet = bound.compress(x)
                except ValueError as error:
                    _require("overflows" in str(error), f"d={dim}, {value}: {error}")
                    continue
                y = decompress(packet)
                _require(np.isfinite(y).all(), f"d={dim}: {value} comes back as {y}")


def check_bits(compressor: Compressor) -> None:
    """Check that ``traits().bits`` is the payload's length, to within 2 % and eight bytes."""
    for dim in (*DIMS, 20_000):
        bound = compressor.bind((dim,))
        stated = bound.traits(dim).bits
        sent = np.mean(
            [
                8 * (bound.compress(_gaussian(dim, seed), Draw(seed=seed)).nbytes - HEADER_BYTES)
                for seed in range(8)
            ]
        )
        near = abs(sent - stated) <= 0.02 * stated + 64
        _require(near, f"d={dim}: {stated:.0f} bits are stated, {sent:.0f} are sent")


def check_twins(compressor: Compressor) -> None:
    """Check that numpy and numba send the same bytes and decode them to the same bytes.

    Without numba there is nothing to compare.
    """
    if not installed("numba"):
        return
    for dim in (*DIMS, 70_000):
        bound = compressor.bind((dim // 2, dim - dim // 2))
        for name, values in inputs(dim).items():
            for dtype in DTYPES:
                results = []
                for kernels in ("numpy", "numba"):
                    with forced_kernels(kernels):
                        packet = bound.compress(values.astype(dtype), Draw(seed=11))
                        out = np.full(dim, 0.1, dtype=np.float32)
                        add_to(packet, out, 0.7)
                        decoded = decompress(packet)
                        results.append((packet.data, out.tobytes(), decoded.tobytes()))
                same = results[0] == results[1]
                _require(same, f"{name}, d={dim}, {dtype}: numpy and numba differ")


def check_parts(compressor: Compressor) -> None:
    """Check that parts of what is decoded are those of the vector, where they can be had."""
    dim = 3500
    bound = compressor.bind((dim // 2, dim - dim // 2))
    for dtype in DTYPES:
        x = inputs(dim)["heavy-tailed"].astype(dtype)
        decoded = Opened(bound.compress(x, Draw(seed=13))).decoded
        if not isinstance(decoded, Divisible):
            return
        whole = np.zeros(dim, dtype)
        decoded.add_to(whole, 0.7)
        for start, stop in ((0, 1024), (1024, 3072), (2048, dim), (0, dim)):
            part = np.zeros(stop - start, dtype)
            decoded.part(start, stop).add_to(part, 0.7)
            same = part.tobytes() == whole[start:stop].tobytes()
            _require(same, f"{dtype}: part({start}, {stop}) is not that of the vector")


def check_moments(compressor: Compressor, *, draws: int = 400) -> None:
    """Check the mean if ``unbiased``, and the error against ``omega`` and ``1 - alpha``."""
    for dim in (1, 3, 50, 130):
        bound = compressor.bind((dim,))
        traits = bound.traits(dim)
        _require(not traits.unbiased or traits.omega is not None, "unbiased, but omega is None")
        bounds = [traits.omega] if traits.omega is not None else []
        bounds += [1 - traits.alpha] if traits.alpha is not None else []
        for name, x in inputs(dim).items():
            samples = np.array(
                [decompress(bound.compress(x, Draw(seed=seed))) for seed in range(draws)]
            )
            where = f"{name}, d={dim}"
            if traits.unbiased and traits.omega is not None:
                _check_mean(samples, x, traits.omega, where)
            errors = ((samples - x) ** 2).sum(axis=1) / max((x**2).sum(), 1e-300)
            for limit in bounds:
                _check_at_most(errors, limit, where)


def check_cohort(compressor: Compressor, *, draws: int = 400) -> None:
    """Check that the mean over a cohort has at most the error that ``(A, B)`` allows."""
    for dim, cohort in ((3, 2), (50, 5)):
        bound = compressor.bind((dim,))
        ab = bound.traits(dim, cohort).ab
        if ab is None:
            continue
        alike = bound.homogeneous(dim, cohort)
        for name in ("gaussian", "one-hot", "sparse"):
            shared, rng = inputs(dim)[name], np.random.default_rng(1)
            for spread in (0.0, 1.0):  # equal inputs, and unlike ones
                rows = [shared + spread * rng.standard_normal(dim) for _ in range(cohort)]
                mean = np.mean(rows, axis=0)
                limit = ab[0] * np.mean([(row**2).sum() for row in rows]) - ab[1] * (mean**2).sum()
                errors = np.empty(draws)
                for seed in range(draws):
                    total = np.zeros(dim)
                    for rank, row in enumerate(rows):
                        draw = Draw(seed=seed, rank=rank, cohort=cohort)
                        add_to(bound.compress(row, draw), total, 1 / cohort)
                    errors[seed] = ((total - mean) ** 2).sum()
                _check_at_most(errors, float(limit), f"cohort of {cohort}, {name}, d={dim}")
                if not spread and alike is not None:
                    limit = alike * (mean**2).sum()
                    _check_at_most(errors, float(limit), f"{cohort} alike, {name}, d={dim}")


def check_randomness(compressor: Compressor, changed: Callable[[int], Draw]) -> None:
    """Check that draws that differ give packets that differ, if the compressor uses a draw."""
    x = _gaussian(1000, 0)
    packets = [compressor.compress(x, changed(value)) for value in range(3)]
    differ = all(a != b for a, b in combinations(packets, 2))
    _require(differ, "packets of different draws are equal")


def _check_mean(samples: Vector, x: Vector, omega: float, where: str) -> None:
    error = samples.mean(axis=0) - x
    limit = omega * (x**2).sum() / len(samples)
    _require(
        (error**2).sum() <= _STANDARD_ERRORS**2 * limit + 1e-12 * (x**2).sum(),
        f"{where}: the mean's squared error is {(error**2).sum():.3g}, about {limit:.3g} is right",
    )
    # One by one only where both outcomes were seen often enough to tell the deviation.
    often = (samples != np.median(samples, axis=0)).sum(axis=0) >= 30
    if not often.any():
        return
    error, x = error[often], x[often]
    deviation = samples[:, often].std(axis=0) / np.sqrt(len(samples))
    # One more standard error than elsewhere: this is the largest of many coordinates.
    room = (_STANDARD_ERRORS + 1) * deviation + 1e-7 * np.abs(x).max()
    worst = int(np.argmax(np.abs(error) - room))
    _require(
        abs(error[worst]) <= room[worst],
        f"{where}: coordinate {worst} is {x[worst]:.6g}, its mean is off by {error[worst]:.3g}",
    )


def _check_at_most(errors: Vector, limit: float, where: str) -> None:
    room = _STANDARD_ERRORS * errors.std() / np.sqrt(len(errors)) + 1e-9 * (1 + limit)
    _require(
        errors.mean() <= limit + room,
        f"{where}: the error is {errors.mean():.6g}, at most {limit:.6g} is stated",
    )


def _refuses(compressor: Compressor, x: Vector, says: str) -> None:
    try:
        compressor.compress(x)
    except ValueError as error:
        _require(says in str(error), f"the refusal {str(error)!r} does not say {says!r}")
    else:
        _require(False, f"a vector was accepted that must be refused: {says}")


def _gaussian(dim: int, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(dim, dtype=np.float32)


def _require(condition: bool | np.bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
