"""The Adam family when messages are lost, workers restart, lose their disks, join late or lie."""

import logging
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from flowerpress.clients import FunctionTask, client_app
from flowerpress.compressors import add_to
from flowerpress.protocol import Replica, Reply
from flowerpress.simulations import Faults, simulate
from flowerpress.strategies import RoundError, make_strategy
from flowerpress.worker.stores import DiskStore, WorkerState
from tests.algorithms import toy
from tests.algorithms.problems import Quadratics, trajectory, worker_memory
from tests.algorithms.test_failures import Grid
from tests.reference import adam as reference
from tests.reference.compressors import sign

N = 4
LR, LOCAL_LR, WARMUP = 0.01, 0.05, 5
OPTIONS = {
    "efficient-adam": {"compressor": "topk:k=2", "downlink": "sign", "eps": 1e-3},
    "onebit-adam": {"compressor": "sign", "downlink": "sign", "warmup_rounds": WARMUP, "eps": 1e-3},
    "birder": {},
    "cdadam": {"compressor": "topk:k=2", "downlink": "sign"},
    "comp-ams": {"compressor": "topk:k=2", "eps": 1e-3},
    "fedcams": {"compressor": "topk:k=2", "local_lr": LOCAL_LR},
}
REPLICAS = ["efficient-adam", "onebit-adam", "birder", "cdadam"]
OWING = ["efficient-adam", "onebit-adam", "comp-ams", "fedcams"]


def state_of(folder, client):
    """A worker's state from its disk, empty if it has none yet."""
    paths = list(folder.glob(f"run-*/client-{client}.safetensors"))
    return DiskStore(paths[0]).load() if paths else WorkerState()


class Books:
    """What each worker meant to send, what of it was applied, and what it still owes."""

    def __init__(self, strategy, problem, folder):
        self.strategy, self.problem, self.folder = strategy, problem, folder
        self.x, self.kept = problem.x0, {}
        self.meant = np.zeros((N, problem.dim))
        self.applied = np.zeros((N, problem.dim))
        self.computed = 0
        self._round, strategy.round = strategy.round, self.round

    def round(self, server_round):
        steps = self._round(server_round)
        ask = next(steps)

        def receive(update):
            if self.counts:
                add_to(update.packets[0], self.applied[update.client.id], update.scale)
            ask.take(update)

        answered = yield replace(ask, into=receive)
        with suppress(StopIteration):  # one question a round
            steps.send(answered)

    @property
    def counts(self):
        """Whether errors are kept yet."""
        return self.strategy.name != "onebit-adam" or self.strategy.taken >= WARMUP

    def check(self, record):
        if not record.round:
            return
        if self.counts and (self.strategy.name != "onebit-adam" or self.kept):
            for client in self.strategy.population.clients.values():
                self._check(client, record.round)
        self.x = self.strategy.model.x.copy()
        self.kept = {name: v.copy() for name, v in self.strategy.model.replica.kept.items()}

    def _check(self, client, r):
        state = state_of(self.folder, client.id)
        if state.numbers.get("heard") == self.strategy.exchange.question:
            self.meant[client.id] += self._intended(client.id, state, r)
            self.computed += 1
        if not state.numbers.get("compressing", 1):
            return
        owed = state.vectors.get("memory", np.zeros(self.problem.dim)).copy()
        if state.packet and client.receiver.applied == state.numbers["pending"]:
            add_to(state.packet, owed, -state.numbers["scale"])
        np.testing.assert_allclose(
            self.applied[client.id] + owed, self.meant[client.id], rtol=0, atol=1e-12
        )

    def _intended(self, i, state, r):
        gradient = self.problem.gradient(i, self.x, r)
        match self.strategy.name:
            case "efficient-adam":
                return LR * state.vectors["m"] / (np.sqrt(state.vectors["v"]) + 1e-3)
            case "onebit-adam":
                return 0.9 * self.kept["m"] + 0.1 * gradient
            case "comp-ams":
                return gradient
            case "fedcams":
                return LOCAL_LR * gradient


