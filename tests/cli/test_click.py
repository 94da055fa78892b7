"""What click and typer say, on each of their releases that pyproject.toml allows (scripts/matrix).

The newest click is installed here. What an older one lacks is taken away from it; the rest of how
it differs is seen where this file runs with that release itself.
"""

from __future__ import annotations

import click
import pytest
import typer

from flowerpress.cli import main
from flowerpress.cli.commands import app

USAGE_ERRORS = {
    "no argument": (["run"], "TASK"),
    "no option": (["join", "digits", "--server", "x:1"], "--client"),
    "no value": (["run", "digits", "--lr"], "--lr"),
    "no flag": (["run", "digits", "--baseline=3"], "--baseline"),
    "not a number": (["run", "digits", "--rounds", "many"], "many"),
    "out of range": (["serve", "digits", "--bind", "x:1", "--min-clients", "0"], "--min-clients"),
    "too many": (["list", "tasks", "more"], "more"),
    "option": (["run", "digits", "--nope"], "--nope"),
    "option of the group": (["--nope"], "Valid options: --help"),
    "command": (["rum"], "Valid commands: bench, "),
    "command of a group": (["bench", "nope"], "Valid commands: compressors"),
    "ours": (["list", "wishes"], "wishes"),
}


@pytest.fixture(params=["as installed", "without NoArgsIsHelpError"])
def any_click(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "as installed":  # as click before 8.2
        monkeypatch.delattr(click.exceptions, "NoArgsIsHelpError", raising=False)


@pytest.mark.usefixtures("any_click")
@pytest.mark.parametrize(("arguments", "named"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_a_usage_error_is_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("flowerpress: ")
    assert shown.err.count("\n") == 1
    assert named in shown.err
    assert shown.err.count("Did you mean") <= 1


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of a command, and of all below it."""
    below = getattr(command, "commands", {})
    return [path, *(deep for name in below for deep in _commands(below[name], (*path, name)))]


ALL = _commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr()
    assert " ".join(["Usage: flowerpress", *path]) in shown.out
    assert "--help" in shown.out
    assert shown.err == ""


def test_commands_are_found() -> None:
    assert {("run",), ("serve",), ("join",), ("bench", "compressors")} < set(ALL)


@pytest.mark.parametrize("path", [(), ("bench",)], ids=["flowerpress", "bench"])
def test_a_group_alone_shows_its_help(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    # 2 from click 8.2 on, as of all that lacks an argument; 0 before.
    assert main(list(path)) == (2 if hasattr(click.exceptions, "NoArgsIsHelpError") else 0)
    shown = capsys.readouterr()
    assert "Commands" in shown.out
    assert not shown.err.strip()


def test_an_interruption_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowerpress.simulations.catalogue.entries", interrupted)
    assert main(["list"]) == 130
    assert "Traceback" not in capsys.readouterr().err
