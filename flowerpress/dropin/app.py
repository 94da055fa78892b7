"""What a server app is given: a decorator for its main function, or a whole app around it."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flowerpress.dropin.grid import PressedGrid
from flowerpress.dropin.settings import Settings

log = logging.getLogger("flowerpress")
flower = logging.getLogger("flwr")
Main = Callable[[Grid, Context], None]


def press_grid(grid: Grid, compressor: str = "topk:0.01", **options: Any) -> PressedGrid:
    """Return a grid that presses what goes through it.

    Parameters
    ----------
    grid : Grid
        The one that Flower gives to a ServerApp.
    compressor, **options
        See `flowerpress.dropin.Settings`.

    Raises
    ------
    ValueError
        An option is wrong, or the grid is pressed already.
    """
    if options.get("report"):
        raise ValueError(
            "report is written when a main function below @pressed ends: a loop of your own has "
            "the same in grid.ledger and grid.summary()"
        )
    return PressedGrid(grid, Settings(compressor=compressor, **options))


def pressed(compressor: str = "topk:0.01", **options: Any) -> Callable[[Main], Main]:
    """Press what a ServerApp sends and is sent, whatever its strategy: below ``@app.main()``.

    The run config goes before what is given here: keys ``flowerpress.compressor``,
    ``flowerpress.memory`` and so on; an empty ``flowerpress.compressor`` presses nothing.

    Parameters
    ----------
    compressor, **options
        See `flowerpress.dropin.Settings`.

    Raises
    ------
    ValueError
        An option is wrong, or it stands above ``@app.main()``.

    Examples
    --------
    >>> from flwr.serverapp import ServerApp
    >>> app = ServerApp()
    >>> @app.main()
    ... @pressed("topk:0.01", memory="ef14")
    ... def main(grid, context):
    ...     print(type(grid).__name__)
    """
    if callable(compressor):
        raise ValueError('@pressed needs parentheses: @pressed() or @pressed("topk:0.01")')
    given = {"compressor": compressor, **options}
    Settings(**given)  # what is wrong is said where it is written

    def decorate(main: Main) -> Main:
        around = getattr(main, "__globals__", {}).values()
        if any(getattr(each, "_main", None) is main for each in around):
            raise ValueError("@pressed stands above @app.main(), which never sees it: put it below")

        @functools.wraps(main)
        def run(grid: Grid, context: Context) -> None:
            settings = Settings.of(context.run_config, given)
            if settings is None:
                main(grid, context)
                return
            own = PressedGrid(grid, settings)
            try:
                main(own, context)
            finally:
                _tell(f"{settings.compressor}, memory {settings.memory}: {own.summary()}")
                if settings.report:
                    _write(Path(settings.report), own)

        return run

    return decorate


def pressed_app(app: ServerApp, compressor: str = "topk:0.01", **options: Any) -> ServerApp:
    """Return a ServerApp that runs another one, with `server_fn` or `main`, pressed.

    Parameters and errors are those of `pressed`.
    """
    around = ServerApp()

    @around.main()
    @pressed(compressor, **options)
    def main(grid: Grid, context: Context) -> None:
        app(grid, context)

    del main
    return around


def _tell(line: str) -> None:
    """Log a line where it is read: in Flower's log, unless flowerpress's own is shown.

    Python shows nothing below a warning of a log that nobody has set up.
    """
    shown = log.hasHandlers() and log.isEnabledFor(logging.INFO)
    (log if shown else flower).info("flowerpress: %s", line)


def _write(path: Path, grid: PressedGrid) -> None:
    """Write bytes by round, and what was refused, as JSON."""
    told = {
        "settings": {name: getattr(grid.settings, name) for name in grid.settings.options},
        "refused": grid.refused,
        "unpressed": grid.unpressed,
        "up_bytes": grid.ledger.up_bytes,
        "down_bytes": grid.ledger.down_bytes,
        "rounds": list(grid.ledger.as_dicts()),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    except OSError as error:  # what was trained is worth more
        log.error("flowerpress.report: %s", error)
