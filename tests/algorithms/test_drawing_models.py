"""Algorithms that live on differences, on models that draw: they see one function at two models."""

import numpy as np
import pytest

from flowerpress.clients import TorchTask
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional
CENTRES = np.random.default_rng(0).normal(size=(3, 6))
ROUNDS = 60


class Net(nn.Module):
    """Two layers with dropout in between, as a module or a function, or a layer that samples."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out, self.kind = nn.Linear(6, 24), nn.Linear(24, 3), kind
        if kind == "module":
            self.drop = nn.Dropout(0.5)

    def forward(self, inputs):
        hidden = torch.relu(self.hidden(inputs))
        if self.kind == "module":
            hidden = self.drop(hidden)
        elif self.kind == "function":
            hidden = functional.dropout(hidden, 0.5, training=self.training)
        elif self.kind == "sampling" and self.training:
            deviation = 0.5 * hidden.detach().std()
            hidden = hidden + deviation * torch.randn_like(hidden)
        return self.out(hidden)


def task(kind, i):
    rng = np.random.default_rng(i)
    classes = rng.integers(0, 3, 60)
    inputs = (CENTRES[classes] + 0.7 * rng.normal(size=(60, 6))).astype(np.float32)
    return TorchTask(Net(kind), nn.CrossEntropyLoss(), (inputs, classes), batch_size=16)


def train(name, kind, **options):
    """Return the model's arrays, and its loss on all the data without noise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    strategy = make_strategy(name, compressor="randk:0.05", lr=0.3, **options)
    arrays = simulate(strategy, lambda i, n: task(kind, i), 3, ROUNDS).arrays
    losses = [task(kind, i).evaluate_fn()(ROUNDS, arrays)["loss"] for i in range(3)]
    torch.set_num_threads(threads)
    return {name: array.numpy() for name, array in arrays.items()}, np.mean(losses)


@pytest.mark.parametrize(
    ("name", "options"),
    [("marina", {"p": 0.2}), ("vr-marina", {"p": 0.2}), ("pp-marina", {"p": 0.2}), ("dasha", {})],
)
def test_dropout_and_sampling_of_any_kind_train_alike(name, options):
    """With draws of their own in each pass these runs reach losses of 0.6 to 1e11."""
    module, loss = train(name, "module", **options)
    function, same = train(name, "function", **options)
    assert same == loss < 0.3
    for key in module:
        np.testing.assert_array_equal(module[key], function[key])
    assert train(name, "sampling", **options)[1] < 0.3


def seeds_of(name, **options):
    """Return the seeds of client 0's passes in each round, and whether gradients went whole."""
    seen = []

    class Watched(TorchTask):
        def gradient(self, x, batch):
            seen.append(batch.seed)
            return super().gradient(x, batch)

    def task_fn(i, n):
        made = task("function", i)
        if i == 0:
            made.__class__ = Watched
        return made

    rounds, syncs = [], []

    def after(record):
        if record.round:
            rounds.append(tuple(seen))
            syncs.append(getattr(strategy, "sync", False))
        seen.clear()

    strategy = make_strategy(name, lr=0.1, compressor="randk:0.5", **options)
    simulate(strategy, task_fn, 2, 12, on_round=after)
    return rounds, syncs


def test_which_draws_a_round_has():
    """VR- and PP-MARINA: new ones; MARINA: new ones with whole gradients; DASHA: one for all."""
    for options in ({"name": "vr-marina"}, {"name": "pp-marina", "fraction_train": 1.0}):
        rounds, syncs = seeds_of(p=0.3, **options)
        assert [len(each) for each in rounds] == [1 if sync else 2 for sync in syncs]
        assert all(len(set(each)) == 1 for each in rounds)
        assert len({each[0] for each in rounds}) == 12
    rounds, syncs = seeds_of("marina", p=0.5)
    assert 2 < sum(syncs) < 12
    before = [None, *rounds[:-1]]
    assert [now != then for now, then in zip(rounds, before, strict=True)] == syncs
    rounds, _ = seeds_of("dasha")
    assert len(set(rounds)) == 1
