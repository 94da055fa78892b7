"""Metrics of clients and server: which values count, what for, and where they arrive."""

import importlib.util
import json
import logging
import math

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from flowerpress.clients import FunctionTask, client_app
from flowerpress.server.metrics import MetricsMean, Report
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.simulations.recorder import Recorder
from flowerpress.strategies import make_strategy, strategy_names
from tests.algorithms.lives import OPTIONS, run, whole_run

TORCH = importlib.util.find_spec("torch") is not None
TRAINED = (1, 3, 4)  # examples of the three clients
TESTED = (5, 1, 2)  # and those that they evaluate on
VALUES = (0.5, 0.25, 1.0)


def task_fn(i, n, more=None):
    """A client whose accuracy and loss depend on who it is."""
    return FunctionTask(
        np.zeros(2),
        lambda x, _: (VALUES[i], x - i),
        num_examples=TRAINED[i],
        num_test_examples=TESTED[i],
        evaluate=lambda x: {"accuracy": VALUES[i], **(more(i) if more else {})},
    )


def simulated(more=None, rounds=2, name="ef21", **options):
    strategy = make_strategy(name, lr=0.1, fraction_evaluate=1.0, **options)
    return simulate(strategy, lambda i, n: task_fn(i, n, more), 3, rounds)


def mean(weights, values=VALUES):
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def test_metrics_count_what_their_replies_say():
    """As in Flower: training metrics by training examples, evaluations by those evaluated."""
    result = simulated()
    assert [record.evaluate for record in result.history] == [
        {},
        *[{"accuracy": pytest.approx(mean(TESTED), abs=1e-15)}] * 2,
    ]
    assert result.history[1].train["loss"] == pytest.approx(mean(TRAINED), abs=1e-15)


def test_a_task_may_say_itself_what_its_metrics_count_for():
    weights = (1, 0, 7)
    result = simulated(lambda i: {"num-examples": weights[i]})
    assert result.history[1].evaluate == {"accuracy": mean(weights)}
    result = simulated(lambda i: {"positives": weights[i]}, weighted_by_key="positives")
    assert result.history[1].evaluate["accuracy"] == mean(weights)
    assert set(result.history[1].train) == {"loss", "num-examples"}, "no reply to training has it"
    assert result.history[1].train["loss"] == mean(TRAINED), "so it counts as its update does"


def test_metrics_may_count_what_the_server_knows():
    """A client cannot change that from round to round."""
    result = simulated(lambda i: {"num-examples": 10**6 * i}, metric_weights="known")
    assert result.history[1].evaluate == {"accuracy": mean(TRAINED)}
    uniform = simulated(metric_weights="known", weights="uniform")
    assert uniform.history[1].evaluate == {"accuracy": mean((1, 1, 1))}
    with pytest.raises(ValueError, match="metric_weights is 'mine': expected reported or known"):
        make_strategy("ef21", metric_weights="mine")


def test_equal_metrics_have_that_mean():
    """To the last bit, whatever the weights: it is divided once."""
    same = MetricsMean("evaluation", "n", None, known=False)
    reports = [Report(i, 1.0, {"n": 1 + i, "accuracy": 0.4375}) for i in range(7)]
    assert same(reports) == {"accuracy": 0.4375}


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_has_the_clients_evaluation_in_its_result(name):
    options = {"fraction_evaluate": 1.0, "min_evaluate_nodes": 1}
    result = run(name, rounds=2, options=options)
    for record in result.history[1:]:
        assert math.isfinite(record.evaluate["first"])
    assert result.history[0].evaluate == {}


def test_resumed_rounds_have_their_evaluations(tmp_path, monkeypatch):
    from tests.algorithms.lives import killed_at, records

    options = {"fraction_evaluate": 1.0}
    whole, ends = whole_run(monkeypatch, "ef21", options=options)
    result = killed_at(monkeypatch, "ef21", tmp_path, [ends[2] + 2], ends, options=options)
    assert records(result) == records(whole)
    assert all(record.evaluate for record in result.history[1:])


