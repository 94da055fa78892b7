"""What a run gives: who took part, whether it was worth anything, and what is left of a stop."""

import math

import numpy as np
import pytest
from flwr.app import Message

from flowerpress.clients import FunctionTask
from flowerpress.protocol import Reply
from flowerpress.server.attendance import Attendance
from flowerpress.simulations import Faults, SimulationResult, load_model, simulate
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.result import result_of
from flowerpress.simulations.results import model_bytes
from flowerpress.simulations.verdict import divergence, judge
from flowerpress.strategies import make_strategy, strategy_names
from tests.algorithms.lives import ROUNDS, N, run, whole_run
from tests.algorithms.problems import vector


def task_fn(i, n):
    return FunctionTask(np.zeros(4), lambda x, _: (0.5, x - i - 1))


@pytest.mark.parametrize("name", strategy_names())
def test_every_round_of_an_honest_run_is_a_step_of_all(name):
    result = run(name)
    attendance = result.attendance
    assert attendance.steps == ROUNDS
    assert sorted(attendance.clients) == list(range(N))
    assert all(part.taken == part.asked > 0 for part in attendance.clients.values())
    assert result.verdict.lines == []
    assert result.verdict.status == "done"


@pytest.mark.parametrize("name", ["ef21", "marina", "sketched-sgd", "squarm-sgd"])
def test_a_resumed_run_knows_who_took_part_before(name, tmp_path, monkeypatch):
    from tests.algorithms.lives import killed_at

    whole, ends = whole_run(monkeypatch, name)
    result = killed_at(monkeypatch, name, tmp_path, [ends[3] + 1], ends)
    assert result.attendance == whole.attendance
    again = run(name, checkpoint=tmp_path, resume=True)
    assert again.attendance == whole.attendance, "also where no round is left"


def test_a_client_that_never_took_part_is_named(caplog):
    def odd(i, n):
        return FunctionTask(np.zeros(5 if i == 2 else 4), lambda x, _: (0.0, x - 1))

    result = simulate(make_strategy("ef21"), odd, 3, 2)
    (line,) = result.verdict.left_out
    assert line.startswith("client 2 never took part: layouts differ at array 'x'")
    assert line in caplog.text
    assert result.verdict.status == "done"
    assert repr(result).splitlines()[-1] == line


def test_a_client_that_fails_is_named_with_the_reason():
    def failing(i, n):
        def gradient(x, _):
            if i == 1:
                raise ZeroDivisionError("no data today")
            return 0.0, x - 1

        return FunctionTask(np.zeros(4), gradient)

    result = simulate(make_strategy("ef21", min_train_nodes=1), failing, 3, 4)
    (line,) = result.verdict.left_out
    assert line.startswith("client 1 took part in 0 of the 4 rounds that asked it: failed: ")
    assert "test_results.py, line " in line
    assert "ZeroDivisionError: no data today" in line


def test_a_client_that_failed_and_came_back_is_not_named():
    rounds = iter(range(100))

    def task(i, n):
        def gradient(x, _):
            if i == 1 and next(rounds) < 2:
                raise ZeroDivisionError
            return 0.0, x - 1

        return FunctionTask(np.zeros(4), gradient)

    result = simulate(make_strategy("ef21", min_train_nodes=1), task, 3, 8)
    assert result.attendance.clients[1].taken == 6
    assert result.verdict.lines == []


def judging(bad, caplog, tmp_path, **options):
    """Run clients of which the first `bad` cannot evaluate."""

    def task_fn(i, n):
        def evaluate(x):
            if i < bad:
                raise RuntimeError("no labels")
            return {"loss": 1.0}

        return FunctionTask(np.zeros(3), lambda x, _: (0.0, x - i), evaluate=evaluate)

    strategy = make_strategy("ef21", compressor="topk:k=1", lr=0.1, fraction_evaluate=1.0)
    result = simulate(strategy, task_fn, 2, checkpoint=tmp_path, **options)
    line = task_fn.__code__.co_firstlineno + 3
    return result, f"test_results.py, line {line}: RuntimeError: no labels"


def test_an_evaluation_that_fails_is_told_with_its_client_and_place(caplog, tmp_path):
    result, why = judging(1, caplog, tmp_path, num_rounds=2)
    assert f"round 2: client 0 (evaluation): {why}" in caplog.text
    assert result.history[-1].evaluate == {"loss": 1.0}
    assert not result.verdict.lines


