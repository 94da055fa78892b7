"""Short heads: what comes back, bytes that are none, and sides that do not know them."""

from __future__ import annotations

import io
import json
import time
import zlib
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.clients import FunctionTask, client_app
from flowerpress.simulations import simulate
from flowerpress.strategies import make_strategy
from flowerpress.transport import client, hub, peer
from flowerpress.transport.codec import CodecError, decode
from flowerpress.transport.heads import (
    PREFIX,
    SHORT,
    WORDS,
    HeadError,
    inflate,
    names_short_heads,
    shorten,
)

from .linked import connected
from .test_peer import Asked, Wire, begin, new_peer

GOLDEN = b'{"type":"train","group":"1","ttl":3600,"records":[],"sizes":[]}'
GOLDEN_SHORT = "c369b921cc76505022db8ca439b61600"
D = 300


def deflated(data: bytes) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, WORDS)
    return made.compress(data) + made.flush()


def message(head: bytes) -> bytes:
    return PREFIX.pack(len(head) | SHORT) + head


# --- the format -----------------------------------------------------------------------------------


def test_the_words_are_those_of_the_first_release() -> None:
    """Other words are another capability: a side that has these would read nonsense."""
    assert (len(WORDS), zlib.crc32(WORDS)) == (735, 652149167)
    assert inflate(bytes.fromhex(GOLDEN_SHORT), 100) == GOLDEN


PRESSED = (
    b'{"type":"train","group":"","ttl":43196.81022787094,"records":[["arrays","arrays",'
    b'[["features.1.running_mean","float32",[32],"numpy.ndarray"],["features.1.running_var",'
    b'"float32",[32],"numpy.ndarray"],["features.1.num_batches_tracked","int64",[],"numpy.ndarray"'
    b']]],["metrics","metrics",[["train_loss",1.1112492279905193],["num-examples",848],["momenta",'
    b'10],["seconds",2.2761719569998604]]],["flowerpress","arrays",[["message","uint8",[2834],'
    b'"flowerpress.v1"]]]],"sizes":[256,256,136,2834]}'
)
OWN = (
    b'{"type":"train","group":"","ttl":43199.9933218956,"records":[["arrays","arrays",[["message",'
    b'"uint8",[207],"flowerpress.v1"]]],["metrics","metrics",[["loss",2.2560858726501465],'
    b'["num-examples",480]]]],"sizes":[207]}'
)


@pytest.mark.parametrize(("head", "before", "after"), [(PRESSED, 487, 133), (OWN, 214, 63)])
def test_heads_of_updates(head: bytes, before: int, after: int) -> None:
    """A tenth is room for another zlib, whose choices may differ."""
    (short,) = shorten([PREFIX.pack(len(head)) + head])
    assert len(head) == before
    assert len(short) - PREFIX.size <= 1.1 * after


@given(st.binary(max_size=300), st.integers(0, 4), st.lists(st.binary(max_size=9), max_size=2))
def test_any_head_comes_back(text: bytes, times: int, rest: list[bytes]) -> None:
    head = GOLDEN[:40] * times + text
    first, *others = shorten([PREFIX.pack(len(head)) + head, *rest])
    (length,) = PREFIX.unpack(first[:4])
    assert others == rest
    assert length & ~SHORT == len(first) - 4 <= len(head)
    assert (inflate(bytes(first[4:]), 10**6) if length & SHORT else first[4:]) == head


def test_a_head_that_would_be_refused_is_sent_as_it_is() -> None:
    """Thousands of equal entries deflate further than a reader believes."""
    for entries in ([0] * 10_000, list(range(20_000))):  # too much for its bytes; for any
        head = json.dumps({**json.loads(GOLDEN), "sizes": entries}).encode()
        assert shorten([PREFIX.pack(len(head)) + head]) == [PREFIX.pack(len(head)) + head]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\xff" * 20,
        deflated(GOLDEN)[:-2],
        deflated(GOLDEN) + b"more",
        deflated(b"[" * 4000),
        deflated(b'{"sizes":[]'),
        deflated(b'{"sizes":[5]}'),
        zlib.compress(GOLDEN),
    ],
)
def test_what_is_no_short_head_is_refused(bad: bytes) -> None:
    with pytest.raises(CodecError):
        decode(io.BytesIO(message(bad)), 4 + len(bad))


