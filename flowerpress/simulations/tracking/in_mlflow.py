"""Runs for MLflow: on the server that the user has named, or in ``FOLDER/mlflow/mlflow.db``.

MLflow's own settings are kept: ``MLFLOW_TRACKING_URI`` or ``mlflow.set_tracking_uri``, and
``MLFLOW_EXPERIMENT_NAME`` (``flowerpress``). Without the first it is a file of SQLite, which
``mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow/mlflow.db`` shows; MLflow's older store, a
folder of text files, is closed to new users.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowerpress.simulations.tracking.naming import Setting
from flowerpress.simulations.verdict import DONE, INTERRUPTED, Verdict

_METRICS, _PARAMS = 1000, 100  # of one call at most, by MLflow's limits
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_LONGEST = 500  # letters of a parameter: what its oldest servers take


@contextmanager
def few_retries() -> Iterator[None]:
    """Let MLflow give up a server that does not answer within seconds; by itself it takes minutes.

    The user's own setting is kept, and MLflow's other callers have theirs again afterwards.
    """
    given = _RETRIES in os.environ
    if not given:
        os.environ[_RETRIES] = "2"
    try:
        yield
    finally:
        if not given:
            os.environ.pop(_RETRIES, None)


class MLflowWriter:
    """Metrics, with the configuration as parameters and the verdict as tags.

    MLflow keeps an infinity as the largest float.

    Parameters
    ----------
    folder : Path
    run : str
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._run = folder / "mlflow", run
        self._client: Any = None
        self._id = ""

    @few_retries()
    def open(self, config: Mapping[str, Setting]) -> None:
        """Make the run, and its experiment if it is not there."""
        import mlflow
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        uri, artifacts = None, None
        if not mlflow.tracking.is_tracking_uri_set():
            self._folder.mkdir(parents=True, exist_ok=True)
            folder = self._folder.resolve()
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        # It would tell on the screen that it makes tables.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        client = self._client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "flowerpress"
        experiment = client.get_experiment_by_name(name)
        number = (
            client.create_experiment(name, artifact_location=artifacts)
            if experiment is None
            else experiment.experiment_id
        )
        self._id = client.create_run(number, run_name=self._run).info.run_id
        params = [Param(key, str(value)[:_LONGEST]) for key, value in config.items()]
        for start in range(0, len(params), _PARAMS):
            client.log_batch(self._id, params=params[start : start + _PARAMS])

    @few_retries()
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write a metric for each value."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        for start in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + _METRICS])

    @few_retries()
    def close(self, verdict: Verdict) -> None:
        """Write the verdict, and end the run."""
        if not self._id:
            return
        from mlflow.entities import RunTag

        tags = [RunTag("verdict", verdict.status), RunTag("reason", "\n".join(verdict.lines))]
        self._client.log_batch(self._id, tags=tags)
        status = {DONE: "FINISHED", INTERRUPTED: "KILLED"}.get(verdict.status, "FAILED")
        self._client.set_terminated(self._id, status)


writer = MLflowWriter
