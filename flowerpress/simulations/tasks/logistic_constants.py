"""Bounds of the smoothness constants of logistic regression, over clients.

With A_i the rows of client i, m_i of them, B_i = A_i' A_i / (4 m_i), and w_i what it counts for,
the difference of two gradients of its logistic loss is M_i v with v = x - y and a symmetric M_i
between 0 and B_i: the mean of its Hessians between y and x, where each example's factor is at
most 1/4. Second derivatives of the regularizer lam t^2 / (1 + t^2) are between -lam / 2 and
2 lam. Hence, with |.| the largest eigenvalue and B = sum w_i B_i,

    L_i = |B_i| + 2 lam,   L = |B| + 2 lam,   L_max = max L_i.

The regularizer is the same for all clients, so the variance of their differences is that of
M_i v; as a variance is the least mean square distance from one point, it is at most
sum w_i |M_i - C|^2 |v|^2 for any C. C = 0 gives sum w_i |B_i|^2; C = B / 2 gives
sum w_i (|B_i| + |B_i - B|)^2 / 4, for |M_i - B_i / 2| <= |B_i| / 2. L_pm^2 is the smaller one;
for one client it is 0.
The mean of squares is a variance and a squared mean:

    L_plus^2 = min(sum w_i L_i^2, L^2 + L_pm^2).

A batch of b examples drawn without replacement: the variance of the difference of its gradients is
at most 1 / b times that of one example's, so L_batch^2 = sum w_i mean_j (|a_j|^2 / 4)^2 / b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flowerpress.server.theory import Smoothness

Matrix = npt.NDArray[np.float64]

_WIDEST = 2000  # features, up to which matrices of that many squared are compared with their mean


def logistic_smoothness(
    parts: Sequence[Matrix], weights: Matrix, lam: float, batch_size: int | None = None
) -> Smoothness:
    """Return bounds of the constants, as derived above.

    Parameters
    ----------
    parts : sequence of arrays, shapes (m_i, d)
        The examples of each client.
    weights : array, shape (n,)
        What each counts for; they add up to 1.
    lam : float
        Weight of the regularizer.
    batch_size : int, optional
        Examples in a batch. None: L_batch stays unknown.

    Returns
    -------
    Smoothness
        For more than 2,000 features L_pm^2 is sum w_i |B_i|^2, and L at most sum w_i L_i: no
        matrix of d by d is made.

    Examples
    --------
    >>> rows = np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]])
    >>> logistic_smoothness(rows, np.array([0.5, 0.5]), 0.1)
    Smoothness(L=2.2, L_plus=3.08..., L_pm=2.37..., L_batch=0.0, L_max=4.2)
    """
    wide = parts[0].shape[1] > _WIDEST
    largest = np.array([_top(part) for part in parts])
    pm = float(weights @ largest**2)
    top = float(weights @ largest)
    if not wide:
        each = [part.T @ part / (4 * len(part)) for part in parts]
        mean = np.tensordot(weights, each, axes=1)
        top = float(np.linalg.eigvalsh(mean)[-1])
        away = np.array([np.abs(np.linalg.eigvalsh(b - mean)).max() for b in each])
        pm = min(pm, float(weights @ (largest + away) ** 2) / 4)
    if len(parts) == 1:
        pm = 0.0
    whole, own = top + 2 * lam, largest + 2 * lam
    plus = min(float(weights @ own**2), whole**2 + pm)
    batch = 0.0
    if batch_size is not None:
        norms = [np.mean((np.einsum("jk,jk->j", a, a) / 4) ** 2) for a in parts]
        batch = math.sqrt(float(weights @ np.array(norms)) / batch_size)
    return Smoothness(whole, math.sqrt(plus), math.sqrt(pm), batch, float(own.max()))


def _top(part: Matrix) -> float:
    """Return |B_i|, from the smaller of the two products."""
    product = part.T @ part if part.shape[1] <= len(part) else part @ part.T
    return float(np.linalg.eigvalsh(product)[-1]) / (4 * len(part))
