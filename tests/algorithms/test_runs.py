"""What a run promises: repeatability, clients' own choices, buffers, sessions, options."""

import logging

import numpy as np
import pytest
from flwr.app import MetricRecord

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.strategies import make_strategy
from tests.algorithms.problems import Quadratics, trajectory, vector, worker_memory


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
        replica = type(model.replica)(model.rule, client.held, x, {"g": g})
        replica.follow(model.part_for(client.held), model.layout)
        np.testing.assert_array_equal(replica.x, model.x)


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


@pytest.mark.parametrize("name", ["ef14", "ef21", "dsgd"])
def test_compressors_see_the_shapes_of_the_tensors(name):
    """PowerSGD needs them, on both ways; sizes alone would send all 35 values in every round."""

    def task_fn(i, n):
        x0 = {"w": np.zeros((8, 2, 2)), "b": np.zeros(3)}
        return FunctionTask(x0, lambda x, _: (0.0, x - i - 1))

    options = {} if name == "dsgd" else {"downlink": "powersgd:1"}
    strategy = make_strategy(name, compressor="powersgd:1", lr=0.3, **options)
    result = simulate(strategy, task_fn, 2, 40)
    np.testing.assert_allclose(vector(result.arrays), 1.5, atol=1e-3)
    sizes = {row.payload for row in result.ledger.rows if row.direction == "up"}
    assert min(sizes - {0}) == 24 + 8 + 2 * 8 + 8 * (8 + 4 + 3)


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
        ({"max_scale": -1.0}, "max_scale is -1.0: expected a number >= 0"),
        ({"max_scale": float("inf")}, "max_scale is inf"),
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


@pytest.mark.parametrize("name", ["ef14", "ef21", "cdadam"])
def test_evaluation_on_the_replica_sends_no_model_again(name):
    """Workers follow the deltas to the model of this round, and measure that."""
    problem = Quadratics(n=3, dim=64)

    def task_fn(i, n):
        def gradient(x, batch):
            return 0.0, problem.A[i] @ (x - problem.b[i])

        return FunctionTask(problem.x0, gradient, evaluate=lambda x: {"first": float(x[0])})

    seen = []

    def compare(contents, key):
        found = {record["metrics"]["first"] for record in contents}
        assert found == {float(strategy.model.x[0])}
        seen.append(len(contents))
        return MetricRecord({})

    options = {"compressor": "topk:k=2", "downlink": "topk:k=2", "lr": 0.01}
    strategy = make_strategy(
        name, fraction_evaluate=1.0, evaluate_metrics_aggr_fn=compare, **options
    )
    result = simulate(strategy, task_fn, 3, 12)
    assert seen == [3] * 12
    down = [row for row in result.ledger.rows if row.direction == "down" and row.round > 3]
    evaluated = sum(row.payload for row in down if row.purpose == "evaluate")
    trained = sum(row.payload for row in down if row.purpose == "train")
    assert trained == 0, "evaluation has brought all deltas, and said so"
    assert evaluated < 9 * 3 * 64 * 8 / 2, "the model did not go whole"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efficient-adam", {"compressor": "sign", "downlink": "sign"}),
        ("onebit-adam", {"compressor": "sign", "downlink": "sign", "warmup_rounds": 3}),
        ("birder", {}),
        ("cdadam", {"compressor": "sign", "downlink": "sign"}),
        ("ef14", {"compressor": "sign", "downlink": "sign"}),
        ("ef21", {"compressor": "sign", "downlink": "sign", "init": "compressed"}),
    ],
)
def test_two_way_methods_send_one_bit_a_coordinate_both_ways(name, options):
    """Once all hold the model: 1/32 of float32 and at most 40 bytes of headers, as sent."""
    dim, rounds = 4096, 10
    x0 = np.linspace(-1, 1, dim, dtype=np.float32)
    strategy = make_strategy(name, lr=0.01, **options)
    result = simulate(
        strategy, lambda i, n: FunctionTask(x0, lambda x, _: (0.0, x - np.float32(i))), 3, rounds
    )
    settled = [row for row in result.ledger.rows if row.purpose == "train" and row.round > 5]
    for direction in ("up", "down"):
        sizes = {row.payload for row in settled if row.direction == direction}
        assert max(sizes) <= dim // 8 + 40
    assert len(settled) == 2 * 3 * 5


def test_numpys_numbers_are_taken_as_pythons():
    """A sweep over an array gives such; messages and checkpoints hold JSON."""

    def task_fn(i, n):
        return FunctionTask(np.zeros(2), lambda x, _: (0.0, x - i))

    def run(number, whole):
        options = {"lr": number(0.1), "local_steps": whole(2), "min_train_nodes": whole(1)}
        strategy = make_strategy("ef21-sgdm", momentum=number(0.5), **options)
        counts = {"num_clients": whole(3), "num_rounds": whole(2), "seed": whole(5)}
        return vector(simulate(strategy, task_fn, **counts).arrays)

    np.testing.assert_array_equal(run(np.float32, np.int64), run(float, int))


@pytest.mark.parametrize(
    "wrong", [{"seed": -3}, {"seed": 2**63}, {"num_rounds": 2.5}, {"num_rounds": -1}]
)
def test_counts_of_a_simulation_are_checked_before_it_begins(wrong):
    counts = {"num_clients": 2, "num_rounds": 2, **wrong}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*: expected a whole number"):
        simulate(make_strategy("fedavg", lr=0.1), None, **counts)
