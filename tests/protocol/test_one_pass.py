"""Each answer is checked, decoded, measured and added once; what a glance has measured stays so."""

from collections import Counter

import numpy as np
import pytest

from benchmarks import server_pass
from benchmarks.server_pass import Server
from flowerpress.compressors import Draw, Opened, Packet, PacketError, make_compressor, norm
from flowerpress.compressors.testing.hostile import resealed
from flowerpress.compressors.wire import packet as packet_module
from flowerpress.compressors.wire import reading
from flowerpress.compressors.wire.packet import HEADER_BYTES
from flowerpress.protocol import Reply
from flowerpress.server import guard as guard_module
from flowerpress.server.ask import Ask
from flowerpress.server.client import Client
from flowerpress.server.guard import UPDATES, Guard
from flowerpress.server.population import Population
from flowerpress.server.update import Update

DIM, ANSWERS = 3000, 5
SPECS = ("topk:0.1", "sign", "qsgd:7", "topk:0.1+sign", "uniform:4", "natural", "fp16", "eden:2")


@pytest.fixture
def counts(monkeypatch):
    """How often frames were checked, payloads decoded, and norms found."""
    found = Counter()

    def counted(module, name, as_):
        own = getattr(module, name)

        def count(*given, **named):
            found[as_] += 1
            return own(*given, **named)

        monkeypatch.setattr(module, name, count)

    counted(packet_module, "_parse_header", "checks")
    counted(reading, "decode", "decodes")
    counted(guard_module, "norm", "norms")
    return found


@pytest.mark.parametrize("spec", ["topk:0.1", "sign", "qsgd:7", "eden:2", "identity"])
def test_an_answer_is_opened_and_measured_once(spec, counts):
    server = Server(spec, DIM, ANSWERS)
    counts.clear()
    server.take()  # the first round: all are looked at, measured, and opened again to be added
    assert counts == {"checks": 2 * ANSWERS, "decodes": 2 * ANSWERS, "norms": ANSWERS}
    counts.clear()
    server.take()
    assert counts == {"checks": ANSWERS, "decodes": ANSWERS, "norms": ANSWERS}


def test_a_packet_inside_another_is_opened_once(counts):
    server = Server("topk:0.1+qsgd:7+rans", DIM, ANSWERS)
    server.take()
    counts.clear()
    server.take()
    # Three frames in one another; what is entropy-coded has no frame of its own to check.
    assert counts == {"checks": 2 * ANSWERS, "decodes": 3 * ANSWERS, "norms": ANSWERS}


@pytest.mark.parametrize("spec", SPECS)
def test_an_update_that_overflows_changes_nothing(spec):
    x = (1e30 * np.linspace(-1, 1, DIM)).astype(np.float32)
    opened = Opened(make_compressor(spec).compress(x, Draw(seed=1)))
    out = np.arange(DIM, dtype=np.float32)
    with pytest.raises(PacketError, match="overflow"):
        Update(Client(0, 2, 1), 1e12, 1.0, [opened]).add_to(out)
    np.testing.assert_array_equal(out, np.arange(DIM))


def guard():
    clients = {i: Client(i, i, 1) for i in range(3)}
    return Guard(Population(clients=clients), 1000.0)


def answer(client, size):
    x = np.array([size], np.float32)
    return Reply(client, 1, packets=[bytes(make_compressor("identity").compress(x).data)])


def opened(reply):
    return [Opened(Packet.parse(each)) for each in reply.packets]


def test_what_was_looked_at_is_not_measured_again(counts):
    judge, replies = guard(), [answer(i, i + 1.0) for i in range(3)]
    judge.begin(Ask([]), replies)
    assert counts["norms"] == 3
    assert [judge.sizes(reply, opened(reply))[UPDATES] for reply in replies] == [1.0, 2.0, 3.0]
    assert counts["norms"] == 3


def test_another_answer_of_the_same_client_is(counts):
    """What was looked at is known by its checksum, and for one question only."""
    judge, replies = guard(), [answer(i, 1.0) for i in range(3)]
    judge.begin(Ask([]), replies)
    other = answer(0, 7.0)
    assert judge.sizes(other, opened(other))[UPDATES] == 7.0
    assert counts["norms"] == 4
    judge.begin(Ask([]), replies)
    assert counts["norms"] == 7


def test_who_was_looked_at_and_then_refused_is_remembered():
    """Its norm was one of those that the reference is of, though its places are wrong."""
    server = Server("topk:0.1", DIM, ANSWERS)
    bad = bytearray(server.packets[1])
    bad[HEADER_BYTES + 4] = 7  # of the places' code
    server.packets[1] = resealed(bytes(bad))
    with pytest.raises(RuntimeError, match="4 of 5 answers went in"):
        server.take()
    clients = server.strategy.run.population.clients
    good = [client.first[UPDATES] for client in clients.values()]
    assert all(len(norms) == 1 for norms in good)
    assert good[1] == [pytest.approx(norm(server.packets[1], glance=True))]
    assert not clients[1].usual[UPDATES]  # which is of what went in


def test_bytes_that_nobody_has_checked_are_checked(counts):
    judge, replies = guard(), [answer(i, 1.0) for i in range(3)]
    judge.begin(Ask([]), replies)
    (good,) = replies[0].packets
    bad = Reply(0, 1, packets=[good[:-1] + bytes([good[-1] ^ 1])])  # with the head that was glanced
    with pytest.raises(PacketError, match="CRC-32"):
        judge.sizes(bad)
    with pytest.raises(PacketError, match="CRC-32"):
        judge.sizes(bad, opened(bad))


def test_the_benchmark_at_a_tiny_size(capsys):
    words = ["--dim", "5000", "--answers", "3", "--rounds", "1", "--only", "qsgd:7", "natural"]
    assert server_pass.main(words) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "`" in line]
    assert [row[0].strip() for row in rows] == ["`qsgd:7`", "`natural`"]
    assert [row[-1].strip() for row in rows] == ["met", "-"]
    assert all(float(figure) > 0 for row in rows for figure in row[1:4])


def test_the_benchmark_says_which_bar_is_missed(capsys, monkeypatch):
    fine = {"first": 1.2, "later": 1.0, "memory": 1e6}

    def rows(**changes):
        monkeypatch.setattr(server_pass, "apart", lambda *_: {**fine, **changes})
        return server_pass.main(["--only", "qsgd:7"])

    assert rows() == 0
    assert rows(first=1.4) == rows(later=1.7) == rows(memory=1e8) == 1
    assert capsys.readouterr().out.count("missed") == 3


def test_the_benchmark_compares_with_a_commit(capsys, monkeypatch, tmp_path):
    called = []

    def run(command, check):
        called.append(command[3:5])
        assert check

    def apart(spec, given, root):
        called.append(root == server_pass.ROOT)
        return {"first": 2.0, "later": 1.0 if called[-1] else 3.0, "memory": 1.0}

    monkeypatch.setattr(server_pass.subprocess, "run", run)
    monkeypatch.setattr(server_pass, "apart", apart)
    server_pass.main(["--quick", "--only", "sign", "--against", "HEAD~1"])
    assert called == [["worktree", "add"], False, True, False, True, ["worktree", "remove"]]
    assert "| 3 | 2 | 0 | 3.00 |" in capsys.readouterr().out