def test_a_bomb_costs_what_it_may() -> None:
    """A head of 1 GB in 1 MB, and one of 64 MB in 64 kB: 64 KiB are read of each."""
    for nbytes in (2**26, 2**30):
        made = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = b"".join(made.compress(b" " * 2**20) for _ in range(nbytes >> 20)) + made.flush()
        begun = time.process_time()
        with pytest.raises(HeadError, match="more than"):
            inflate(bomb, 2**24)
        assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ('["resume","short-heads"]', True),
        ('["resume"]', False),
        ("", False),
        ("[", False),
        ('{"short-heads":1}', False),
        ('"short-heads"', False),
        ("[" * 5000, False),
        ("[[]]", False),
        ("[" + "1," * 10**5 + '"short-heads"]', False),
    ],
)
def test_capabilities_are_a_list(said: str, known: bool) -> None:
    assert names_short_heads(said) == known


# --- sides of other releases ----------------------------------------------------------------------

JOIN = import_module("flowerpress.transport.join")  # `transport.join` is its function
OLD, NEW = {"capabilities": '["resume"]'}, {"capabilities": '["resume","short-heads"]'}
ENCODED = PREFIX.pack(len(GOLDEN)) + GOLDEN


def question(wire: Wire) -> Any:
    (frame,) = (each for each in wire.out() if hasattr(each, "offset"))
    return frame


@pytest.mark.parametrize(("about", "data"), [(OLD, ENCODED), ({}, ENCODED), (NEW, None)])
def test_a_client_gets_what_it_reads(about: dict[str, str], data: bytes | None) -> None:
    asked = new_peer()
    wire = Wire(asked, **about)
    Asked(asked, text=ENCODED)
    assert bytes(question(wire).data) == (data or shorten([ENCODED])[0])


@pytest.mark.parametrize(("first", "second"), [(OLD, NEW), (NEW, OLD)])
def test_another_release_begins_anew(first: dict[str, str], second: dict[str, str]) -> None:
    """A part of a question that was sent to one is of no use to the other."""
    other = new_peer()
    wire = Wire(other, **first)
    asked = Asked(other, text=ENCODED)
    assert question(wire).offset == 0
    wire.say(begin(1, b"a pa", size=8))
    again = Wire(other, epoch="now", partial=1, partial_bytes=5, **second)
    frame = question(again)
    assert frame.offset == 0
    assert bytes(frame.data) == (ENCODED if second is OLD else shorten([ENCODED])[0])
    again.say(begin(1, b"all"))
    assert asked.got == [b"all"]


def task_fn(i: int, n: int) -> FunctionTask:
    return FunctionTask(np.zeros(D), lambda x, batch: (0.0, x - i))


@pytest.mark.parametrize(("side", "short"), [(client, JOIN), (hub, peer), (None, None)])
def test_a_side_that_knows_no_short_heads(
    side: Any, short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As releases before: it is sent the JSON, and may send what it likes."""
    used: set[Any] = set()

    def noted(module: Any) -> Any:
        def noting(buffers: Any) -> Any:
            used.add(module)
            return shorten(buffers)

        return noting

    for module in (JOIN, peer):
        monkeypatch.setattr(module, "shorten", noted(module))
    if side is not None:
        monkeypatch.setattr(side, "SHORT_HEADS", "other")
    options: dict[str, Any] = {"compressor": "topk:0.1", "lr": 0.05, "min_available_nodes": 2}
    expected = simulate(make_strategy("ef21", **options), task_fn, 2, 3)
    over = make_strategy("ef21", **options)
    initial = ArrayRecord({"x": Array(np.zeros(D))})
    with connected(client_app(task_fn), 2) as (_, grid, _):
        result = over.start(grid, initial, num_rounds=3, timeout=30)
        up, down = (sum(each[way] for each in grid.exchanges) for way in ("up_bytes", "down_bytes"))
    assert (result.arrays["x"].numpy() == expected.arrays["x"].numpy()).all()
    assert used == ({JOIN, peer} if short is None else {short})
    # Frames beside the ledger's contents, for models of 2.4 kB and answers of .4.
    assert (0.9 < up / over.ledger.up_bytes < 1.02) == (short is not peer)
    assert (0.9 < down / over.ledger.down_bytes < 1.02) == (short is not JOIN)