@pytest.mark.parametrize("name", OWING)
def test_nothing_is_lost_whatever_happens_to_messages(name, tmp_path):
    """Applied + owed = meant, for each worker: 20 % of the messages lost, a worker restarted."""
    problem = Quadratics(n=N, noise=0.3)
    strategy = make_strategy(name, lr=LR, **OPTIONS[name])
    books = Books(strategy, problem, tmp_path)
    faults = Faults(down=0.2, up=0.2, kill={8: [1], 15: [1, 2]}, seed=3)
    trajectory(
        strategy, problem.task_fn, N, 30, state_dir=tmp_path, faults=faults, on_round=books.check
    )
    asked = N * (25 if name == "onebit-adam" else 30)
    assert 0.5 * asked < books.computed < 0.95 * asked, "some orders were lost indeed"
    assert strategy.exchange.resyncs == 0, "a restart from disk is no loss of state"
    assert np.abs(books.applied).max() > 0


@pytest.mark.parametrize("name", ["efficient-adam", "onebit-adam"])
def test_two_way_errors_telescope_to_the_uncompressed_method(name, tmp_path):
    """z = x - P (error + mean of e_i) moves by the mean of what the workers meant, for any C, Q."""
    problem = Quadratics(n=N, noise=0.3)
    for spec in ("sign", "topk:k=1", "sign:scale=l2" if name == "onebit-adam" else "loggrid:3"):
        folder = tmp_path / spec.replace(":", "-")
        strategy = make_strategy(name, lr=LR, **OPTIONS[name] | {"compressor": spec})
        strategy.downlink = strategy.compressor
        books = Books(strategy, problem, folder)
        seen = []

        def check(record, books=books, strategy=strategy, seen=seen, folder=folder):
            books.check(record)
            if record.round <= WARMUP:
                return
            owed = (books.meant - books.applied).mean(axis=0) + strategy.model.error
            P = 1.0
            if name == "onebit-adam":
                P = LR / (np.sqrt(strategy.model.replica.kept["v"]) + 1e-3)
            z = strategy.model.x - P * owed
            seen.append((z, P * books.meant.mean(axis=0)))

        trajectory(strategy, problem.task_fn, N, 40, state_dir=folder, on_round=check)
        (first, start), (last, end) = seen[0], seen[-1]
        assert np.abs(end - start).max() > 0.01
        np.testing.assert_allclose(last - first, start - end, rtol=0, atol=1e-12)


def test_a_gradient_lost_in_the_warm_up_is_gone():
    """Not owed, neither in the warm-up nor in the first compressed round."""
    problem = Quadratics(n=N, noise=0.3)
    strategy = make_strategy("onebit-adam", lr=LR, **OPTIONS["onebit-adam"])
    rounds = WARMUP + 1
    faults = Faults(up=0.5, seed=6)
    result, models = trajectory(strategy, problem.task_fn, N, rounds, faults=faults)
    answered = {r: [] for r in range(1, rounds + 1)}
    for row in result.ledger.rows:
        if row.purpose == "train" and row.direction == "up":
            answered[row.round].append(row.client)
    assert all(answered.values())
    lost_last = set(range(N)) - set(answered[WARMUP])
    assert lost_last & set(answered[rounds]), "one whose last gradient was lost is heard again"
    steps = reference.onebit_adam(
        problem.x0,
        problem.gradient,
        N,
        lambda v, i, r: sign(v),
        lambda v, r: sign(v),
        lambda r: LR,
        answered.get,
        WARMUP,
        beta1=0.9,
        beta2=0.999,
        eps=1e-3,
    )
    expected = [next(steps)[0] for _ in range(rounds)]
    np.testing.assert_allclose(models[1:], expected, rtol=0, atol=1e-9)


def test_onebit_adam_freezes_its_variance(tmp_path):
    problem = Quadratics(n=N, noise=0.3)
    strategy = make_strategy("onebit-adam", lr=LR, **OPTIONS["onebit-adam"])
    frozen = []

    def check(record):
        if record.round >= WARMUP:
            frozen.append(strategy.model.replica.kept["v"].tobytes())

    trajectory(strategy, problem.task_fn, N, 30, state_dir=tmp_path, on_round=check)
    assert len(frozen) == 26
    assert len(set(frozen)) == 1
    assert worker_memory(tmp_path, 0, 0, "replica.v").tobytes() == frozen[0]


