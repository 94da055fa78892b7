"""A run reads packets of its own compressors, and refuses the others by name."""

from __future__ import annotations

import struct
from types import MappingProxyType

import numpy as np
import pytest
from flwr.app import Message

from flowerpress.clients import FunctionTask, client_app
from flowerpress.compressors import Packet, make_compressor
from flowerpress.compressors.composed.scaled import Scaled
from flowerpress.protocol import Hello, Layout, Reply
from flowerpress.server.ask import Ask
from flowerpress.server.sent import Sent
from flowerpress.simulations import InProcessGrid
from flowerpress.strategies import make_strategy

DIM = 40


def task(i, n):
    return FunctionTask(np.zeros(DIM), lambda x, _: (0.0, x - np.linspace(1, 2, DIM) - i))


class Changed(InProcessGrid):
    """What client 1, at node 3, answers to training in some rounds is changed."""

    change, rounds = None, ()
    exchanges = 0

    def send_and_receive(self, messages, *, timeout=None):
        orders = {message.metadata.dst_node_id: message for message in messages}
        replies = super().send_and_receive(orders.values(), timeout=timeout)
        mine = orders.get(3)
        if mine is None or mine.metadata.message_type != "train":
            return replies
        self.exchanges += 1
        if self.exchanges not in self.rounds:
            return replies
        return [
            Message(self.change(Reply.decode(each.content)), reply_to=mine)
            if each.metadata.src_node_id == 3
            else each
            for each in replies
        ]


def sends(spec, **fields):
    """Return what makes a reply carry the same update, pressed by another compressor."""

    def change(reply):
        x = np.linspace(-1, 1, DIM)
        own = {name: getattr(reply, name) for name in Reply.__dataclass_fields__}
        packet = make_compressor(spec).bind_shapes([(8, 5)]).compress(x).data
        return Reply(**{**own, "packets": [packet], **fields}).encode()

    return change


def run(name, change=None, rounds=(3,), *, configs=MappingProxyType({}), count=5, **options):
    strategy = make_strategy(name, min_available_nodes=3, min_train_nodes=1, **options)
    with Changed(lambda: client_app(task), 3, node_configs=dict(configs)) as grid:
        grid.change, grid.rounds = change, rounds if change else ()
        strategy.start(grid, task(0, 3).initial_arrays(), num_rounds=count, timeout=60)
    return strategy


FOREIGN = (
    "sign", "qsgd:7", "randk:k=2", "natural", "powersgd:1", "countsketch:columns=5", "sign+rans",
    "topk:k=2+qsgd:7", "hadamard+topk:k=2", "scaled(randk:k=2)", "induced(topk:k=1; topk:k=1)",
    "topk:k=2+rans", "topk:k=9+topk:k=2", "hadamard",
)  # fmt: skip


@pytest.mark.parametrize("spec", FOREIGN)
def test_another_codec_is_refused_by_name(spec, caplog):
    strategy = run("ef14", sends(spec), compressor="topk:k=2", lr=0.1)
    assert (strategy.exchange.refused, strategy.exchange.oversized) == (1, 0)
    (line,) = [line for line in caplog.messages if "refused" in line]
    assert line.startswith("round 3: refused client 1: frame: codec ")
    assert "is none of this run's (topk, identity)" in line


@pytest.mark.parametrize("spec", ["topk:k=1", "topk:k=40", "identity"])
def test_other_parameters_and_whole_updates_are_read(spec):
    assert not run("ef14", sends(spec), compressor="topk:k=2", lr=0.1).exchange.refused


@pytest.mark.parametrize(
    ("ours", "sent"),
    [
        ("topk:0.5+qsgd:7", ("topk:0.5+qsgd:7", "qsgd:1", "topk:k=1", "identity")),
        ("qsgd:7+rans", ("qsgd:7", "qsgd:7+rans")),
        ("scaled(randk:0.5)", ("randk:0.5",)),
    ],
)
def test_parts_of_the_run_s_compressor_are_read(ours, sent):
    for spec in sent:
        assert not run("dsgd", sends(spec), compressor=ours, lr=0.1).exchange.refused


