"""Runs read again from the files that they were written to, see `results`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowerpress.protocol.ledger import RoundBytes
from flowerpress.server.attendance import Presence
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.recorder import RoundRecord
from flowerpress.simulations.results import RESULTS
from flowerpress.simulations.verdict import INTERRUPTED, RUNNING, Verdict

_METRICS = ("metrics", "train", "evaluate")


class UnfinishedError(ValueError):
    """A file of runs that go on still, or that were killed: there is nothing of them in it."""


def read_runs(path: str | Path) -> list[Outcome]:
    """Return the runs of a ``results.json``, the dense baseline last where there was one.

    Parameters
    ----------
    path : str or Path
        The file, or the folder that has it.

    Raises
    ------
    ValueError
        It is no such file, or it has no run.
    UnfinishedError
        The runs in it have not ended.
    OSError
        It cannot be read.
    """
    path = Path(path)
    path = path / RESULTS if path.is_dir() else path
    try:
        document = json.loads(path.read_text("utf-8"))
        if "runs" not in document:
            raise ValueError("it names no runs")
        for fields in document["runs"]:
            _require_end(path, fields)
        found = [_outcome(fields) for fields in document["runs"]]
        if not found:
            raise ValueError("it has none")
    except KeyError as error:
        raise ValueError(
            f"{path}: its runs lack {error}, so another release wrote them: run them again"
        ) from None
    except UnfinishedError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no results.json of a run: {error}") from None
    return found


def finished_at(path: Path) -> str:
    """Return when a file of runs was written, in ISO 8601 and UTC; empty where it does not say."""
    return str(json.loads(path.read_text("utf-8")).get("finished", ""))


def _require_end(path: Path, fields: Mapping[str, Any]) -> None:
    """Raise `UnfinishedError` where a run has only what was written at its beginning."""
    if "history" not in fields and fields.get("status") in (RUNNING, INTERRUPTED):
        why = fields.get("reason") or (
            "the run goes on still, or was killed; one that was killed goes on with --resume, if "
            "it had a --checkpoint or is a server's"
        )
        raise UnfinishedError(f"{path}: {why}")


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    experiment = Experiment(**fields["config"])
    return Outcome(
        experiment=experiment,
        history=tuple(_record(each) for each in fields["history"]),
        ledger_rounds=tuple(RoundBytes(**each) for each in fields["ledger"]),
        up_bytes=fields["up_bytes"],
        down_bytes=fields["down_bytes"],
        dense_up_bytes=fields.get("dense_up_bytes", 0),
        seconds=fields["seconds"],
        up_collected=fields["up_collected"],
        verdict=Verdict(fields["status"], fields["reason"], tuple(fields["left_out"])),
        clients={int(client): Presence(**part) for client, part in fields["clients"].items()},
    )


def _record(fields: Mapping[str, Any]) -> RoundRecord:
    finite = {name: _numbers(fields[name]) for name in _METRICS}
    nodes = {int(client): _numbers(found) for client, found in fields["nodes"].items()}
    return RoundRecord(**{**fields, **finite, "nodes": nodes})


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as they were: JSON has null for what is not finite."""
    return {
        name: [math.nan if each is None else each for each in value]
        if isinstance(value, list)
        else (math.nan if value is None else value)
        for name, value in metrics.items()
    }
