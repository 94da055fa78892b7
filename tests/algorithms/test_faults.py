"""Loss, restarts, lost disks, late joiners and liars: the run goes on, and the invariants hold."""

import logging

import numpy as np
import pytest
from flwr.app import MetricRecord

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import Faults, InProcessGrid, simulate
from flowerpress.strategies import RoundError, make_strategy
from tests.algorithms.problems import Quadratics, trajectory, vector, worker_memory

N = 5


def rounds_to(models, problem, norm):
    norms = [np.linalg.norm(problem.full_gradient(x)) for x in models]
    below = np.flatnonzero(np.array(norms) < norm)
    return int(below[0]) if below.size else None


def mean_of_workers(strategy, folder):
    met = [c for c in strategy.population.clients.values() if c.receiver.applied]
    return sum(worker_memory(folder, c.id, c.receiver.applied) for c in met) / N


@pytest.mark.parametrize("downlink", ["", "topk:k=2"])
@pytest.mark.parametrize("name", ["ef21", "ef21-sgdm", "ef21-sgd2m"])
def test_losing_messages_and_a_client_costs_at_most_twice_the_rounds(name, downlink, tmp_path):
    """10 % of the messages lost each way, client 2 killed twice and restarted from its disk."""
    problem = Quadratics(n=N)
    faults = Faults(down=0.1, up=0.1, kill={20: [2], 33: [2]}, seed=3)
    options = {"compressor": "topk:k=2", "lr": 0.08, "downlink": downlink}
    options |= {} if name == "ef21" else {"momentum": 0.5}
    _, plain = trajectory(make_strategy(name, **options), problem.task_fn, N, 200)
    needed = rounds_to(plain, problem, 1e-2)
    assert needed is not None
    strategy = make_strategy(name, **options)
    checked = []

    def check(record):
        if record.round:
            # Same packets in the same order on both sides: only the order over workers differs.
            expected = mean_of_workers(strategy, tmp_path)
            np.testing.assert_allclose(strategy.g, expected, rtol=0, atol=1e-12)
            checked.append(record.round)

    result, models = trajectory(
        strategy,
        problem.task_fn,
        N,
        2 * needed,
        state_dir=tmp_path,
        faults=faults,
        on_round=check,
    )
    assert rounds_to(models, problem, 1e-2) is not None
    assert len(checked) == 2 * needed
    assert strategy.exchange.resyncs == 0, "a restart from disk is no loss of state"
    received = sum(r.direction == "up" and r.purpose == "train" for r in result.ledger.rows)
    assert received < 2 * needed * N * 0.9, "messages were lost indeed"


@pytest.mark.parametrize("downlink", ["", "sign"])
def test_ef14_under_loss(downlink, tmp_path):
    problem = Quadratics(n=N)
    faults = Faults(down=0.1, up=0.1, kill={20: [2]}, seed=3)
    options = {"compressor": "topk:k=2", "lr": 0.02, "downlink": downlink}
    # EF14 at constant lr stops at a floor set by the heterogeneity: ask for less.
    _, plain = trajectory(make_strategy("ef14", **options), problem.task_fn, N, 400)
    floor = np.linalg.norm(problem.full_gradient(plain[-1]))
    needed = rounds_to(plain, problem, 2 * floor)
    _, models = trajectory(
        make_strategy("ef14", **options),
        problem.task_fn,
        N,
        2 * needed,
        state_dir=tmp_path,
        faults=faults,
    )
    assert rounds_to(models, problem, 2 * floor) is not None


def test_a_lost_disk_makes_ef21_start_over_and_converge(tmp_path, caplog):
    problem = Quadratics(n=N)
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.08)

    def lose(record):
        if record.round == 30:
            for path in tmp_path.glob("run-*/client-1.safetensors"):
                path.unlink()

    with caplog.at_level(logging.WARNING, "flowerpress"):
        _, models = trajectory(strategy, problem.task_fn, N, 300, state_dir=tmp_path, on_round=lose)
    assert strategy.exchange.resyncs == 1
    assert "client 1 has lost its state" in caplog.text
    assert "all workers start over" in caplog.text
    np.testing.assert_allclose(strategy.g, mean_of_workers(strategy, tmp_path), rtol=0, atol=1e-12)
    assert np.linalg.norm(models[-1] - problem.solution()) < 1e-6


