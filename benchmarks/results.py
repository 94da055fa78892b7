"""Every strategy's preset on mnist against dense rounds of the same work: docs/results.md.

    python benchmarks/results.py        # three seeds, all names: about an hour on a core
    python benchmarks/results.py --only ef14 --seeds 1

Writes docs/results.md (all names) or prints its table (some names). Exits with 1 if a preset misses
what it promises: within 2 points of dense, at its ratio of uplink bytes as sent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markdown import Markdown

from flowerpress.simulations.experiment import Experiment, Outcome
from flowerpress.simulations.presets import LOCAL, PRESETS, STEPS, WHOLE, Work, preset
from flowerpress.strategies import strategy_class, strategy_names

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
POINTS = 2.0  # of accuracy, that a preset may lose to dense
NAMES = {LOCAL.rounds: "local", WHOLE.rounds: "whole", STEPS.rounds: "steps"}

HEAD = """# Results on MNIST

Written by `python benchmarks/results.py`. Ten clients with unequal shards of the 5,000 MNIST images
(`dirichlet:0.5`), one hidden layer (d = 50,890, 204 kB dense), seeds {seeds}. Each row is
`flowerpress run mnist --strategy NAME`, with no other option, beside dense FedAvg with the same
work, whose step size is tuned for it:

{works}

Accuracy is on held-out images, mean and range over seeds; *lost* is the mean of dense minus
pressed, in points, seed by seed. Bytes are as sent, packets and framing, over the whole run; *up*
and *down* say how many times fewer than dense. A preset promises at most {points:g} points lost at
its ratio.

| strategy | compressor | work | accuracy | lost | up | promised | down | |
|---|---|---|---|---|---|---|---|---|
"""


class Result(NamedTuple):
    """A preset's runs beside the dense ones, seed by seed."""

    name: str
    runs: list[Outcome]
    dense: list[Outcome]

    @property
    def lost(self) -> float:
        """Points of accuracy lost to dense, mean over seeds."""
        pairs = zip(self.runs, self.dense, strict=True)
        return statistics.mean(100 * (d.final["accuracy"] - r.final["accuracy"]) for r, d in pairs)

    def ratio(self, direction: str) -> float:
        """Return how many times fewer bytes than dense, the smallest over seeds."""
        pairs = zip(self.runs, self.dense, strict=True)
        return min(getattr(d, direction) / getattr(r, direction) for r, d in pairs)

    def missed(self) -> str:
        """Return what the preset promises and does not keep; empty if nothing."""
        promise = PRESETS[self.name].ratio
        found = []
        if not self.lost <= POINTS:
            found.append("accuracy")
        if not self.ratio("up_bytes") >= promise:
            found.append("bytes")
        return " and ".join(found)

    def row(self) -> str:
        """Return the row of the table."""
        chosen = PRESETS[self.name]
        reached = [100 * run.final["accuracy"] for run in self.runs]
        spread = f"{statistics.mean(reached):.1f} % ({min(reached):.1f} to {max(reached):.1f})"
        cells = [
            f"`{self.name}`",
            " / ".join(f"`{spec}`" for spec in specs(self.runs[0].experiment)) or "dense",
            NAMES[chosen.work.rounds],
            spread,
            f"{self.lost:.1f}",
            f"{self.ratio('up_bytes'):.1f} x",
            f"{chosen.ratio:g} x",
            f"{self.ratio('down_bytes'):.1f} x",
            f"misses its {self.missed()}" if self.missed() else "",
        ]
        return "| " + " | ".join(cells) + " |"


def specs(experiment: Experiment) -> list[str]:
    """Return the uplink's and the downlink's compressors."""
    downlink = str(experiment.strategy_options.get("downlink", ""))
    return [spec for spec in (experiment.compressor, downlink) if spec]


def run(experiment: Experiment) -> Outcome:
    """Run one experiment in one thread."""
    return replace(experiment, threads=1).prepare().run()


def dense(work: Work, seed: int, weights: object) -> Outcome:
    """Run dense FedAvg with a work."""
    options = {**work.strategy, "lr": work.dense_lr}
    if weights:
        options["weights"] = str(weights)
    return run(
        Experiment(
            task="mnist",
            strategy="fedavg",
            rounds=work.rounds,
            seed=seed,
            strategy_options=options,
            task_options=work.task,
        )
    )


def main() -> int:
    """Run what is asked for, and write or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=strategy_names())
    given = parser.parse_args()
    names, seeds = given.only or sorted(PRESETS), range(given.seeds)
    console = Console()
    baselines: dict[tuple[int, int, object], Outcome] = {}
    results = []
    for name in names:
        runs, beside = [], []
        for seed in seeds:
            work = PRESETS[name].work
            asked = Experiment(task="mnist", strategy=name, seed=seed)
            prepared = replace(preset(asked), threads=1).prepare()
            weights = prepared.strategy.weights
            key = (work.rounds, seed, weights)
            if key not in baselines:
                baselines[key] = dense(work, seed, weights)
            runs.append(prepared.run())
            beside.append(baselines[key])
        results.append(Result(name, runs, beside))
        console.print(results[-1].row(), markup=False, soft_wrap=True)
    page = HEAD.format(seeds=f"0 to {given.seeds - 1}", works=works(), points=POINTS)
    page += "\n".join(result.row() for result in results) + "\n" + notes(names)
    if given.only:
        console.print(Markdown(page))
    else:
        PAGE.write_text(page, encoding="utf-8")
    return int(any(result.missed() for result in results))


def works() -> str:
    """Describe the kinds of work."""
    lines = {
        LOCAL: "four local steps on batches of 32 a round",
        WHOLE: "one gradient of all the data a round",
        STEPS: "one batch of 32 a round",
    }
    return "\n".join(
        f"- *{NAMES[work.rounds]}*: {work.rounds} rounds, {line}; dense lr {work.dense_lr:g}"
        for work, line in ((work, lines[work]) for work in (LOCAL, WHOLE, STEPS))
    )


def notes(names: list[str]) -> str:
    """Return the citations."""
    lines = [f"- `{name}`: {strategy_class(name).citation}" for name in names]
    return "\n## Papers\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
