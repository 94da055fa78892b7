"""SQuARM-SGD on a ring of 8: against dense gossip, without momentum or trigger, and under loss.

    python benchmarks/gossip.py                # seeds 2, 3, 4: some ten minutes on two cores
    python benchmarks/gossip.py --seeds 2 --jobs 1

MNIST in label-skewed shards (`dirichlet:0.5`), the settings of
`flowerpress run mnist --strategy squarm-sgd --topology ring --clients 8`: one hidden layer, 300
rounds of four local steps. Momentum is tried on the convolutional network, after 60 rounds, and the
steps without it also at two larger sizes. Bytes are as sent, packets and framing, without the
collections of the nodes' models. Exits with 1 unless

- SQuARM-SGD ends within 2 points of dense gossip, at 100 times fewer bytes both ways;
- with momentum it is better than without, at the same bytes, whatever the size of the steps;
- the trigger saves at least 10 % of the uplink's bytes, and costs at most half a point;
- with a fifth of all messages lost each way and 20 % more rounds, accuracy is within a point of the
  faultless run's, and the consensus error within its range over seeds, widened by half.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from flowerpress.simulations import Faults, simulate
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.gossip_plot import CONSENSUS
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.presets import preset
from flowerpress.simulations.presets.mnist import GOSSIP

NODES, LOSS = 8, 0.2
ALWAYS = {"threshold": -1.0, "threshold_step": 0.0, "threshold_every": 0}


class Row(NamedTuple):
    """How a run departs from the preset."""

    options: dict[str, Any] = {}  # noqa: RUF012  (read only)
    rounds: int = GOSSIP.rounds
    model: str = "mlp"
    loss: float = 0.0
    dense: bool = False


def _cnn(momentum: float, lr: float) -> Row:
    return Row({**ALWAYS, "momentum": momentum, "lr": lr}, rounds=60, model="cnn")


DENSE, PRESSED, UNTRIGGERED = "dense (d-psgd)", "squarm-sgd", "no trigger"
LOSSY, FORGETFUL = "20 % lost, 360 rounds", "the same, catch_up=0"
MOMENTUM = "cnn, momentum 0.9, lr 0.05"
PLAIN = [f"cnn, no momentum, lr {lr:g}" for lr in (0.05, 0.1, 0.2, 0.3)]
ROWS = {
    DENSE: Row(dense=True),
    PRESSED: Row(),
    UNTRIGGERED: Row(ALWAYS),
    LOSSY: Row(rounds=360, loss=LOSS),
    FORGETFUL: Row({"catch_up": 0}, rounds=360, loss=LOSS),
    MOMENTUM: _cnn(0.9, 0.05),
    **{name: _cnn(0.0, lr) for name, lr in zip(PLAIN, (0.05, 0.1, 0.2, 0.3), strict=True)},
}


class Run(NamedTuple):
    """One run: which row, which seed."""

    row: str
    seed: int


class Figures(NamedTuple):
    """What a run reached: shares of 1 for accuracies, bytes."""

    accuracy: float
    worst: float
    consensus: float
    up: int
    down: int


def play(run: Run) -> Figures:
    """Run one row on one seed, in one thread."""
    row = ROWS[run.row]
    named = Experiment(task="mnist", strategy="squarm-sgd", clients=NODES, seed=run.seed)
    experiment = preset(named)
    if row.dense:
        experiment = experiment.dense(GOSSIP.dense_lr)
    # Lost messages may be hellos: wait for all nodes.
    options = {**experiment.strategy_options, **row.options, "min_available_nodes": NODES}
    prepared = replace(
        experiment,
        rounds=row.rounds,
        task_options={**experiment.task_options, "model": row.model},
        strategy_options=options,
    ).prepare()
    evaluate = prepared.task_fn.evaluate_fn
    result = simulate(
        prepared.strategy,
        prepared.task_fn,
        NODES,
        row.rounds,
        run.seed,
        evaluate,
        node_evaluate_fn=evaluate,
        threads=1,
        faults=Faults(down=row.loss, up=row.loss, seed=run.seed),
    )
    outcome = Outcome.of(prepared.experiment, result)
    last = result.history[-1]
    worst = min(node["accuracy"] for node in last.nodes.values())
    consensus = last.train.get(CONSENSUS, float("nan"))
    return Figures(
        outcome.final["accuracy"], worst, consensus, outcome.up_training, outcome.down_bytes
    )


def missed(found: dict[str, list[Figures]]) -> list[str]:
    """Return what was promised above and does not hold."""

    def mean(row: str) -> float:
        return 100 * statistics.mean(figures.accuracy for figures in found[row])

    dense, pressed, always = found[DENSE], found[PRESSED], found[UNTRIGGERED]
    up = min(d.up / p.up for d, p in zip(dense, pressed, strict=True))
    down = min(d.down / p.down for d, p in zip(dense, pressed, strict=True))
    saved = max(p.up / a.up for p, a in zip(pressed, always, strict=True))
    widest = 1.5 * max(figures.consensus for figures in pressed)
    promises = {
        "within 2 points of dense": mean(DENSE) - mean(PRESSED) <= 2,
        "100 times fewer bytes up": up >= 100,
        "100 times fewer bytes down": down >= 100,
        "momentum helps": all(mean(MOMENTUM) > mean(plain) for plain in PLAIN),
        "the trigger saves 10 %": saved <= 0.9,
        "the trigger costs at most half a point": mean(UNTRIGGERED) - mean(PRESSED) <= 0.5,
        "loss costs at most a point": mean(PRESSED) - mean(LOSSY) <= 1,
        "consensus under loss": all(figures.consensus <= widest for figures in found[LOSSY]),
    }
    return [promise for promise, held in promises.items() if not held]


def table(found: dict[str, list[Figures]]) -> Table:
    """Return the figures, means over seeds with the range of accuracies."""
    built = Table(title=f"MNIST, a ring of {NODES} nodes, label-skewed shards")
    built.add_column("run", no_wrap=True)
    for name in (
        "mean model",
        "worst",
        "consensus",
        "MB up",
        "MB down",
        "x up",
        "x down",
    ):
        built.add_column(name, justify="right", no_wrap=True)
    dense = found[DENSE]
    for row, runs in found.items():
        reached = [100 * figures.accuracy for figures in runs]
        comparable = ROWS[row].model == ROWS[DENSE].model
        up, down = (statistics.mean(getattr(f, name) for f in runs) for name in ("up", "down"))
        built.add_row(
            row,
            f"{statistics.mean(reached):.1f} ({min(reached):.1f} to {max(reached):.1f})",
            f"{100 * min(figures.worst for figures in runs):.1f}",
            f"{statistics.mean(figures.consensus for figures in runs):.2g}",
            f"{up / 1e6:.2f}",
            f"{down / 1e6:.2f}",
            f"{statistics.mean(f.up for f in dense) / up:.0f}" if comparable else "",
            f"{statistics.mean(f.down for f in dense) / down:.0f}" if comparable else "",
        )
    return built


def main() -> int:
    """Run all rows on all seeds, and print the table and what was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    given = parser.parse_args()
    console = Console(width=120)
    runs = [Run(row, seed) for row in ROWS for seed in given.seeds]
    found: dict[str, list[Figures]] = {row: [] for row in ROWS}
    with ProcessPoolExecutor(given.jobs) as pool:
        for run, figures in zip(runs, pool.map(play, runs), strict=True):
            found[run.row].append(figures)
            line = f"{run.row}, seed {run.seed}: {100 * figures.accuracy:.1f} %"
            console.print(line, markup=False, highlight=False)
    console.print(table(found))
    wrong = missed(found)
    for promise in wrong:
        console.print(f"missed: {promise}", markup=False, highlight=False)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