def test_onebit_adam_leaves_alone_what_had_no_gradient_in_the_warm_up():
    """A sign has no zero: P would be lr / eps there, and the coordinate would run away."""
    x0 = np.full(6, 5.0)

    def task_fn(i, n):
        return FunctionTask(x0, lambda x, _: (0.0, np.where(np.arange(6) < 3, x - i, 0.0)))

    strategy = make_strategy("onebit-adam", lr=0.01, warmup_rounds=5)
    _, models = trajectory(strategy, task_fn, 3, 60)
    np.testing.assert_array_equal(models[-1][3:], 5.0)
    assert (models[-1][:3] != models[5][:3]).all()


def test_birder_never_leaves_its_range_and_hears_a_question_once(tmp_path):
    problem = Quadratics(n=N, noise=2.0)
    strategy = make_strategy("birder", lr=0.05)

    def check(record):
        if record.round:
            for i in range(N):
                vectors = state_of(tmp_path, i).vectors
                assert (np.abs(vectors["m"]) <= vectors["b"]).all()  # to the last bit

    trajectory(strategy, problem.task_fn, N, 40, state_dir=tmp_path, on_round=check)
    app = client_app(problem.task_fn)
    config = {"state-store": "disk", "state-dir": str(tmp_path / "again")}
    with Grid(lambda: app, 2, node_config=config) as grid:
        strategy = make_strategy("birder", lr=0.05)
        arrays = problem.task_fn(0, 2).initial_arrays()
        messages = list(strategy.configure_train(1, arrays, None, grid))
        before = [Reply.decode(m.content) for m in grid.send_and_receive(messages)]
        (path,) = (tmp_path / "again").glob("run-*/client-0.safetensors")
        saved = path.read_bytes()
        again = [Reply.decode(m.content) for m in grid.send_and_receive(messages)]
    assert saved == path.read_bytes()
    assert [reply.packets for reply in before] == [reply.packets for reply in again]


def follow_on(strategy, folder, client):
    """The worker's replica, taken to the server's version by what the server would send."""
    model, state = strategy.model, state_of(folder, client.id)
    kept = {
        name: state.vectors[f"replica.{name}"].copy()
        for name in model.rule.kept
        if f"replica.{name}" in state.vectors
    }
    held = int(state.numbers["held"])
    assert client.held <= held, "the server knows of what a worker has said it holds"
    x = state.vectors["replica.x"].copy()
    replica = Replica(model.rule, held, x, kept, model.replica.scale)
    replica.follow(model.part_for(client.held), model.layout)
    return replica


def assert_replicas_are_equal(strategy, folder):
    for client in strategy.population.clients.values():
        replica = follow_on(strategy, folder, client)
        np.testing.assert_array_equal(replica.x, strategy.model.x)
        assert set(replica.kept) == set(strategy.model.replica.kept)
        for name, vector in strategy.model.replica.kept.items():
            np.testing.assert_array_equal(replica.kept[name], vector)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("name", REPLICAS)
def test_replicas_stay_equal_to_the_bit(name, fraction, tmp_path):
    problem = Quadratics(n=N, dim=64, noise=0.3)
    strategy = make_strategy(name, lr=LR, fraction_train=fraction, **OPTIONS[name])
    faults = Faults(down=0.15, up=0.15, kill={6: [0], 9: [3]}, seed=5)
    trajectory(strategy, problem.task_fn, N, 25, state_dir=tmp_path, faults=faults)
    assert_replicas_are_equal(strategy, tmp_path)


def mean_of_workers(strategy, folder):
    met = [c for c in strategy.population.clients.values() if c.receiver.applied]
    total = len(strategy.population.clients)
    return sum(worker_memory(folder, c.id, c.receiver.applied) for c in met) / total


def test_cdadam_agrees_with_its_workers_and_converges_under_loss(tmp_path):
    problem = Quadratics(n=N)
    strategy = make_strategy("cdadam", lr=0.03, **OPTIONS["cdadam"])
    faults = Faults(down=0.1, up=0.1, kill={20: [2], 33: [2]}, seed=3)
    checked = []

    def check(record):
        if record.round:
            expected = mean_of_workers(strategy, tmp_path)
            # The same packets in another order over the workers.
            np.testing.assert_allclose(strategy.h, expected, rtol=0, atol=1e-12)
            checked.append(record.round)

    _, models = trajectory(
        strategy, problem.task_fn, N, 300, state_dir=tmp_path, faults=faults, on_round=check
    )
    assert len(checked) == 300
    assert strategy.exchange.resyncs == 0
    assert np.linalg.norm(models[-1] - problem.solution()) < 0.01


