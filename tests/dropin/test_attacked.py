"""Hostile peers, unlucky loops and odd models: one test each, of what once went wrong."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.dropin import press, press_grid
from flowerpress.dropin.mod import _STATES, SENDERS
from flowerpress.simulations.engine import InProcessGrid
from flowerpress.worker.memory import restore_sender
from tests.dropin.apps import record
from tests.dropin.asking import adder, ask, messages, seen, zeros


def test_a_node_that_was_silent_for_long_owes_nothing_twice():
    """Which of its updates was applied is never forgotten; what ef21 keeps is, and starts over."""
    with InProcessGrid(adder, 2) as grid:
        own = press_grid(grid, "topk:0.5", forget_after=3)
        total = sum(seen(*ask(own, zeros())).sum() for _ in range(2))
        for _ in range(10):
            ask(own, zeros(), nodes=(3,))
        total += sum(seen(*ask(own, zeros())).sum() for _ in range(10))
    assert total == pytest.approx(12 * 900, abs=900 / 2 + 1), "but for what is owed"
    with InProcessGrid(adder, 2) as grid:
        own = press_grid(grid, "topk:0.5", memory="ef21", forget_after=3)
        ask(own, zeros())
        for _ in range(10):
            ask(own, zeros(), nodes=(3,))
        (channel,) = own._channels.values()
        assert channel.clients[2].h is None
        answers = [seen(*ask(own, zeros())).sum() for _ in range(3)]
    assert answers == [450, 900, 900]


def test_a_node_with_another_number_owes_nothing_twice():
    """As a SuperNode without a key has after each start; its memory is on its disk."""
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "topk:0.5")
        total = seen(*ask(own, zeros())).sum()
        grid._nodes[77] = grid._nodes.pop(2)
        grid._nodes[77].context.node_id = 77
        total += sum(seen(*ask(own, zeros(), nodes=(77,))).sum() for _ in range(6))
    assert total == pytest.approx(7 * 900, abs=451)


@pytest.mark.parametrize("downlink", ["", "topk:0.5"])
def test_scalars_stay_scalars(downlink):
    with InProcessGrid(adder, 2) as grid:
        own = press_grid(grid, "identity", memory="none", downlink=downlink)
        x = zeros(scale=np.array(2.0))
        for _ in range(3):
            answers = ask(own, x, nodes=(2, 3))
            assert all(seen(answer, "scale").shape == () for answer in answers)
            x = answers[0].content["arrays"]
    assert seen(answers[0], "scale") == pytest.approx(5)


def test_x_is_what_was_sent_whatever_becomes_of_the_record():
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "identity", memory="none")
        x = zeros()
        ids = list(own.push_messages(messages(x, (2,))))
        x["w"] = Array(np.full(900, 100, np.float32))
        (answer,) = own.pull_messages(ids)
        assert seen(answer)[0] == 1
        ids = list(own.push_messages(messages(x, (2,))))
        del x["w"]
        (answer,) = own.pull_messages(ids)
    assert seen(answer)[0] == 101


@pytest.mark.parametrize("pressed", [True, False])
def test_clients_do_not_write_into_each_others_messages(pressed):
    app = ClientApp(mods=[press])

    @app.train()
    def train(message, context):
        arrays = message.content["arrays"]
        arrays["w"] = Array(arrays["w"].numpy() + np.float32(1))
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    x = zeros()
    with InProcessGrid(lambda: app, 3, threads=1) as grid:
        own = press_grid(grid, "identity", memory="none") if pressed else grid
        answers = ask(own, x, nodes=(2, 3, 4))
    assert [seen(answer)[0] for answer in answers] == [1, 1, 1]
    assert x["w"].numpy()[0] == 0


@pytest.mark.parametrize("downlink", ["", "identity"])
@pytest.mark.parametrize("memory", ["ef14", "ef21"])
def test_evaluating_something_else_leaves_the_memory_alone(memory, downlink):
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "topk:0.25", memory=memory, downlink=downlink)
        total = 0.0
        for _ in range(12):
            total += seen(*ask(own, zeros())).sum()
            ask(own, zeros(more=np.zeros(40)), kind="evaluate")
    if memory == "ef14":
        assert total == pytest.approx(12 * 900, abs=4 * 900)
    else:
        assert total == pytest.approx(12 * 900 - (3 + 2 + 1) / 4 * 900, abs=1)


def test_two_models_of_one_size_have_memories_of_their_own():
    """As the two halves of a GAN; the second is not trained, and gets nothing of the first."""
    app = ClientApp(mods=[press])

    @app.train()
    def train(message, context):
        ((name, array),) = message.content["arrays"].items()
        more = np.float32(1 if name == "generator" else 0)
        arrays = ArrayRecord({name: Array(array.numpy() + more)})
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    with InProcessGrid(lambda: app, 1) as grid:
        own = press_grid(grid, "topk:0.5", downlink="topk:0.5")
        for _ in range(6):
            ask(own, record({"generator": np.zeros(900)}))
            (answer,) = ask(own, record({"judge": np.zeros(900)}))
            assert not seen(answer, "judge").any()
    assert own.refused == 0


@pytest.mark.parametrize("downlink", ["", "topk:0.3"])
@pytest.mark.parametrize("memory", ["ef14", "ef21", "ef21-sgdm"])
def test_both_sides_agree_whatever_happens(memory, downlink):
    """Lost, late and repeated messages, apps that raise, some nodes only, evaluations in between.

    What a client has in memory and what the server keeps of it then stand for the same updates.
    """
    rng, trained = np.random.default_rng(5), np.zeros((3, 900))
    app = wandering(rng, trained)
    applied, late, sent_to = np.zeros((3, 900)), [], {}
    with InProcessGrid(lambda: app, 3, threads=1) as grid:
        own = press_grid(grid, "topk:0.2", memory=memory, downlink=downlink, max_scale=0.0)
        for _ in range(80):
            nodes = [int(n) for n in rng.choice([2, 3, 4], rng.integers(1, 4), replace=False)]
            x = record({"w": rng.standard_normal(900)})
            kind = "evaluate" if rng.random() < 0.25 else "train"
            asked = own.press(messages(x, nodes, kind))
            if kind == "train":
                sent_to |= {node: x["w"].numpy() for node in nodes}
            asked = [each for each in asked if rng.random() > 0.15]
            answers = list(grid.send_and_receive(asked, timeout=5))
            answers = [each for each in answers if rng.random() > 0.15]
            late += [each for each in answers if rng.random() < 0.15]
            answers = [each for each in answers if each not in late]
            if late and rng.random() < 0.3:
                answers.append(late.pop())
            for answer in own.open(answers):
                if not answer.has_error() and "arrays" in answer.content:
                    node = answer.metadata.src_node_id
                    applied[node - 2] += seen(answer) - sent_to[node]
        (channel,) = own._channels.values()
        for (_, client, _), state in _STATES[grid.run_id].items():
            peer = channel.clients[client + 2]
            agree(state, peer, trained[client] - applied[client], memory, channel.broadcast)


def wandering(rng, trained):
    """An app that takes random steps, adds them up, and raises now and then."""
    app = ClientApp(mods=[press])

    @app.train()
    def train(message, context):
        if rng.random() < 0.1:
            raise RuntimeError("trouble")
        step = rng.standard_normal(900).astype(np.float32)
        trained[int(context.node_config["partition-id"])] += step
        x = message.content["arrays"]["w"].numpy()
        return Message(RecordDict({"arrays": record({"w": x + step})}), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        return Message(RecordDict({}), reply_to=message)

    return app


def agree(state, peer, owed, memory, broadcast):
    """Assert that a client's memory and what the server keeps of it go together."""
    sender = restore_sender(SENDERS[memory], state, {})
    sender.settle(peer.receiver.applied, sender.heard + 1)
    if memory == "ef14":
        np.testing.assert_allclose(sender.memory, owed, atol=1e-4)  # float32 sums of 80 steps
    elif sender.memory is not None:
        np.testing.assert_array_equal(sender.memory, peer.h)
    if broadcast is not None and state.numbers["held"] == broadcast._model.version:
        np.testing.assert_array_equal(state.vectors["replica.x"], broadcast._model.x)


