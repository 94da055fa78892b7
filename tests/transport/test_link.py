"""Server and clients over real connections: what they say is what they say in one process."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.transport import Limits
from flowerpress.transport.client import Farewell

from .linked import QUICK, ask_all, connected, echo_app, start_client, start_server
from .proxy import Proxy

D = 300


def task_fn(i: int, n: int) -> FunctionTask:
    return FunctionTask(
        np.zeros(D),
        lambda x, batch: (float(x @ x), x - i - np.linspace(0, i, D)),
        num_examples=i + 1,
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "ef21-sgdm": {"compressor": "topk:0.1", "downlink": "topk:0.2"},
    "marina": {"compressor": "randk:0.2", "p": 0.3},
    "efficient-adam": {},
    "sketched-sgd": {"k": 30, "columns": 64},
    "squarm-sgd": {"compressor": "signtopk:0.1"},
}


def strategy(name: str, **more: Any) -> Any:
    return make_strategy(name, lr=0.05, **{"min_available_nodes": 3, **OPTIONS[name], **more})


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_run_over_the_link_has_the_bytes_of_a_run_in_process(name: str) -> None:
    expected = simulate(strategy(name), task_fn, 3, 6)
    over = strategy(name)
    initial = ArrayRecord({"x": Array(np.zeros(D))})
    with connected(client_app(task_fn), 3) as (_, grid, _):
        result = over.start(grid, initial, num_rounds=6, timeout=30)
    assert (result.arrays["x"].numpy() == expected.arrays["x"].numpy()).all()
    assert over.ledger.rows == expected.ledger.rows


@pytest.mark.parametrize(
    ("compressor", "numbers"),
    [("topk:0.1", D), ("identity", D), ("induced(identity; identity)", 2 * D)],
)
def test_a_strategy_says_how_long_answers_may_be(compressor: str, numbers: int) -> None:
    """Twice an update of float64, and 2 MiB: not the 4 GiB of a run that nothing is known of."""
    over = make_strategy("dsgd", compressor=compressor, min_available_nodes=2)
    initial = ArrayRecord({"x": Array(np.zeros(D))})
    limits = Limits(heartbeat=1.0, grace=3.0)
    with connected(client_app(task_fn), 2, limits=limits) as (service, grid, _):
        peers = service.hub.peers
        assert {peer.largest for peer in peers.values()} == {2**32}
        over.start(grid, initial, num_rounds=2, timeout=30)
        (largest,) = {peer.largest for peer in peers.values()}
        assert 2 * 8 * numbers + 2**21 <= largest <= 2 * 8 * numbers + 2**21 + 1000


def test_connections_may_break_at_any_byte() -> None:
    """A proxy cuts every connection after some bytes: not a bit of the run changes."""
    expected = simulate(strategy("ef21-sgdm"), task_fn, 3, 40)
    over = strategy("ef21-sgdm")
    cuts = [int(n) for n in np.random.default_rng(0).integers(400, 6000, size=60)]

    def main(grid: Grid, context: Context) -> Any:
        initial = ArrayRecord({"x": Array(np.zeros(D))})
        return over.start(grid, initial, num_rounds=40, timeout=30)

    service, report = start_server(main, 3)
    with Proxy(service.port, cuts) as proxy:
        clients = [start_client(proxy.port, client_app(task_fn), i) for i in range(3)]
        counts = report.result(60)["clients"]
        for _, farewell in clients:
            assert farewell.result(30).done
        assert proxy.cut > 20
    assert over.ledger.rows == expected.ledger.rows
    final = over.model.arrays()["x"].numpy()
    assert (final == expected.arrays["x"].numpy()).all()
    assert sum(c["logins"] for c in counts.values()) > 20
    assert sum(c["malformed"] for c in counts.values()) == 0


def large(nbytes: int) -> RecordDict:
    arrays = ArrayRecord({"x": Array(np.random.default_rng(0).integers(0, 256, nbytes, np.uint8))})
    return RecordDict({"a": arrays})


@pytest.mark.parametrize("nbytes", [0, 1, 2**16, 2**20, 2**20 + 1, 20 * 2**20])
def test_messages_of_any_size(nbytes: int) -> None:
    content = large(nbytes)
    with connected(echo_app(), 2) as (_, grid, _):
        sent = [Message(content, node, "train") for node in (3, 2)]
        replies = list(grid.send_and_receive(sent, timeout=30))
    assert [reply.metadata.src_node_id for reply in replies] == [3, 2]  # in the messages' order
    for reply in replies:
        assert reply.content["a"]["x"].data == content["a"]["x"].data


def test_a_large_message_goes_on_where_it_was_cut() -> None:
    nbytes = 12 * 2**20
    content = large(nbytes)
    service, report = start_server(
        lambda grid, context: received.extend(
            grid.send_and_receive([Message(content, 2, "train")], timeout=60)
        ),
        1,
    )
    received: list[Message] = []
    with Proxy(service.port, [5 * 2**20, 15 * 2**20, 3 * 2**20]) as proxy:
        _, farewell = start_client(proxy.port, echo_app(), 0)
        report.result(60)
        assert farewell.result(30).done
        assert proxy.cut == 3
        # Sent again is at most what was under way when a connection was cut.
        assert proxy.up + proxy.down < 2 * nbytes + 3 * 6 * 2**20
    assert received[0].content["a"]["x"].data == content["a"]["x"].data


@pytest.mark.slow
def test_a_slow_network_is_not_taken_for_a_dead_one() -> None:
    """A frame of the longest kind would take 0.8 s here, and 0.6 s of silence end a connection."""
    content = large(3 * 2**20)
    received: list[Message] = []
    service, report = start_server(
        lambda grid, context: received.extend(
            grid.send_and_receive([Message(content, 2, "train")], timeout=60)
        ),
        1,
        limits=Limits(heartbeat=0.2, grace=10),
    )
    with Proxy(service.port, delay=0.05) as proxy:  # for 64 kB
        client, farewell = start_client(proxy.port, echo_app(), 0)
        report.result(90)
        assert farewell.result(30).done
    assert received[0].content["a"]["x"].data == content["a"]["x"].data
    assert client.logins < 10  # some, while the frames are getting shorter


def sleepy(seconds: dict[int, list[float]]) -> ClientApp:
    """Return a ClientApp that sleeps so long before its first, second, ... answer."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        own = seconds.get(int(context.node_config["partition-id"]), [])
        time.sleep(own.pop(0) if own else 0)
        return Message(message.content, reply_to=message)

    return app


