"""Updates that are too large to be believed are refused, counted, and change nothing."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message

from flowerpress.clients import FunctionTask, client_app
from flowerpress.compressors import decompress
from flowerpress.compressors.testing.hostile import resealed
from flowerpress.protocol import Reply
from flowerpress.server.guard import BUFFERS, MODELS, UPDATES
from flowerpress.simulations import InProcessGrid, simulate
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.presets import preset
from flowerpress.strategies import RoundError, make_strategy, strategy_names
from tests.algorithms.problems import Quadratics
from tests.algorithms.test_runs import batch_norm_task
from tests.protocol.test_hostile_clients import forged, honest, identity

DIM = 8


class HostileGrid(InProcessGrid):
    """What one client answers, but for its hello, is replaced."""

    hostile, lie = 0, None

    def send_and_receive(self, messages, *, timeout=None):
        orders = {message.metadata.dst_node_id: message for message in messages}
        replies = super().send_and_receive(orders.values(), timeout=timeout)
        return [self.replaced(reply, orders[reply.metadata.src_node_id]) for reply in replies]

    def replaced(self, reply, order):
        metadata = reply.metadata
        if metadata.src_node_id != 2 + self.hostile or metadata.message_type != "train":
            return reply
        return Message(self.lie(Reply.decode(reply.content)), reply_to=order)


def run(lie, rounds=10, name="ef21", n=6, hostile=0, task_fn=None, **options):
    options = {"compressor": "topk:k=2", "lr": 0.1, "min_available_nodes": n, **options}
    strategy = make_strategy(name, **options)
    task_fn = task_fn or Quadratics(n=n, dim=DIM).task_fn
    models = []
    with HostileGrid(lambda: client_app(task_fn), n) as grid:
        grid.lie, grid.hostile = lie, hostile
        strategy.start(
            grid,
            task_fn(0, n).initial_arrays(),
            num_rounds=rounds,
            evaluate_fn=lambda r, _: models.append(strategy.model.x.copy() if r else None),
        )
    return strategy, np.array(models[1:])


def times(factor):
    def lie(reply):
        packets = [identity(factor * decompress(packet)) for packet in reply.packets]
        return forged(reply, packets=packets)

    return lie


def silent(reply):
    return forged(reply, status="failed")


# MARINA needs every client in every round; there a hostile one can as well be silent.
PLAIN = ["dsgd", "ef14", "ef21", "ef21-sgdm", "cdadam", "comp-ams", "onebit-adam", "fedavg"]


@pytest.mark.parametrize("hostile", [0, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_a_million_times_too_much_is_the_same_as_silence(name, hostile, caplog):
    options = {"compressor": "identity" if name == "fedavg" else "topk:k=2"}
    with caplog.at_level(logging.WARNING, "flowerpress"):
        strategy, models = run(times(1e6), name=name, hostile=hostile, **options)
    _, without = run(silent, name=name, hostile=hostile, **options)
    np.testing.assert_array_equal(models, without)
    assert strategy.exchange.oversized == strategy.exchange.refused == 10
    assert strategy.exchange.resyncs == 0, "nobody starts over for it"
    assert f"refused client {hostile}: update of norm" in caplog.text
    assert "times the median" in caplog.text


def test_marina_does_not_go_on_without_a_client():
    """As when it is silent: its rounds of whole gradients need everyone."""
    with pytest.raises(RoundError, match="marina needs every client"):
        run(times(1e6), rounds=300, name="marina", compressor="randk:k=4", task_fn=honest)


def test_the_others_reach_their_optimum():
    problem = Quadratics(n=6, dim=DIM)
    strategy, models = run(times(-1e6), rounds=300, name="dsgd", compressor="identity")
    assert strategy.exchange.oversized == 300
    honest = np.linalg.solve(
        problem.A[1:].sum(axis=0), np.einsum("nij,nj->i", problem.A[1:], problem.b[1:])
    )
    np.testing.assert_allclose(models[-1], honest, atol=1e-3)


def test_without_the_rule_one_message_overwrites_the_model():
    strategy, models = run(times(1e6), name="dsgd", max_scale=0.0)
    assert strategy.exchange.oversized == 0
    assert np.linalg.norm(models[0]) > 1e3


def test_a_client_that_becomes_hostile_is_refused_at_once_even_of_two():
    calls = []

    def later(reply):
        calls.append(reply)
        return times(1e6 if len(calls) > 4 else 1.0)(reply)

    strategy, models = run(later, n=2, name="dsgd", compressor="identity")
    assert strategy.exchange.oversized == 6
    assert np.abs(models).max() < 10


def test_a_scale_that_is_not_applied_does_not_hide_a_packet():
    """DIANA adds packets without their scale: so that is how they are measured."""

    def lie(reply):
        return forged(reply, packets=[identity(np.full(DIM, 1e9))], scale=1e-9)

    options = {"name": "diana", "compressor": "randk:k=4"}
    strategy, models = run(lie, **options)
    _, without = run(silent, **options)
    assert strategy.exchange.oversized == 10
    np.testing.assert_array_equal(models, without)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("name", ["sketched-sgd", "sketched-amsgrad"])
def test_both_exchanges_are_measured(name, stage):
    def lie(reply):
        packet = reply.packets[0]
        # Sketches go as countsketch packets, exact values as identity.
        first = decompress(packet).size == 64
        if first != (stage == 1):
            return reply.encode()
        if stage == 2:
            return forged(reply, packets=[identity(1e9 * decompress(packet))])
        data = bytearray(packet)
        cells = np.frombuffer(data[40:], np.float64) * 1e9
        return forged(reply, packets=[resealed(bytes(data[:40]) + cells.tobytes())])

    problem = Quadratics(n=4, dim=64)
    options = {"compressor": "countsketch:3,columns=32", "lr": 0.05, "k": 4}
    strategy, models = run(lie, name=name, n=4, rounds=6, task_fn=problem.task_fn, **options)
    assert strategy.exchange.oversized == strategy.exchange.refused == 6
    assert np.abs(models).max() < 20


def test_gossip_measures_differences_and_models():
    options = {"compressor": "topk:k=2", "lr": 0.05, "local_steps": 1, "gamma": 0.2}
    strategy, models = run(times(1e6), name="squarm-sgd", **options)
    # Ten differences, and in the last round the model.
    assert strategy.exchange.oversized == strategy.exchange.refused == 11
    assert np.abs(models).max() < 10
    assert strategy.population.clients[1].largest[MODELS] > 0


def buffers_times(factor):
    def lie(reply):
        return forged(reply, buffers=identity(factor * (1 + decompress(reply.buffers))))

    return lie


def test_buffers_are_measured():
    options = {"n": 4, "task_fn": batch_norm_task, "compressor": "topk:k=1"}
    strategy, _ = run(buffers_times(1e9), **options)
    assert strategy.exchange.oversized == 10
    assert max(np.abs(value).max() for value in strategy.model.buffers.values()) < 100
    assert strategy.population.clients[1].largest[BUFFERS] > 0


def nonfinite(value, where):
    def lie(reply):
        data = bytearray(identity(np.ones(DIM)))
        data[24:32] = np.float64(value).tobytes()
        packet = resealed(bytes(data))
        return forged(reply, **({"packets": [packet]} if where == "packet" else {where: packet}))

    return lie


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value, caplog):
    strategy, models = run(nonfinite(value, "packet"))
    _, without = run(silent)
    np.testing.assert_array_equal(models, without)
    assert (strategy.exchange.refused, strategy.exchange.oversized) == (10, 0)
    assert f"identity: value 0 is {value}" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_buffers_that_are_not_finite_are_refused(value):
    def lie(reply):
        data = bytearray(reply.buffers)
        data[24:32] = np.float64(value).tobytes()
        return forged(reply, buffers=resealed(bytes(data)))

    strategy, _ = run(lie, n=4, task_fn=batch_norm_task, compressor="topk:k=1")
    assert (strategy.exchange.refused, strategy.exchange.oversized) == (10, 0)
    assert all(np.isfinite(value).all() for value in strategy.model.buffers.values())


@pytest.mark.parametrize("text", [b"NaN", b"1e300", b"-1.0", b"0.0", b"Infinity", b"1e999", b'"1"'])
def test_a_scale_is_a_number_up_to_one(text):
    def lie(reply):
        content = reply.encode()
        data = bytes(content["arrays"]["message"].data)
        length = int.from_bytes(data[4:8], "little")
        header = data[8 : 8 + length].replace(b'"scale":1.0', b'"scale":' + text)
        assert text in header
        blob = data[:4] + len(header).to_bytes(4, "little") + header + data[8 + length :]
        content["arrays"]["message"].data = blob
        return content

    strategy, models = run(lie, name="ef14")
    _, without = run(silent, name="ef14")
    np.testing.assert_array_equal(models, without)
    assert strategy.exchange.refused == 10


@pytest.mark.parametrize("value", [3e38, 1e30, 2e19])
def test_finite_numbers_that_would_overflow_the_sum_are_refused(value):
    """Whoever is alone with its first update is believed; but not this."""

    def task_fn(i, n):
        return FunctionTask(np.ones(DIM, np.float32), lambda x, _: (0.0, x - np.float32(i)))

    def lie(reply):
        return forged(reply, packets=[identity(np.full(DIM, value, np.float32))])

    for n in (2, 4):
        strategy, models = run(lie, n=n, task_fn=task_fn, name="comp-ams", compressor="topk:k=2")
        assert strategy.exchange.oversized == 10
        assert np.isfinite(models).all()


def test_a_run_that_diverges_ends_with_the_remedy():
    problem = Quadratics(n=3)
    with pytest.raises(RoundError, match=r"all 3 clients fail; client 0: update.*lower lr"):
        simulate(make_strategy("dsgd", compressor="identity", lr=1e80), problem.task_fn, 3, 20)


SMALL = {"sketched-sgd": {"k": 4}, "sketched-amsgrad": {"k": 4}, "fetchsgd": {"k": 4}}


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("name", strategy_names())
def test_honest_runs_are_not_refused(name, spread):
    """Clients whose gradients differ by powers of ten, and noise with heavy tails."""
    problem = Quadratics(n=5, dim=64)
    sizes = 10.0 ** (spread * np.linspace(-0.5, 0.5, 5))

    def task_fn(i, n):
        def gradient(x, batch):
            return 0.0, sizes[i] * (problem.A[i] @ (x - problem.b[i]) + (batch or 0.0))

        def draw(rng):
            return float(rng.standard_t(2)) if spread else 0.0

        return FunctionTask(problem.x0, gradient, draw=draw, num_examples=1 + 99 * (i == 2))

    options = {"lr": 1e-3, **SMALL.get(name, {})}
    strategy = make_strategy(name, **options)
    simulate(strategy, task_fn, 5, 30)
    assert strategy.exchange.oversized == strategy.exchange.refused == 0
    assert strategy.population.clients[0].largest[UPDATES] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", strategy_names())
def test_honest_presets_stay_far_below_the_limit(name):
    pytest.importorskip("torch")
    experiment = replace(preset(Experiment(task="mnist", strategy=name)), rounds=40)
    options = {**experiment.strategy_options, "max_scale": 30.0}
    prepared = replace(experiment, strategy_options=options).prepare()
    prepared.simulate()
    exchange = prepared.strategy.exchange
    assert exchange.oversized == exchange.refused == 0