def test_the_first_answer_of_a_zero_model_may_come_alone():
    """It is kept until another can be compared with it: so says the guard, and loses nothing."""
    with InProcessGrid(adder, 3) as grid:
        own = press_grid(grid, "topk:0.5", memory="none")
        ids = list(own.push_messages(messages(zeros(), (2, 3, 4))))
        found = []
        for each in ids:
            while not (some := list(grid.pull_messages([each]))):
                pass
            found.append(own.open(some, wait=True))
    assert [len(each) for each in found] == [0, 2, 1]
    assert not any(answer.has_error() for each in found for answer in each)
    assert own.refused == 0


def test_an_evaluation_closes_no_training():
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "topk:0.5", downlink="topk:0.5")
        ids = list(own.push_messages(messages(zeros(), (2,))))
        list(own.push_messages(messages(zeros(), (2,), "evaluate")))
        (answer,) = own.pull_messages(ids)
    assert not answer.has_error()


def test_two_questions_to_a_node_in_one_push_close_the_first():
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "topk:0.5")
        answers = ask(own, zeros(), nodes=(2, 2))
    assert sorted(answer.has_error() for answer in answers) == [False, True]


@pytest.mark.parametrize("downlink", ["", "topk:0.5"])
def test_what_is_refused_changes_nothing(downlink):
    """Not the questions that are open, nor the replica, although another message came before."""
    with InProcessGrid(adder, 2) as grid:
        own = press_grid(grid, "topk:0.5", downlink=downlink)
        ids = list(own.push_messages(messages(zeros(), (2, 3))))
        (channel,) = own._channels.values()
        before = channel.broadcast and channel.broadcast._model.version
        other = record({"w": np.ones(900)})
        both = messages(other, (2,)) + messages(other, (3,), clipping_norm=1.0)
        with pytest.raises(ValueError, match="clients clip to 1"):
            own.push_messages(both)
        assert (channel.broadcast and channel.broadcast._model.version) == before
        answers = list(own.pull_messages(ids))
    assert [answer.has_error() for answer in answers] == [False, False]