@pytest.mark.parametrize("name", ["ef14", "ef21"])
def test_a_worker_that_lost_the_model_is_sent_it_whole(name, tmp_path):
    problem = Quadratics(n=N)
    strategy = make_strategy(name, compressor="identity", downlink="sign", lr=0.05)

    def lose(record):
        if record.round == 10:
            for path in tmp_path.glob("run-*/client-1.safetensors"):
                path.unlink()

    result, _ = trajectory(strategy, problem.task_fn, N, 25, state_dir=tmp_path, on_round=lose)
    x = worker_memory(tmp_path, 1, 0, "replica.x")
    other = worker_memory(tmp_path, 0, 0, "replica.x")
    np.testing.assert_array_equal(x, other)  # replicas are equal to the bit
    sent = [r.payload for r in result.ledger.rows if r.client == 1 and r.direction == "down"]
    assert max(sent[10:]) > 2 * min(sent[2:10]), "a snapshot is larger than a delta"


def test_missed_deltas_are_sent_again_and_replicas_stay_equal(tmp_path):
    problem = Quadratics(n=N, dim=64)
    strategy = make_strategy(
        "ef14", compressor="topk:k=2", downlink="topk:k=1", lr=0.01, fraction_train=0.4
    )
    trajectory(strategy, problem.task_fn, N, 40, state_dir=tmp_path)
    model = strategy.model
    for client in strategy.population.clients.values():
        part = model.part_for(client.held)
        x = worker_memory(tmp_path, client.id, 0, "replica.x")
        replica = type(model.replica)("step", client.held, x.copy(), None, 1.0)
        replica.follow(part, model.layout)
        np.testing.assert_array_equal(replica.x, model.x)


def test_same_seed_same_bytes_whatever_the_threads_and_the_store(tmp_path):
    def run(**options):
        problem = Quadratics(n=7, noise=0.2)
        strategy = make_strategy("ef21-sgdm", compressor="qsgd:3", lr=0.05, fraction_train=0.6)
        result, models = trajectory(strategy, problem.task_fn, 7, 15, **options)
        return result.ledger.rows, models.tobytes()

    alone = run(threads=1)
    assert alone == run(threads=1)
    assert alone == run(threads=7)
    assert alone == run(threads=3, state_dir=tmp_path)
    assert alone == run(threads=2, node_configs={i: {"state-store": "context"} for i in range(7)})
    assert alone[1] != run(threads=1, seed=12)[1]


class Grid(InProcessGrid):
    """Nodes that come and go."""

    hidden: frozenset = frozenset()

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.hidden]


def test_a_late_joiner_counts_from_its_first_round(tmp_path):
    problem = Quadratics(n=3)
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05)
    config = {"state-store": "disk", "state-dir": str(tmp_path)}
    with Grid(lambda: client_app(problem.task_fn), 3, node_config=config) as grid:
        grid.hidden = frozenset({4})
        arrays = problem.task_fn(0, 3).initial_arrays()
        for server_round in range(1, 121):
            if server_round == 6:
                grid.hidden = frozenset()
            messages = strategy.configure_train(server_round, arrays, None, grid)
            assert len(messages) == (2 if server_round < 6 else 3)
            strategy.aggregate_train(server_round, grid.send_and_receive(messages))
            met = [c for c in strategy.population.clients.values() if c.receiver.applied]
            mean = sum(worker_memory(tmp_path, c.id, c.receiver.applied) for c in met) / len(met)
            np.testing.assert_allclose(strategy.g, mean, rtol=0, atol=1e-12)
    gradient = problem.full_gradient(strategy.model.x)
    assert np.linalg.norm(gradient) < 0.1 * np.linalg.norm(problem.full_gradient(problem.x0))


def test_a_nan_gradient_leaves_the_client_out_and_says_where(caplog):
    problem = Quadratics(n=3)

    def task_fn(i, n):
        task = problem.task_fn(i, n)
        if i == 1:
            return FunctionTask(problem.x0, lambda x, _: (0.0, np.where(x == x[2], np.nan, x)))
        return task

    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05)
    with caplog.at_level(logging.WARNING, "flowerpress"):
        result, models = trajectory(strategy, task_fn, 3, 5)
    assert "client 1" in caplog.text
    assert "position 2" in caplog.text
    assert np.isfinite(models).all()
    assert {row.client for row in result.ledger.rows if row.payload and row.direction == "up"} == {
        0,
        2,
    }


def test_a_run_ends_when_every_client_fails():
    def task_fn(i, n):
        return FunctionTask(np.ones(3), lambda x, _: (0.0, x * np.nan))

    with pytest.raises(RoundError, match="round 1: all 2 clients fail; client 0: ValueError: grad"):
        simulate(make_strategy("ef14", compressor="sign", lr=0.1), task_fn, 2, 3)


