"""What was measured of the claims: on the console, as a page, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from flowerpress.simulations.means import mean
from flowerpress.simulations.reproduce.claims import Column, Row
from flowerpress.simulations.reproduce.measure import Measured

STYLES = {"holds": "green", "holds in part": "yellow", "does not hold": "red"}

HEAD = """# The papers' claims{whole}

Written by `{command}`. For each paper: what it claims, the nearest set-up that runs here, the
rules that must hold, and what was measured. A claim *holds* if all of its rules do, *holds in
part* if some do, and *does not hold* if none does. A rule of one method beside another must hold
of the means over the seeds of the verdict, {seeds}, and by itself in more than half of these
seeds. Step sizes were chosen on other seeds, {tuned}, by the first column, from the grids below
each table. A figure is the mean and, in brackets, the range over seeds; "none": the run
diverged, or did not get there. Set-ups and some rules (those of marina-cq-alike among them) were
settled after seeds 2 and 3 had been looked at; no step size was chosen on them. Bytes are of one
worker, packets with their headers; the framing of messages, some 200 bytes each, is left out,
for it would hide the packets of problems as small as some of these.
"""


def show(console: Console, measured: Sequence[Measured]) -> None:
    """Print each claim with its table, its rules and its verdict, and then all verdicts."""
    for each in measured:
        console.print()
        console.rule(each.claim.name, align="left", style="bold")
        for line in (each.paper.citation, each.claim.says, f"Here: {each.study.setup}"):
            console.print(line, markup=False, highlight=False)
        _show_table(console, each)
        for rule, found in zip(each.study.rules, each.findings, strict=False):
            mark = "[green]holds[/]" if found.held else "[red]fails[/]"
            console.print(f"  {mark} ", end="")
            console.print(f"{rule.text} ({found.said})", markup=False, highlight=False)
        for failure in each.failures:
            console.print(f"  {failure}", markup=False, highlight=False)
        _show_verdict(console, each)
    console.print()
    for each in measured:
        _show_verdict(console, each)


def _show_verdict(console: Console, each: Measured) -> None:
    style = STYLES.get(each.verdict, "red")
    console.print(f"{each.claim.name}: [bold {style}]{each.verdict}[/]", highlight=False)


def _show_table(console: Console, each: Measured) -> None:
    if each.table is None:
        return
    grid = Grid(box=None)
    grid.add_column("method")
    for name in ("lr", *(column.name for column in each.study.columns)):
        grid.add_column(name, justify="right")
    for name, row in each.table.rows.items():
        grid.add_row(name, step(row), *(cell(row, column) for column in each.study.columns))
    console.print(grid)


def step(row: Row) -> str:
    """Return a step size as text; with a star at the edge of its grid."""
    if row.lr is None or isinstance(row.lr, str):
        return row.lr or ""
    return f"{row.lr:.3g}{'*' if row.at_edge else ''}"


def cell(row: Row, column: Column) -> str:
    """Return the mean of a row's figures, and their range."""
    values = row.values[column.name]
    found = column.write(mean(values))
    if len(values) == 1 or min(values) == max(values):
        return found
    return f"{found} ({column.write(min(values))} to {column.write(max(values))})"


def page(measured: Sequence[Measured], command: str) -> str:
    """Return the page about all that was measured, in Markdown."""
    first = measured[0]
    whole = "" if "--quick" in command.split() else ", whole"
    seeds, tuned = _list(first.seeds), _list(first.tuned_on)
    parts = [
        HEAD.format(whole=whole, command=command, seeds=seeds, tuned=tuned),
        "| paper | claim | verdict | rules that hold |\n|---|---|---|---|",
    ]
    for each in measured:
        held = sum(found.held for found in each.findings)
        counted = f"{held} of {len(each.study.rules)}"
        link = f"[{each.claim.name}](#{each.claim.name})"
        parts[-1] += "\n" + _line(each.paper.citation, link, f"**{each.verdict}**", counted)
    parts += [_section(each) for each in measured]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _section(each: Measured) -> str:
    lines = [
        f"## {each.claim.name}",
        "",
        f"{each.paper.citation}. *{each.claim.says}*",
        "",
        f"Here: {each.study.setup} {each.claim.differs}".rstrip(),
        "",
    ]
    if each.table is not None:
        columns = each.study.columns
        lines.append(_line("method", "lr", *(column.name for column in columns)))
        lines.append("|---|---|" + "---|" * len(columns))
        for name, row in each.table.rows.items():
            lines.append(_line(name, step(row), *(cell(row, column) for column in columns)))
        lines.append("")
        if grids := _grids(each):
            lines += [grids, ""]
    rows = zip(each.study.rules, each.findings, strict=False)
    lines += [f"- {'holds' if f.held else '**fails**'}: {r.text} ({f.said})" for r, f in rows]
    lines += [f"- {failure}" for failure in each.failures]
    return "\n".join([*lines, "", f"Verdict: **{each.verdict}**."])


def _line(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(text.replace("|", r"\|") for text in cells) + " |"


def _grids(each: Measured) -> str:
    """Return the sentence about the step sizes that were tried."""
    by_grid: dict[tuple[float, ...], list[str]] = {}
    for arm in each.study.arms:
        if len(arm.grid) > 1:
            by_grid.setdefault(arm.grid, []).append(arm.name)
    said = [
        f"{', '.join(f'{lr:g}' for lr in grid)} ({', '.join(names)})"
        for grid, names in by_grid.items()
    ]
    if not said:
        return ""
    edge = any(row.at_edge for row in each.table.rows.values()) if each.table else False
    return f"Step sizes tried: {'; '.join(said)}." + (
        " *: at the edge of its grid." if edge else ""
    )


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def save(measured: Sequence[Measured], folder: Path, command: str) -> None:
    """Write ``reproduce.md`` and ``reproduce.json`` to a folder; raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reproduce.md").write_text(page(measured, command), "utf-8")
    found = {"command": command, "claims": [each.as_dict() for each in measured]}
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    (folder / "reproduce.json").write_text(text, "utf-8")
