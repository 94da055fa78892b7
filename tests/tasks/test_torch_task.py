from __future__ import annotations

import collections
import subprocess
import sys
import types

import numpy as np
import pytest

from flowerpress.tasks.torch_task import TorchTask

from .checks import check_contract, check_gradient, start

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.usefixtures("one_torch_thread")
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((40, 5))
CLASSES = np.arange(40) % 3


def network(*extra, dtype=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), *extra, nn.Tanh(), nn.Linear(8, 3))
    return model.to(dtype or torch.float32)


def task(model=None, **options):
    options = {"batch_size": 16} | options
    data = options.pop("data", (INPUTS, CLASSES))
    return TorchTask(model or network(), nn.CrossEntropyLoss(), data, **options)


def test_contract():
    check_contract(task())
    check_contract(task(network(nn.Dropout(0.5))))
    check_contract(task(batch_size=None))


@pytest.mark.parametrize(
    ("dtype", "step", "rtol"), [(torch.float64, 1e-5, 1e-8), (torch.float32, 1e-2, 1e-3)]
)
def test_gradient_against_finite_differences(dtype, step, rtol):
    subject = task(network(dtype=dtype))
    x = start(subject)
    assert x.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    check_gradient(subject, x, subject.draw(np.random.default_rng(0)), step=step, rtol=rtol)
    check_gradient(subject, x, None, step=step, rtol=rtol)


def test_the_vector_is_the_parameters_in_order():
    model = network()
    expected = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    assert np.array_equal(start(task(model)), expected)
    assert list(task(model).initial_arrays()) == [name for name, _ in model.named_parameters()]


def test_gradient_is_torchs_own():
    model, subject = network(), task()
    x = start(subject)
    loss, gradient = subject.gradient(x, None)
    value = nn.CrossEntropyLoss()(model(torch.tensor(INPUTS).float()), torch.tensor(CLASSES))
    value.backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy()
    assert loss == pytest.approx(float(value.detach()), rel=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_is_taken_at_x_and_not_where_the_model_was():
    subject = task(batch_size=None)
    x = start(subject)
    there = subject.gradient(x + 1, None)[1]
    subject.gradient(x - 3, None)
    assert np.array_equal(subject.gradient(x + 1, None)[1], there)
    assert not np.array_equal(subject.gradient(x, None)[1], there)


WEIGHTS = torch.tensor([9.0, 1.0, 2.0])
MEANS = {
    "plain": (nn.CrossEntropyLoss(), len),
    "class weights": (nn.CrossEntropyLoss(weight=WEIGHTS), lambda y: WEIGHTS[y].sum()),
    "an ignored index": (nn.CrossEntropyLoss(ignore_index=2), lambda y: (y != 2).sum()),
    "both": (
        nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=0),
        lambda y: WEIGHTS[y[y != 0]].sum(),
    ),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), len),
}


@pytest.mark.parametrize(("loss", "normalizer"), MEANS.values(), ids=MEANS)
def test_all_the_data_are_torchs_own_in_one_pass_and_in_chunks(loss, normalizer):
    """Rows sorted by class, so that the losses of parts divide by unlike sums."""
    classes = np.sort(np.resize(CLASSES, 2000))
    inputs = np.random.default_rng(1).standard_normal((2000, 5)) + classes[:, None]
    model = network()
    value = loss(model(torch.tensor(inputs).float()), torch.tensor(classes))
    value.backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy()
    size = np.linalg.norm(expected)
    for options in ({}, {"chunk": 1999}, {"chunk": 150}, {"chunk": 7}):
        more = {"normalizer": normalizer} if options else {}
        subject = TorchTask(network(), loss, (inputs, classes), batch_size=None, **options, **more)
        x = start(subject)
        found, gradient = subject.gradient(x, subject.draw_all(np.random.default_rng(0)))
        # One pass is the same operations; parts are other sums of float32, some 1e-7 apart each.
        assert np.linalg.norm(gradient - expected) <= 1e-6 * size * (1 if not options else 5)
        assert found == pytest.approx(value.item(), rel=1e-6)
        assert subject.evaluate(x)["loss"] == pytest.approx(value.item(), rel=1e-6)


def test_a_loss_with_tensors_is_the_tasks_own():
    """It goes with the task to a device that a node chooses, as the model does."""
    loss = nn.CrossEntropyLoss(weight=WEIGHTS.clone())
    subject = TorchTask(network(), loss, (INPUTS, CLASSES))
    x = start(subject)
    before = subject.gradient(x, None)[0]
    loss.weight.zero_()
    assert subject.to("cpu").gradient(x, None)[0] == before


