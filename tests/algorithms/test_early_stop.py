"""`should_stop`, as Flower 1.43 has it: a run that it ends is the run of so many rounds."""

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Result

from flowerpress.clients import client_app
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.strategies import Checkpoints, CompressedStrategy, strategy_names
from tests.algorithms.lives import (
    ROUNDS,
    SEED,
    N,
    assert_same,
    evaluate,
    kill,
    killed_at,
    records,
    run,
    strategy_of,
    task_fn,
    whole_run,
)
from tests.algorithms.problems import vector
from tests.transport.linked import connected

GOSSIP = {"choco-sgd", "d-psgd", "squarm-sgd"}
END = 3


def at_the_end(server_round, result):
    return server_round >= END


def rows(result):
    """The ledger's rows; where models are collected after the evaluation, they come later."""
    return sorted(result.ledger.rows, key=repr)


@pytest.mark.parametrize("name", strategy_names())
def test_as_many_rounds_as_were_run(name):
    """Also where the last round does more than the others: gossip collects the nodes' models."""
    options = {"fraction_evaluate": 1.0, "collect_every": 2 if name in GOSSIP else None}
    options = {k: v for k, v in options.items() if v is not None}
    stopped = run(name, rounds=50, options=options, should_stop=at_the_end)
    calm = run(name, rounds=END, options=options)
    np.testing.assert_array_equal(vector(stopped.arrays), vector(calm.arrays))
    assert rows(stopped) == rows(calm)
    found, expected = records(stopped), records(calm)
    if name in GOSSIP:  # what is collected once the run is stopped, nobody has evaluated
        last = found.pop(), expected.pop()
        assert last[0][:3] + last[0][4:] == last[1][:3] + last[1][4:]
    assert found == expected


def test_what_it_is_told():
    """After every round but 0: the round's number, and all that was found out so far."""
    told = []

    def should_stop(server_round, result):
        assert isinstance(result, Result)
        told.append(server_round)
        everything = list(range(1, server_round + 1))
        assert list(result.train_metrics_clientapp) == everything
        assert list(result.evaluate_metrics_clientapp) == everything
        assert list(result.evaluate_metrics_serverapp) == [0, *everything]
        norm = result.evaluate_metrics_serverapp[server_round]["norm"]
        assert norm == np.linalg.norm(vector(result.arrays))
        return np.bool_(server_round == 2)

    initial = task_fn(0, N).initial_arrays()
    strategy = strategy_of("ef21", fraction_evaluate=1.0)
    with InProcessGrid(lambda: client_app(task_fn), N) as grid:
        given = (grid, initial, 9, 60, None, None, evaluate, should_stop)  # by place, as well
        result = strategy.start(*given)
    assert told == [1, 2] == list(result.train_metrics_clientapp)


def test_without_a_step_the_model_is_the_initial_one():
    initial = task_fn(0, N).initial_arrays()
    seen = []
    strategy = strategy_of("ef21")
    with InProcessGrid(lambda: client_app(task_fn), N) as grid, pytest.MonkeyPatch.context() as p:
        p.setattr(type(strategy), "aggregate_train", lambda *_: (None, None))
        result = strategy.start(grid, initial, 5, should_stop=lambda r, each: seen.append(each))
    assert len(seen) == 5
    assert all(each is result for each in seen)
    assert result.arrays is initial


@pytest.mark.parametrize("wrong", [3, "never", [len]])
def test_what_cannot_be_asked_is_found_before_a_round(wrong):
    strategy = strategy_of("ef21")
    with pytest.raises(TypeError, match=r"should_stop is .*: expected a function, or None"):
        simulate(strategy, task_fn, N, ROUNDS, should_stop=wrong)
    assert strategy.ledger.rows == []


def test_gossip_ends_with_the_models_that_its_nodes_have():
    """Without another exchange the result would be the mean of what is public of them."""
    asked = []

    def should_stop(server_round, result):
        asked.append(vector(result.arrays))
        return server_round == END

    calls = []
    result = run(
        "choco-sgd", 50, {"collect_every": 0}, should_stop=should_stop, on_round=calls.append
    )
    assert [record.round for record in calls] == [0, 1, 2, 3, 3]
    assert [record.round for record in result.history] == [0, 1, 2, 3]
    last = result.history[-1]
    assert set(last.nodes) == set(range(N))
    assert last.up_collected > calls[-2].up_collected == 0
    assert last.metrics["norm"] == np.linalg.norm(vector(result.arrays))
    assert last.train["consensus-error"] > 0
    assert (asked[-1] != vector(result.arrays)).any()


