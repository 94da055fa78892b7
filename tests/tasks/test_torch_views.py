"""Gradients of large models, taken where the worker's vectors are: equal bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowerpress.clients import TorchTask
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy


class Odd(torch.nn.Module):
    """Tied and unused parameters, a buffer, dropout, and sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 6, sparse=True)
        self.norm = torch.nn.BatchNorm1d(6)
        self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.unused = torch.nn.Parameter(torch.ones(3))
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
        self.last = torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embedding(x).mean(1))
        x = torch.nn.functional.dropout(torch.relu(self.second(self.first(x))), 0.25)
        return self.last(x)


def convolution() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 5)),
        torch.nn.Conv1d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 3),
    )


def task_of(kind: str, **options) -> TorchTask:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(0, 3, 20))
    if kind == "odd":
        x = torch.from_numpy(rng.integers(0, 7, (20, 4)))
        return TorchTask(Odd(), torch.nn.CrossEntropyLoss(), (x, y), batch_size=9, **options)
    model = convolution() if kind == "convolution" else torch.nn.Linear(5, 3)
    x = torch.from_numpy(rng.standard_normal((20, 5), dtype=np.float32))
    if kind == "double":
        model, x = model.double(), x.double()
    return TorchTask(model, torch.nn.CrossEntropyLoss(), (x, y), batch_size=9, **options)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr("flowerpress.tasks.torch_model.LARGE", 1)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("kind", ["odd", "convolution", "linear", "double"])
def test_they_are_equal(always, kind, chunk):
    options = {"chunk": chunk, "normalizer": len} if chunk else {}
    task, other = task_of(kind, **options), task_of(kind, **options)
    parameters = [value.detach().reshape(-1) for value in task._model.parameters.values()]
    model = torch.cat(parameters).numpy()
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    for i in range(3):
        x = model * (1 + i)
        out = np.full_like(x, np.nan)
        loss = task.gradient_into(x, out, task.draw(rng))
        expected, gradient = other.gradient(x.copy(), other.draw(same))
        assert loss == expected
        assert out.tobytes() == gradient.tobytes()
        np.testing.assert_array_equal(x, model * (1 + i))
        for name, value in task.buffers().items():
            np.testing.assert_array_equal(value, other.buffers()[name])


def test_nothing_of_the_worker_is_kept(always):
    task = task_of("linear")
    x = np.ones(18, np.float32)
    out = np.empty_like(x)
    task.gradient_into(x, out, task.draw(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="holds no values"):
        task.initial_arrays()
    x[:] = out[:] = 7.0
    task.evaluate(np.zeros(18, np.float32))
    assert set(x) == set(out) == {7.0}
    assert not any(array.numpy().any() for array in task.initial_arrays().values())


def test_a_pass_that_raises_leaves_nothing_either(always):
    task = task_of("linear")
    x = np.ones(18, np.float32)
    task._loss = lambda output, target: output
    with pytest.raises(ValueError, match="one number"):
        task.gradient_into(x, np.empty_like(x), None)
    assert all(value.numel() == 0 for value in task._model.parameters.values())


def test_parameters_that_cannot_be_views_are_copied(always):
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 50, dtype=torch.float64).reshape(10, 5)
    y = torch.zeros(10, dtype=torch.int64)

    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x.float()).double())

    tasks = [TorchTask(Mixed(), torch.nn.CrossEntropyLoss(), (x, y)) for _ in range(2)]
    vector = np.linspace(-1, 1, 39, dtype=np.float32)
    out = np.empty_like(vector)
    loss = tasks[0].gradient_into(vector, out, None)
    expected, gradient = tasks[1].gradient(vector, None)
    assert loss == expected
    assert out.tobytes() == gradient.tobytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ef21-sgdm", {}),
        ("ef21-sgd2m", {"init": "compressed"}),
        ("ef21", {"downlink": "topk:0.3", "init_batches": 2}),
        ("ef14", {"downlink": "topk:0.3"}),
        ("fedavg", {"local_steps": 3}),
        ("vr-marina", {"p": 0.3}),
        ("pp-marina", {"p": 0.3}),
        ("efficient-adam", {}),
    ],
)
def test_runs_are_equal(monkeypatch, name, options):
    def run() -> list[bytes]:
        if name != "fedavg":
            options["compressor"] = "randk:0.3" if "marina" in name else "topk:0.3"
        strategy = make_strategy(name, lr=0.05, **options)
        result = simulate(strategy, lambda i, n: task_of("odd"), num_clients=2, num_rounds=4)
        return [array.data for array in result.arrays.values()]

    plain = run()
    monkeypatch.setattr("flowerpress.tasks.torch_model.LARGE", 1)
    assert run() == plain