def test_records_of_before_are_read():
    """They had no evaluation, and the collected models' bytes in both numbers."""
    recorder = Recorder(make_strategy("squarm-sgd", **OPTIONS["squarm-sgd"]), None, None)
    old = {"round": 3, "metrics": {"a": 1.0}, "train": {}, "up_bytes": 100, "down_bytes": 7}
    recorder.hear([{**old, "seconds": 0.5, "up_collected": 40, "nodes": {"1": {"a": 2.0}}}])
    (record,) = recorder.history
    assert (record.up_bytes, record.up_collected, record.evaluate) == (60, 40, {})
    assert record.nodes == {1: {"a": 2.0}}
    again = Recorder(make_strategy("ef21"), None, None)
    again.hear(json.loads(json.dumps(recorder.news(2))))
    assert again.history == [record]


NUMBERS = {
    "float": (0.75, 0.75),
    "int": (3, 3),
    "bool": (True, 1),
    "np.float16": (np.float16(0.75), 0.75),
    "np.float32": (np.float32(0.75), 0.75),
    "np.float64": (np.float64(0.75), 0.75),
    "np.longdouble": (np.longdouble(0.75), 0.75),
    "np.int8": (np.int8(-3), -3),
    "np.int64": (np.int64(3), 3),
    "np.uint64": (np.uint64(3), 3),
    "np.bool": (np.bool_(True), 1),
    "0-d": (np.array(0.75, np.float32), 0.75),
    "0-d int": (np.array(3), 3),
    "list": ([0.25, 0.5], [0.25, 0.5]),
    "list of ints": ([1, 2], [1, 2]),
    "mixed list": ([1, 0.5, np.float32(0.25)], [1.0, 0.5, 0.25]),
    "tuple": ((0.25, 0.5), [0.25, 0.5]),
    "1-d": (np.array([0.25, 0.5], np.float32), [0.25, 0.5]),
    "1-d bools": (np.array([True, False]), [1, 0]),
    "empty": ([], []),
    "too long for a message": (2**70, float(2**70)),
}


def torch_numbers():
    import torch

    weight = torch.tensor(0.75, requires_grad=True)
    return {
        "torch": (weight, 0.75),
        "torch half": (weight.detach().half(), 0.75),
        "torch bfloat16": (weight.detach().bfloat16(), 0.75),
        "torch int": (torch.tensor(3), 3),
        "torch bool": (torch.tensor(True), 1),
        "torch 1-d": (torch.tensor([0.25, 0.5]), [0.25, 0.5]),
    }


@pytest.mark.parametrize("source", ["evaluate_fn", "MetricRecord", "task"])
def test_every_kind_of_number_reaches_the_history(source):
    numbers = NUMBERS | (torch_numbers() if TORCH else {})
    given = {name: value for name, (value, _) in numbers.items()}
    expected = {name: value for name, (_, value) in numbers.items()}
    if source == "MetricRecord":  # takes some of them only
        given = {k: v for k, v in given.items() if k in ("float", "int", "list", "np.float64")}
        expected = {name: expected[name] for name in given}
        result = simulate(make_strategy("ef21"), task_fn, 3, 1, 0, lambda *_: MetricRecord(given))
        found = result.history[-1].metrics
    elif source == "evaluate_fn":
        result = simulate(make_strategy("ef21"), task_fn, 3, 1, 0, lambda *_: given)
        found = result.history[-1].metrics
    else:
        found = simulated(lambda i: given, 1).history[-1].evaluate
        found.pop("accuracy")
    assert found == expected
    for name, value in found.items():
        whole = isinstance(expected[name], int)
        assert type(value) is (float if source == "task" and whole else type(expected[name]))


