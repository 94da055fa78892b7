"""What a pass draws depends on its seed alone, whatever draws it."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from flowerpress.tasks.torch_task import TorchBatch, TorchTask

from .checks import start

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_torch_thread")
INPUTS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


class Drawing(nn.Module):
    """Linear in its weights, so that its gradient is the same everywhere if its draws are."""

    def __init__(self, draw):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.draw = draw

    def forward(self, inputs):
        return self.draw(inputs * self.weight, self.training)


def drop_path(x, training):
    return x * (torch.rand(len(x), 1) < 0.5) if training else x


def by_numpy(x, training):
    return x * np.random.uniform(0.5, 2.0) if training else x  # noqa: NPY002


def by_python(x, training):
    return x * random.uniform(0.5, 2.0) if training else x


DRAWS = {
    "functional dropout": lambda x, training: functional.dropout(x, 0.5, training=training),
    "feature dropout": lambda x, training: functional.dropout1d(x[None], 0.5, training)[0],
    "dropout module": lambda x, training: nn.Dropout(0.5).train(training)(x),
    "noise": lambda x, training: x * (1 + torch.randn_like(x)),
    "normal_": lambda x, training: x * torch.empty_like(x).normal_(),
    "permutation": lambda x, training: x[:, torch.randperm(6)],
    "rrelu": lambda x, training: functional.rrelu(x, training=training),
    "gumbel": lambda x, training: x * functional.gumbel_softmax(torch.zeros_like(x)),
    "distribution": lambda x, training: x * torch.distributions.Gamma(2.0, 1.0).sample(x.shape),
    "drop path": drop_path,
    "numpy": by_numpy,
    "python": by_python,
}


def loss(output, _):
    return (output * torch.arange(1.0, 7.0)).mean()


def drawing(draw, data=INPUTS, **options):
    return TorchTask(Drawing(draw), loss, data, batch_size=16, **options)


def states():
    return torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()  # noqa: NPY002


def assert_same_states(before, after):
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1][0], after[1][0])
    assert before[1][1] == after[1][1]
    assert before[2] == after[2]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_two_points_of_one_batch_see_the_same_draws(draw):
    before = states()
    task = drawing(draw)
    x, batch = start(task), task.draw(np.random.default_rng(0))
    other = batch._replace(seed=batch.seed + 1)
    first = task.gradient(x, batch)[1]
    apart = task.gradient(x, other)[1]
    assert np.abs(first - apart).max() > 0.01 * np.abs(first).max()
    np.testing.assert_array_equal(task.gradient(x, batch)[1], first)
    # Another order of the factors, another rounding: some 1e-7 of the largest.
    np.testing.assert_allclose(task.gradient(2 * x, batch)[1], first, rtol=1e-5, atol=1e-6)
    fresh = drawing(draw)  # another process, say: nothing of before matters
    np.testing.assert_array_equal(fresh.gradient(x, other)[1], apart)
    assert task.evaluate(x) == task.evaluate(x) == fresh.evaluate(x)
    assert_same_states(before, states())


def augment(example):
    kind = int(example[0] * 1000) % 3
    factor = (torch.rand(1).item(), np.random.rand(), random.random())[kind]  # noqa: NPY002
    return example * factor


class Augmented:
    """A dataset that draws when it is read."""

    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, i):
        return torch.from_numpy(augment(INPUTS[i].copy()))


def masked(examples):
    batch = torch.stack([torch.from_numpy(example) for example in examples])
    return batch * (torch.rand(batch.shape) < 0.5)


@pytest.mark.parametrize("options", [{"data": Augmented()}, {"collate": masked}])
def test_examples_and_batches_that_draw_follow_the_seed(options):
    options = {"data": list(INPUTS)} | options
    before = states()
    task = drawing(lambda x, training: x, **options)
    x, batch = start(task), task.draw(np.random.default_rng(0))
    first = task.gradient(x, batch)[1]
    np.testing.assert_array_equal(task.gradient(x, batch)[1], first)
    assert not np.array_equal(task.gradient(x, batch._replace(seed=1))[1], first)
    assert task.evaluate(x) == task.evaluate(x)
    assert_same_states(before, states())


class Scheduled(nn.Module):
    """Batch norm, and noise that somebody switches on."""

    def __init__(self):
        super().__init__()
        self.norm, self.out, self.on = nn.BatchNorm1d(6), nn.Linear(6, 1), False

    def forward(self, inputs):
        hidden = self.norm(inputs)
        return self.out(hidden + torch.randn_like(hidden) if self.on else hidden)


def test_a_model_that_begins_to_draw_later_is_seeded_from_its_first_draw_on():
    def make():
        torch.manual_seed(0)
        return TorchTask(Scheduled(), lambda output, _: output.square().mean(), INPUTS)

    def after_two_rounds(task, seen=0):
        before = states()
        x, batch = start(task), TorchBatch(np.arange(9), 5)
        task.load_buffers({"norm.num_batches_tracked": np.array(seen)})
        task.gradient(x, batch)
        task._model.module.on = True
        result = task.gradient(x, batch)
        assert_same_states(before, states())
        return *result, task.buffers()

    quiet = make()
    for _ in range(3):
        quiet.gradient(start(quiet), TorchBatch(np.arange(5), 1))
    quiet.load_buffers(make().buffers())
    noisy = make()
    noisy._model.module.on = True
    noisy.evaluate(start(noisy))
    noisy.gradient(start(noisy), TorchBatch(np.arange(5), 1))
    noisy.load_buffers(make().buffers())
    noisy._model.module.on = False
    (a, g, one), (b, h, other) = after_two_rounds(quiet), after_two_rounds(noisy)
    assert a == b
    np.testing.assert_array_equal(g, h)
    assert one["norm.num_batches_tracked"] == 2  # the pass that was taken back does not count
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def numpys():  # the function itself would be copied with the model, and its generator with it
    return np.random.rand()  # noqa: NPY002


class Warming(nn.Module):
    """A layer that takes numpy's or Python's noise once it was run some times."""

    def __init__(self, draw, passes):
        super().__init__()
        self.out, self.draw, self.left = nn.Linear(6, 1), draw, passes

    def forward(self, inputs):
        self.left -= 1
        return self.out(inputs * self.draw() if self.left < 0 else inputs)


@pytest.mark.parametrize("draw", [random.random, numpys], ids=["python", "numpy"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    ("passes", "unseen"), [(3, 0), (15, 0), (16, 0), (17, 7), (23, 1), (24, 0)]
)
def test_draws_of_others_that_begin_later_are_noticed(draw, dropout, passes, unseen):
    """In the first sixteen passes at once, and then within eight: `unseen` are not from seeds."""

    def gradients():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(dropout), Warming(draw, passes))
        task = TorchTask(model, lambda output, _: output.square().mean(), INPUTS)
        x = start(task)
        return [task.gradient(x, TorchBatch(np.arange(9), t))[1] for t in range(passes + 12)]

    runs = [gradients() for _ in range(2) if draw()]  # the second begins with other states
    same = [np.array_equal(one, other) for one, other in zip(*runs, strict=True)]
    assert same == [True] * passes + [False] * unseen + [True] * (12 - unseen)


def test_who_draws_from_one_of_the_others_now_may_draw_from_the_rest_later():
    def sometimes(x, training):
        return x * np.random.rand() if random.random() < 0.2 else x  # noqa: NPY002

    def gradients():
        task = drawing(sometimes)
        x = start(task)
        return [task.gradient(x, TorchBatch(np.arange(9), t))[1] for t in range(40)]

    first = gradients()
    np.random.rand(), random.random()  # noqa: NPY002
    np.testing.assert_array_equal(first, gradients())


def test_threads_change_nothing():
    """Tasks that draw, and tasks that do not, side by side."""
    draws = [DRAWS["noise"], lambda x, training: x * x, DRAWS["numpy"], DRAWS["drop path"]]

    def all_gradients(i):
        task = drawing(draws[i % 4])
        x, batches = start(task), [TorchBatch(np.arange(16), seed) for seed in range(20)]
        return [task.gradient(x, batch)[1] for batch in batches]

    alone, found = [all_gradients(i) for i in range(4)], {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: all_gradients(i)})) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        np.testing.assert_array_equal(found[i], alone[i % 4])


def test_somebody_elses_draws_do_no_harm():
    """A pass that others drew beside is done again, with the same result."""
    passes = []

    def meddled(x, training):
        passes.append(training)
        if len(passes) == 2:  # as another thread might
            torch.rand(1)
        return x * x

    task = drawing(meddled)
    x, batch = start(task), TorchBatch(np.arange(16), 1)
    gradients = [task.gradient(x, batch)[1] for _ in range(4)]
    assert len(passes) == 5
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, gradients[0])


def test_an_error_leaves_the_generators_as_they_were():
    def fail(x, training):
        torch.rand(1)
        raise ArithmeticError

    before = states()
    task = drawing(fail)
    with pytest.raises(ArithmeticError):
        task.gradient(start(task), TorchBatch(None, 1))
    assert_same_states(before, states())
    quiet = drawing(lambda x, training: x)
    quiet.gradient(start(quiet), TorchBatch(None, 1))  # nobody holds the lock


def test_each_batch_has_a_seed_of_its_own_and_indices_are_those_without_seeds():
    task = drawing(DRAWS["noise"])
    rng, plain = np.random.default_rng([1, 2]), np.random.default_rng([1, 2])
    batches = [task.draw(rng) for _ in range(3)]
    for batch in batches:
        np.testing.assert_array_equal(batch.indices, plain.choice(40, 16, replace=False))
    whole = [task.draw_all(rng) for _ in range(2)]
    assert [batch.indices for batch in whole] == [None, None]
    seeds = {batch.seed for batch in batches + whole}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert task.draw(np.random.default_rng([1, 2])).seed == batches[0].seed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["noise", "functional dropout", "numpy"])
def test_draws_on_a_gpu_follow_the_seed(name):
    before, cpu = torch.cuda.get_rng_state(), states()
    task = drawing(DRAWS[name], device="cuda")
    x, batch = start(task), task.draw(np.random.default_rng(0))
    first = task.gradient(x, batch)[1]
    np.testing.assert_array_equal(task.gradient(x, batch)[1], first)
    assert not np.array_equal(task.gradient(x, batch._replace(seed=1))[1], first)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert_same_states(cpu, states())