def test_a_straggler_is_absent_and_its_late_answer_is_dropped() -> None:
    with connected(sleepy({1: [1.0]}), 2) as (service, grid, _):
        assert set(ask_all(grid, (2, 3), 0.4)) == {2}
        assert set(ask_all(grid, (2, 3), 10)) == {2, 3}
        assert grid.exchanges[0]["late"] == 1
    assert service.hub.peers[1].counters.malformed == 0


def test_an_app_that_raises_is_an_error() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise KeyError("no such thing")

    with connected(app, 1) as (_, grid, _):
        reply = ask_all(grid, (2,), 10)[2]
        assert reply.has_error()
        assert "no such thing" in str(reply.error.reason)
        assert ask_all(grid, (17,), 10)[17].has_error()  # a node that never was


def test_an_answer_that_cannot_be_read_is_an_error() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        deep: Any = 1.0
        for _ in range(600):
            deep = [deep]
        record = MetricRecord()
        dict.__setitem__(record.__dict__["_data"], "deep", deep)
        return Message(RecordDict({"m": record}), reply_to=message)

    with connected(app, 1) as (_, grid, _):
        reply = ask_all(grid, (2,), 10)[2]
        assert reply.has_error()


def test_an_app_that_exits_is_an_error() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise SystemExit(3)

    with connected(app, 1) as (_, grid, _):
        assert "SystemExit" in str(ask_all(grid, (2,), 10)[2].error.reason)