def test_over_the_link():
    expected = run("squarm-sgd", END, {"collect_every": 0})
    strategy = strategy_of("squarm-sgd", collect_every=0, seed=SEED, min_available_nodes=N)
    with connected(client_app(task_fn), N) as (_, grid, _):
        initial = task_fn(0, N).initial_arrays()
        result = strategy.start(grid, initial, 50, 30, evaluate_fn=evaluate, should_stop=at_the_end)
    np.testing.assert_array_equal(vector(result.arrays), vector(expected.arrays))
    assert rows(strategy) == rows(expected)


@pytest.mark.parametrize("name", ["ef21-sgdm", "marina", "squarm-sgd"])
def test_the_round_that_ends_a_run_is_saved(name, tmp_path):
    """Whatever lies between checkpoints; the run then ends once more, or goes on without a stop."""
    options = {"collect_every": 0} if name in GOSSIP else {}
    more = {"checkpoint": tmp_path, "checkpoint_every": 5, "options": options}
    stopped = run(name, 9, should_stop=at_the_end, **more)
    names = sorted(path.name for path in tmp_path.glob("round-*"))
    assert names == ["round-000000.safetensors", f"round-00000{END}.safetensors"]
    ended = run(name, 9, should_stop=lambda *_: pytest.fail("was asked"), resume=True, **more)
    assert_same(ended, stopped)
    longer = run(name, 9, resume=True, **more)
    assert [record.round for record in longer.history] == list(range(10))
    calm = run(name, 9, options)
    np.testing.assert_array_equal(vector(longer.arrays), vector(calm.arrays))


@pytest.mark.parametrize("name", ["ef21", "sketched-sgd", "squarm-sgd"])
def test_killed_on_the_way(name, tmp_path, monkeypatch):
    more = {"should_stop": at_the_end, "options": {"fraction_evaluate": 1.0}, "rounds": 9}
    whole, ends = whole_run(monkeypatch, name, **more)
    assert len(whole.history) == END + 1
    positions = [ends[1] - 1, ends[2], ends[3] - 1, ends[3]][: 3 if name in GOSSIP else 4]
    assert_same(killed_at(monkeypatch, name, tmp_path, positions[:3], ends, **more), whole)


def test_killed_while_the_last_models_are_collected(tmp_path, monkeypatch):
    more = {"should_stop": at_the_end, "options": {"collect_every": 0}, "rounds": 9}
    whole, ends = whole_run(monkeypatch, "squarm-sgd", **more)
    life = {"checkpoint": tmp_path, "resume": True, **more}
    assert ends[-1] == ends[-2] + N, "the collection"
    kill(monkeypatch, ends[-1] - 1, lambda: run("squarm-sgd", **life))
    assert_same(run("squarm-sgd", **life), whole)


def test_a_checkpoint_from_before_goes_on(tmp_path, monkeypatch):
    """It does not say whether it was stopped."""
    save = Checkpoints.save

    def older(self, server_round, state, line):
        del state["stopped"]
        save(self, server_round, state, line)

    monkeypatch.setattr(Checkpoints, "save", older)
    run("ef21", 2, checkpoint=tmp_path)
    stopped = run("ef21", 9, should_stop=at_the_end, checkpoint=tmp_path, resume=True)
    assert_same(stopped, run("ef21", END))


@pytest.mark.parametrize("stepped", [False, True])
def test_a_large_first_model_is_not_kept_beside_the_strategys_own(monkeypatch, stepped):
    """What clients have and never send stays in the result all the same, and in its place."""
    monkeypatch.setattr("flowerpress.server.rounds._LARGE", 1)
    made = task_fn(0, N).initial_arrays()
    strategy = strategy_of("ef21")
    with InProcessGrid(lambda: client_app(task_fn), N) as grid, pytest.MonkeyPatch.context() as p:
        if not stepped:
            p.setattr(CompressedStrategy, "aggregate_train", lambda *_: (None, None))
        result = strategy.start(grid, task_fn(0, N).initial_arrays(), 2)
    assert strategy.run.initial == ArrayRecord()
    assert (result.arrays == made) == (not stepped)
    assert list(result.arrays) == list(made)
    assert result.arrays == strategy.model.arrays()
