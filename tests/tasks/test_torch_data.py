"""What a TorchTask takes as data, and how a batch becomes a call of the model and of the loss."""

from __future__ import annotations

import collections
import random

import numpy as np
import pytest

from flowerpress.tasks.torch_task import TorchBatch, TorchTask

from .checks import check_contract, start

torch = pytest.importorskip("torch")
nn, functional, utils = torch.nn, torch.nn.functional, torch.utils.data
pytestmark = pytest.mark.usefixtures("one_torch_thread")
RNG = np.random.default_rng(0)
REAL = RNG.standard_normal((20, 3)).astype(np.float32)
WHOLE = RNG.integers(0, 7, (20, 3))
CLASSES = np.arange(20) % 2


class Net(nn.Module):
    """Notes how it is called; inputs of any dtype go into one linear layer."""

    def __init__(self, forward=None):
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(3, 2)
        self.called = []

    def forward(self, *inputs, **named):
        self.called.append((inputs, named))
        parts = [*inputs, *(v for n, v in named.items() if n != "labels" and v is not None)]
        real = [torch.view_as_real(p).sum(-1) if p.is_complex() else p for p in parts]
        return self.out(sum(part.to(self.out.weight.dtype) for part in real))


class Named(Net):
    """As a text model: inputs by name, with or without its labels."""

    def forward(self, ids, mask=None):
        return super().forward(ids=ids, mask=mask)


class WithLabels(Net):
    def forward(self, ids, mask, labels=None):
        scores = super().forward(ids=ids, mask=mask)
        self.called.append(labels)
        output = collections.OrderedDict(logits=scores)
        output.loss = functional.cross_entropy(scores, labels)
        return output


def task(data, model=None, loss=functional.cross_entropy, **options):
    return TorchTask(model or Net(), loss, data, batch_size=4, **options)


def called(subject):
    """The call of one gradient, on examples 3 and 1."""
    module = subject._model.module
    module.called.clear()
    loss, gradient = subject.gradient(start(subject), TorchBatch(np.array([3, 1]), 0))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    return module.called


def rows(*columns):
    """The examples of columns, as a dataset gives them."""
    return [tuple(part) for part in zip(*columns, strict=True)]


def dicts(**columns):
    return [dict(zip(columns, part, strict=True)) for part in zip(*columns.values(), strict=True)]


TENSORS = torch.from_numpy(REAL), torch.from_numpy(WHOLE), torch.from_numpy(CLASSES)
ONE = {
    "arrays": (REAL, CLASSES),
    "tensors": (TENSORS[0], TENSORS[2]),
    "lists": (REAL.tolist(), CLASSES.tolist()),
    "lists of rows": (list(REAL), list(CLASSES)),
    "big-endian": (REAL.astype(">f4"), CLASSES.astype(">i4")),
    "long double": (REAL.astype(np.longdouble), CLASSES),
    "half": (REAL.astype(np.float64), CLASSES.astype(np.uint8)),
    "a list of examples": rows(REAL, CLASSES.tolist()),
    "examples of lists": rows(REAL.tolist(), CLASSES),
    "dataset": utils.TensorDataset(TENSORS[0], TENSORS[2]),
    "subset": utils.Subset(utils.TensorDataset(TENSORS[0], TENSORS[2]), range(20)),
    "loader": utils.DataLoader(utils.TensorDataset(TENSORS[0], TENSORS[2]), shuffle=True),
    "dict of one input": ({"x": REAL}, CLASSES),
    "boolean classes": (REAL, CLASSES == 1),
}


@pytest.mark.parametrize("data", ONE.values(), ids=ONE)
def test_one_input(data):
    subject = task(data)
    check_contract(subject)
    ((inputs, named),) = called(subject)
    (x,) = inputs or named.values()
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x, REAL[[3, 1]])
    expected = task((REAL, CLASSES))
    a, b = (one.gradient(start(one), TorchBatch(None, 0)) for one in (subject, expected))
    assert a[0] == b[0]
    np.testing.assert_array_equal(a[1], b[1])
    assert subject.evaluate(start(subject)) == expected.evaluate(start(expected))


