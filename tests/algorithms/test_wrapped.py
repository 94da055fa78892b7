"""Strategies and mods around ours that would do nothing: said in one line, and in time."""

import inspect

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp
from flwr.clientapp import mod as mods
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import RoundError, make_strategy

WRAPPERS = [name for name in dir(flower) if name.startswith("DifferentialPrivacy")]
NAMES = ["ef14", "fedavg", "squarm-sgd"]


def task_fn(i, n):
    return FunctionTask(np.zeros(4), lambda x, _: (0.0, x - 1.0 - i))


class Counting(InProcessGrid):
    sent = 0

    def push_messages(self, messages):
        messages = list(messages)
        self.sent += len(messages)
        return super().push_messages(messages)


def wrapped(name, strategy):
    """The wrapper, with its arguments by their names: noise, a clipping norm, two clients."""
    known = {"noise_multiplier": 1.0, "clipping_norm": 1.0, "num_sampled_clients": 2}
    known["clipped_count_stddev"] = 1.0
    wrapper = getattr(flower, name)
    names = inspect.signature(wrapper.__init__).parameters
    return wrapper(strategy, **{k: v for k, v in known.items() if k in names})


def test_flower_has_such_wrappers():
    assert len(WRAPPERS) >= 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_differential_privacy_is_refused(wrapper, name):
    own = make_strategy(name)
    strategy = wrapped(wrapper, own)
    with Counting(lambda: client_app(task_fn), 3) as grid:
        with pytest.raises(ValueError, match="Flower's own FedAvg for differential privacy") as e:
            strategy.start(grid, task_fn(0, 3).initial_arrays(), num_rounds=2, timeout=10)
        assert grid.sent == 0
        assert name in str(e.value)
        assert "\n" not in str(e.value)
        # Without the wrapper it goes on.
        result = own.start(grid, task_fn(0, 3).initial_arrays(), num_rounds=2, timeout=10)
    assert len(result.arrays)


def test_a_clipping_norm_in_the_config_is_refused():
    strategy = make_strategy("ef14")
    with Counting(lambda: client_app(task_fn), 2) as grid:
        arrays, config = task_fn(0, 2).initial_arrays(), ConfigRecord({"clipping_norm": 1.0})
        with pytest.raises(ValueError, match="ef14 was given a clipping_norm"):
            strategy.start(grid, arrays, num_rounds=1, train_config=config)
        assert grid.sent == 0


class Around(Strategy):
    """A wrapper of a user's own, which may change the arrays between rounds."""

    def __init__(self, strategy, change=lambda arrays: arrays):
        self.strategy, self.change = strategy, change

    def configure_train(self, server_round, arrays, config, grid):
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        return None if arrays is None else self.change(arrays), metrics

    def configure_evaluate(self, *given):
        return self.strategy.configure_evaluate(*given)

    def aggregate_evaluate(self, *given):
        return self.strategy.aggregate_evaluate(*given)

    def summary(self):
        self.strategy.summary()


def noisy(arrays):
    return ArrayRecord({name: Array(array.numpy() + 1e-6) for name, array in arrays.items()})


def renamed(arrays):
    return ArrayRecord({f"my-{name}": array for name, array in arrays.items()})


@pytest.mark.parametrize("change", [noisy, renamed])
def test_arrays_that_were_changed_between_rounds_are_refused(change):
    with Counting(lambda: client_app(task_fn), 2) as grid:
        arrays = task_fn(0, 2).initial_arrays()
        strategy = Around(make_strategy("ef21", compressor="topk:k=1"), change)
        with pytest.raises(ValueError, match="round 2: these arrays are not those that ef21"):
            strategy.start(grid, arrays, num_rounds=3)


def test_a_wrapper_that_changes_nothing_runs():
    def copied(arrays):
        return ArrayRecord({name: Array(array.numpy()) for name, array in arrays.items()})

    with Counting(lambda: client_app(task_fn), 2) as grid:
        arrays = task_fn(0, 2).initial_arrays()
        alone = make_strategy("ef21", compressor="topk:k=1").start(grid, arrays, num_rounds=4)
        for change in (copied, lambda arrays: arrays):
            strategy = Around(make_strategy("ef21", compressor="topk:k=1"), change)
            result = strategy.start(grid, arrays, num_rounds=4)
            for name, array in result.arrays.items():
                np.testing.assert_array_equal(array.numpy(), alone.arrays[name].numpy())


@pytest.mark.parametrize("name", ["ef21", "fedavg", "marina"])
def test_a_subclass_that_changes_the_arrays_is_refused(name):
    """And one that changes nothing is the same strategy."""
    own = type(make_strategy(name))

    class Configures(own):
        def configure_train(self, server_round, arrays, config, grid):
            if server_round > 1:
                arrays = noisy(arrays)
            return super().configure_train(server_round, arrays, config, grid)

    class Aggregates(own):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return arrays if server_round == 1 else noisy(arrays), metrics

    class Neither(own):
        def configure_train(self, *given):
            return super().configure_train(*given)

        def aggregate_train(self, *given):
            return super().aggregate_train(*given)

    with Counting(lambda: client_app(task_fn), 2) as grid:
        arrays = task_fn(0, 2).initial_arrays()
        for cls in (Configures, Aggregates):
            with pytest.raises(
                ValueError, match=f"round 2: these arrays are not those that {name}"
            ):
                cls().start(grid, arrays, num_rounds=2)
        alone, result = (cls().start(grid, arrays, num_rounds=3) for cls in (own, Neither))
        for key, array in result.arrays.items():
            np.testing.assert_array_equal(array.numpy(), alone.arrays[key].numpy())


MODS = ["fixedclipping_mod", "adaptiveclipping_mod", "LocalDpMod"]


@pytest.mark.parametrize("name", MODS)
def test_mods_that_clip_end_the_run(name):
    """They find no model in our messages: all answers are errors, and the run says so."""
    mod = getattr(mods, name)
    mod = mod(1.0, 1.0, 1.0, 1e-5) if inspect.isclass(mod) else mod

    def app():
        inner, outer = client_app(task_fn), ClientApp()
        outer.query()(inner)
        outer.train(mods=[mod])(inner)
        return outer

    strategy = make_strategy("ef14", compressor="topk:k=1")
    with Counting(app, 2) as grid, pytest.raises(RoundError, match="all 2 clients fail; client 0:"):
        strategy.start(grid, task_fn(0, 2).initial_arrays(), num_rounds=3)