def test_a_late_answer_without_the_mod_starts_from_its_own_x():
    """With a compressed downlink it was sent the replica of then, and not that of now."""
    with InProcessGrid(lambda: adder(0.0, mods=()), 2) as grid:
        own = press_grid(grid, "topk:0.5", downlink="topk:0.1")
        rng = np.random.default_rng(0)
        models = [record({"w": rng.standard_normal(900)}) for _ in range(3)]
        pushed = [list(own.push_messages(messages(x, (2, 3)))) for x in models]
        for ids, x in reversed(list(zip(pushed, models, strict=True))):
            for answer in own.pull_messages(ids):
                assert not answer.has_error(), answer.error
                np.testing.assert_allclose(seen(answer), x["w"].numpy(), atol=1e-6)


def test_models_of_their_own_pushed_one_by_one_are_nobody_elses():
    app, trained = ClientApp(mods=[press]), []

    @app.train()
    def train(message, context):
        trained.append(message.content["arrays"]["w"].numpy().mean())
        return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

    with InProcessGrid(lambda: app, 2, threads=1) as grid:
        own = press_grid(grid, "topk:0.5", downlink="topk:0.1")
        ask(own, zeros(), nodes=(2, 3))
        for _ in range(3):
            for node, value in ((2, 1.0), (3, -1.0)):
                ask(own, record({"w": np.full(900, value)}), nodes=(node,))
    assert trained[2:] == [1, -1] * 3


def test_an_app_with_a_new_model_in_every_round_fills_no_memory():
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "topk:0.5")
        for i in range(60):
            (answer,) = ask(own, zeros(more=np.zeros(1 + i)))
            assert not answer.has_error()
    assert len(own._channels) <= 32


def test_nodes_that_never_answer_are_not_held_for_ever():
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "topk:0.5", forget_after=5)
        for i in range(40):
            own.press(messages(zeros(), (1000 + i,)))
    (channel,) = own._channels.values()
    assert len(channel.open) <= 7


@pytest.mark.parametrize("number", [1, -1, True, 2**62])
def test_what_is_drawn_does_not_hang_on_the_apps_own_round(number):
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, "randk:0.1", memory="none")
        places = [
            np.flatnonzero(seen(*ask(own, zeros(), **{"server-round": number}))) for _ in range(20)
        ]
    assert len({tuple(each) for each in places}) == 20
    assert len(np.unique(np.concatenate(places))) > 700


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_model_that_is_not_finite_goes_as_it_is(value):
    """With a compressed downlink too: the server does not end."""
    with InProcessGrid(lambda: adder(0.0), 2) as grid:
        own = press_grid(grid, "topk:0.5", downlink="topk:0.5")
        ask(own, record({"w": np.full(900, -abs(value) if value == 3e38 else 0.0)}), nodes=(2, 3))
        w = np.zeros(900, np.float32)
        w[3] = value
        answers = ask(own, record({"w": w}), nodes=(2, 3))
    for answer in answers:
        if np.isfinite(value):
            np.testing.assert_array_equal(seen(answer), w)
        else:
            assert "nothing was sent" in answer.error.reason


