"""The PyTorch example app, dense and pressed: accuracy, and bytes as they were sent.

    python benchmarks/dropin.py                     # 10 clients, Dirichlet(0.5), 30 rounds, 3 seeds
    python benchmarks/dropin.py --seeds 1 --rounds 10

Dense is the app in `examples/apps/torch` untouched; pressed is the same with `pressed.diff`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

APP = Path(__file__).resolve().parents[1] / "examples" / "apps" / "torch"
WAYS: dict[str, dict[str, str]] = {
    "dense": {},
    "topk:0.01, ef14": {"flowerpress.compressor": "topk:0.01"},
    "topk:0.01, ef21": {"flowerpress.compressor": "topk:0.01", "flowerpress.memory": "ef21"},
    "topk:0.01, ef14, downlink topk:0.05": {
        "flowerpress.compressor": "topk:0.01",
        "flowerpress.downlink": "topk:0.05",
    },
}
_RUN = """
import json, sys, tomllib
from pathlib import Path
from flwr.app import Context, RecordDict
from flwr.common.config import flatten_dict
from flowerpress.protocol import content_bytes
from flowerpress.simulations.engine import InProcessGrid

sys.path.insert(0, ".")
from torch_app.client import app as client
from torch_app.server import app as server

class Weighing(InProcessGrid):
    up = down = 0
    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        self.down += sum(content_bytes(m.content) for m in messages)
        replies = list(super().send_and_receive(messages, timeout=timeout))
        self.up += sum(content_bytes(m.content) for m in replies if m.has_content())
        return replies

app = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["flwr"]["app"]
config = flatten_dict(app["config"])
config |= json.loads(sys.argv[1])
with Weighing(lambda: client, int(config["min-nodes"]), run_config=config, threads=2) as grid:
    server(grid, Context(grid.run_id, 1, {}, RecordDict(), config))
    Path("bytes.json").write_text(json.dumps([grid.up, grid.down]))
"""


def run(way: str, seed: int, rounds: int) -> tuple[float, int, int]:
    """Return the accuracy in %, and the bytes up and down, of one run."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "app"
        copytree(APP, folder)
        if way != "dense":
            subprocess.run(["git", "apply", "pressed.diff"], cwd=folder, check=True)
        config: dict[str, Any] = {"seed": seed, "num-server-rounds": rounds, "out": "out.json"}
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", _RUN, json.dumps({**config, **WAYS[way]})]
        subprocess.run(command, cwd=folder, env=env, check=True, stderr=subprocess.DEVNULL)
        found = json.loads((folder / "out.json").read_text("utf-8"))
        up, down = json.loads((folder / "bytes.json").read_text("utf-8"))
    return 100 * found["accuracy"][-1], up, down


def main() -> int:
    """Print a table of all ways."""
    parser = argparse.ArgumentParser(description="Measure the PyTorch example, dense and pressed.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dense: list[tuple[float, int, int]] = []
    print("| | accuracy, % | by seed | up, bytes | times fewer | down, bytes | times fewer |")
    print("|---|---|---|---|---|---|---|")
    for way in WAYS:
        runs = [run(way, seed, options.rounds) for seed in range(options.seeds)]
        dense = dense or runs
        accuracy, up, down = (np.mean([each[i] for each in runs]) for i in range(3))
        seeds = " ".join(f"{each[0]:.1f}" for each in runs)
        ratios = [np.mean([each[i] for each in dense]) / mean for i, mean in ((1, up), (2, down))]
        cells = (f"{accuracy:.1f}", seeds, f"{up:,.0f}", f"{ratios[0]:.1f}")
        print(
            "|", way, "|", " | ".join((*cells, f"{down:,.0f}", f"{ratios[1]:.1f}")), "|", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
