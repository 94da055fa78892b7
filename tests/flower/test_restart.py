"""A SuperNode that dies in the middle of a run comes back, and goes on from what is on its disk."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from flowerpress.simulations.loopback import COMPLETED, Loopback, RunReport

pytestmark = [pytest.mark.flower, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
CLIENTS, ROUNDS, VICTIM = 3, 6, 1


@contextmanager
def running(flower: Loopback, config: dict[str, Any]) -> Iterator[Future[RunReport]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(flower.run, ROOT, config, limit=500)


def settled(state: Path) -> int:
    """Return how many of its packets the worker knows to be applied."""
    files = list(state.rglob("*.safetensors"))
    if not files:
        return 0
    with safe_open(files[0], framework="numpy") as file:
        numbers = file.metadata()["numbers"].partition(" ")[2]  # after the checksum
        return int(json.loads(numbers)["settled"])


def test_killed_supernode_goes_on_from_disk(tmp_path: Path) -> None:
    config: dict[str, Any] = {"compressor": "topk:0.05", "lr": 0.5, "num-server-rounds": ROUNDS}
    config |= {"min-train-nodes": CLIENTS, "min-available-nodes": CLIENTS}
    config |= {"round-timeout": 100, "out": str(tmp_path / "out")}
    nodes = [
        {"partition-id": i, "num-partitions": CLIENTS, "state-dir": str(tmp_path / f"state-{i}")}
        for i in range(CLIENTS)
    ]
    with Loopback(tmp_path) as flower:
        for i, node in enumerate(nodes):
            flower.start_node(f"client-{i}", node)
        with running(flower, config) as future:
            while settled(tmp_path / f"state-{VICTIM}") < 1:  # it has memory worth keeping
                assert not future.done(), flower.log("run")
                time.sleep(0.5)
            flower.kill_node(f"client-{VICTIM}")
            flower.start_node("client-back", nodes[VICTIM])
            report = future.result()
        assert report.status == COMPLETED, flower.log("run")
        log = flower.log("run")
    assert "start over" not in log
    assert "lost its state" not in log

    (rows_file,) = (tmp_path / "out").glob("*/ledger.json")
    rows = json.loads(rows_file.read_text("utf-8"))
    sent = {
        row["round"]: row["payload"]
        for row in rows
        if (row["client"], row["direction"], row["purpose"]) == (VICTIM, "up", "train")
    }
    # The first packet is dense, and no other: it came back with its memory, and to the last round.
    assert max(sent) == ROUNDS
    dense = sent.pop(1)
    assert all(size < dense / 5 for size in sent.values()), sent