def test_a_run_without_any_evaluation_says_so_also_when_resumed(caplog, tmp_path):
    result, why = judging(2, caplog, tmp_path, num_rounds=2)
    said = "no client's evaluation came in any of the {} rounds that asked for it; client 0: " + why
    assert result.verdict.lines == [said.format(2)]
    assert caplog.messages[-1] == said.format(2)
    result, _ = judging(2, caplog, tmp_path, num_rounds=5, resume=True)
    assert result.verdict.lines == [said.format(5)]
    result, _ = judging(1, caplog, tmp_path, num_rounds=6, resume=True)
    assert not result.verdict.lines, "one has come"


def test_lost_messages_are_nobodys_fault():
    result = simulate(make_strategy("ef21"), task_fn, 3, 20, faults=Faults(up=0.2, seed=1))
    assert result.attendance.taken < 60
    assert result.verdict.lines == []
    lost = simulate(make_strategy("ef21"), task_fn, 3, 4, faults=Faults(up=0.9, seed=1))
    assert {line.rpartition(": ")[2] for line in lost.verdict.left_out} <= {
        "it did not answer in time",
        "it did not say who it is, or came after the last round had begun",
    }
    assert lost.verdict.left_out


def spoil(monkeypatch):
    """Let every update arrive as a packet that is none."""
    deliver = InProcessGrid._deliver

    def spoiled(self, message):
        reply = deliver(self, message)
        if message.metadata.message_type != "train":
            return reply
        fields = vars(Reply.decode(reply.content))
        return Message(Reply(**{**fields, "packets": [b"x"]}).encode(), reply_to=message)

    monkeypatch.setattr(InProcessGrid, "_deliver", spoiled)


@pytest.mark.parametrize("name", ["fedavg", "ef21", "fetchsgd", "sketched-sgd", "squarm-sgd"])
def test_a_run_whose_updates_are_all_refused_has_trained_nothing(name, monkeypatch):
    spoil(monkeypatch)
    result = run(name, rounds=3)
    verdict = result.verdict
    assert (verdict.status, verdict.useless) == ("nothing trained", True)
    assert verdict.reason == "nothing was trained in 3 rounds: every update was lost or refused"
    assert len(verdict.left_out) == N
    assert all("refused: " in line for line in verdict.left_out)
    start = run(name, rounds=0).arrays
    if name != "squarm-sgd":  # there the nodes take their own steps
        np.testing.assert_array_equal(vector(result.arrays), vector(start))


def test_void_rounds_train_nothing():
    """MARINA needs all clients in every round."""
    faults = Faults(up=0.5, seed=3)
    strategy = make_strategy("marina", compressor="randk:0.5", p=0.5)
    result = simulate(strategy, task_fn, 6, 4, faults=faults)
    assert result.attendance.taken > 0
    assert result.verdict.reason == "nothing was trained in 4 rounds: all rounds were void"


def test_a_run_of_no_rounds_is_done():
    assert simulate(make_strategy("ef21"), task_fn, 2, 0).verdict.status == "done"


def history(*losses, source="metrics"):
    fields = {"metrics": {}, "train": {}, "evaluate": {}}
    return [
        RoundRecord(r, up_bytes=0, down_bytes=0, seconds=0.0, **{**fields, source: {"loss": loss}})
        for r, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((2.3, 0.5), ""),
        ((2.3, 22.9), ""),
        ((2.3, 23.1), "went from 2.3 to 23.1"),
        ((2.3, 1e29), "went from 2.3 to 1e+29"),
        ((0.0, 0.9), ""),
        ((1e-9, 1.1), "went from 1e-09 to 1.1"),
        ((-5.0, 40.0), ""),
        ((-5.0, 51.0), "went from -5 to 51"),
        ((2.3, 100.0, 0.5), ""),
        ((2.3, math.nan, math.nan), "is not finite from round 1 on"),
        ((2.3, 1.0, math.inf), "is not finite from round 2 on"),
        ((math.nan, 0.5), ""),
    ],
)
@pytest.mark.parametrize("source", ["metrics", "evaluate", "train"])
def test_when_a_run_has_diverged(losses, said, source):
    found = divergence(history(*losses, source=source))
    assert said in found
    assert bool(found) == bool(said)