def test_a_client_with_another_layout_is_refused_with_the_difference():
    def task_fn(i, n):
        return FunctionTask(np.ones(3 + i), lambda x, _: (0.0, x))

    with pytest.raises(
        RuntimeError, match="1 of 2 clients cannot take part: layouts differ at array"
    ):
        simulate(make_strategy("ef14", compressor="sign", lr=0.1), task_fn, 2, 3)


def test_clients_may_choose_their_own_compressors_where_the_strategy_lets_them():
    problem = Quadratics(n=3, dim=64)
    own = {0: {"compressor": "sign"}, 1: {"compressor": "qsgd:7"}}
    options = {"compressor": "topk:k=4", "lr": 0.05}
    result, models = trajectory(
        make_strategy("ef21", **options), problem.task_fn, 3, 200, node_configs=own
    )
    sizes = {
        row.client: row.payload
        for row in result.ledger.rows
        if row.direction == "up" and row.purpose == "train"
    }
    assert len(set(sizes.values())) == 3
    gradients = [np.linalg.norm(problem.full_gradient(x)) for x in (models[0], models[-1])]
    assert gradients[1] < 0.05 * gradients[0]
    strict = make_strategy("ef21", client_compressors=False, **options)
    result, _ = trajectory(strict, problem.task_fn, 3, 3, node_configs=own)
    last = [row.payload for row in result.ledger.rows if row.direction == "up"][-3:]
    assert max(last) - min(last) <= 2, "three times topk:k=4, whose ids differ by a byte or two"


def test_an_unsuitable_compressor_of_one_client_is_its_own_failure(caplog):
    problem = Quadratics(n=2)
    own = {1: {"compressor": "sign:scale=l2"}}
    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05)
    with caplog.at_level(logging.WARNING, "flowerpress"):
        _, models = trajectory(strategy, problem.task_fn, 2, 4, node_configs=own)
    assert "neither" in caplog.text
    assert not np.array_equal(models[0], models[-1])


def test_federated_evaluation_is_weighted_and_counted():
    def task_fn(i, n):
        return FunctionTask(
            np.zeros(2),
            lambda x, _: (0.0, x - i),
            num_examples=1 + 2 * i,
            evaluate=lambda x: {"where": float(i)},
        )

    seen = []

    def own(contents, key):
        records = [dict(content["metrics"]) for content in contents]
        seen.append(sum(record[key] * record["where"] for record in records))
        return MetricRecord({})

    options = {"compressor": "topk:k=1", "lr": 0.2, "fraction_evaluate": 1.0}
    strategy = make_strategy("ef21", evaluate_metrics_aggr_fn=own, **options)
    result = simulate(strategy, task_fn, 2, 3)
    assert seen == [3.0] * 3  # client 0 counts once, client 1 three times
    assert sum(row.purpose == "evaluate" for row in result.ledger.rows) == 3 * 2 * 2
    # Client 1 pulls three times as hard: the weights are the numbers of examples.
    long = simulate(make_strategy("fedavg", lr=0.5), task_fn, 2, 60)
    np.testing.assert_allclose(vector(long.arrays), 0.75, atol=1e-9)


def batch_norm_task(i, n):
    """A model with buffers: one trained vector, a statistic and a counter."""
    from flwr.app import Array, ArrayRecord

    class Task(FunctionTask):
        def __init__(self):
            super().__init__(np.zeros(2), lambda x, _: (0.0, x - i))
            self.seen = {"mean": np.zeros(2), "count": np.array(0, np.int64)}

        def initial_arrays(self):
            arrays = {"x": np.zeros(2), **self.seen}
            return ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})

        def buffer_names(self):
            return ("mean", "count")

        def buffers(self):
            return dict(self.seen)

        def load_buffers(self, values):
            self.seen = {"mean": values["mean"] + i, "count": values["count"] + 1}

    return Task()


def test_buffers_travel_beside_the_vector_and_are_averaged():
    strategy = make_strategy("ef21", compressor="topk:k=1", lr=0.2)
    result = simulate(strategy, batch_norm_task, 3, 4)
    np.testing.assert_allclose(result.arrays["mean"].numpy(), [4.0, 4.0])  # + mean(0, 1, 2) a round
    assert result.arrays["count"].numpy() == 4
    assert result.arrays["count"].dtype == "int64"


