"""The command line: arguments in, one line out for what is wrong.

`commands` has `run`, `list` and `bench`; `compare` has `compare` and `plot`; `link` has `certs` and
`join`, `serve` the server; `reproduce` the papers' claims.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from flowerpress.cli import compare, errors, link, reproduce, serve
from flowerpress.cli.commands import app
from flowerpress.cli.consoles import readable_anywhere, without_reader
from flowerpress.cli.errors import (
    FAILED,
    INTERRUPTED,
    READER_GONE,
    WRONG,
    complain,
    is_users,
    tell,
    valid_choices,
)

_NO_DETECTION = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"  # typer has no public way

compare.add_to(app)
link.add_to(app)
serve.add_to(app)
reproduce.add_to(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    What is wrong with the command or its data is one line on stderr and exit code 2.
    `FLOWERPRESS_TRACEBACK=1` shows the traceback instead, for whoever looks for a fault in
    flowerpress itself.

    Parameters
    ----------
    arguments : list of str or None
        The words after `flowerpress`. None: those of this process.
    """
    readable_anywhere()
    try:
        with _shell_by_name(sys.argv[1:] if arguments is None else arguments):
            code = app(arguments, prog_name="flowerpress", standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except click.Abort:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        without_reader()
        return READER_GONE
    except SystemExit as error:  # click's, where it met a broken pipe first
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        without_reader()
        return READER_GONE
    except errors.no_arguments() as error:
        sys.stderr.write(error.format_message() + "\n")
    except click.ClickException as error:
        complain(error.format_message() + valid_choices(error))
    except Exception as error:
        return _report(error)
    return WRONG


@contextmanager
def _shell_by_name(words: list[str]) -> Iterator[None]:
    """Have typer take the shell that is named: where it can look for the caller's, it takes that.

    Who has no shell above, as in a container, would be told that "" is not supported.
    """
    named = len(words) > 1 and words[0] in ("--install-completion", "--show-completion")
    if named:
        os.environ[_NO_DETECTION] = "1"
    try:
        yield
    finally:
        if named:
            del os.environ[_NO_DETECTION]


def _report(error: Exception) -> int:
    """Say in one line what was wrong, where that is no fault of flowerpress itself."""
    from flowerpress.server.errors import FailedRunError
    from flowerpress.user_code import place_of

    if os.environ.get("FLOWERPRESS_TRACEBACK"):
        raise error
    if isinstance(error, FailedRunError):
        complain(str(error))
        return FAILED
    if not is_users(error) and not place_of(error):
        raise error
    complain(tell(error))
    return WRONG