SEVERAL = {
    "tuple of arrays": ((REAL, WHOLE), CLASSES),
    "three columns": (REAL, WHOLE, CLASSES),
    "dict of arrays": ({"a": REAL, "b": WHOLE}, CLASSES),
    "examples": rows(rows(REAL, WHOLE), CLASSES),
    "flat examples": rows(REAL, WHOLE, CLASSES),
    "examples of dicts": rows(dicts(a=REAL, b=WHOLE), CLASSES),
    "dict with labels": {"a": REAL, "b": WHOLE, "labels": CLASSES},
    "dicts with labels": dicts(a=REAL.tolist(), b=WHOLE.tolist(), label=CLASSES.tolist()),
    "dataset": utils.TensorDataset(*TENSORS),
}


@pytest.mark.parametrize("data", SEVERAL.values(), ids=SEVERAL)
def test_several_inputs_of_one_shape_stay_apart(data):
    subject = task(data)
    check_contract(subject)
    ((inputs, named),) = called(subject)
    real, whole = inputs or (named["a"], named["b"])
    assert (real.dtype, whole.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(real, REAL[[3, 1]])
    np.testing.assert_array_equal(whole, WHOLE[[3, 1]])


def test_two_examples_are_no_pair_of_columns():
    examples = [(np.float32([1, 2, 3]), 0), (np.float32([4, 5, 6]), 1)]
    subject = task(examples)
    assert subject.num_examples == 2
    subject.gradient(start(subject), None)
    ((inputs, _),) = subject._model.module.called
    np.testing.assert_array_equal(inputs[0], [[1, 2, 3], [4, 5, 6]])


def test_complex_and_boolean_inputs_stay_such():
    waves, mask = (REAL + 1j * WHOLE).astype(np.complex128), WHOLE > 3
    ((inputs, _),) = called(task(((waves, mask), CLASSES)))
    assert [part.dtype for part in inputs] == [torch.complex64, torch.bool]
    np.testing.assert_array_equal(inputs[0], waves[[3, 1]].astype(np.complex64))
    wide = task((waves, CLASSES), Net().double())
    assert called(wide)[0][0][0].dtype == torch.complex128


def test_labels_inside_are_given_to_models_that_have_them():
    data = dicts(ids=WHOLE.tolist(), mask=(WHOLE > 2).tolist(), labels=CLASSES.tolist())
    plain = task(data, Named())
    inside = task(data, WithLabels(), lambda output, _: output.loss)
    ((_, named),) = called(plain)
    assert named["mask"].dtype == torch.bool
    _, labels = called(inside)
    np.testing.assert_array_equal(labels, CLASSES[[3, 1]])
    x = start(plain)
    np.testing.assert_array_equal(plain.gradient(x, None)[1], inside.gradient(x, None)[1])
    assert plain.evaluate(x) == inside.evaluate(x)  # with the accuracy, of the output's logits
    assert set(plain.evaluate(x)) == {"loss", "accuracy"}


def padded(examples):
    ids, labels = zip(*examples, strict=True)
    ids = nn.utils.rnn.pad_sequence([torch.as_tensor(one) for one in ids], batch_first=True)
    return {"ids": functional.pad(ids, (0, 3 - ids.shape[1])), "labels": torch.tensor(labels)}


RAGGED = [list(range(1, 2 + i % 3)) for i in range(20)]


@pytest.mark.parametrize(
    "data",
    [
        rows(RAGGED, CLASSES.tolist()),
        (RAGGED, CLASSES.tolist()),
        ([np.array(one) for one in RAGGED], CLASSES),
    ],
    ids=["examples", "lists", "list of arrays"],
)
def test_ragged_examples_are_put_together_by_collate(data):
    subject = task(data, Named(), collate=padded)
    check_contract(subject)
    ((_, named),) = called(subject)
    assert named["ids"].tolist() == [[1, 0, 0], [1, 2, 0]]
    # A refusal, without it.
    with pytest.raises(ValueError, match=r"train_data.*collate="):
        called(task(data))


def test_a_data_loader_gives_its_dataset_collate_function_and_batch_size():
    data = rows(RAGGED, CLASSES.tolist())
    loader = utils.DataLoader(data, batch_size=7, collate_fn=padded, shuffle=True, drop_last=True)
    subject = TorchTask(Named(), functional.cross_entropy, loader, test_data=loader)
    assert subject.num_examples == 20
    assert len(subject.draw(np.random.default_rng(0)).indices) == 7
    assert np.isfinite(subject.evaluate(start(subject))["loss"])
    assert len(task(loader, Named()).draw(np.random.default_rng(0)).indices) == 4
    assert called(subject)[0][1]["ids"].tolist() == [[1, 0, 0], [1, 2, 0]]

    def doubled(examples):
        batch = padded(examples)
        return batch | {"ids": 2 * batch["ids"]}

    assert called(task(loader, Named(), collate=doubled))[0][1]["ids"].max() == 4


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": utils.SubsetRandomSampler([1, 2])},
        {"sampler": utils.WeightedRandomSampler([1.0] * 20, 20)},
        {"batch_sampler": utils.BatchSampler(utils.SequentialSampler(range(20)), 4, True)},
        {"sampler": utils.RandomSampler(range(20), replacement=True)},
        {"sampler": utils.RandomSampler(range(20), num_samples=5)},
        {"batch_size": None},
    ],
    ids=["subset", "weights", "batches", "replacement", "fewer", "none"],
)
def test_a_loader_that_chooses_examples_is_refused(options):
    loader = utils.DataLoader(rows(REAL, CLASSES.tolist()), **options)
    with pytest.raises(TypeError, match=r"train_data: a DataLoader with .*torch.utils.data.Subset"):
        task(loader)


