"""What a terminal is told when something is wrong: one line."""

from __future__ import annotations

import sys

import click


def complain(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write("flowerpress: " + " ".join(message.split()) + "\n")


def is_users(error: Exception) -> bool:
    """Return whether an error says what is wrong with the command, the data or the machine."""
    from flowerpress.strategies import RoundError

    return isinstance(error, ValueError | OSError | ImportError | RoundError)


def no_arguments() -> type[click.UsageError] | tuple[()]:
    """Return the error with which click shows the help of a command that lacks its arguments.

    Before 8.2 it has none, but prints the help and ends: an empty tuple catches nothing.
    """
    found: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
    return found


def valid_choices(error: click.ClickException) -> str:
    """Return what could have been written instead, where the error is about a name."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        names = ["--help", *(name for each in context.command.params for name in each.opts)]
        return f" Valid options: {', '.join(sorted(n for n in names if n.startswith('--')))}"
    if context is not None and isinstance(context.command, click.Group):
        return f" Valid commands: {', '.join(sorted(context.command.commands))}"
    return ""
