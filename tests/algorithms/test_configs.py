"""train_config and evaluate_config of Flower's `start`: they reach the tasks, or it is said."""

import numpy as np
import pytest
from flwr.app import ConfigRecord

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.strategies import make_strategy
from tests.algorithms.lives import OPTIONS, strategy_of
from tests.algorithms.lives import task_fn as noisy_task_fn

ROUNDS = 2


class Configured(FunctionTask):
    """Pulls towards what the config says, and keeps all configs that it heard."""

    def __init__(self, i):
        super().__init__(np.zeros(4), lambda x, _: (0.0, x - self.goal), evaluate=lambda x: {})
        self.heard, self.goal = [], 1.0

    def configure(self, config):
        self.heard.append(dict(config))
        self.goal = config.get("goal", 1.0)


def started(strategy, tasks, **configs):
    with InProcessGrid(lambda: client_app(lambda i, n: tasks[i]), len(tasks)) as grid:
        initial = tasks[0].initial_arrays()
        result = strategy.start(grid, initial, num_rounds=ROUNDS, **configs)
    return result.arrays["x"].numpy()


@pytest.mark.parametrize("name", ["fedavg", "ef21", "marina", "fetchsgd", "sketched-sgd"])
def test_a_task_hears_the_config_of_each_round(name):
    tasks = [Configured(i) for i in range(2)]
    options = {**OPTIONS.get(name, {}), "lr": 0.5, "fraction_evaluate": 1.0}
    given = {"goal": 3.0, "layers": ["a", "b"], "fast": True, "note": "x", "raw": b"\0\1"}
    train, evaluate = ConfigRecord(given), ConfigRecord({"batches": 2})
    x = started(make_strategy(name, **options), tasks, train_config=train, evaluate_config=evaluate)
    expected = [
        config
        for r in (1, 2)
        for config in ({**given, "server-round": r}, {"batches": 2, "server-round": r})
    ]
    assert [task.heard for task in tasks] == [expected] * 2
    plain = started(make_strategy(name, **options), [Configured(i) for i in range(2)])
    np.testing.assert_allclose(x, 3 * plain, rtol=1e-12)
    assert dict(train) == given, "the user's record is left alone"


def test_simulate_takes_them_too():
    tasks = [Configured(i) for i in range(2)]
    strategy = make_strategy("ef21", fraction_evaluate=1.0)
    configs = {"train_config": {"goal": 2.0}, "evaluate_config": {"batches": 2}}
    simulate(strategy, lambda i, n: tasks[i], 2, 1, **configs)
    assert tasks[1].heard == [
        {"goal": 2.0, "server-round": 1},
        {"batches": 2, "server-round": 1},
    ]


def test_a_strategy_may_change_the_config_from_round_to_round():
    """As Flower has it: in `configure_train`."""
    from flowerpress.strategies.ef21 import EF21

    class Warming(EF21):
        def configure_train(self, server_round, arrays, config, grid):
            config["goal"] = float(server_round)
            return super().configure_train(server_round, arrays, config, grid)

    tasks = [Configured(0), Configured(1)]
    started(Warming(lr=0.1), tasks)
    assert [config["goal"] for config in tasks[0].heard] == [1.0, 2.0]


def test_nothing_is_sent_where_nothing_is_given():
    def framing(**configs):
        strategy = make_strategy("ef21", lr=0.1)
        started(strategy, [Configured(i) for i in range(2)], **configs)
        return [row.framing for row in strategy.ledger.rows if row.direction == "down"]

    config = ConfigRecord({"else": 3.0})
    without, empty = framing(), framing(train_config=ConfigRecord())
    with_it = framing(train_config=config)
    assert without == empty
    more = [b - a for a, b in zip(without, with_it, strict=True)]
    assert sorted(set(more)) == [0, len("config") + config.count_bytes()], "what was sent, counted"


@pytest.mark.parametrize("kind", ["train_config", "evaluate_config"])
def test_a_config_that_nobody_reads_is_named_once(kind, caplog):
    strategy = strategy_of("ef21", fraction_evaluate=1.0)
    with InProcessGrid(lambda: client_app(noisy_task_fn), 3) as grid:
        initial = noisy_task_fn(0, 3).initial_arrays()
        configs = {kind: ConfigRecord({"lr": 0.7, "epochs": 2})}
        strategy.start(grid, initial, num_rounds=2, **configs)
    (line,) = [r.getMessage() for r in caplog.records if "has no effect" in r.getMessage()]
    assert line.startswith(f"{kind} has no effect: this task has no configure(config), so epochs")
    assert "lr" in line


def test_a_config_under_another_key():
    tasks = [Configured(i) for i in range(2)]
    strategy = make_strategy("ef21", configrecord_key="settings")
    started(strategy, tasks, train_config=ConfigRecord({"goal": 3.0}))
    assert tasks[0].heard[0] == {"goal": 3.0, "server-round": 1}


def test_a_config_that_a_task_refuses_is_its_reason():
    class Refusing(Configured):
        def configure(self, config):
            raise ValueError(f"no such goal: {config['goal']}")

    with pytest.raises(RuntimeError, match=r"all 2 clients fail; client 0: .*no such goal: 3.0"):
        started(
            make_strategy("ef21"),
            [Refusing(i) for i in range(2)],
            train_config=ConfigRecord({"goal": 3.0}),
        )
