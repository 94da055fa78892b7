"""Rounding float32 numbers at random in fixed point: what both kernels must do alike.

A coordinate is scaled to ``[-levels, levels]`` and cut to an integer number of ``2**-digits``.
Adding as many random binary digits carries into the next level with a chance equal to the fraction.
A value that lies on a level has the fraction zero and is never moved; the mean is right to about
``2**-30`` of the norm, less than a float32 norm can tell.
"""

from __future__ import annotations

# Below this norm, x is first scaled up, so that the quotient of the levels and the norm is finite.
TINY_NORM = 2.0**-60
SCALED_UP = 2.0**100


def fixed_digits(levels: int) -> int:
    """Return the binary digits after the point that 31 bits leave beside the largest level.

    >>> fixed_digits(1), fixed_digits(127)
    (30, 24)
    """
    return 31 - levels.bit_length()
