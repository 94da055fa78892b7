"""Checks of the options that strategies share."""

from __future__ import annotations

import math

from flowerpress.compressors import make_compressor
from flowerpress.compressors.feedback import contraction_scale

_SOME_DIM = 1024  # whether a compressor has a class at all does not depend on the dimension


def check_options(
    lr: float,
    seed: int,
    local_steps: int,
    local_lr: float,
    weights: str,
    fraction_train: float,
    fraction_evaluate: float,
) -> None:
    """Raise `ValueError` naming the first option that is out of range."""
    for name, value in (("lr", lr), ("local_lr", local_lr)):
        require(_is_number(value), name, value, "a number")
    for name, whole in (("seed", seed), ("local_steps", local_steps)):
        require(type(whole) is int, name, whole, "a whole number")
    require(math.isfinite(lr) and lr > 0, "lr", lr, "a number > 0")
    require(0 <= seed < 2**63, "seed", seed, "a whole number in 0 ... 2**63 - 1")
    require(local_steps >= 1, "local_steps", local_steps, "a whole number >= 1")
    require(
        math.isfinite(local_lr) and local_lr >= 0, "local_lr", local_lr, "a number > 0, or 0 for lr"
    )
    require(weights in ("num-examples", "uniform"), "weights", weights, "num-examples or uniform")
    require(0 <= fraction_train <= 1, "fraction_train", fraction_train, "a number in [0, 1]")
    require(
        0 <= fraction_evaluate <= 1, "fraction_evaluate", fraction_evaluate, "a number in [0, 1]"
    )


def require(held: bool, name: str, value: object, expected: str) -> None:
    """Raise `ValueError` "`name` is `value`: expected ..." unless `held`."""
    if not held:
        raise ValueError(f"{name} is {value!r}: expected {expected}")


def require_contraction(spec: str) -> str:
    """Return `spec`, normalised; raise `ValueError` if error feedback cannot use the compressor."""
    compressor = make_compressor(spec)
    try:
        contraction_scale(compressor.traits(_SOME_DIM))
    except ValueError as error:
        raise ValueError(f"compressor {spec!r}: {error}") from None
    return compressor.spec


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