NO_NUMBERS = {
    "text": "0.5",
    "nothing": None,
    "names": ["a", "b"],
    "matrix": np.eye(2),
    "nested": [[1.0], [2.0]],
    "mapping": {"a": 1.0},
    "complex": 1j,
    "hole": [0.5, None],
    "date": np.datetime64("2026-01-01"),
}


@pytest.mark.parametrize("source", ["evaluate_fn", "task"])
def test_what_is_no_number_is_named_once(source, caplog):
    if source == "task":
        result = simulated(lambda i: NO_NUMBERS)
        assert result.history[-1].evaluate == {"accuracy": pytest.approx(mean(TESTED))}
    else:
        found = {**NO_NUMBERS, "accuracy": 0.5}
        result = simulate(make_strategy("ef21"), task_fn, 3, 2, 0, lambda *_: found)
        assert [record.metrics for record in result.history] == [{"accuracy": 0.5}] * 3
    for name in NO_NUMBERS:
        (line,) = [r for r in caplog.records if f"{name!r} is a" in r.getMessage()]
        assert "left out: a metric is a number or a list of numbers" in line.getMessage()


def test_a_tensor_without_values_is_no_number(caplog):
    torch = pytest.importorskip("torch")
    simulated(lambda i: {"lost": torch.zeros((), device="meta")}, 1)
    assert "'lost' is a Tensor and left out" in caplog.text


def test_flowers_old_pair_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"evaluate_fn returned a tuple: expected metrics by name"):
        simulate(make_strategy("ef21"), task_fn, 3, 1, 0, lambda *_: (0.5, {"accuracy": 0.5}))


def test_not_a_number_is_shown():
    result = simulated(lambda i: {"auc": math.nan, "worst": math.inf if i else 1.0})
    assert math.isnan(result.history[-1].evaluate["auc"])
    assert result.history[-1].evaluate["worst"] == math.inf
    found = simulate(make_strategy("ef21"), task_fn, 3, 1, 0, lambda *_: {"loss": np.nan})
    assert math.isnan(found.history[-1].metrics["loss"])


def test_lists_are_averaged_and_reach_a_users_function(caplog):
    recall = ([0.25, 0.75], [0.5, 0.5], [1.0, 0.0])
    result = simulated(lambda i: {"recall": np.array(recall[i])}, 1)
    expected = [mean(TESTED, column) for column in zip(*recall, strict=True)]
    assert result.history[-1].evaluate["recall"] == expected
    seen = []

    def own(contents, key):
        seen.extend(dict(content["metrics"]) for content in contents)
        return {"recall": np.float32(0.5)}

    result = simulated(lambda i: {"recall": recall[i]}, 1, evaluate_metrics_aggr_fn=own)
    assert [one["recall"] for one in seen] == list(recall)
    assert [one["num-examples"] for one in seen] == list(TESTED)
    assert result.history[-1].evaluate == {"recall": 0.5}, "a dictionary of numpy's will do"
    assert not caplog.records
    # Not every client has every class: what most have is averaged.
    ragged = ([0.25], [0.5, 0.5], [1.0, 0.0])
    result = simulated(lambda i: {"recall": ragged[i], "odd": [1.0, 2.0] if i else 3.0})
    expected = [mean(TESTED[1:], column) for column in ((0.5, 1.0), (0.5, 0.0))]
    assert result.history[-1].evaluate["recall"] == expected
    assert result.history[-1].evaluate["odd"] == [1.0, 2.0]
    assert caplog.text.count("is not of one length") == 1


def test_a_users_function_is_told_what_all_have(caplog):
    names = []

    def own(contents, key):
        names.append({name for content in contents for name in content["metrics"]})
        return MetricRecord({})

    simulated(lambda i: {"rare": 1.0} if i else {}, evaluate_metrics_aggr_fn=own)
    assert names == [{"accuracy", "num-examples"}] * 2
    assert caplog.text.count("not in every reply, and left out: rare") == 1


