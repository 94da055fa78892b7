"""198 kills of clients and servers at random moments: the bytes are those of a calm run.

The seed is `FLOWERPRESS_CHAOS_SEED`, 0 if there is none; what it gives also depends on how fast the
machine is.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from flowerpress.simulations import simulate
from tests.algorithms.lives import N, Noisy

from . import kills_app
from .processes import Processes

APP = Path(kills_app.__file__)
STRATEGIES = ("ef14", "ef21", "marina", "onebit-adam", "sketched-sgd", "squarm-sgd")
KILLS = 33  # of each
SEED = int(os.environ.get("FLOWERPRESS_CHAOS_SEED", "0"))


class Chaos(Processes):
    """What is done to the processes of a run."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rng = np.random.default_rng([SEED, STRATEGIES.index(name)])
        config = f'strategy="{name}" result="{folder / "result.json"}"'
        super().__init__(folder, APP, N, config)

    def round(self) -> int:
        """Return the round of the newest checkpoint."""
        names = [path.name for path in (self.folder / "out" / "checkpoints").glob("round-*")]
        return max((int(re.sub(r"\D", "", name)) for name in names), default=-1)

    def wait_for_a_round(self) -> None:
        before = self.round()
        self.wait_for(lambda: self.round() > before)

    def log(self) -> str:
        return f"seed {SEED}, {super().log()}"

    def play(self) -> None:
        """Kill one after the other, each at a random moment of a round; some while others start."""
        while sum(self.kills.values()) < KILLS:
            if self.rng.random() < 0.8:
                self.wait_for_a_round()
                time.sleep(float(self.rng.uniform(0.0, 0.3)))
            name = str(self.rng.choice(self.names, p=[0.3, *[0.7 / N] * N]))
            self.kill(name)
            self.start(name)
        assert self.round() < kills_app.ROUNDS, self.log()  # they all fell into the run


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_kills_change_nothing(name: str, tmp_path: Path) -> None:
    calm = simulate(
        kills_app.new_strategy(name), lambda i, n: Noisy(i), N, kills_app.ROUNDS, timeout=300
    )
    chaos = Chaos(tmp_path, name)
    try:
        chaos.play()
        chaos.finish()
    finally:
        chaos.end()
    print(f"seed {SEED}: {chaos.kills}")
    assert min(chaos.kills.values()) > 2, chaos.kills
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert bytes.fromhex(told["model"]) == kills_app.bytes_of(calm.arrays), chaos.log()
    assert told["rows"] == [asdict(row) for row in calm.ledger.rows]
