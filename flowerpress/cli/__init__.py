"""The command line: arguments in, one line out for what is wrong.

`commands` has `run`, `list` and `bench`; `link` has `certs` and `join`, `serve` the server.
"""

from __future__ import annotations

import os
import sys

import click

from flowerpress.cli import link, serve
from flowerpress.cli.commands import app
from flowerpress.cli.errors import complain, is_users, valid_choices

USAGE_ERROR = 2
INTERRUPTED = 130
link.add_to(app)
serve.add_to(app)


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
    try:
        return app(arguments, prog_name="flowerpress", standalone_mode=False) or 0
    except click.Abort:
        complain("interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
    except click.ClickException as error:
        complain(error.format_message() + valid_choices(error))
    except Exception as error:
        if os.environ.get("FLOWERPRESS_TRACEBACK") or not is_users(error):
            raise
        complain(str(error) or type(error).__name__)
    return USAGE_ERROR
