"""Workers whose vectors stay on the model's device, as tensors: the trajectories of the host.

``FLOWERPRESS_TORCH=1`` has tensors on the CPU take the way of those on CUDA devices.
"""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks import device_client
from flowerpress.compressors import vectors
from flowerpress.compressors.kernels import device
from flowerpress.simulations.faults import Faults
from flowerpress.strategies import make_strategy
from flowerpress.tasks.torch_task import TorchTask
from flowerpress.worker.aside import Attic
from flowerpress.worker.lengths import length
from flowerpress.worker.stores import LiveStore
from tests.algorithms.problems import trajectory

torch = pytest.importorskip("torch")
nn = torch.nn
N, ROUNDS = 3, 6
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((60, 20))
CLASSES = np.arange(60) % 3
SPIKES = {(1, 3): 1e9, (0, 4): 1e12}  # the client and its gradient's number
TARGET = "cuda" if torch.cuda.is_available() else "cpu"

RUNS = {
    "ef21": {"compressor": "topk:0.02"},
    "ef21, compressed": {"compressor": "sign", "init": "compressed"},
    "ef21, two ways": {"compressor": "topk:0.02", "downlink": "topk:0.05"},
    "ef21, evaluated": {"downlink": "sign", "fraction_evaluate": 1.0},
    "ef21-sgdm": {"compressor": "topk:0.02"},
    "ef21-sgdm, qsgd": {"compressor": "qsgd:7", "init": "compressed", "local_steps": 3},
    "ef21-sgdm, of two": {"compressor": "topk:0.02+qsgd:7,bucket=16", "init_batches": 2},
    "ef21-sgdm, host": {"compressor": "hadamard+sign", "init_batches": 0},
    "ef21-sgd2m": {"compressor": "topk:0.02", "fraction_train": 0.7},
    "ef21-sgd2m, two ways": {"compressor": "sign", "downlink": "sign", "init": "compressed"},
    "ef14": {"compressor": "topk:0.02"},
    "ef14, two ways": {"compressor": "sign", "downlink": "qsgd:7", "local_steps": 2},
    "ef14, without": {"compressor": "qsgd", "feedback": "none"},
    "dsgd": {"compressor": "qsgd:7"},
    "dsgd, blocks": {"compressor": "blocked(topk:0.1, 1000)"},
    "fedavg": {"local_steps": 3},
}


class Spiky(TorchTask):
    """A task whose data are absurd once."""

    def __init__(self, i, spikes, dtype):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 200), nn.BatchNorm1d(200), nn.Tanh(), nn.Linear(200, 3))
        data = INPUTS[i::N], CLASSES[i::N]
        super().__init__(model.to(dtype), nn.CrossEntropyLoss(), data, batch_size=8, device=TARGET)
        self.me, self.spikes, self.calls, self.kinds = i, spikes, 0, set()

    def gradient_into(self, x, out, batch):
        loss = super().gradient_into(x, out, batch)
        self.calls += 1
        self.kinds.add(type(x))
        with np.errstate(all="ignore"):
            out *= self.spikes.get((self.me, self.calls), 1.0)
        return loss


def run(name, monkeypatch, *, on, spikes=None, dtype=torch.float32, **options):
    """The models, what the ledger says, and what x was, with vectors on the device or the host."""
    monkeypatch.setenv(device.VARIABLE, "1" if on else "0")
    tasks = {}

    def task_fn(i, n):
        tasks[i] = Spiky(i, spikes or {}, dtype)
        return tasks[i]

    strategy = make_strategy(name.split(",")[0], lr=0.1, **RUNS[name])
    result, models = trajectory(strategy, task_fn, N, ROUNDS, threads=1, **options)
    kinds = set().union(*(task.kinds for task in tasks.values()))
    assert kinds == {torch.Tensor if on else np.ndarray}
    return models, [vars(row) for row in result.ledger.rows], strategy.exchange