def test_a_lost_disk_makes_cdadam_start_over_and_converge(tmp_path, caplog):
    problem = Quadratics(n=N)
    strategy = make_strategy("cdadam", lr=0.03, **OPTIONS["cdadam"])

    def lose(record):
        if record.round == 30:
            for path in tmp_path.glob("run-*/client-1.safetensors"):
                path.unlink()

    with caplog.at_level(logging.WARNING, "flowerpress"):
        result, models = trajectory(
            strategy, problem.task_fn, N, 300, state_dir=tmp_path, on_round=lose
        )
    assert strategy.exchange.resyncs == 1
    assert "all workers start over" in caplog.text
    np.testing.assert_allclose(strategy.h, mean_of_workers(strategy, tmp_path), rtol=0, atol=1e-12)
    assert np.linalg.norm(models[-1] - problem.solution()) < 0.01
    assert_replicas_are_equal(strategy, tmp_path)
    dense = 8 * problem.dim + 24  # a frame of d values
    sent = [r.payload for r in result.ledger.rows if r.client == 1 and r.direction == "down"]
    assert sent.count(5 * dense) == 1, "x, g, m, v and w, once"


@pytest.mark.parametrize("name", ["efficient-adam", "onebit-adam", "birder", "comp-ams", "fedcams"])
def test_a_lost_disk_costs_the_others_no_more_than_what_was_owed(name, tmp_path):
    problem = Quadratics(n=N, noise=0.1)
    strategy = make_strategy(name, lr=LR, **OPTIONS[name])

    def lose(record):
        if record.round == 15:
            for path in tmp_path.glob("run-*/client-1.safetensors"):
                path.unlink()

    result, _ = trajectory(strategy, problem.task_fn, N, 40, state_dir=tmp_path, on_round=lose)
    assert strategy.exchange.refused == strategy.exchange.resyncs == 0
    last = [row.client for row in result.ledger.rows if row.round == 40 and row.direction == "up"]
    assert last == list(range(N))
    if name in REPLICAS:
        assert_replicas_are_equal(strategy, tmp_path)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_late_joiner(name, tmp_path):
    problem = Quadratics(n=3, noise=0.1)
    strategy = make_strategy(name, lr=LR, **OPTIONS[name])
    config = {"state-store": "disk", "state-dir": str(tmp_path)}
    with Grid(lambda: client_app(problem.task_fn), 3, node_config=config) as grid:
        late = grid.get_node_ids()[2]
        grid.hidden = frozenset({late})
        arrays = problem.task_fn(0, 3).initial_arrays()
        for server_round in range(1, 16):
            if server_round == 9:
                grid.hidden = frozenset()
            messages = list(strategy.configure_train(server_round, arrays, None, grid))
            assert len(messages) == (2 if server_round < 9 else 3)
            strategy.aggregate_train(server_round, grid.send_and_receive(messages))
            if name == "cdadam":
                expected = mean_of_workers(strategy, tmp_path)
                np.testing.assert_allclose(strategy.h, expected, rtol=0, atol=1e-12)
        rows = [r for r in strategy.ledger.rows if r.client == 2 and r.purpose == "train"]
        assert {row.round for row in rows} == set(range(9, 16))
        vectors = 1 + (len(strategy.model.rule.kept) if name in REPLICAS else 0)
        assert rows[0].payload == vectors * (8 * problem.dim + 24)
        if name in REPLICAS:
            assert_replicas_are_equal(strategy, tmp_path)