@pytest.mark.parametrize("times", [1, 2, 3])
def test_no_more_packets_in_one_than_the_run_s_compressor_makes(times, caplog):
    def change(reply):
        packet = make_compressor("identity").compress(np.ones(DIM))
        for _ in range(times):
            factor = struct.pack("<d", 1.0)
            packet = Packet.build(Scaled.codec, packet.dtype, DIM, [factor, packet.data])
        own = {name: getattr(reply, name) for name in Reply.__dataclass_fields__}
        return Reply(**{**own, "packets": [packet.data]}).encode()

    strategy = run("dsgd", change, compressor="scaled(randk:0.5)", lr=0.1)
    assert strategy.exchange.refused == (times > 1)
    assert ("made of more packets than are read here" in caplog.text) == (times > 1)


def test_a_client_s_own_choice_is_what_it_said(caplog):
    configs = {1: {"compressor": "sign"}}
    fine = run("ef14", configs=configs, compressor="topk:k=2", lr=0.1)
    assert not fine.exchange.refused
    assert fine.population.clients[1].compressor == "sign"
    foreign = run("ef14", sends("qsgd:7"), configs=configs, compressor="topk:k=2", lr=0.1)
    assert foreign.exchange.refused == 1
    assert "codec 5 (qsgd) is none of this run's (topk, sign, identity)" in caplog.text
    another = {2: {"compressor": "sign"}}  # is not client 1's
    strategy = run("ef14", sends("sign"), configs=another, compressor="topk:k=2", lr=0.1)
    assert strategy.exchange.refused == 1


def test_where_none_may_choose_the_choice_is_named(caplog):
    options = {"compressor": "topk:k=2", "lr": 0.1, "client_compressors": False}
    strategy = run("ef14", configs={1: {"compressor": "sign"}}, **options)
    assert not strategy.exchange.refused
    assert "client 1 has chosen compressor 'sign', this run lets none choose" in caplog.text


def test_a_choice_that_is_no_compressor_is_refused_at_the_start(caplog):
    with pytest.raises(RuntimeError, match=r"1 of 3 clients cannot .* node config: unknown compr"):
        run("ef14", configs={1: {"compressor": "zip"}}, compressor="topk:k=2", lr=0.1)


def test_in_the_first_round_too(caplog):
    """Answers are glanced at to learn what is usual, before anything was accepted."""
    assert run("ef14", sends("sign"), (1,), compressor="topk:k=2", lr=0.1).exchange.refused == 1
    assert "codec 4 (sign) is none of this run's" in caplog.text


def test_gossip_sends_several_packets_in_one():
    options = {"compressor": "topk:k=2", "lr": 0.01, "catch_up": 3}
    several = "induced(topk:k=2; induced(topk:k=2; topk:k=2))"
    assert not run("choco-sgd", sends(several), **options).exchange.refused
    assert run("choco-sgd", sends("sign"), **options).exchange.refused == 1


@pytest.mark.parametrize(("spec", "refused"), [("identity", 0), ("topk:k=2", 1), ("sign", 1)])
def test_exact_values_come_whole(spec, refused, caplog):
    """Of two exchanges a round, the second brings numbers as they are."""

    def change(reply):
        dim = Packet(reply.packets[0]).dim
        packet = make_compressor(spec).compress(np.ones(dim)).data
        own = {name: getattr(reply, name) for name in Reply.__dataclass_fields__}
        return Reply(**{**own, "packets": [packet]}).encode()

    options = {"compressor": "countsketch:columns=20", "k": 2, "lr": 0.1}
    assert run("sketched-sgd", change, (2,), **options).exchange.refused == refused


def test_buffers_come_whole():
    strategy = make_strategy("ef14", compressor="topk:k=2")
    sent = Sent(strategy, strategy.population)
    assert sent.allowed(None, Ask([], what="values")).names == "identity"


def test_the_choice_travels_in_the_hello():
    layout = Layout.of(task(0, 1).initial_arrays())
    hello = Hello(1, 2, layout, compressor="topk:0.1+qsgd:7")
    assert Hello.decode(hello.encode()) == hello
    assert b"compressor" not in bytes(Hello(1, 2, layout).encode()["arrays"]["message"].data)
