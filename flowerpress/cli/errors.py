"""What a terminal is told when something is wrong: one line; and the exit codes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from typer.core import TyperGroup

from flowerpress.suggestions import did_you_mean

FAILED = 1  # it ended, and not as was asked: a target missed, nothing trained, diverged
WRONG = 2  # the command, its data or the machine
INTERRUPTED = 130  # by Ctrl-C or a signal
READER_GONE = 141  # who read the output has ended: 128 + SIGPIPE, as the shell has it


class Interruptible(TyperGroup):
    """Commands that Ctrl-C ends by `click.Abort`: newer releases of typer return a bare 130."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        """Read the words of the command line."""
        with _aborted():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _aborted():
            return super().invoke(ctx)


@contextmanager
def _aborted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise click.Abort from None


def complain(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write("flowerpress: " + " ".join(message.split()) + "\n")


def is_users(error: Exception) -> bool:
    """Return whether an error says what is wrong with the command, the data or the machine."""
    from flowerpress.strategies import RoundError

    return isinstance(error, ValueError | OSError | ImportError | MemoryError | RoundError)


def tell(error: Exception) -> str:
    """Return an error as one line: with its place, where that is in a user's own code."""
    from flowerpress.user_code import place_of

    said = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        said = f"{error.filename}: {error.strerror}"
    place = place_of(error)
    if not place or said.startswith(place):
        return said
    return f"{place}: {said}" if is_users(error) else f"{place}: {type(error).__name__}: {error}"


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
        params = context.command.get_params(context)
        named = [name for parameter in params for name in parameter.opts]
        names = sorted(name for name in named if name.startswith("--"))
        return _choices(error, error.option_name, names, "options")
    if isinstance(error, click.BadParameter):  # which says itself what it may be
        return ""
    if context is not None and isinstance(context.command, click.Group):
        given = re.search("'(.*)'", error.message)
        return _choices(
            error, given[1] if given else "", sorted(context.command.commands), "commands"
        )
    return ""


def _choices(error: click.ClickException, given: str, names: list[str], what: str) -> str:
    valid = f" Valid {what}: {', '.join(names)}"
    if "Did you mean" in error.format_message():  # newer releases of click say so themselves
        return valid
    guess = did_you_mean(given, names).removeprefix(": did")
    return (f" Did{guess}" if guess else "") + valid