def test_a_full_disk_costs_an_answer_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    content = large(12 * 2**20)

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    with connected(echo_app(), 1) as (_, grid, _):
        with monkeypatch.context() as patched:
            patched.setattr("flowerpress.transport.pipes.TemporaryFile", Full)
            (reply,) = grid.send_and_receive([Message(content, 2, "train")], timeout=20)
            assert "cannot keep client 0's answer" in str(reply.error.reason)
        (reply,) = grid.send_and_receive([Message(content, 2, "train")], timeout=20)
        assert not reply.has_error()


def test_a_large_answer_may_be_changed_as_any_other() -> None:
    """As Flower's differential privacy does; `release` undoes it, and frees the memory."""
    content = large(9 * 2**20)
    with connected(echo_app(), 1) as (_, grid, _):
        (reply,) = grid.send_and_receive([Message(content, 2, "train")], timeout=20)
    reply.content["a"] = ArrayRecord({"x": Array(np.zeros(3))})
    assert (reply.content["a"]["x"].numpy() == 0).all()
    reply.content = RecordDict()
    assert reply.content == RecordDict()
    reply.release()
    assert reply.content["a"]["x"].data == content["a"]["x"].data


def test_who_stays_away_is_given_up() -> None:
    limits = Limits(heartbeat=0.2, grace=0.5)
    with connected(sleepy({0: [0.0, 3.0]}), 1, limits=limits) as (service, grid, clients):
        ask_all(grid, (2,), 10)
        clients[0]._stream.hang_up()  # and it may not come back
        service.hub.peers[0].logins.take = lambda: False
        start = time.monotonic()
        reply = ask_all(grid, (2,), 30)[2]
        assert reply.has_error()
        assert "client 0 is away" in str(reply.error.reason)
        assert time.monotonic() - start < 5
        assert list(grid.get_node_ids()) == []
        del service.hub.peers[0].logins.take
        end = time.monotonic() + 10
        while not list(grid.get_node_ids()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not ask_all(grid, (2,), 30)[2].has_error()


def test_silence_ends_a_connection() -> None:
    """The network swallows everything without a word: both sides notice, and connect anew."""
    got: list[dict[int, Message]] = []

    def main(grid: Grid, context: Context) -> None:
        ask_all(grid, (2,), 10)
        proxy.swallow()
        got.append(ask_all(grid, (2,), 30))

    service, report = start_server(main, 1, limits=Limits(heartbeat=0.2, grace=10))
    with Proxy(service.port) as proxy:
        client, farewell = start_client(proxy.port, echo_app(), 0)
        report.result(30)
        assert farewell.result(30).done
        assert client.logins >= 2
    assert not got[0][2].has_error()


def test_a_server_that_was_killed_is_found_again() -> None:
    """The next server knows nothing of the client; the client does not mix them up."""
    over = threading.Event()
    first, ended = start_server(lambda grid, context: over.wait(60), 1)
    port = first.port
    client, farewell = start_client(port, echo_app(), 0)
    end = time.monotonic() + 10
    while not client.logins and time.monotonic() < end:
        time.sleep(0.02)
    first._server.close(0)  # without a goodbye
    got: list[Any] = []
    from flwr.serverapp import ServerApp

    from flowerpress.transport import Service

    second = Service(f"127.0.0.1:{port}", None, 1, limits=QUICK)
    app = ServerApp()
    app.main()(lambda grid, context: got.append(ask_all(grid, (2,), 20)))
    second.run(app)
    assert farewell.result(20) == Farewell(True, "")
    assert client.logins == 2
    assert not got[0][2].has_error()
    over.set()
    ended.result(30)


def test_a_run_that_fails_says_so_to_the_clients() -> None:
    def main(grid: Grid, context: Context) -> None:
        raise ValueError("no such strategy")

    service, report = start_server(main, 1)
    _, farewell = start_client(service.port, echo_app(), 0)
    with pytest.raises(ValueError, match="no such strategy"):
        report.result(30)
    assert farewell.result(30) == Farewell(False, "ValueError: no such strategy")


def test_a_client_without_a_server_gives_up() -> None:
    from flowerpress.transport.join import make_client

    client = make_client(echo_app(), "127.0.0.1:1", None, 0, patience=0.5)
    done, reason = client.run()
    assert not done
    assert "127.0.0.1:1 was not reached" in reason
