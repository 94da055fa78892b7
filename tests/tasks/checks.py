"""Checks that every task passes, whoever wrote it."""

from __future__ import annotations

import numpy as np

from flowerpress.protocol import Layout
from flowerpress.tasks.task import Task


def start(task: Task) -> np.ndarray:
    """Return the task's initial vector."""
    arrays = task.initial_arrays()
    return Layout.of(arrays, task.buffer_names()).flatten(arrays)[0]


def check_gradient(task: Task, x: np.ndarray, batch: object, *, step: float, rtol: float) -> None:
    """Compare the gradient with central differences of the loss along random directions."""
    rng = np.random.default_rng(1)
    _, gradient = task.gradient(x, batch)
    assert gradient.shape == x.shape
    assert gradient.dtype == x.dtype
    for _ in range(5):
        direction = rng.standard_normal(x.size).astype(x.dtype)
        direction /= np.linalg.norm(direction)
        ahead, behind = (task.gradient(x + s * direction, batch)[0] for s in (step, -step))
        slope = (ahead - behind) / (2 * step)
        tolerance = rtol * np.linalg.norm(gradient)
        np.testing.assert_allclose(slope, gradient @ direction, rtol=rtol, atol=tolerance)


def check_contract(task: Task) -> None:
    """Check what an algorithm relies on: repeatable draws, new gradients, an untouched model."""
    x = start(task)
    before = x.copy()
    first, second = (task.draw(np.random.default_rng(7)) for _ in range(2))
    loss, gradient = task.gradient(x, first)
    same_loss, same_gradient = task.gradient(x, second)
    assert np.array_equal(x, before)
    assert loss == same_loss
    assert np.array_equal(gradient, same_gradient)
    assert not np.shares_memory(gradient, x)
    assert not np.shares_memory(gradient, same_gradient)
    assert task.num_examples >= 1
    assert all(isinstance(value, float) for value in task.evaluate(x).values())
