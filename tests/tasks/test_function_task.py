from __future__ import annotations

import numpy as np
import pytest

from flowerpress.tasks.task import FunctionTask, draw_indices

from .checks import check_contract, check_gradient, start


def quadratic(x, _batch):
    return 0.5 * float(x @ x), x


def test_a_plain_vector_is_one_array_named_x():
    task = FunctionTask(np.array([1.0, 2.0]), quadratic)
    assert {name: array.numpy().tolist() for name, array in task.initial_arrays().items()} == {
        "x": [1.0, 2.0]
    }
    assert start(task).dtype == np.float64


def test_named_arrays_keep_their_order_shapes_and_dtypes():
    x0 = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.full(2, 9, np.float32)}
    task = FunctionTask(x0, quadratic)
    assert [(n, a.numpy().shape) for n, a in task.initial_arrays().items()] == [
        ("b", (2, 3)),
        ("a", (2,)),
    ]
    assert start(task).tolist() == [0, 1, 2, 3, 4, 5, 9, 9]
    assert start(task).dtype == np.float32


# Rounding of a float32 loss of 7 costs 7 * 2**-24 / step in the slope.
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_contract(dtype, rtol):
    task = FunctionTask(np.array([1, -2, 3], dtype), quadratic)
    check_contract(task)
    check_gradient(task, start(task), None, step=1e-2, rtol=rtol)


def test_changing_the_given_vector_does_not_change_the_workers():
    def spoil(x, _batch):
        x[:] = 0
        return 0.0, x

    x = np.ones(3)
    FunctionTask(x, spoil).gradient(x, None)
    assert x.tolist() == [1, 1, 1]


def test_changing_x0_afterwards_does_not_change_the_task():
    x0 = np.ones(2)
    task = FunctionTask(x0, quadratic)
    x0[:] = 5
    assert start(task).tolist() == [1, 1]


def test_a_gradient_that_reuses_its_memory_gives_two_answers():
    memory = np.empty(2)

    def gradient(x, _batch):
        memory[:] = x
        return 0.0, memory

    task = FunctionTask(np.ones(2), gradient)
    first, second = (task.gradient(np.full(2, value), None)[1] for value in (1.0, 2.0))
    assert (first.tolist(), second.tolist()) == ([1, 1], [2, 2])


def test_batches_come_from_the_given_function():
    task = FunctionTask(
        np.ones(1),
        lambda x, batch: (float(batch), x * batch),
        draw=lambda rng: rng.integers(100),
        num_examples=7,
    )
    batch = task.draw(np.random.default_rng(3))
    assert batch == np.random.default_rng(3).integers(100)
    assert task.gradient(np.ones(1), batch)[1] == batch
    assert task.num_examples == 7
    assert task.evaluate(np.ones(1)) == {}  # no batch stands for all the data


def test_evaluation_is_the_loss_or_what_the_function_says():
    x = np.array([3.0, 4.0])
    assert FunctionTask(x, quadratic).evaluate(x) == {"loss": 12.5}
    named = FunctionTask(x, quadratic, evaluate=lambda x: {"first": np.float32(x[0])})
    assert named.evaluate(x) == {"first": 3.0}
    assert type(named.evaluate(x)["first"]) is float
    assert FunctionTask(x, quadratic, evaluate=lambda x: None).evaluate(x) == {}
    with pytest.raises(TypeError, match=r"must return metrics by name .* or None, not tuple"):
        FunctionTask(x, quadratic, evaluate=lambda x: (1.0, {})).evaluate(x)


def test_a_wider_gradient_is_rounded_and_a_narrower_one_refused():
    narrow = FunctionTask(np.ones(2, np.float32), lambda x, _: (0.0, x.astype(np.float64) / 3))
    assert narrow.gradient(np.ones(2, np.float32), None)[1].tolist() == [np.float32(1 / 3)] * 2
    wide = FunctionTask(np.ones(2), lambda x, _: (0.0, x.astype(np.float32)))
    with pytest.raises(TypeError, match="gradient has dtype float32, but the model float64"):
        wide.gradient(np.ones(2), None)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda x: x, TypeError, r"must return \(loss, gradient\), not ndarray"),
        (lambda x: (0.0, x, x), TypeError, "not 3 values"),
        (lambda x: (0.0, x[:1]), ValueError, r"shape \(1,\), but the model \(2,\)"),
        (lambda x: (0.0, x.astype(int)), TypeError, "dtype int64"),
    ],
)
def test_what_is_not_a_gradient_is_named(result, error, message):
    task = FunctionTask(np.ones(2), lambda x, _: result(x))
    with pytest.raises(error, match=message):
        task.gradient(np.ones(2), None)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FunctionTask(np.ones(2, int), quadratic), TypeError, "dtype int64"),
        (lambda: FunctionTask(np.ones(0), quadratic), ValueError, "is empty"),
        (lambda: FunctionTask(np.array([np.nan]), quadratic), ValueError, "NaN or infinity"),
        (lambda: FunctionTask({}, quadratic), ValueError, "names no array"),
        (lambda: FunctionTask(np.ones(2), None), TypeError, "gradient must be a function"),
        (lambda: FunctionTask(np.ones(2), quadratic, draw=3), TypeError, "draw must be"),
        (lambda: FunctionTask(np.ones(2), quadratic, num_examples=0), ValueError, "at least 1"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_task_without_buffers_refuses_them():
    task = FunctionTask(np.ones(2), quadratic)
    task.load_buffers({})
    assert task.buffers() == {}
    with pytest.raises(ValueError, match="no buffers, but was given mean"):
        task.load_buffers({"mean": np.ones(1)})


def test_indices_are_drawn_without_replacement():
    drawn = draw_indices(np.random.default_rng(0), 10, 9)
    assert len(set(drawn.tolist())) == 9
    assert set(drawn.tolist()) <= set(range(10))
    assert draw_indices(np.random.default_rng(0), 10, 10) is None
    assert draw_indices(np.random.default_rng(0), 10, None) is None