def assert_same(one, other):
    assert one[0].tobytes() == other[0].tobytes()
    for mine, its in zip(one[1], other[1], strict=True):
        for key in mine.keys() & {"round", "client", "purpose", "direction", "bytes", "payload"}:
            assert mine[key] == its[key]


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", RUNS)
def test_same_trajectories(name, monkeypatch):
    """With messages that are lost and updates that are refused."""
    options = {"spikes": SPIKES, "faults": Faults(down=0.1, up=0.2, seed=1)}
    on, host = (run(name, monkeypatch, on=each, **options) for each in (True, False))
    assert_same(on, host)
    assert on[2].refused == host[2].refused > 0


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", ["ef21-sgdm", "ef14"])
def test_same_trajectories_in_float64(name, monkeypatch):
    on, host = (run(name, monkeypatch, on=each, dtype=torch.float64) for each in (True, False))
    assert_same(on, host)


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", ["ef21-sgdm", "ef21, two ways", "ef14, two ways"])
def test_large_models_are_views_of_the_vectors(name, monkeypatch):
    monkeypatch.setattr("flowerpress.tasks.torch_model.LARGE", 1)
    assert_same(*(run(name, monkeypatch, on=each, spikes=SPIKES) for each in (True, False)))


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("store", ["disk", "context"])
@pytest.mark.parametrize("name", ["ef21-sgd2m, two ways", "ef14, two ways"])
def test_memory_goes_through_other_stores(name, store, monkeypatch, tmp_path):
    """On a disk it outlives its process."""
    kill = {4: [0], 7: [1]} if store == "disk" else {}
    options = {"spikes": SPIKES, "faults": Faults(up=0.2, kill=kill, seed=1)}
    options |= {"node_configs": {i: {"state-store": store} for i in range(N)}}
    found = []
    for each in (True, False):
        options["state_dir"] = tmp_path / str(each)
        found.append(run(name, monkeypatch, on=each, **options))
    assert_same(*found)
    files = [sorted((tmp_path / str(each)).glob("run-*/*.safetensors")) for each in (True, False)]
    assert [len(each) for each in files] == [N if store == "disk" else 0] * 2
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", ["ef21-sgd2m", "ef21, two ways", "ef14, two ways"])
def test_memory_moves_with_the_model(name, monkeypatch):
    """From the host to the device and back, whatever is in flight, and in a file."""
    monkeypatch.setattr("flowerpress.worker.aside._LEAST", 1)
    monkeypatch.setattr("flowerpress.worker.app.Attic", lambda: Attic(0))
    host = run(name, monkeypatch, on=False, spikes=SPIKES)
    gradient_into = Spiky.gradient_into

    def moving(task, x, out, batch):
        found = gradient_into(task, x, out, batch)
        monkeypatch.setenv(device.VARIABLE, str((task.me + task.calls) % 2))
        task.kinds = {torch.Tensor}
        return found

    monkeypatch.setattr(Spiky, "gradient_into", moving)
    assert_same(run(name, monkeypatch, on=True, spikes=SPIKES), host)


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize(
    ("name", "to_host", "to_device"),
    [
        ("ef21-sgdm", 0, 1),  # x, where the downlink is not compressed
        ("ef21-sgd2m", 0, 1),
        ("ef14", 0, 1),
        ("dsgd", 0, 1),
        ("ef21, two ways", 0, 0),
        ("ef21-sgdm, host", 1, 2),  # a compressor of the host's, and what it makes is dense
    ],
)
def test_only_packets_are_copied(name, to_host, to_device, monkeypatch):
    """So many times the bytes of a dense vector in a step, and less than that of others."""
    steps = []  # bytes each way, in each step of a client
    load, counted = LiveStore.load, {"host": 0, "device": 0}

    def loaded(store):
        steps.append(dict(counted))
        return load(store)

    def counting(owner, method, way, nbytes):
        original = getattr(owner, method)

        def counts(values, *args, **kwargs):
            counted[way] += nbytes(values)
            return original(values, *args, **kwargs)

        monkeypatch.setattr(owner, method, counts)

    monkeypatch.setattr(LiveStore, "load", loaded)
    for method in ("numpy", "tolist", "__array__", "item"):
        counting(torch.Tensor, method, "host", lambda tensor: tensor.nbytes)
    for method in ("tensor", "from_numpy", "as_tensor"):
        counting(torch, method, "device", lambda values: getattr(values, "nbytes", 8))
    run(name, monkeypatch, on=True)
    dense = 4 * (20 * 200 + 200 + 2 * 200 + 200 * 3 + 3)
    late = steps[4 * N :]  # the first message may be dense, and is settled in the second round
    for way, times in (("host", to_host), ("device", to_device)):
        most = max(after[way] - before[way] for before, after in pairwise(late))
        assert times * dense <= most < (times + 0.7) * dense, way


def test_timesthat_are_tensors_are_worked_on_as_arrays_are():
    rng = np.random.default_rng(5)
    for dtype in (np.float32, np.float64):
        a, b = (rng.standard_normal(999).astype(dtype) for _ in range(2))
        one, other = (torch.tensor(each, device=TARGET) for each in (a, b))
        third, kept = dtype(1 / 3), dtype(1) - dtype(1 / 3)
        room, place = np.empty_like(a), torch.empty_like(one)
        vectors.mix(third, a, kept, b, room)
        vectors.mix(third, one, kept, other, place)
        pairs = [
            (place, room),
            (vectors.add(one, other), vectors.add(a, b)),
            (vectors.subtract(one, other), vectors.subtract(a, b)),
            (vectors.multiply(one, 0.1), vectors.multiply(a, 0.1)),
            (vectors.divide(one, 0.1), vectors.divide(a, 0.1)),
            (vectors.copied(one, place), vectors.copied(a, room)),
        ]
        for got, want in pairs:
            assert got.cpu().numpy().tobytes() == want.tobytes()
        assert vectors.share_memory(one, one[3:])
        assert not vectors.share_memory(one, other)
        assert not vectors.share_memory(one, a)


@pytest.mark.parametrize("values", [[3e200, -4e200], [3.0, 4.0], [np.inf, 1.0], [np.nan, 1e300]])
def test_lengths(values):
    array = np.array(values)
    with np.errstate(over="ignore"):
        for kind in (array, array.astype(np.float32)):
            got, want = (length(each) for each in (torch.tensor(kind, device=TARGET), kind))
            np.testing.assert_allclose(got, want, rtol=1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_named(value, monkeypatch, caplog):
    said = []
    for each in (True, False):
        caplog.clear()
        run("ef21-sgdm", monkeypatch, on=each, spikes={(1, 2): value})
        said.append([line.getMessage() for line in caplog.records])
    assert said[0] == said[1]
    assert any("gradient of client 1 is" in line and "at position" in line for line in said[0])


@pytest.mark.usefixtures("one_torch_thread")
def test_the_benchmark_says_what_is_copied(capsys):
    assert device_client.main(["--dim", "1e5", "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("99,840 numbers")
    assert printed.count("met  ") == 3


def test_a_task_with_a_gradient_of_its_own_is_asked_for_it(monkeypatch):
    monkeypatch.setenv(device.VARIABLE, "1")

    class Own(TorchTask):
        def gradient(self, x, batch):
            return 0.0, np.zeros_like(x)

    options = nn.Linear(20, 3), nn.CrossEntropyLoss(), (INPUTS, CLASSES)
    assert TorchTask(*options).vector_device() == torch.device("cpu")
    assert Own(*options).vector_device() is None
