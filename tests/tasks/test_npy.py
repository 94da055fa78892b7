from __future__ import annotations

import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from flowerpress.protocol import Layout
from flowerpress.simulations import simulate
from flowerpress.simulations.tasks import make_task_fn, npy_file
from flowerpress.simulations.tasks.network import Examples, NetworkTask
from flowerpress.strategies import make_strategy

from .checks import check_contract, check_gradient, start

RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((3, 5))


def write(folder, examples=60, suffix="", seed=0, dtype=np.float32):
    """Write examples of three classes, clouds around their centres."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(examples) % 3)
    inputs = CENTRES[labels] + 0.5 * rng.standard_normal((examples, 5))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"x{suffix}.npy", inputs.astype(dtype))
    np.save(folder / f"y{suffix}.npy", labels)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "data")
    return tmp_path / "data"


# --- the model ---


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("chunk", [10**6, 40])  # in a few chunks, each of the same sums
def test_gradient_against_finite_differences(hidden, chunk, monkeypatch):
    monkeypatch.setattr("flowerpress.simulations.tasks.network._CHUNK", chunk)
    data = Examples(RNG.standard_normal((20, 5)).astype(np.float32), np.arange(20) % 3)
    task = NetworkTask(data, classes=3, hidden=hidden, batch_size=6)
    check_contract(task)
    x = start(task).astype(np.float64) + 0.1 * np.random.default_rng(3).standard_normal(
        start(task).size
    )
    check_gradient(task, x, None, step=1e-6, rtol=1e-6)
    check_gradient(task, x, task.draw(np.random.default_rng(0)), step=1e-6, rtol=1e-6)
    assert task.evaluate(x)["loss"] == pytest.approx(task.gradient(x, None)[0], rel=1e-12)


def test_chunks_change_nothing_but_rounding(monkeypatch):
    data = Examples(RNG.standard_normal((50, 5)), RNG.integers(0, 3, 50))
    whole = NetworkTask(data, classes=3, hidden=4)
    monkeypatch.setattr("flowerpress.simulations.tasks.network._CHUNK", 35)
    parts = NetworkTask(data, classes=3, hidden=4)
    x = start(whole).astype(np.float64)
    (loss, gradient), (other_loss, other) = (t.gradient(x, None) for t in (whole, parts))
    assert loss == pytest.approx(other_loss, rel=1e-12)
    np.testing.assert_allclose(gradient, other, rtol=1e-10, atol=1e-12)
    assert whole.evaluate(x) == pytest.approx(parts.evaluate(x), rel=1e-12)


def test_a_torch_module_of_the_same_names_is_the_same_model():
    torch = pytest.importorskip("torch")
    from flowerpress.clients import TorchTask

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.output = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)

        def forward(self, a):
            return self.output(torch.relu(self.hidden(a)))

    inputs, labels = RNG.standard_normal((9, 5)).astype(np.float32), np.arange(9) % 3
    by_torch = TorchTask(Network(), torch.nn.CrossEntropyLoss(), (inputs, labels))
    by_numpy = NetworkTask(Examples(inputs, labels), classes=3, hidden=4)
    assert Layout.of(by_torch.initial_arrays()) == Layout.of(by_numpy.initial_arrays())
    x = start(by_numpy)
    loss, gradient = by_numpy.gradient(x, None)
    torch_loss, torch_gradient = by_torch.gradient(x, None)
    assert loss == pytest.approx(torch_loss, rel=1e-5)
    np.testing.assert_allclose(gradient, torch_gradient, rtol=1e-4, atol=1e-6)


def test_the_seed_fixes_the_initial_model():
    data = Examples(np.zeros((1, 100), np.float32), np.zeros(1, np.int64))
    first, again, other = (
        start(NetworkTask(data, classes=3, hidden=50, seed=s)) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert 0.09 < np.abs(first[:5000]).max() <= 0.1  # 1 / sqrt(100)
    assert np.abs(first[5050:]).max() <= 50**-0.5


# --- the files ---


def test_client_and_server_each_read_their_own_folder(tmp_path):
    write(tmp_path / "0", 30)
    write(tmp_path / "1", 12, seed=1)
    write(tmp_path / "1", 5, suffix="_test", seed=2)
    write(tmp_path / "server", 90, suffix="_test", seed=3)
    fn = make_task_fn("npy", path=tmp_path / "{client}", hidden=6)
    assert [task.num_examples for task in (fn(0, 2), fn(1, 2), fn.held_out())] == [30, 12, 90]
    assert [shard.tolist() for shard in fn.shards(2)] == [list(range(30)), list(range(12))]
    x = start(fn(0, 2))
    assert np.array_equal(x, start(fn.held_out()))
    tested = Examples(*npy_file.open_examples(tmp_path / "1", "_test"))
    assert fn(1, 2).evaluate(x) == NetworkTask(tested, classes=3, hidden=6).evaluate(x)
    assert fn.evaluate_fn(0, fn.initial_arrays())["loss"] > 0
    assert np.array_equal(start(pickle.loads(pickle.dumps(fn))(1, 2)), x)


def test_a_server_without_data_needs_only_the_sizes(folder):
    server = make_task_fn("npy", dim="5", classes="3", hidden=6)
    arrays = server.initial_arrays()
    client = make_task_fn("npy", path=folder, dim=5, classes=3, hidden=6)(0, 4)
    assert Layout.of(arrays) == Layout.of(client.initial_arrays())
    assert dict(server.evaluate_fn(1, arrays)) == {}
    with pytest.raises(ValueError, match=r"the server has no data .*give dim .* and classes"):
        make_task_fn("npy", dim=5).initial_arrays()


def test_training_learns_in_a_simulation(tmp_path):
    for client in range(3):
        write(tmp_path / f"{client}", 40, seed=client)
    write(tmp_path / "server", 90, suffix="_test", seed=9)
    fn = make_task_fn("npy", path=tmp_path / "{client}", hidden=8)
    strategy = make_strategy("ef21-sgdm", compressor="topk:0.2", lr=0.5)
    result = simulate(strategy, fn, num_clients=3, num_rounds=60, evaluate_fn=fn.evaluate_fn)
    assert result.history[0].metrics["accuracy"] < 0.6
    assert result.history[-1].metrics["accuracy"] > 0.9


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, ">f8"])
def test_inputs_may_have_any_real_dtype(folder, dtype):
    values, gradients = np.arange(300).reshape(60, 5) % 100, []
    for kind in (dtype, np.float32):
        np.save(folder / "x.npy", values.astype(kind))
        task = make_task_fn("npy", path=folder)(0, 1)
        gradients.append(task.gradient(np.full(18, 0.01, np.float32), None)[1])
    assert np.array_equal(*gradients)


def test_a_file_that_changes_while_in_use_is_refused(folder):
    task = make_task_fn("npy", path=folder)(0, 1)
    np.save(folder / "x.npy", np.zeros((60, 5), np.float64))
    with pytest.raises(ValueError, match=r"x.npy: was changed while in use"):
        task.gradient(start(task), None)


def test_further_axes_are_joined(folder):
    np.save(folder / "x.npy", np.zeros((60, 4, 2, 3), np.float32))
    assert start(make_task_fn("npy", path=folder)(0, 1)).size == 3 * 24 + 3


def put(folder, name, array):
    np.save(folder / name, array)


def cut(folder, _name, _array):
    data = (folder / "x.npy").read_bytes()
    (folder / "x.npy").write_bytes(data[:-8])


@pytest.mark.parametrize(
    ("spoil", "name", "array", "message"),
    [
        (put, "x.npy", np.zeros((59, 5)), "y.npy: holds 60 labels of 59 examples"),
        (put, "x.npy", np.zeros((60, 5), complex), "x.npy: holds complex128, but must hold real"),
        (put, "x.npy", np.zeros((60, 5), "U3"), "x.npy: holds <U3"),
        (put, "x.npy", np.array([[None]] * 60), "x.npy: not readable as one array of numpy.save"),
        (put, "x.npy", np.zeros((0, 5)), "x.npy: "),
        (put, "x.npy", np.zeros(60), "x.npy: has one axis"),
        (put, "x.npy", np.zeros((5, 60)).T, "x.npy: in Fortran order"),
        (put, "x.npy", np.float32(1), "x.npy: holds no example"),
        (cut, "", None, "x.npy: not readable as one array"),
        (put, "y.npy", np.zeros((60, 1), int), r"y.npy: has one axis|y.npy: has shape \(60, 1\)"),
        (put, "y.npy", np.full(60, 1.5), "y.npy: row 0 holds 1.5; classes are 0, 1, 2"),
        (put, "y.npy", np.array([0] * 59 + [-1]), "y.npy: row 59 holds -1"),
        (put, "y.npy", np.array([0.0] * 59 + [np.nan]), "y.npy: row 59 holds NaN or infinity"),
        (put, "y.npy", np.array([0.0] * 59 + [np.inf]), "y.npy: row 59 holds NaN or infinity"),
        (put, "y.npy", np.full(60, 2**40), "y.npy: row 0 holds 1099511627776"),
        (put, "y.npy", np.full(60, 4), "y.npy: label 4 is none of 3 classes"),
        (put, "x.npy", np.zeros((60, 6)), "x.npy: an example has 6 numbers, but the model 5"),
        (put, "x_test.npy", np.zeros((6, 5)), r"no file .*y_test.npy: write it with numpy.save"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, spoil, name, array, message):
    spoil(folder, name, array)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make_task_fn("npy", path=folder, dim=5, classes=3)(0, 1)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_example_that_is_not_finite_is_named_when_it_is_drawn(folder):
    inputs = np.load(folder / "x.npy")
    inputs[17, 2] = np.nan
    np.save(folder / "x.npy", inputs)
    task = make_task_fn("npy", path=folder)(0, 1)
    task.gradient(start(task), np.array([3, 16]))
    for batch in (np.array([3, 17]), None):
        with pytest.raises(ValueError, match=r"x.npy: row 17 holds NaN or infinity"):
            task.gradient(start(task), batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partition": "contiguous"}, "has no partition: each client has its own folder"),
        ({"classes": 1}, "'classes': expected a whole number, at least 2"),
        ({"hidden": -1}, "'hidden': expected a whole number, at least 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_task_fn("npy", **options)


def test_folders_that_are_not_there_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"no file .*x.npy"):
        make_task_fn("npy", path=tmp_path / "absent")(0, 1)
    with pytest.raises(ValueError, match="needs path=FOLDER"):
        make_task_fn("npy", dim=5, classes=3)(0, 1)
    with pytest.raises(ValueError, match=r"client 2 is not among 0 to 1"):
        make_task_fn("npy", path=folder)(2, 2)
    with pytest.raises(ValueError, match=r"all 3 clients would read the one folder .*\{client\}"):
        make_task_fn("npy", path=folder).shards(3)
    write(tmp_path / "0")
    with pytest.raises(ValueError, match="the server has no data"):
        make_task_fn("npy", path=tmp_path / "{client}").shards(1)


def test_a_model_of_another_layout_is_refused(folder):
    with pytest.raises(ValueError, match="the arrays lack '"):
        make_task_fn("npy", path=folder).evaluate_fn(
            0, ArrayRecord({"x": Array(np.zeros(3, np.float32))})
        )
