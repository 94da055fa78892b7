"""Gradients of large models, taken where the worker's vectors are: equal bit by bit."""

from __future__ import annotations

import contextlib
import warnings

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


class Projected(torch.nn.Module):
    """A model that writes to its own parameters in a forward pass, in some way."""

    def __init__(self, write) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = torch.nn.BatchNorm1d(5)
        self.layer, self.write = torch.nn.Linear(5, 3), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        with torch.no_grad():
            self.write(self.layer.weight)
        return self.layer(x)


def put_first(weight):
    weight[0] = 1.0


def quietly(weight):
    with contextlib.suppress(RuntimeError):
        weight.mul_(0.5)


WRITES = {
    "clamp": lambda weight: weight.clamp_(-0.1, 0.1),
    "data": lambda weight: weight.data.mul_(0.5),
    "out": lambda weight: torch.mul(weight, 0.5, out=weight),
    "element": put_first,
    "several": lambda weight: torch._foreach_mul_([weight], 0.5),
    "normal": torch.nn.init.normal_,
    "copy": lambda weight: weight.copy_(weight * 0.5),
    "an error is caught": quietly,
    "max norm": lambda weight: torch.nn.functional.embedding(
        torch.tensor([0, 2]), weight, max_norm=0.1
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_a_pass_writes_to_parameters_stays_with_the_task(write, always, monkeypatch):
    """The worker's vector stays as it is, and gradient and buffers are those of copies."""

    def make():
        rng = np.random.default_rng(0)
        y = torch.from_numpy(rng.integers(0, 3, 20))
        x = torch.from_numpy(rng.standard_normal((20, 5), dtype=np.float32))
        return TorchTask(Projected(write), torch.nn.CrossEntropyLoss(), (x, y), batch_size=9)

    def gradients():
        task, rng = make(), np.random.default_rng(3)
        found = []
        for i in range(3):
            x = np.linspace(-1, 1 + i, task._model.size, dtype=np.float32)
            before, out = x.copy(), np.full_like(x, np.nan)
            loss = task.gradient_into(x, out, task.draw(rng))
            np.testing.assert_array_equal(x, before)
            found.append((loss, out.tobytes(), task.buffers()["norm.running_mean"].tobytes()))
        return found

    on_views = gradients()
    monkeypatch.setattr("flowerpress.tasks.torch_model.LARGE", 1 << 23)
    assert on_views == gradients()


def test_a_scripted_model_has_no_views(always):
    class Halves(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(5, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.weight.mul_(0.5)
            return x @ self.weight

    with warnings.catch_warnings():  # of torch.jit, about itself
        warnings.simplefilter("ignore")
        task = TorchTask(
            torch.jit.script(Halves()),
            torch.nn.CrossEntropyLoss(),
            (torch.ones(4, 5), torch.zeros(4, dtype=torch.long)),
        )
        x, out = np.ones(15, np.float32), np.zeros(15, np.float32)
        task.gradient_into(x, out, None)
    assert (x == 1).all()
    assert out.any()


def test_an_error_of_the_model_is_its_own(always):
    def fail(weight):
        raise RuntimeError("no such thing")

    task = TorchTask(
        Projected(fail), torch.nn.CrossEntropyLoss(), (torch.ones(4, 5), torch.zeros(4).long())
    )
    x = np.ones(task._model.size, np.float32)
    with pytest.raises(RuntimeError, match="no such thing"):
        task.gradient_into(x, x.copy(), None)
    assert not task._model.writes
