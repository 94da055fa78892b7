"""`flowerpress run`, `flowerpress list` and `flowerpress bench`.

The work is in :mod:`flowerpress.simulations`, which is imported where it is used: `--help` must not
wait for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flowerpress.cli import names
from flowerpress.cli.errors import FAILED, Interruptible, complain
from flowerpress.cli.run_help import RunCommand

if TYPE_CHECKING:
    from flowerpress.simulations.catalogue import Entry, Page

PAIR = {"metavar": "KEY=VALUE"}

app = typer.Typer(
    cls=Interruptible,
    help="Press federated-learning updates into few real bits, on top of Flower.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.suggest_commands = False  # typer would repeat click's suggestion; before 0.20 it has no keyword


def show_version(wanted: bool) -> None:
    """Print the versions that a report of a fault needs, and end."""
    if wanted:
        Console(highlight=False, soft_wrap=True).print(names.versions())
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Press federated-learning updates into few real bits, on top of Flower."""


RUN_HELP = """
Train on a TASK in this process, and count every byte sent.

TASK is a shipped one (`flowerpress list tasks`), or your own: `./my_task.py` with a function
`task_fn(partition_id, num_partitions)`, `./my_task.py:NAME`, or `package.module:NAME`.

**Examples**

- `flowerpress run digits --strategy ef21 --compressor topk:0.05 --lr 0.5`
- `flowerpress run mnist --partition dirichlet:0.5 --local-steps 5 --local-lr 0.05 --baseline`
- `flowerpress run libsvm --path a9a.gz --strategy ef14 --compressor sign --lr 0.1 --clients 20`
- `flowerpress run mnist --strategy squarm-sgd --topology ring --clients 8 --baseline`
- `flowerpress run digits --strategy ef21 --downlink topk:0.1 -S min-train-nodes=5 -T backend=torch`
- `flowerpress run ./my_task.py --strategy ef21 --lr 0.1 --clients 4`

`flowerpress list` shows what can be named, `flowerpress list NAME` all options of one, and
`flowerpress run --strategy NAME --help` says what the flags mean for that strategy.
`flowerpress run mnist --strategy NAME`, without options of strategy or task, is a tuned run.
Otherwise options left out have the strategy's and the task's
own defaults. The new folder below --out is made first, and gets results, model and plots even if
the run is stopped. Exit codes: 0 done; 1 nothing was trained, the loss diverged, or a target
(--min-ratio, --max-drop) is missed; 2 something in the command, its data or the machine is wrong;
130 interrupted.
"""


def strategy_option(text: str = "", *names: str, **more: Any) -> Any:
    """Declare an option of the strategy; without a text it is looked up, see `run_help`."""
    return typer.Option(*names, help=text, rich_help_panel="Strategy", **more)


def task_option(text: str, *names: str, **more: Any) -> Any:
    """Declare an option of the task."""
    return typer.Option(*names, help=text, rich_help_panel="Task", **more)


def baseline_option(text: str, *names: str) -> Any:
    """Declare an option of the comparison with the dense baseline."""
    return typer.Option(*names, help=text, rich_help_panel="Comparison")


@app.command("run", help=RUN_HELP, cls=RunCommand)
def run_command(
    task: Annotated[str, typer.Argument(autocompletion=names.tasks)],
    strategy: Annotated[
        str, strategy_option("The algorithm, by name.", autocompletion=names.strategies)
    ] = "ef21-sgdm",
    compressor: Annotated[
        str | None,
        strategy_option(autocompletion=names.compressors, metavar="SPEC"),
    ] = None,
    lr: Annotated[str | None, strategy_option(metavar="NUMBER|theory")] = None,
    momentum: Annotated[float | None, strategy_option()] = None,
    local_steps: Annotated[int | None, strategy_option()] = None,
    local_lr: Annotated[float | None, strategy_option()] = None,
    downlink: Annotated[str | None, strategy_option()] = None,
    weights: Annotated[str | None, strategy_option()] = None,
    init: Annotated[str | None, strategy_option()] = None,
    topology: Annotated[str | None, strategy_option()] = None,
    fraction_train: Annotated[float | None, strategy_option()] = None,
    more_strategy: Annotated[
        list[str] | None,
        strategy_option("Any of its options.", "--strategy-option", "-S", **PAIR),
    ] = None,
    partition: Annotated[str | None, task_option("iid, dirichlet:0.5, pathological:2...")] = None,
    batch_size: Annotated[int | None, task_option("Examples in a batch.")] = None,
    path: Annotated[str | None, task_option("Data file (libsvm).")] = None,
    more_task: Annotated[
        list[str] | None, task_option("Any other.", "--task-option", "-T", **PAIR)
    ] = None,
    clients: Annotated[int, typer.Option(help="Number of clients.")] = 10,
    rounds: Annotated[int | None, typer.Option(help="Number of rounds; 50.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes shards, model, batches, compression.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Clients trained at a time.")] = None,
    out: Annotated[Path, typer.Option(help="Gets a new folder with the results.")] = Path("runs"),
    baseline: Annotated[
        bool, baseline_option("Run its dense counterpart on the same batches.", "--baseline")
    ] = False,
    baseline_lr: Annotated[float | None, baseline_option("The baseline's own lr.")] = None,
    min_ratio: Annotated[float | None, baseline_option("Target: times fewer uplink bytes.")] = None,
    max_drop: Annotated[float | None, baseline_option("Target: points of accuracy lost.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Save the run here each round.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint.")] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Write for tensorboard, mlflow or wandb too; may be repeated."),
    ] = None,
) -> None:
    """Run one experiment, and its dense baseline when asked."""
    from flowerpress.cli.training import Training, closing_lines
    from flowerpress.simulations.experiment import Experiment
    from flowerpress.simulations.options import merge_options, parse_value
    from flowerpress.simulations.outcome import Targets
    from flowerpress.simulations.presets import describe, find_preset, preset

    experiment = Experiment(
        task=task,
        strategy=strategy,
        compressor=compressor,
        clients=clients,
        rounds=50 if rounds is None else rounds,
        seed=seed,
        threads=threads,
        strategy_options=merge_options(
            "--strategy-option",
            more_strategy,
            lr=None if lr is None else parse_value(lr),
            momentum=momentum,
            local_steps=local_steps,
            local_lr=local_lr,
            downlink=downlink,
            weights=weights,
            init=init,
            fraction_train=fraction_train,
            topology=topology,
        ),
        task_options=merge_options(
            "--task-option", more_task, partition=partition, batch_size=batch_size, path=path
        ),
    )
    tuned = preset(experiment)
    if not baseline:
        needy = {"baseline-lr": baseline_lr, "min-ratio": min_ratio, "max-drop": max_drop}
        for name, value in needy.items():
            if value is not None:
                raise ValueError(f"--{name} needs --baseline")
    console = Console()
    if tuned is not experiment:
        experiment = tuned if rounds is None else replace(tuned, rounds=rounds)
        found = find_preset(task, strategy)
        if baseline_lr is None and found is not None:
            baseline_lr = found.work.dense_lr
        console.print(describe(experiment), markup=False, highlight=False, soft_wrap=True)
    experiments = [experiment, experiment.dense(baseline_lr)] if baseline else [experiment]
    training = Training(console, experiments, out, checkpoint, resume=resume, track=track or [])
    outcome, *dense = outcomes = training.run()
    targets = Targets(min_ratio=min_ratio, max_drop=max_drop)
    missed = targets.missed(outcome, dense[0]) if dense else []
    for sentence in (*missed, *closing_lines(outcomes)):
        complain(sentence)
    if missed or any(each.verdict.useless for each in outcomes):
        raise typer.Exit(FAILED)


