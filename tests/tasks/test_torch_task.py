from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flowerpress.clients.torch_task import TorchTask

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


def test_a_full_gradient_is_taken_in_chunks(monkeypatch):
    x = start(task())
    whole = task(batch_size=None).gradient(x, None)
    monkeypatch.setattr("flowerpress.clients.torch_task._CHUNK", 7)
    parts = task(batch_size=None).gradient(x, None)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-4, atol=1e-7)


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
    model = network()
    model.spare = nn.Parameter(torch.ones(2))
    model.forward = lambda inputs: model[2](model[1](model[0](inputs)))
    subject = TorchTask(model, nn.CrossEntropyLoss(), (INPUTS, CLASSES))
    spare = list(subject.initial_arrays()).index("spare")
    assert spare == 0
    assert subject.gradient(start(subject), None)[1][:2].tolist() == [0, 0]


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
    assert task(batch_size=40).draw(np.random.default_rng(0)) is None


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
    code = "import sys, flowerpress.clients.torch_task as t; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
