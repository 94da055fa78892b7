"""Two workers with different diagonal quadratics in four coordinates: no randomness at all."""

import numpy as np

from flowerpress.clients import FunctionTask

A = np.array([1.0, 2.0, 3.0, 4.0])
B = np.array([[1.0, -1.0, 2.0, 0.5], [-0.5, 2.0, 1.0, -1.0]])
SOLUTION = np.array([0.25, 0.5, 1.5, -0.25])
WORKERS = 2


def gradient(i, x, r=0):
    return A * (x - B[i])


def task_fn(x0):
    """The task from x0, one number for all coordinates or a vector."""
    start = np.zeros(4) + x0
    return lambda i, n: FunctionTask(start, lambda x, _: (0.0, gradient(i, x)))
