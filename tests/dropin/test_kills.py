"""A pressed app on the link, its clients and its server killed by SIGKILL: it goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.dropin import kills_app
from tests.dropin.apps import distance
from tests.transport.processes import Processes

KILLS = ["client-0", "server", "client-1", "server", "client-2", "client-0", "server"]


class Run(Processes):
    """A run, and what its server has told."""

    def __init__(self, folder: Path, **config: str) -> None:
        given = {"folder": str(folder), "checkpoint": "pressed", **config}
        text = " ".join(f"{key}={json.dumps(value)}" for key, value in given.items())
        super().__init__(folder, Path(kills_app.__file__), kills_app.N, text)

    def told(self) -> list[dict[str, int]]:
        file = self.folder / "told.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for_round(self, number: int) -> None:
        self.wait_for(lambda: any(row["round"] >= number for row in self.told()))


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "downlink"), [("ef14", ""), ("ef21", ""), ("ef14", "topk:0.3")])
def test_kills_of_a_pressed_app(tmp_path: Path, memory: str, downlink: str) -> None:
    """Nobody starts over: what clients owe stays owed, and ef21's sums stay on both sides."""
    run = Run(tmp_path, memory=memory, downlink=downlink)
    rng = np.random.default_rng(0)
    try:
        for number, name in enumerate(KILLS, start=1):
            run.wait_for_round(6 * number)
            time.sleep(float(rng.uniform(0, 0.1)))
            run.kill(name)
            run.start(name)
        run.finish()
    finally:
        run.end()
    rows = run.told()
    assert rows[-1]["round"] == kills_app.ROUNDS
    assert [row["round"] for row in rows] == sorted({row["round"] for row in rows})
    # A replica that was lost with a kill is said so by one answer; else nothing is refused.
    assert max(row["refused"] for row in rows) <= len(KILLS)
    with np.load(tmp_path / "model.npz") as found:
        model = {key: found[key] for key in ("w", "b")}
    assert distance(model, kills_app.N) < 0.15