def test_forward_says_what_the_table_does_not():
    class Graph:
        """A batch of no known kind, as graph libraries make them."""

        def __init__(self, found):
            self.x, self.y = (torch.stack([torch.as_tensor(p) for p in part]) for part in found)
            self.moved = []

        def to(self, device):
            self.moved.append(str(device))
            return self

    def collate(examples):
        return Graph(zip(*examples, strict=True))

    data = rows(REAL, CLASSES.tolist())
    with pytest.raises(TypeError, match=r"train_data: a batch is a Graph: give the TorchTask for"):
        task(data, collate=collate)
    seen = []

    def forward(model, batch):
        seen.append(batch.moved)
        return model(batch.x), batch.y

    subject = task(data, collate=collate, forward=forward)
    check_contract(subject)
    assert seen[0] == ["cpu"]
    expected = task(data)
    x = start(expected)
    assert subject.gradient(x, None)[0] == expected.gradient(x, None)[0]
    # Unlabelled dicts, and a loss that takes the batch.
    own = task(
        dicts(a=REAL, b=CLASSES),
        loss=lambda output, batch: functional.cross_entropy(output, batch["b"]),
        forward=lambda model, batch: (model(batch["a"]), batch),
    )
    assert own.gradient(x, None)[0] == expected.gradient(x, None)[0]


def test_a_model_may_have_its_inputs_for_targets():
    model = nn.Linear(3, 3)
    x, subjects = None, []
    for data in (REAL, TENSORS[0], (REAL,), list(REAL), utils.TensorDataset(TENSORS[0])):
        subjects.append(TorchTask(model, nn.MSELoss(), data))
        x = start(subjects[-1])
    losses = {one.gradient(x, None)[0] for one in subjects}
    assert losses == {float(nn.MSELoss()(model(TENSORS[0]), TENSORS[0]).detach())}
    assert list(subjects[0].evaluate(x)) == ["loss"]


def test_packed_sequences_are_moved_as_they_are():
    def packed(examples):
        ids, labels = zip(*examples, strict=True)
        parts = [torch.as_tensor(one, dtype=torch.float32)[:, None] for one in ids]
        return nn.utils.rnn.pack_sequence(parts, enforce_sorted=False), torch.tensor(labels)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.GRU(1, 4), nn.Linear(4, 2)

        def forward(self, sequences):
            return self.head(self.body(sequences)[1][-1])

    check_contract(task(rows(RAGGED, CLASSES.tolist()), Recurrent(), collate=packed))


class Endless(utils.IterableDataset):
    def __iter__(self):
        return iter([1])


class Picture:
    """Looks like numbers, and is none."""

    __array_interface__ = REAL.__array_interface__


