"""`flowerpress reproduce`: the papers' claims, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flowerpress.cli import names
from flowerpress.cli.errors import FAILED, INTERRUPTED, complain

HELP = """
Measure what the papers claim, and say of each claim whether it holds.

NAME is a paper's or a claim's, and may be repeated; without one all are listed. Step sizes are
chosen on seeds 0 and 1; the verdict is on others. Runs are kept in --out, so that what has ended is
not run again. A verdict is a result, not an error. Exit codes: 0 all was measured; 1 a claim could
not be; 2 something in the command, its data or the machine is wrong; 130 interrupted.

**Examples**

- `flowerpress reproduce marina-cq --quick`
- `flowerpress reproduce --all --jobs 2 --out runs/reproduce`
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reproduce", help=HELP)(reproduce_command)


def reproduce_command(
    name: Annotated[list[str] | None, typer.Argument(autocompletion=names.claims)] = None,
    every: Annotated[bool, typer.Option("--all", help="All claims.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small: minutes for all.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; one a core.")] = None,
    out: Annotated[Path, typer.Option(help="Gets runs, page and JSON.")] = Path("runs/reproduce"),
    seeds: Annotated[str, typer.Option(help="Of the verdict: how many, or which, as 2,3,4.")] = "",
    page: Annotated[Path | None, typer.Option(help="Gets the page too.")] = None,
) -> None:
    """Measure claims, or list them."""
    from flowerpress.cli.training import Signals
    from flowerpress.simulations.compare.settings import read_seeds
    from flowerpress.simulations.reproduce import find, papers, report
    from flowerpress.simulations.reproduce.claims import TUNING
    from flowerpress.simulations.reproduce.measure import measure
    from flowerpress.simulations.reproduce.progress import StageProgress

    console = Console(highlight=False)
    if not name and not every:
        for paper in papers():
            console.print(f"{paper.name}  [dim]{paper.citation}[/]", soft_wrap=True)
            for claim in paper.claims:
                console.print(f"  {claim.name:<28}{claim.says}", markup=False, soft_wrap=True)
        return
    if name and every:
        raise ValueError("give names, or --all")
    claims = find(name or [])
    if page is not None and not page.parent.is_dir():
        raise ValueError(f"--page {page}: there is no folder {page.parent}")
    out.mkdir(parents=True, exist_ok=True)
    words = [*(name or ["--all"]), *(["--quick"] if quick else [])]
    words += ["--seeds", seeds] if seeds else []
    command = " ".join(["flowerpress reproduce", *words])
    try:
        with Signals(), StageProgress(console) as progress:
            measured = measure(
                claims,
                quick=quick,
                seeds=read_seeds("--seeds", seeds, max(TUNING) + 1) if seeds else None,
                jobs=jobs,
                folder=out / "runs",
                on_stage=progress.stage,
                on_run=progress.run,
            )
    except KeyboardInterrupt:
        complain(f"interrupted: what has ended is kept in {out}; the same command goes on with it")
        raise typer.Exit(INTERRUPTED) from None
    report.show(console, measured)
    report.save(measured, out, command)
    if page is not None:
        page.write_text(report.page(measured, command), "utf-8")
    console.print(f"\nwritten to {out}", markup=False, soft_wrap=True)
    if any(each.table is None for each in measured):
        raise typer.Exit(FAILED)