@pytest.mark.parametrize("compressor", ["identity", "topk:k=1", "sign"])
@pytest.mark.parametrize("name", ["comp-ams", "fedcams"])
def test_workers_may_take_turns(name, compressor):
    """One of two in every round: what the absent one owes is sent when it is back."""
    options = {"local_lr": 0.1} if name == "fedcams" else {}
    options |= {"min_available_nodes": 1, "min_train_nodes": 1}
    strategy = make_strategy(name, compressor=compressor, lr=0.02, **options)
    task_fn = toy.task_fn(0.0)
    with Grid(lambda: client_app(task_fn), 2) as grid:
        nodes = grid.get_node_ids()
        arrays = task_fn(0, 2).initial_arrays()
        for r in range(1, 601):
            grid.hidden = frozenset({nodes[r % 2]})
            messages = list(strategy.configure_train(r, arrays, None, grid))
            assert len(messages) == 1
            strategy.aggregate_train(r, grid.send_and_receive(messages))
    assert np.linalg.norm(strategy.model.x - toy.SOLUTION) < 0.05


def test_birder_takes_a_liars_numbers_for_one_vote():
    problem = Quadratics(n=3)
    own = {0: {"compressor": "scaled(randk:k=2)"}, 1: {"compressor": "randk:k=1"}}
    strategy = make_strategy("birder", lr=0.125, client_compressors=True)
    _, models = trajectory(strategy, problem.task_fn, 3, 20, node_configs=own)
    np.testing.assert_allclose(np.abs(np.diff(models, axis=0)), 0.125, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_huge_update_ends_the_run_instead_of_freezing_a_coordinate(name):
    """Its square is infinite: the moment would stay so, and the steps there 0 for ever."""

    def task_fn(i, n):
        return FunctionTask(np.ones(3), lambda x, _: (0.0, np.array([1e200, 1.0, 1.0])))

    options = {"compressor": "identity"} | ({"downlink": "identity"} if name in REPLICAS else {})
    if name == "birder":  # its steps have one length, whatever the gradients
        simulate(make_strategy(name, **options), task_fn, 2, 5)
        return
    with pytest.raises(RoundError, match="lower lr"):
        simulate(make_strategy(name, **options), task_fn, 2, 5)


def test_onebit_adam_masks_gradients_of_rounding_errors(caplog):
    """As of a bias before batch norm; `mask_below` says how small they are beside the others."""
    small = np.array([1.0, 1.0, 1e-7, 1e-7])

    def run(**options):
        def task_fn(i, n):
            noise = np.random.default_rng(i)
            arrays = {"seen": np.full(2, 5.0), "unseen": np.full(2, 5.0)}
            return FunctionTask(arrays, lambda x, _: (0.0, small * noise.standard_normal(4)))

        strategy = make_strategy("onebit-adam", lr=0.01, warmup_rounds=5, **options)
        _, models = trajectory(strategy, task_fn, 3, 30)
        return models

    masked = run()
    np.testing.assert_array_equal(masked[-1][2:], masked[5][2:])
    assert (masked[-1][:2] != masked[5][:2]).all()
    assert "2 of 4 coordinates had no gradient in the warm-up" in caplog.text
    assert "(unseen)" in caplog.text
    all_move = run(mask_below=0.0)
    assert (all_move[-1][2:] != all_move[5][2:]).all()


def test_onebit_adam_at_its_defaults_trains_convolutions_with_biases_before_batch_norm():
    torch = pytest.importorskip("torch")
    from torch import nn

    from flowerpress.clients import TorchTask

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 192)
    X = rng.normal(size=(192, 1, 6, 6)) + np.eye(3, 36)[y].reshape(-1, 1, 6, 6) * 3

    for seed in range(3):

        def task_fn(i, n, seed=seed):
            torch.manual_seed(seed)
            parts = [
                nn.Conv2d(1, 4, 3),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(64, 3),
            ]
            return TorchTask(nn.Sequential(*parts), nn.CrossEntropyLoss(), (X[i::n], y[i::n]))

        whole = task_fn(0, 1).evaluate_fn()
        strategy = make_strategy("onebit-adam")
        result = simulate(strategy, task_fn, 3, 35, seed, whole, threads=1)
        losses = [record.metrics["loss"] for record in result.history]
        assert max(losses[21:]) <= losses[20], seed
        assert losses[-1] < 0.95 * losses[20]
        bias = result.arrays["0.bias"].numpy()
        torch.manual_seed(seed)
        # Twenty steps of Adam without correction, 0.003 at first; then these biases stand still.
        begun = nn.Conv2d(1, 4, 3).bias.detach().numpy()
        np.testing.assert_allclose(bias, begun, rtol=0, atol=20 * 0.005)