def test_chunks_are_even_and_bound_batches_too():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.out, self.seen = nn.BatchNorm1d(5), nn.Linear(5, 3), []

        def forward(self, inputs):
            self.seen.append(len(inputs))
            return self.out(self.norm(inputs))

    rows = np.resize(INPUTS, (1025, 5)), np.resize(CLASSES, 1025)
    subject = task(Sized(), data=rows, chunk=512, normalizer=len, batch_size=600)
    x, seen = start(subject), subject._model.module.seen
    subject.gradient(x, None)
    assert seen == [342, 342, 341]  # and no last one of a single row
    seen.clear()
    subject.gradient(x, subject.draw(np.random.default_rng(0)))
    subject.evaluate(x)
    assert seen == [300, 300, 342, 342, 341]


def test_parts_in_which_every_target_is_ignored_count_nothing():
    classes = np.where(np.arange(40) < 20, -100, CLASSES)
    options = {"chunk": 10, "normalizer": lambda y: (y != -100).sum(), "data": (INPUTS, classes)}
    subject, whole = task(**options), task(data=(INPUTS, classes))
    x = start(subject)
    np.testing.assert_allclose(
        subject.gradient(x, None)[1], whole.gradient(x, None)[1], rtol=1e-4, atol=1e-7
    )
    expected = whole.evaluate(x)
    assert subject.evaluate(x) == pytest.approx(expected, rel=1e-6)
    outputs = network()(torch.tensor(INPUTS[20:]).float()).argmax(1).numpy()
    assert expected["accuracy"] == (outputs == CLASSES[20:]).mean()  # ignored rows have no class
    nothing = task(**options | {"data": (INPUTS, np.full(40, -100))})
    with pytest.raises(ValueError, match="divides by zero on this batch: all its targets"):
        nothing.gradient(x, None)


@pytest.mark.parametrize(
    "words", ["CUDA out of memory. Tried to", "DefaultCPUAllocator: can't allocate memory: you"]
)
def test_a_pass_too_large_for_the_memory_names_chunk(words):
    class Large(nn.Linear):
        def forward(self, inputs):
            raise RuntimeError(words)

    subject = task(Large(5, 3))
    for call in (lambda x: subject.gradient(x, None), subject.evaluate):
        with pytest.raises(MemoryError, match=r"cpu has no memory .* give the TorchTask a chunk"):
            call(start(subject))


@pytest.mark.parametrize(
    ("loss", "error", "reason"),
    [
        (nn.CrossEntropyLoss(reduction="none"), ValueError, r"one number, .*shape \(40,\)"),
        (lambda output, y: 1.0, TypeError, "must return a tensor, not float"),
        (lambda output, y: output.detach().sum(), ValueError, "does not depend on the parameters"),
        (lambda output, y: output.sum() * 1j, TypeError, "must return a real number, not a torch"),
    ],
    ids=["not reduced", "a number", "detached", "complex"],
)
def test_a_loss_that_is_none_is_named(loss, error, reason):
    subject = TorchTask(network(), loss, (INPUTS, CLASSES))
    with pytest.raises(error, match=reason):
        subject.gradient(start(subject), None)


def test_a_loss_with_parameters_says_that_they_are_not_trained():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.0))

        def forward(self, output, target):
            return nn.functional.cross_entropy(output / self.temperature, target)

    loss = Tempered()
    with pytest.warns(UserWarning, match=r"parameters of its own \(temperature\), which are not"):
        subject = TorchTask(network(), loss, (INPUTS, CLASSES))
    assert loss.temperature.requires_grad  # it is the user's
    loss.requires_grad_(False)
    frozen = TorchTask(network(), loss, (INPUTS, CLASSES))
    x = start(subject)
    for one, other in zip(subject.gradient(x, None), frozen.gradient(x, None), strict=True):
        np.testing.assert_array_equal(one, other)


class Several(nn.Module):
    """A model with several outputs, in some guise."""

    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = network(), wrap

    def forward(self, inputs):
        scores = self.inner(inputs)
        return self.wrap(scores, scores.square())


Output = collections.namedtuple("Output", ["features", "logits"])


