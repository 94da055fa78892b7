"""`flowerpress compare`: methods side by side on one task."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flowerpress.cli import names
from flowerpress.cli.errors import FAILED, INTERRUPTED, complain

if TYPE_CHECKING:
    from flowerpress.simulations.compare.comparison import Comparison, Plan
    from flowerpress.simulations.compare.settings import Settings

HELP = """
Compare methods on a TASK: strategies x compressors x step sizes x seeds.

TASK is what `flowerpress run` takes. Step sizes are chosen on tuning seeds, and all figures are of
others. The folder gets `report.html` (one file, interactive, needs no network), `table.csv`,
`curves.csv`, `summary.json`, `figures/` as PNG and SVG, and every run.

**Examples**

- `flowerpress compare mnist --strategies fedavg,ef21-sgdm,ef14,dsgd --out comparison`
- `flowerpress compare digits --strategies ef14,ef21 --compressors topk:0.05,sign --rounds 50`
- `flowerpress compare ./my_task.py -m "ef21 topk:0.01" -m "fedavg lr=0.1" --target "accuracy>=0.9"`
- `flowerpress compare digits --strategies fedavg,ef14 --target "accuracy>=90%" --up 1 --down 10`

A strategy without any option of its own is its tuned preset, where the task has one; a step size
that is given is not looked for. What a method refuses is said before the first run. Exit codes: 0
done; 1 no method ended well; 2 something in the command, its data or the machine is wrong; 130
interrupted: what has ended is kept, and `--resume` goes on.
"""
PAIR = {"metavar": "KEY=VALUE"}


def methods_option(text: str, *flags: str, **more: Any) -> Any:
    """Declare an option about the methods."""
    return typer.Option(*flags, help=text, rich_help_panel="Methods", **more)


def judged_option(text: str, *flags: str, **more: Any) -> Any:
    """Declare an option about what methods are judged by."""
    return typer.Option(*flags, help=text, rich_help_panel="Judged by", **more)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("compare", help=HELP)(compare_command)
    app.command("plot")(plot_command)


def compare_command(
    task: Annotated[str, typer.Argument(autocompletion=names.tasks)],
    strategies: Annotated[
        list[str] | None,
        methods_option("With commas between; may be repeated.", autocompletion=names.strategies),
    ] = None,
    compressors: Annotated[
        list[str] | None,
        methods_option(
            "Each strategy gets each of these; default: its own.", autocompletion=names.compressors
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        methods_option(
            "One method: STRATEGY [COMPRESSOR] [KEY=VALUE...]; name= names it. May be repeated.",
            "--method",
            "-m",
        ),
    ] = None,
    more_strategy: Annotated[
        list[str] | None,
        methods_option("An option of all strategies.", "--strategy-option", "-S", **PAIR),
    ] = None,
    more_task: Annotated[
        list[str] | None, methods_option("An option of the task.", "--task-option", "-T", **PAIR)
    ] = None,
    lrs: Annotated[
        str | None,
        methods_option(
            "Step sizes to look among, for all, as 0.03,0.1,0.3. Default: around each method's own "
            "default, and on while the best is the last."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many, or which, as 2,3,4.")] = "3",
    tuning_seeds: Annotated[
        str, typer.Option(help="Seeds to choose step sizes on: how many, or which.")
    ] = "2",
    clients: Annotated[int, typer.Option(help="Number of clients.")] = 10,
    rounds: Annotated[int | None, typer.Option(help="Default: the presets', or 50.")] = None,
    metric: Annotated[
        str,
        judged_option("NAME, NAME:max or NAME:min. Default: accuracy, or else the gradient, loss."),
    ] = "",
    target: Annotated[
        list[str] | None,
        judged_option(
            "METRIC>=VALUE or METRIC<=VALUE: the table says what it took. May be repeated; the "
            "first also chooses step sizes."
        ),
    ] = None,
    up: Annotated[float, judged_option("Modelled uplink of a client, Mbit/s.")] = 10.0,
    down: Annotated[float, judged_option("Modelled downlink of a client, Mbit/s.")] = 50.0,
    latency: Annotated[float, judged_option("Modelled latency one way, ms.")] = 50.0,
    compute: Annotated[float, judged_option("Modelled computing of a round, s.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="The folder. Default: a new one below runs.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is there.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as memory allows.")] = None,
    track_by: Annotated[
        list[str] | None,
        typer.Option("--track", help="tensorboard, mlflow or wandb: gets each run reported."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End where a method cannot run; else it is left out.")
    ] = False,
) -> None:
    """Compare methods, and write a report."""
    from flowerpress.simulations.compare.comparison import Plan
    from flowerpress.simulations.compare.methods import cross, parse_method, split_specs
    from flowerpress.simulations.compare.settings import Settings, read_seeds
    from flowerpress.simulations.compare.targets import Link
    from flowerpress.simulations.compare.tracked import track
    from flowerpress.simulations.options import merge_options
    from flowerpress.simulations.tracking import require_tracker

    for tracker in track_by or ():
        require_tracker(tracker)
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs is {jobs}, but must be at least 1")
    methods = cross(split_specs(strategies or []), split_specs(compressors or []))
    tuning = read_seeds("--tuning-seeds", tuning_seeds, 0)
    settings = Settings(
        task=task,
        methods=(*methods, *map(parse_method, method or [])),
        # Presets were tuned on 0 and 1.
        seeds=read_seeds("--seeds", seeds, max([2, *(seed + 1 for seed in tuning)])),
        tuning_seeds=tuning,
        lrs=_numbers("--lrs", lrs),
        clients=clients,
        rounds=rounds,
        options=merge_options("--strategy-option", more_strategy),
        task_options=merge_options("--task-option", more_task),
        metric=metric,
        targets=tuple(target or ()),
        link=Link(up, down, latency, compute),
    )
    console = Console(highlight=False, soft_wrap=True)
    plan = Plan(settings)
    for label, why in plan.refused.items():
        complain(f"{'cannot run' if strict else 'left out'}: {label}: {why}")
    if strict and plan.refused:
        raise ValueError("nothing was run; without --strict the others are")
    folder = out or _new_folder(settings)
    settings.keep(folder, resume=resume)
    comparison = _run(console, plan, folder, jobs)
    track(comparison, track_by or [], folder)
    if not any(each.outcomes for each in comparison.results) or not _any_ended(comparison):
        complain("no method ended well: lower the step sizes (--lrs), or check the data")
        raise typer.Exit(FAILED)
    from flowerpress.simulations.compare.curves import metrics_of

    outcomes = [outcome for result in comparison.results for outcome in result.outcomes]
    if all(value is None for each in outcomes for value in plan.metric.series(each)):
        there = ", ".join(metrics_of(outcomes))
        complain(f"no run has measured {plan.metric.name!r}: there is {there} (--metric)")
        raise typer.Exit(FAILED)


def plot_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    out: Annotated[Path, typer.Option(help="The folder that gets the report.")] = Path("plot"),
    metric: Annotated[str, judged_option("NAME, NAME:max or NAME:min.")] = "",
    target: Annotated[
        list[str] | None, judged_option("METRIC>=VALUE or METRIC<=VALUE. May be repeated.")
    ] = None,
    up: Annotated[float, judged_option("Modelled uplink of a client, Mbit/s.")] = 10.0,
    down: Annotated[float, judged_option("Modelled downlink of a client, Mbit/s.")] = 50.0,
    latency: Annotated[float, judged_option("Modelled latency one way, ms.")] = 50.0,
    compute: Annotated[float, judged_option("Modelled computing of a round, s.")] = 0.0,
) -> None:
    """Draw runs that have ended, as `flowerpress compare` draws its own.

    RUN is a folder of `run`, of `serve` or of `compare`, a folder that has such at any depth, or a
    results.json. Runs that differ in nothing but their seed are one line, and of several with the
    same seed the longest counts, or else the newest. What has not ended is left out by name. Out
    come report.html, tables and figures.
    """
    from flowerpress.simulations.compare.plotted import plotted
    from flowerpress.simulations.compare.targets import Link

    link = Link(up, down, latency, compute)
    comparison = plotted(runs, metric, tuple(target or ()), link)
    for why in comparison.left_out:
        complain(f"left out: {why}")
    _finish(Console(highlight=False, soft_wrap=True), out, comparison)


def _run(console: Console, plan: Plan, folder: Path, jobs: int | None) -> Comparison:
    """Run a comparison, and write and show what it found."""
    from flowerpress.cli.training import Signals
    from flowerpress.simulations.compare.show import RunsProgress

    try:
        with Signals(), RunsProgress(console, plan.metric) as progress:
            comparison = plan.run(folder, jobs, progress)
    except KeyboardInterrupt:
        complain(f"interrupted: what has ended is kept in {folder}; --resume goes on with it")
        raise typer.Exit(INTERRUPTED) from None
    _finish(console, folder, comparison)
    return comparison


def _finish(console: Console, folder: Path, comparison: Comparison) -> None:
    """Write the files, and show the table and where they are."""
    from flowerpress.simulations.compare.show import show
    from flowerpress.simulations.compare.written import REPORT, write

    hints = write(folder, comparison, "flowerpress " + shlex.join(sys.argv[1:]))
    show(console, comparison)
    report = folder / REPORT
    for line in [*hints, f"report in {report if report.exists() else folder}"]:
        console.print(line, markup=False)


def _any_ended(comparison: Comparison) -> bool:
    return any(each.status == "done" for r in comparison.results for each in r.outcomes)


def _numbers(flag: str, text: str | None) -> tuple[float, ...]:
    """Return the numbers in a list with commas between them."""
    try:
        return tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{flag} is {text!r}: expected numbers, as in 0.03,0.1,0.3") from None


def _new_folder(settings: Settings) -> Path:
    """Return the name of a folder that is not there yet."""
    begun = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    return Path("runs", f"{begun}-{settings.common.label}-compare")
