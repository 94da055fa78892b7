"""Event files for TensorBoard: ``FOLDER/tensorboard/RUN/events.out.tfevents...``.

They are written by the writer of the package ``tensorboard``, the one that torch's SummaryWriter
uses too. It is imported without torch, in a fifth of a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowerpress.simulations.tracking.naming import Setting, clean
from flowerpress.simulations.verdict import DONE, Verdict


class TensorBoardWriter:
    """Scalars, with the configuration as hyperparameters and the verdict as a text.

    What is written is on the disk after each round. Values are float32, as TensorBoard's are.

    Parameters
    ----------
    folder : Path
    run : str
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder / "tensorboard" / clean(run)
        self._events: Any = None

    def open(self, config: Mapping[str, Setting]) -> None:
        """Make the file."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events = EventFileWriter(str(self._folder))
        # The group is of the configuration and the place: two runs of the same are two rows.
        self._add(hparams_pb(dict(config), trial_id=str(self._folder)), 0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write a scalar for each value."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=each) for tag, each in values.items()]
        self._add(Summary(value=scalars), step)

    def close(self, verdict: Verdict) -> None:
        """Write the verdict, and close the file."""
        if self._events is None:
            return
        from tensorboard.plugins.text.summary_v2 import text_pb

        try:
            self._add(session_end(done=verdict.status == DONE), 0)
            self._add(text_pb("verdict", "\n\n".join([verdict.status, *verdict.lines])), 0)
        finally:
            self._events.close()

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._events.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()


def session_end(*, done: bool) -> Any:
    """Return the summary that ends a session of the plugin for hyperparameters."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2
    from tensorboard.plugins.hparams.api_pb2 import Status

    end = plugin_data_pb2.SessionEndInfo(
        status=Status.STATUS_SUCCESS if done else Status.STATUS_FAILURE,
        end_time_secs=time.time(),
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    about = metadata.create_summary_metadata(data)
    tag, nothing = metadata.SESSION_END_INFO_TAG, metadata.NULL_TENSOR
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=nothing)])


writer = TensorBoardWriter
