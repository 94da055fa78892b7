"""The writers, by name; a library is imported where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from flowerpress.extras import import_failure
from flowerpress.simulations.tracking.tracker import Tracker, Writer
from flowerpress.suggestions import unknown

_ROOM = "flowerpress.simulations.tracking"
_MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tensorboard": ("in_tensorboard", ("tensorboard",)),
    "mlflow": ("in_mlflow", ("mlflow", "sqlalchemy", "alembic")),
    "wandb": ("in_wandb", ("wandb",)),
}
TRACKERS = tuple(_MODULES)
"""Names that `make_tracker` knows."""


def require_tracker(name: str) -> Callable[[Path, str], Writer]:
    """Return what makes a writer of a folder and a run's name.

    Raises
    ------
    ValueError
        There is no such tracker: names those that there are.
    ImportError
        Its library is not installed: names the extra that has it.
    """
    if name not in _MODULES:
        raise ValueError(unknown(f"no tracker is called {name!r}", name, TRACKERS, "there are"))
    module, libraries = _MODULES[name]
    try:
        for library in libraries:
            import_module(library)
        found: Callable[[Path, str], Writer] = import_module(f"{_ROOM}.{module}").writer
    except ImportError as error:
        extra = f"'flowerpress[{name}]'"
        raise import_failure(error, f"tracking by {name}", extra, *libraries) from None
    return found


def make_tracker(name: str, folder: str | Path, run: str = "run") -> Tracker:
    """Return the tracker of one run.

    Parameters
    ----------
    name : {"tensorboard", "mlflow", "wandb"}
    folder : path
        Gets the files, unless the library's own settings say another place: for mlflow
        ``MLFLOW_TRACKING_URI``, for wandb ``WANDB_DIR``.
    run : str
        The run's name, beside others in the same folder.

    Raises
    ------
    ValueError, ImportError
        As `require_tracker`.

    Examples
    --------
    >>> make_tracker("tensorbord", "runs/mine")
    Traceback (most recent call last):
    ...
    ValueError: no tracker is called 'tensorbord': did you mean 'tensorboard'? There are ...
    """
    return Tracker(name, require_tracker(name)(Path(folder), run))