@pytest.mark.parametrize(
    ("wrap", "scores"),
    [
        (lambda s, f: (s, f), lambda output: output[0]),
        (lambda s, f: [s, f], lambda output: output[0]),
        (lambda s, f: {"features": f, "logits": s}, lambda output: output["logits"]),
        (lambda s, f: Output(f, s), lambda output: output.logits),
        (lambda s, f: types.SimpleNamespace(logits=s), lambda output: output.logits),
    ],
    ids=["tuple", "list", "dict", "named tuple", "object"],
)
def test_models_with_several_outputs_are_measured_as_they_are_trained(wrap, scores):
    def loss(output, y):
        return nn.functional.cross_entropy(scores(output), y)

    subject, plain = TorchTask(Several(wrap), loss, (INPUTS, CLASSES)), task()
    x = start(plain)
    assert subject.evaluate(x) == plain.evaluate(x)
    np.testing.assert_array_equal(subject.gradient(x, None)[1], plain.gradient(x, None)[1])
    own = TorchTask(
        Several(lambda s, f: {"own": s}), lambda o, y: o["own"].mean(), (INPUTS, CLASSES)
    )
    assert list(own.evaluate(x)) == ["loss"]


def test_sparse_gradients_are_taken():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(10, 3, sparse=True)

        def forward(self, ids):
            return self.table(ids).sum(1)

    ids = np.arange(120).reshape(40, 3) % 10
    check_contract(task(Words(), data=(ids, CLASSES)))


def test_clients_given_one_model_do_not_share_it():
    model = network()
    first, second = task(model), task(model)
    first.gradient(start(first) + 1, None)
    assert np.array_equal(start(second), start(task(network())))


def test_a_read_only_vector_is_accepted():
    subject = task()
    x = start(subject)
    x.flags.writeable = False
    subject.gradient(x, None)


def test_frozen_parameters_do_not_travel():
    model = network()
    model[0].requires_grad_(requires_grad=False)
    subject = task(model)
    assert list(subject.initial_arrays()) == ["2.weight", "2.bias"]
    check_gradient(subject, start(subject), None, step=1e-2, rtol=1e-3)


def test_a_parameter_out_of_use_has_gradient_zero():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare, self.used = nn.Parameter(torch.ones(2)), network()

        def forward(self, inputs):
            return self.used(inputs)

    subject = TorchTask(Spare(), nn.CrossEntropyLoss(), (INPUTS, CLASSES))
    spare = list(subject.initial_arrays()).index("spare")
    assert spare == 0
    gradient = subject.gradient(start(subject), None)[1]
    assert gradient[:2].tolist() == [0, 0]
    assert gradient[2:].any()


@pytest.mark.parametrize("large", [1, 1 << 23], ids=["views", "copies"])
def test_a_forward_pass_of_another_model_is_named(large, monkeypatch):
    """The task trains a copy, and a closure goes on with the original: all would stand still."""
    monkeypatch.setattr("flowerpress.tasks.torch_model.LARGE", large)
    model = network()
    model.forward = lambda inputs: model[2](model[1](model[0](inputs)))
    subject = TorchTask(model, nn.CrossEntropyLoss(), (INPUTS, CLASSES))
    x = start(subject)
    with pytest.raises(ValueError, match=r"does not depend on the .*\(the task copies the model"):
        subject.gradient_into(x, x.copy(), None)


def test_batch_norm_statistics_are_buffers():
    subject = task(network(nn.BatchNorm1d(8)))
    names = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert subject.buffer_names() == names
    assert start(subject).size == 5 * 8 + 8 + 2 * 8 + 8 * 3 + 3
    before = subject.buffers()
    subject.gradient(start(subject), subject.draw(np.random.default_rng(0)))
    after = subject.buffers()
    assert before["1.num_batches_tracked"] == 0
    assert after["1.num_batches_tracked"] == 1
    assert not np.array_equal(before["1.running_mean"], after["1.running_mean"])
    subject.load_buffers(before)
    assert np.array_equal(subject.buffers()["1.running_mean"], before["1.running_mean"])


def test_evaluation_uses_the_buffers_and_leaves_them():
    subject = task(network(nn.BatchNorm1d(8)))
    x = start(subject)
    plain = subject.evaluate(x)
    values = subject.buffers() | {"1.running_mean": np.full(8, 5, np.float32)}
    subject.load_buffers(values)
    shifted = subject.evaluate(x)
    assert shifted["loss"] != plain["loss"]
    assert np.array_equal(subject.buffers()["1.running_mean"], np.full(8, 5))


def test_unknown_or_misshapen_buffers_are_refused():
    subject = task(network(nn.BatchNorm1d(8)))
    with pytest.raises(ValueError, match=r"no buffer 'mean'; its buffers: 1\.running_mean"):
        subject.load_buffers({"mean": np.ones(8)})
    with pytest.raises(ValueError, match=r"'1.running_mean' has shape \(8,\), not \(3,\)"):
        subject.load_buffers({"1.running_mean": np.ones(3)})