WEIGHTS = {
    "missing": None,
    "not a number": math.nan,
    "infinite": math.inf,
    "negative": -2,
    "huge": 2**53,
    "a list": [1.0, 2.0],
}


@pytest.mark.parametrize("lie", WEIGHTS)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_weight_that_is_none_takes_its_metrics_out(lie, kind, caplog):
    """The others are averaged without them, and the log names the client, once."""

    class Lying(InProcessGrid):
        def _deliver(self, message):
            reply = super()._deliver(message)
            if message.metadata.message_type != kind or message.metadata.dst_node_id != 3:
                return reply
            metrics = {"accuracy": 1e6, "loss": 1e6, "num-examples": WEIGHTS[lie]}
            if WEIGHTS[lie] is None:
                del metrics["num-examples"]
            content = RecordDict({**reply.content, "metrics": MetricRecord(metrics)})
            return Message(content, reply_to=message)

    with Lying(lambda: client_app(task_fn), 3) as grid:
        strategy = make_strategy("ef21", lr=0.1, fraction_evaluate=1.0)
        initial = task_fn(0, 3).initial_arrays()
        result = strategy.start(grid, initial, num_rounds=2)
    if kind == "train":
        found = result.train_metrics_clientapp[2]["loss"]
        assert found == mean((TRAINED[0], TRAINED[2]), (VALUES[0], VALUES[2]))
    else:
        found = result.evaluate_metrics_clientapp[2]["accuracy"]
        assert found == mean((TESTED[0], TESTED[2]), (VALUES[0], VALUES[2]))
    assert caplog.text.count("client 1's 'num-examples' is") == 1


def test_clients_without_examples_have_a_plain_mean():
    result = simulated(lambda i: {"num-examples": 0})
    assert result.history[-1].evaluate == {"accuracy": mean((1, 1, 1))}


def test_a_peers_metrics_are_bounded():
    from flowerpress.protocol.metrics import peer_metrics

    names = peer_metrics((f"\x1b[31m{i:03d}" + "x" * 200, 1.0) for i in range(1000))
    assert len(names) == 100
    assert all(len(name) <= 80 and name.isprintable() for name in names)
    assert peer_metrics([("a", [0.0] * 65_537), ("b", 1.0)]) == {}
    long = peer_metrics([("a", [0.0] * 65_535), ("b", 1.0), ("c", 2.0)])
    assert sorted(long) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train_metrics_aggr_fn", 3, "a function"),
        ("evaluate_metrics_aggr_fn", "max", "a function"),
        ("weighted_by_key", 5, "a string"),
        (
            "configrecord_key",
            "arrays",
            "a string, and another than arrays, for the model goes under this one",
        ),
    ],
)
def test_options_about_metrics_are_checked(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} is {value!r}: expected {expected}"):
        make_strategy("ef21", **{name: value})


def test_the_metrics_of_a_gossiping_client_cannot_disturb_its_gamma(caplog):
    """Lists and infinities are metrics, and nothing that an algorithm goes by."""
    from tests.algorithms.gossiping import Nodes

    problem = Nodes(n=4, dim=6)

    class Lying(InProcessGrid):
        def _deliver(self, message):
            reply = super()._deliver(message)
            if message.metadata.message_type == "train" and message.metadata.dst_node_id == 3:
                lies = {"disagreement": [1.0], "moved": math.nan, "unsent": math.inf, "loss": 0.0}
                lies["num-examples"] = 1
                content = RecordDict({**reply.content, "metrics": MetricRecord(lies)})
                return Message(content, reply_to=message)
            return reply

    with Lying(lambda: client_app(problem.task_fn), 4) as grid, caplog.at_level(logging.ERROR):
        strategy = make_strategy("squarm-sgd", compressor="topk:k=2", gamma="auto", lr=0.01)
        strategy.start(grid, problem.task_fn(0, 4).initial_arrays(), num_rounds=20)
    assert math.isfinite(strategy.consensus.gamma)
    assert strategy.run.attendance.steps == 20
