"""Seconds per round: the in-process engine against `flwr run .` (Ray), same task, same ten clients.

    python benchmarks/round_time.py

Softmax regression on digits (d = 650), EF21-SGDM with top-5 %. Each run's own record of its rounds
is read, so starting Ray is not counted; the first round, which loads data, is left out. Both runs
must end in the same model. Exits with 1 if the in-process engine takes more than a tenth of Ray's
time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from flowerpress.simulations import SimulationResult, simulate
from flowerpress.simulations.loopback import COMPLETED, Loopback
from flowerpress.simulations.tasks import make_task_fn
from flowerpress.strategies import make_strategy

APP = Path(__file__).resolve().parents[1]
CLIENTS = 10
COMPRESSOR = "topk:0.05"
TARGET = 0.1  # in-process over Ray, seconds per round


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    here, result = in_process(rounds)
    ray, model = in_ray(rounds)
    here += in_process(rounds)[0]  # before and after, in case the machine is busy for a while
    for name, array in result.arrays.items():
        if not np.array_equal(model[name], array.numpy()):
            print(f"the engines differ in {name}: the times are not comparable")
            return 1
    print(f"{platform.machine()}, Python {platform.python_version()}, flwr {version('flwr')}")
    print(f"d = 650, {CLIENTS} clients, {rounds} rounds; seconds per round, the first left out\n")
    print("| engine     |   median |     p90 |")
    print("|------------|---------:|--------:|")
    for name, times in (("in-process", here), ("Ray", ray)):
        p90 = statistics.quantiles(times, n=10)[-1]
        print(f"| {name:<10} | {statistics.median(times):8.4f} | {p90:7.4f} |")
    ratio = statistics.median(here) / statistics.median(ray)
    verdict = "met" if ratio <= TARGET else "MISSED"
    print(
        f"\nin-process takes 1/{1 / ratio:.0f} of Ray's time; target 1/{1 / TARGET:.0f}: {verdict}"
    )
    return 0 if ratio <= TARGET else 1


def in_process(rounds: int) -> tuple[list[float], SimulationResult]:
    task_fn = make_task_fn("digits", seed=0)
    strategy = make_strategy("ef21-sgdm", compressor=COMPRESSOR, lr=0.5)
    result = simulate(strategy, task_fn, CLIENTS, rounds, evaluate_fn=task_fn.evaluate_fn)
    return [record.seconds for record in result.history if record.round > 1], result


def in_ray(rounds: int) -> tuple[list[float], dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="flowerpress-") as name:
        out = Path(name) / "out"
        config: dict[str, Any] = {
            "num-server-rounds": rounds,
            "compressor": COMPRESSOR,
            "lr": 0.5,
            "out": str(out),
        }
        with Loopback(Path(name), simulation=True) as flower:
            report = flower.run(APP, config, federation_config={"num-supernodes": CLIENTS})
            if report.status != COMPLETED:
                raise SystemExit(f"the run in Ray is {report.status}:\n{flower.log('run')[-3000:]}")
        (folder,) = out.iterdir()
        history = json.loads((folder / "results.json").read_text("utf-8"))["runs"][0]["history"]
        return [r["seconds"] for r in history if r["round"] > 1], load_file(
            folder / "model.safetensors"
        )


if __name__ == "__main__":
    sys.exit(main())