def test_dropout_follows_the_batch_and_not_torchs_generator():
    subject = task(network(nn.Dropout(0.5)))
    x, rng = start(subject), np.random.default_rng(0)
    one, other = subject.draw(rng), subject.draw(rng)
    first = subject.gradient(x, one)[1]
    state = torch.get_rng_state()
    subject.gradient(x, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(subject.gradient(x, one)[1], first)
    mask = one._replace(seed=one.seed + 1)
    assert not np.array_equal(subject.gradient(x, mask)[1], first)


def test_recurrent_dropout_is_seen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(5, 4, num_layers=2, dropout=0.5, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.head(self.gru(inputs[:, None])[0][:, -1])

    check_contract(task(Net()))


def test_evaluation_measures_test_data_in_evaluation_mode():
    subject = task(network(nn.Dropout(0.9)), test_data=(INPUTS[:10], CLASSES[:10]))
    x = start(subject)
    model = network(nn.Dropout(0.9)).eval()
    outputs = model(torch.tensor(INPUTS[:10]).float())
    expected = nn.CrossEntropyLoss()(outputs, torch.tensor(CLASSES[:10])).item()
    hits = (outputs.argmax(1).numpy() == CLASSES[:10]).mean()
    assert subject.evaluate(x) == {"loss": pytest.approx(expected), "accuracy": hits}


def test_regression_has_no_accuracy():
    counts = (INPUTS, CLASSES.astype(np.int64))
    poisson = TorchTask(nn.Linear(5, 1), lambda o, y: (o[:, 0] - y).square().mean(), counts)
    assert list(poisson.evaluate(start(poisson))) == ["loss"]
    targets = INPUTS[:, :1].astype(np.float32)
    subject = TorchTask(nn.Linear(5, 1), nn.MSELoss(), (INPUTS, targets))
    assert list(subject.evaluate(start(subject))) == ["loss"]


def test_a_dataset_gives_what_its_arrays_give():
    dataset = torch.utils.data.TensorDataset(torch.tensor(INPUTS), torch.tensor(CLASSES))
    by_arrays, by_dataset = task(), task(data=dataset)
    x, batch = start(by_arrays), by_arrays.draw(np.random.default_rng(0))
    assert by_dataset.num_examples == 40
    assert np.array_equal(by_arrays.gradient(x, batch)[1], by_dataset.gradient(x, batch)[1])
    assert by_arrays.evaluate(x) == by_dataset.evaluate(x)


def test_batches_hold_each_example_once():
    indices = task().draw(np.random.default_rng(0)).indices
    assert len(set(indices.tolist())) == 16
    assert task(batch_size=40).draw(np.random.default_rng(0)).indices is None


@pytest.mark.parametrize("device", ["tpu9", "", "cuda:99"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(device):
    with pytest.raises(ValueError, match=r"can't be used here; .*finds: cpu"):
        task(device=device)
    with pytest.raises(ValueError, match="Choose one of these"):
        task().to(device)


def test_moving_to_the_cpu_keeps_the_task():
    subject = task(network(nn.BatchNorm1d(8)))
    x = start(subject)
    before = subject.evaluate(x)
    assert subject.to("cpu") is subject
    assert subject.evaluate(x) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": "all"}, ValueError, "None for all, not 'all'"),
        ({"batch_size": 0.5}, ValueError, "None for all, not 0.5"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1"),
        ({"chunk": 8}, ValueError, "chunk needs normalizer, .*normalizer=len for a mean"),
        ({"data": (INPUTS, CLASSES[:3])}, ValueError, r"train_data: .*\(40, 5\) and \(3,\)"),
        ({"data": (INPUTS[:0], CLASSES[:0])}, ValueError, "train_data holds no example"),
        ({"test_data": (INPUTS[:0], CLASSES[:0])}, ValueError, "test_data holds no example"),
        ({"data": 5}, TypeError, "must be a pair"),
        ({"model": network(dtype=torch.bfloat16)}, TypeError, "'0.weight' is torch.bfloat16"),
        ({"model": nn.Tanh()}, ValueError, "no trainable parameter"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        task(**options)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"model has 75 values, but x has shape \(3,\)"):
        task().gradient(np.ones(3, np.float32), None)


def test_importing_tasks_does_not_import_torch():
    code = "import sys, flowerpress.tasks.torch_task as t; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