def test_a_second_strategy_in_the_same_flower_run_starts_afresh():
    """Workers remember the first run's versions, errors and momenta: none of it may leak."""
    problem = Quadratics(n=3)
    arrays = problem.task_fn(0, 3).initial_arrays()
    options = {"compressor": "topk:k=2", "lr": 0.05, "min_available_nodes": 3}
    alone = simulate(make_strategy("ef21-sgdm", **options), problem.task_fn, 3, 5)
    with InProcessGrid(lambda: client_app(problem.task_fn), 3) as grid:
        for name, rounds in (("ef14", 1), ("ef21-sgdm", 5)):
            strategy = make_strategy(name, **options)
            result = strategy.start(grid, arrays, num_rounds=rounds)
    np.testing.assert_array_equal(result.arrays["x"].numpy(), alone.arrays["x"].numpy())


def test_a_changing_step_size_reaches_workers_with_a_compressed_downlink(tmp_path):
    problem = Quadratics(n=3)
    strategy = make_strategy("ef21", compressor="topk:k=2", downlink="topk:k=2", lr=0.05)

    def halve(record):
        strategy.lr *= 0.9

    trajectory(strategy, problem.task_fn, 3, 12, state_dir=tmp_path, on_round=halve)
    model = strategy.model
    for client in strategy.population.clients.values():
        x = worker_memory(tmp_path, client.id, 0, "replica.x")
        g = worker_memory(tmp_path, client.id, 0, "replica.g")
        replica = type(model.replica)("ef21", client.held, x, g)
        replica.follow(model.part_for(client.held), model.layout)
        np.testing.assert_array_equal(replica.x, model.x)


def test_divergence_ends_the_run_with_the_remedy():
    problem = Quadratics(n=3)
    for options in ({"lr": 1e200}, {"lr": 1e200, "downlink": "topk:k=2"}):
        strategy = make_strategy("ef21", compressor="topk:k=2", **options)
        with pytest.raises(RoundError, match="lower lr"):
            simulate(strategy, problem.task_fn, 3, 50)


def test_one_failing_client_does_not_end_a_sampled_run():
    problem = Quadratics(n=5)

    def task_fn(i, n):
        if i == 2:
            return FunctionTask(problem.x0, lambda x, _: (0.0, x * np.nan))
        return problem.task_fn(i, n)

    strategy = make_strategy("ef21", compressor="topk:k=2", lr=0.05, fraction_train=0.2)
    strategy.min_train_nodes = 1
    result, _ = trajectory(strategy, task_fn, 5, 30)
    assert len(result.history) == 31


def test_a_late_reply_does_not_run_beside_the_next_round():
    import threading
    import time

    inside, most = [0], [0]
    lock = threading.Lock()

    def slow(x, _):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.15)
        with lock:
            inside[0] -= 1
        return 0.0, x

    strategy = make_strategy("dsgd", compressor="identity", lr=0.1)
    simulate(strategy, lambda i, n: FunctionTask(np.ones(2), slow), 1, 4, timeout=0.05, threads=4)
    assert most[0] == 1


def test_per_tensor_compressors_are_bound_to_the_layout():
    def task_fn(i, n):
        x0 = {"w": np.ones(6), "b": np.ones(2)}
        return FunctionTask(x0, lambda x, _: (0.0, x - i))

    for name in ("ef14", "ef21", "dsgd"):
        options = {} if name == "dsgd" else {"downlink": "sign:block=tensor"}
        strategy = make_strategy(name, compressor="sign:block=tensor", lr=0.05, **options)
        result = simulate(strategy, task_fn, 2, 10)
        assert np.isfinite(vector(result.arrays)).all()
        assert not np.array_equal(vector(result.arrays), np.ones(8))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lr": "fast"}, "lr is 'fast': expected a number > 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"local_steps": 0}, "local_steps is 0: expected a whole number >= 1"),
        ({"seed": -1}, "seed is -1"),
        ({"weights": "equal"}, "expected num-examples or uniform"),
        ({"fraction_train": 1.5}, "fraction_train is 1.5"),
        ({"min_train_nodes": -1}, "min_train_nodes is -1"),
        ({"hello_timeout": "x"}, "hello_timeout is 'x'"),
        ({"compressor": None}, "compressor is None: expected a string"),
        ({"compressor": "zip"}, "unknown compressor 'zip'"),
        ({"compressor": "sign:scale=l2"}, "neither"),
        ({"downlink": 3}, "downlink is 3"),
        ({"downlink": "sign:scale=l2"}, "neither"),
        ({"init": "sparse"}, "expected dense or compressed"),
        ({"momentum": 0}, "momentum is 0: expected a number in"),
        ({"momentum": "0.1"}, "momentum is '0.1'"),
        ({"beta": 1}, "has no option 'beta': it has"),
    ],
)
def test_wrong_options_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_strategy("ef21-sgdm", **options)
