"""Step sizes and coins by the papers' theorems.

Smoothness of f = mean of f_i, over n workers:

======= ==========================================================================================
L       |grad f(x) - grad f(y)| <= L |x - y|
L_plus  mean |grad f_i(x) - grad f_i(y)|^2 <= L_plus^2 |x - y|^2
L_pm    the same mean, minus |grad f(x) - grad f(y)|^2, <= L_pm^2 |x - y|^2: zero iff all f_i
        differ by linear terms only (Szlendak, Tyurin, Richtarik 2022, arXiv:2110.03300)
======= ==========================================================================================

A collection of compressors C_i is in U(A, B) if each is unbiased and
E|mean C_i(a_i) - mean a_i|^2 <= A mean |a_i|^2 - B |mean a_i|^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flowerpress.compressors import Traits


@dataclass(frozen=True)
class Smoothness:
    """The constants above, and two more.

    `L_batch` is of single batches' differences (VR-MARINA's L / sqrt(b')); `L_max` is the largest
    of the workers' own L_i, which the theorems of convex functions need in the place of L_plus.
    Unknown ones are the worst the known ones allow: L_plus = L_pm = L_batch = L.
    """

    L: float
    L_plus: float = 0.0
    L_pm: float = -1.0
    L_batch: float = 0.0
    L_max: float = 0.0

    @property
    def plus(self) -> float:
        """L_plus, or L where it was not given."""
        return self.L_plus or self.L

    @property
    def pm(self) -> float:
        """L_pm, or L_plus where it was not given."""
        return self.L_pm if self.L_pm >= 0 else self.plus

    @property
    def batch(self) -> float:
        """L_batch, or L_plus where it was not given."""
        return self.L_batch or self.plus


def variance_constants(traits: Traits, cohort: int) -> tuple[float, float]:
    """Return (A, B) of independent or correlated copies of a compressor in a cohort of n.

    Stated ones, else (omega / n, 0). A biased contraction has (1 - alpha, 0), by Jensen's
    inequality; see `marina_lr` for what that costs.

    Raises
    ------
    ValueError
        The compressor states none of these.
    """
    if traits.ab is not None:
        return traits.ab
    if traits.unbiased and traits.omega is not None:
        return traits.omega / cohort, 0.0
    if traits.alpha is not None:
        return 1.0 - traits.alpha, 0.0
    raise ValueError("this compressor states no constants: no step size follows; give lr a number")


def marina_lr(s: Smoothness, ab: tuple[float, float], p: float, *, unbiased: bool = True) -> float:
    """MARINA's step size (Szlendak et al. 2022, Theorem 4).

    With V = (A - B) L_plus^2 + B L_pm^2 it is 1 / (L + sqrt((1 - p) / p V)). A biased collection
    loses the cross term of the error's recursion; by Young's inequality
    G' <= (1 - p / 2) G + K |x' - x|^2 with K = (1 - p) (2 - p) / p V; hence
    1 / (L + sqrt(2 K / p)).

    Examples
    --------
    >>> round(marina_lr(Smoothness(1.0), (3.0, 0.0), 0.25), 6)
    0.25
    >>> marina_lr(Smoothness(1.0, L_pm=0.0), (1.0, 1.0), 0.1)
    1.0
    """
    a, b = ab
    v = (a - b) * s.plus**2 + b * s.pm**2
    if unbiased:
        return 1.0 / (s.L + math.sqrt((1 - p) / p * v))
    return 1.0 / (s.L + math.sqrt(2 * (1 - p) * (2 - p) / p**2 * v))


def vr_marina_lr(s: Smoothness, omega: float, n: int, p: float) -> float:
    """VR-MARINA's step size (Gorbunov et al. 2021); L_batch^2 is the paper's L^2 / b'."""
    v = omega * s.plus**2 + (1 + omega) * s.batch**2
    return 1.0 / (s.L + math.sqrt((1 - p) / (p * n) * v))


def pp_marina_lr(s: Smoothness, omega: float, asked: int, p: float) -> float:
    """PP-MARINA's step size, `asked` workers in a round (Gorbunov et al. 2021, Theorem 4.1)."""
    return 1.0 / (s.L + s.plus * math.sqrt((1 - p) * (1 + omega) / (p * asked)))


def diana_lr(s: Smoothness, omega: float, n: int) -> float:
    """DIANA's step size for convex f_i: 1 / (L_plus (1 + 6 omega / n)).

    (Gorbunov, Hanzely, Richtarik 2020, arXiv:1905.11261: A = (1 + 2 omega / n) L, C = a L,
    M = 4 omega / (n a), and 1 / (A + C M).) Their L bounds every L_i; give it as L_plus.
    """
    return 1.0 / (max(s.L, s.plus) * (1 + 6 * omega / n))


def dasha_lr(s: Smoothness, omega: float, a: float) -> float:
    """DASHA's step size: 1 / (L + L_plus sqrt(16 A (2 omega + 1))).

    (Tyurin, Richtarik 2023, arXiv:2202.01268, Theorem 6.1, for independent compressors, whose A is
    omega / n. The n comes from the variance of the mean of the workers' packets alone, which is at
    most A mean |.|^2 for any collection in U(A, 0); omega stays where each worker's own error is.)
    """
    return 1.0 / (s.L + s.plus * math.sqrt(16 * a * (2 * omega + 1)))


def dsgd_lr(s: Smoothness, a: float, n: int, asked: int) -> float:
    """Compressed gradient descent's step size for convex f_i: 1 / (L + 2 A L_plus).

    With A = `a` (independent senders: omega / asked), E |g|^2 <= |grad f|^2 + A mean |grad f_i|^2;
    a sample of `asked` workers adds (n - asked) / (asked (n - 1)) to A. And mean |grad f_i|^2 is at
    most 4 L_plus (f(x) - f(x*)) + 2 mean |grad f_i(x*)|^2 (Gorbunov, Hanzely, Richtarik 2020,
    arXiv:1905.11261). It leads to a neighbourhood, whose size is that of the gradients at the
    solution. L_plus bounds every L_i.

    Examples
    --------
    >>> dsgd_lr(Smoothness(1.0), 0.0, 4, 4), dsgd_lr(Smoothness(1.0), 1.5, 4, 4)
    (1.0, 0.25)
    """
    sampling = (n - asked) / (asked * (n - 1)) if n > asked else 0.0
    return 1.0 / (s.L + 2 * (a + sampling) * s.plus)


def ef21_lr(s: Smoothness, alpha: float) -> float:
    """EF21's step size: 1 / (L + L_plus sqrt(1 - alpha) / (1 - sqrt(1 - alpha))).

    (Richtarik, Sokolov, Fatkhullin 2021, arXiv:2106.05203, Theorem 1: sqrt(beta / theta).)

    Examples
    --------
    >>> ef21_lr(Smoothness(2.0), 1.0), ef21_lr(Smoothness(1.0), 0.75)
    (0.5, 0.5)
    """
    root = math.sqrt(1 - alpha)
    return 1.0 / (s.L + s.plus * root / (1 - root))


def ef21_pp_lr(s: Smoothness, alpha: float, p: float) -> float:
    """EF21-PP's step size, each worker asked with probability `p` (Fatkhullin et al. 2021).

    For any a, b > 0, the error of a worker that is asked shrinks by theta = 1 - (1 + a)(1 - alpha)
    and grows by beta = (1 + 1 / a) (1 - alpha) times how far x went, all squared; of one that is
    not, it grows by b and by 1 + 1 / b. So theta_p = p theta - (1 - p) b, beta_p = p beta +
    (1 - p) (1 + 1 / b), and 1 / (L + L_plus sqrt(beta_p / theta_p)) is the step size; the largest
    over a and b of a grid.

    Examples
    --------
    >>> whole, half = ef21_pp_lr(Smoothness(1.0), 0.75, 1.0), ef21_pp_lr(Smoothness(1.0), 0.75, 0.5)
    >>> round(whole, 3), round(half, 3)
    (0.5, 0.209)
    """
    grid = [10 ** (i / 40) for i in range(-240, 81)]
    best = math.inf
    for a in grid:
        theta, beta = 1 - (1 + a) * (1 - alpha), (1 + 1 / a) * (1 - alpha)
        if theta <= 0:
            break
        for b in grid if p < 1 else [1.0]:
            theta_p = p * theta - (1 - p) * b
            if theta_p <= 0:
                break
            best = min(best, (p * beta + (1 - p) * (1 + 1 / b)) / theta_p)
    return 1.0 / (s.L + s.plus * math.sqrt(best))


def ef21_momentum_lr(
    s: Smoothness, alpha: float, momentum: float, by_alpha: float, by_momentum: float
) -> float:
    """EF21-SGDM's and SGD2M's step size: min(alpha / (c L_plus), momentum / (c' L)).

    (Fatkhullin, Tyurin, Richtarik 2023, arXiv:2305.15155, Theorems 3 and 4: c and c' are 20 and 7,
    for two momenta 60 and 16.)

    Examples
    --------
    >>> ef21_momentum_lr(Smoothness(1.0), 1.0, 0.1, 20.0, 7.0)
    0.014285714285714287
    """
    return min(alpha / (by_alpha * s.plus), momentum / (by_momentum * s.L))


def best_p(lr: Callable[[float], float], share: float) -> float:
    """Return the coin that sends the fewest bits for one unit of progress.

    A round takes (p + (1 - p) share) of a dense vector, and 1 / lr(p) rounds make a unit; the
    product is minimised over 1000 values of p per factor of 10 from 1e-7 to 1.

    Parameters
    ----------
    lr : callable
        Step size by theory for a given p.
    share : float
        Bits of a compressed vector over those of a dense one.

    Examples
    --------
    >>> round(best_p(lambda p: marina_lr(Smoothness(1.0), (0.15, 0.0), p), 1 / 16), 3)
    0.035
    """
    coins = [10 ** (-i / 1000) for i in range(7001)]
    return min(coins, key=lambda p: (p + (1 - p) * share) / lr(p))