MASKED = np.ma.masked_array(REAL, REAL > 0)
BAD = {
    "a dict without labels": (dicts(a=REAL, b=WHOLE), TypeError, r"\['a', 'b'\] without 'labels'"),
    "columns of it": ({"a": REAL}, TypeError, "without 'labels'"),
    "texts": (rows(["a"] * 20, CLASSES), TypeError, r"train_data\[0\] is a str"),
    "text in a dict": (
        dicts(text=["a"] * 20, x=REAL, labels=CLASSES),
        TypeError,
        r"train_data\['text'\] is a str: leave it out",
    ),
    "text columns": ((np.array(["a"] * 20), CLASSES), TypeError, "X has dtype <U1"),
    "objects": ((np.array([None] * 20), CLASSES), TypeError, "X has dtype object"),
    "pictures": (rows([Picture()] * 20, CLASSES), TypeError, r"train_data\[0\] is a Picture"),
    "masked": ((MASKED, CLASSES), TypeError, "X is a masked array: fill"),
    "sparse": ((TENSORS[0].to_sparse(), CLASSES), TypeError, "X is a tensor of layout .*sparse"),
    "no values": ((TENSORS[0].to("meta"), CLASSES), TypeError, "on meta"),
    "huge": ((np.full(20, 2**63, np.uint64), CLASSES), ValueError, "9223372036854775808, which"),
    "ragged": (([[1], [1, 2]] * 10, CLASSES), ValueError, "X: rows of different lengths.*collate="),
    "a list of columns": ([REAL, CLASSES], TypeError, r"tuple \(X, y\)"),
    "a list of inputs": (([REAL[:2], WHOLE[:2]], CLASSES[:2]), TypeError, "float32 and int64"),
    "inputs as a list": (([REAL, REAL], CLASSES), ValueError, r"\(2, 20, 3\) and \(20,\) .several"),
    "another length": (({"a": REAL, "b": WHOLE[:4]}, CLASSES), ValueError, "20, 3.* and .4, 3.*"),
    "a word": ("data", TypeError, "must be a pair"),
    "an iterator": (iter([1]), TypeError, "make a list"),
    "a generator's loader": (
        utils.DataLoader(Endless()),
        TypeError,
        "not Endless; of what can only be iterated make a list",
    ),
    "by name": (collections.UserDict(a=REAL), TypeError, "without 'labels'"),
    "nothing": ((), ValueError, "have shapes none"),
    "no examples": ([], ValueError, "train_data holds no example"),
}


@pytest.mark.parametrize(("data", "error", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_data_is_refused_when_the_task_is_made(data, error, reason):
    with pytest.raises(error, match=reason):
        task(data)


def test_a_frame_of_columns_is_refused():
    class Frame:
        def __len__(self):
            return 20

        def __getitem__(self, name):
            return {"x": REAL}[name]

    with pytest.raises(TypeError, match=r"first example cannot be read: KeyError\(0\)"):
        task(Frame())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            rows([REAL[0], *REAL[1:, :2]], CLASSES),
            r"train_data\[0\]: examples of shapes \(2,\) and",
        ),
        ([{"x": 1.0, "labels": 1}, {"labels": 1}], r"not all examples have the keys \['x', 'la"),
        ([(REAL[0], 1), (REAL[0],)], "not all examples have 2 parts"),
    ],
    ids=["shapes", "keys", "parts"],
)
def test_examples_that_do_not_fit_together_are_named(data, reason):
    subject = task(data)
    with pytest.raises(ValueError, match=reason + r".*collate="):
        subject.gradient(start(subject), None)


def test_a_dataset_is_read_all_at_once_where_it_offers_that():
    class Fast:
        """As the datasets of Hugging Face, and torch's Subset."""

        def __init__(self):
            self.asked = []

        def __len__(self):
            return 20

        def __getitem__(self, i):
            raise AssertionError

        def __getitems__(self, indices):
            self.asked.append(indices)
            return [(REAL[i], CLASSES[i]) for i in indices]

    dataset = Fast()
    called(task(dataset))
    assert dataset.asked == [[0], [3, 1]]


def test_reading_the_first_example_draws_from_nobody():
    class Random:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return torch.rand(3) + random.random(), 1

    before = torch.get_rng_state(), random.getstate()
    task(Random())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_data_are_the_callers_and_stay_as_they_are():
    """A model that writes into its inputs spoils nothing."""

    class Greedy(Net):
        def forward(self, x):
            return super().forward(x.mul_(2))

    for data in ((REAL.copy(), CLASSES), (TENSORS[0].clone(), TENSORS[2])):
        subject = task(data, Greedy())
        x = start(subject)
        first = [subject.gradient(x, None)[0], subject.evaluate(x)["loss"]]
        assert [subject.gradient(x, None)[0], subject.evaluate(x)["loss"]] == first
        np.testing.assert_array_equal(data[0], REAL)