@app.command("list")
def list_command(
    name: Annotated[str, typer.Argument(autocompletion=names.named)] = "all",
) -> None:
    """Show all strategies, compressors and tasks, one of these kinds, or all about one NAME.

    `flowerpress list dropin` has the keys with which the run config of a pressed app is written.
    """
    from flowerpress.simulations.catalogue import KINDS, entries, page

    console = Console(highlight=False, soft_wrap=True)
    if name not in (*KINDS, "all"):
        show_page(console, page(name))
        return
    for each in KINDS if name == "all" else [name]:
        console.print(each, style="bold")
        for entry in entries(each):
            show_entry(console, entry)


def show_entry(console: Console, entry: Entry) -> None:
    """Print a name's line and its source."""
    console.print(f"  {entry.name:<18}{entry.line}", markup=False)
    if entry.citation:
        console.print(f"  {'':<18}{entry.citation}", style="dim", markup=False)


def show_page(console: Console, page: Page) -> None:
    """Print all about a name: its options, as `-S NAME=VALUE` and run configs take them."""
    show_entry(console, page.entry)
    for title, rows in page.parts.items():
        console.print(f"\n{title}", style="bold")
        for row in rows:
            letter = f"; the paper's {row.letter}" if row.letter else ""
            default = row.default if row.default else '""'
            console.print(f"  {row.name} = {default}", style="bold", markup=False, end="")
            console.print(f"   ({row.values}{letter})", markup=False)
            for line in wrap(row.meaning, 90):
                console.print(f"      {line}", markup=False)
    if page.text:
        console.print(f"\n{page.text}", markup=False)


@app.command("new")
def new_command(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Make a small Flower app of your own in DIR, which runs at once and is yours to change."""
    from flowerpress.cli.new_app import START, make

    package = make(folder)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{folder}: change {package}/task.py, and README.md says how to run it:")
    console.print(f"  flowerpress run {folder}/{package}/task.py {START}", markup=False)
    console.print(f"  flwr run {folder} --stream", markup=False)


bench_app = typer.Typer(help="Measure speed, size and error.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


@bench_app.callback()
def bench_group() -> None:
    """Measure speed, size and error."""


@bench_app.command("compressors")
def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Short vectors: some seconds.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A compressor; may be repeated.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="gaussian, heavy-tailed, mnist.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Gets the figures too.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Check the bars; exit 1 if missed.")] = False,
) -> None:
    """Time every compressor against a copy of the vector and plain numpy and torch forms.

    Pairs are encoding / decoding into a sum. "x copy": times the speed of copying the vector;
    "bits": of the packet, a coordinate; "ideal": of an entropy code; "error": squared, relative.
    """
    from flowerpress.simulations import bench_report

    console = Console(highlight=False, width=bench_report.WIDTH)
    if json is not None and not json.parent.is_dir():
        raise ValueError(f"--json {json}: there is no folder {json.parent}")
    if gate:
        if bench_report.gate(console):
            raise typer.Exit(FAILED)
        return

    def show(rows: list[Any]) -> None:
        console.print(bench_report.table(rows))
        console.print()

    rows = bench_report.run(quick=quick, only=only, data=data, on_rows=show)
    if json is not None:
        bench_report.save(json, rows)