def test_held_out_data_decides_where_there_are_any():
    both = [
        RoundRecord(r, {"loss": loss}, {"loss": 1e9 * r}, 0, 0, 0.0)
        for r, loss in enumerate((2.0, 1.0))
    ]
    attendance = Attendance(steps=1)
    assert judge(both, attendance).status == "done"
    assert judge(both[:1], Attendance()).status == "done", "no round was run"


def test_a_stop_leaves_what_there_was(tmp_path):
    """An error, Ctrl-C, or a run that cannot go on: each is raised with the result so far."""

    def stopping(error):
        def evaluate(server_round, arrays):
            if server_round == 4:
                raise error
            return {"loss": 1.0}

        return evaluate

    whole = simulate(make_strategy("ef21"), task_fn, 3, 3)
    for error in (KeyboardInterrupt(), ZeroDivisionError("x"), SystemExit(1)):
        with pytest.raises(type(error)) as caught:
            simulate(make_strategy("ef21"), task_fn, 3, 9, 0, stopping(error))
        result = caught.value.result
        assert isinstance(result, SimulationResult)
        assert [record.round for record in result.history] == [0, 1, 2, 3]
        np.testing.assert_array_equal(vector(result.arrays), vector(whole.arrays))
        assert result.ledger.up_bytes >= whole.ledger.up_bytes
        assert (result.done, result.rounds, result.stopped) == (3, 9, error)
        interrupted = isinstance(error, KeyboardInterrupt)
        assert result.verdict.status == ("interrupted" if interrupted else "failed")
        assert "3 of 9 rounds" in repr(result)


def test_a_second_stop_does_not_lose_the_first_ones_result():
    def impatient():
        try:
            simulate(make_strategy("ef21"), task_fn, 2, 3, 0, lambda r, _: {"a": 1 // (2 - r)})
        except ZeroDivisionError:
            raise KeyboardInterrupt  # noqa: B904

    with pytest.raises(KeyboardInterrupt) as caught:
        impatient()
    assert result_of(caught.value).done == 1
    assert result_of(ValueError()) is None


def test_a_round_error_has_the_result_so_far():
    strategy = make_strategy("dsgd", compressor="identity", lr=1e200)
    with pytest.raises(RuntimeError, match="lower lr") as caught:
        simulate(strategy, task_fn, 3, 9)
    assert caught.value.result.done >= 1


def test_a_result_is_shown_in_a_few_lines():
    def big(i, n):
        accuracy = {"accuracy": 0.5, "recall": [0.5, 1.0], "Genauigkeit für Größe": 0.25}
        return FunctionTask(
            np.zeros(100_000, "f4"), lambda x, _: (1.0, x - 1), evaluate=lambda x: accuracy
        )

    result = simulate(make_strategy("ef21", fraction_evaluate=1.0), big, 2, 30)
    text = repr(result)
    assert text == str(result)
    assert text.isascii()
    assert len(text) < 2000
    lines = text.splitlines()
    assert lines[0].startswith("SimulationResult: ef21, 2 clients, 30 rounds, ")
    assert "clients' accuracy" in lines[1]
    assert len(lines) == 2 + 8 + 2
    assert lines[-1] == "model: 100,000 numbers, 400 kB"
    gossip = run("squarm-sgd")
    assert "of nodes' models that were collected" in repr(gossip)


def test_collected_models_are_not_among_a_rounds_bytes():
    result = run("squarm-sgd")
    by_round = {each.round: each for each in result.ledger.rounds}
    assert result.history[-1].up_collected > 0
    for record in result.history[1:]:
        used = by_round[record.round]
        assert record.up_bytes == used.up_bytes - used.up_collected
    up = sum(record.up_bytes + record.up_collected for record in result.history)
    assert up == result.ledger.up_bytes


def test_a_model_comes_back_from_its_file(tmp_path):
    """Names, order, dtypes, shapes and values; another order than safetensors' own."""
    from flwr.app import Array, ArrayRecord

    arrays = {
        "z.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.scalar": np.array(2.5),
        "count": np.array([2**40 + 1]),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
    }
    model = ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(model))
    found = load_model(path)
    assert list(found) == list(arrays)
    for name, array in found.items():
        assert array.numpy().dtype == arrays[name].dtype
        np.testing.assert_array_equal(array.numpy(), arrays[name])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is no model in safetensors"):
        load_model(path)
    with pytest.raises(OSError, match="nothing"):
        load_model(tmp_path / "nothing")
