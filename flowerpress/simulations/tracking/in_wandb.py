"""Runs for Weights & Biases: in ``FOLDER/wandb``, and uploaded only if the user has said so.

Its own settings are kept: ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_PROJECT`` (``flowerpress``),
``WANDB_NAME``, ``WANDB_RUN_GROUP`` and others. Without ``WANDB_MODE`` and ``WANDB_API_KEY`` it is
offline, and ``wandb sync`` uploads later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowerpress.simulations.tracking.naming import Setting
from flowerpress.simulations.verdict import DONE, Verdict


class WandbWriter:
    """A history, with the configuration as it is and the verdict in the summary.

    Parameters
    ----------
    folder : Path
    run : str
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._name = folder, run
        self._run: Any = None

    def open(self, config: Mapping[str, Setting]) -> None:
        """Make the run, beside any that the user has under way."""
        import wandb

        own = os.environ.get
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            mode=own("WANDB_MODE") or (None if own("WANDB_API_KEY") else "offline"),
            dir=own("WANDB_DIR") or str(self._folder),
            project=own("WANDB_PROJECT") or "flowerpress",
            name=own("WANDB_NAME") or self._name,
            group=own("WANDB_RUN_GROUP") or self._folder.resolve().name,
            config=dict(config),
            reinit="create_new",
            # It would copy what the run prints, a moving bar too, and repeat the final table.
            settings=wandb.Settings(console="off", quiet=True),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        self._run.log(dict(values), step=step)

    def close(self, verdict: Verdict) -> None:
        """Write the verdict, and end the run."""
        if self._run is not None:
            self._run.summary["verdict"] = verdict.status
            self._run.summary["reason"] = "\n".join(verdict.lines)
            self._run.finish(exit_code=0 if verdict.status == DONE else 1)


writer = WandbWriter