def test_half_precision_goes_down_dense_and_both_hold_the_same():
    with InProcessGrid(lambda: adder(0.5), 2) as grid:
        own = press_grid(grid, "identity", memory="none", downlink="topk:0.1")
        x = ArrayRecord({"w": Array(np.linspace(0, 1, 1800).astype(np.float16))})
        for _ in range(3):
            answers = ask(own, x, nodes=(2, 3))
            np.testing.assert_array_equal(seen(answers[0]), x["w"].numpy() + np.float16(0.5))
            x = answers[0].content["arrays"]
    assert seen(answers[0]).dtype == np.float16


def test_large_numbers_of_a_mixed_model_keep_their_digits():
    with InProcessGrid(lambda: adder(0.0), 1) as grid:
        own = press_grid(grid, "identity", memory="none")
        big = Array(np.full(10, 1_000_000_000.5))
        (answer,) = ask(own, ArrayRecord({"w": Array(np.zeros(900, np.float32)), "big": big}))
    np.testing.assert_array_equal(seen(answer, "big"), big.numpy())


def test_names_may_hold_anything():
    """Slashes that make two places look like one, and line breaks in what is not pressed."""
    content = RecordDict(
        {
            "a": record({"b/c": np.zeros(600), "n\n1": np.arange(3)}),
            "a/b": record({"c": np.ones(600)}),
        }
    )
    with InProcessGrid(adder, 2) as grid:
        own = press_grid(grid, "identity", memory="none", downlink="identity")
        for _ in range(3):
            answers = own.send_and_receive(
                [Message(content, n, "train") for n in (2, 3)], timeout=5
            )
            for answer in answers:
                assert answer.content["a"]["b/c"].numpy()[0] == 1
                assert answer.content["a/b"]["c"].numpy()[0] == 2


def test_a_nodes_own_compressor_keeps_the_rules():
    configs = {0: {"compressor": "permk"}, 1: {"compressor": "sign:scale=l2"}, 2: {}}
    with InProcessGrid(adder, 3, node_configs=configs) as grid:
        own = press_grid(grid, "topk:0.5")
        first, second, third = ask(own, record({"w": np.ones(900)}), nodes=(2, 3, 4))
        assert "for a plain mean of all" in first.error.reason
        assert "neither" in second.error.reason
        assert not third.has_error()
    # Where clients clip, a node's own choice could void the bound: it has the app's.
    with InProcessGrid(adder, 1, node_config={"compressor": "randk:0.01"}) as grid:
        own = press_grid(grid, "topk:0.5", memory="none")
        (answer,) = ask(own, zeros(), clipping_norm=100.0)
    assert (seen(answer) == 1).sum() == 450


@pytest.mark.parametrize("compressor", ["topk:0.1+qsgd:1", "topk:0.1+terngrad", "scaled(topk:0.1)"])
def test_a_chain_that_may_enlarge_is_no_topk(compressor):
    with InProcessGrid(adder, 1) as grid:
        own = press_grid(grid, compressor, memory="none")
        with pytest.raises(ValueError, match="clients clip to 1"):
            ask(own, zeros(), clipping_norm=1.0)


@pytest.mark.parametrize("config", [{"client-id": "hospital-a"}, {"client-id": 7}])
def test_a_client_has_any_name(config):
    runs = {"state-store": "s3", "checkpoint": 5}  # the app's own, which mean nothing here
    with InProcessGrid(adder, 1, node_config=config, run_config=runs) as grid:
        (answer,) = ask(press_grid(grid, "topk:0.5"), zeros())
    assert not answer.has_error()


def test_an_app_with_a_record_of_our_name_is_refused():
    content = RecordDict({"arrays": zeros(), "flowerpress": ConfigRecord({"own": 1})})
    with InProcessGrid(adder, 1) as grid, pytest.raises(ValueError, match="give it another"):
        press_grid(grid).press([Message(content, 2, "train")])
