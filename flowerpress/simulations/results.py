"""The folder of a run: made before the run begins, and written whatever ends it.

======================  ==========================================================================
file                    content
======================  ==========================================================================
results.json            configuration, status, metrics of each round, bytes; from the first moment
model.safetensors       the final model, or the last one before the run was stopped
baseline.safetensors    that of the dense run, where there was one
plot.png, gossip.png    accuracy against bytes; what the nodes of a graph did
======================  ==========================================================================

Every file is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from flowerpress.protocol import as_json
from flowerpress.simulations import gossip_plot, plots
from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.verdict import INTERRUPTED, RUNNING

REPORTED_PACKAGES = ("flowerpress", "flwr", "flwr-nightly", "numpy", "numba", "torch")
RESULTS, MODEL, BASELINE = "results.json", "model.safetensors", "baseline.safetensors"
_ORDER = "arrays"  # in the metadata of a model's file: its arrays' names in order


def make_folder(
    directory: Path,
    experiment: Experiment,
    checkpoint: Path | None = None,
    *,
    resume: bool = False,
) -> Path:
    """Make a new folder for the results of a run that begins, and write into it what will run.

    Parameters
    ----------
    directory : Path
        Gets the folder.
    experiment : Experiment
    checkpoint : Path, optional
        Where the run is saved.
    resume : bool (default: False)
        Whether it goes on from there: a folder beside the new one that a kill has left as running,
        of a run that was saved there too, is then marked as interrupted.

    Raises
    ------
    OSError
        The folder cannot be made or written.
    """
    begun = datetime.now(UTC)
    try:
        folder = _new_folder(directory, f"{begun:%Y%m%d-%H%M%S}", experiment)
        run = {"config": experiment.as_dict(), "status": RUNNING}
        head = {"begun": begun.isoformat(timespec="seconds"), "versions": versions()}
        saved = {} if checkpoint is None else {"checkpoint": str(checkpoint.resolve())}
        write_file(folder / RESULTS, _as_text({**head, **saved, "runs": [run]}))
    except OSError as error:
        reason = f"{error.strerror or error}"
        raise OSError(
            f"results cannot be kept in {directory}: {reason}; name another folder"
        ) from error
    if checkpoint is not None and resume:
        _mark_killed(folder, str(checkpoint.resolve()))
    return folder


def _mark_killed(folder: Path, checkpoint: str) -> None:
    """Mark the folders beside one as interrupted whose run was killed, and goes on in that one."""
    for path in folder.parent.glob(f"*/{RESULTS}"):
        with suppress(OSError, ValueError, AttributeError, TypeError):  # some other file
            document = json.loads(path.read_text("utf-8"))
            if path.parent == folder or document.get("checkpoint") != checkpoint:
                continue
            for run in document["runs"]:
                run["status"] = INTERRUPTED
                run["reason"] = f"it was killed, and went on in {folder.name}"
            write_json(path, document)


def write(
    folder: Path,
    outcomes: Sequence[Outcome],
    dense: Outcome | None = None,
    models: Mapping[str, ArrayRecord] | None = None,
) -> list[str]:
    """Write what runs gave into a folder; returns hints on what was left out, and why.

    Parameters
    ----------
    folder : Path
    outcomes : sequence of Outcome
    dense : Outcome, optional
        The dense baseline.
    models : mapping of str to ArrayRecord, optional
        Models, by the names of their files.

    Raises
    ------
    OSError
        Something could not be written, the disk is full say: says what, and in which temporary
        folder everything is instead.
    """
    rows = [*outcomes, *([dense] if dense is not None else [])]
    files = {name: model_bytes(model) for name, model in (models or {}).items()}
    files[RESULTS] = _as_text(describe(outcomes, dense, datetime.now(UTC)))
    failed = _write_all(folder, files)
    pictures, hints = _pictures(rows)  # last: drawing takes seconds, and may fail
    failed += _write_all(folder, pictures)
    if failed:
        spare = Path(tempfile.mkdtemp(prefix="flowerpress-results-"))
        lost = _write_all(spare, files | pictures)
        where = f"everything is in {spare}" if not lost else f"nor could {spare} be written"
        raise OSError(f"results in {folder} lack {', '.join(failed)}; {where}")
    return hints


def _write_all(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write files; returns which of them could not be written, and why."""
    failed = []
    for name, data in files.items():
        try:
            write_file(folder / name, data)
        except OSError as error:
            failed.append(f"{name} ({error.strerror or error})")
    return failed


def save_runs(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a file of runs that have ended, in the form of a ``results.json``.

    Raises
    ------
    OSError
        It cannot be written.
    """
    write_json(path, describe(outcomes, None, datetime.now(UTC)))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file whole, or leave what was there; raises `OSError` where it cannot."""
    write_file(path, _as_text(document))


def save(
    directory: Path, outcomes: Sequence[Outcome], dense: Outcome | None = None
) -> tuple[Path, list[str]]:
    """Make a new folder below `directory` for runs that have ended; see `make_folder`, `write`."""
    folder = make_folder(directory, outcomes[0].experiment)
    return folder, write(folder, outcomes, dense)


def discard(folder: Path) -> None:
    """Remove the folder of a run that gave nothing."""
    with suppress(OSError):
        (folder / RESULTS).unlink()
        folder.rmdir()


def describe(
    outcomes: Sequence[Outcome], dense: Outcome | None, finished: datetime
) -> dict[str, Any]:
    """Return everything needed to read, plot or repeat the runs, as JSON values.

    JSON has no NaN and no infinity: a metric that diverged is null.
    """
    rows = [*outcomes, *([dense] if dense is not None else [])]
    return {
        "finished": finished.isoformat(timespec="seconds"),
        "versions": versions(),
        "runs": [_run(row, dense) for row in rows],
    }


def model_bytes(arrays: ArrayRecord) -> bytes:
    """Return a model as the bytes of a safetensors file, which also says the arrays' order."""
    from safetensors.numpy import save as to_bytes

    # In C order: safetensors takes the bytes as they lie.
    named = {str(name): np.array(array.numpy(), order="C") for name, array in arrays.items()}
    return to_bytes(named, metadata={_ORDER: json.dumps(list(named))})


def load_model(path: str | Path) -> ArrayRecord:
    """Return the model in a ``model.safetensors``, as a run gave it: names, order, values.

    Raises
    ------
    ValueError
        It is no safetensors file.
    OSError
        It cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> model = ArrayRecord({"weight": Array(np.ones(2)), "bias": Array(np.zeros(1))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.safetensors")
    ...     _ = path.write_bytes(model_bytes(model))
    ...     {name: array.numpy().tolist() for name, array in load_model(path).items()}
    {'weight': [1.0, 1.0], 'bias': [0.0]}
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            there = list(file.keys())  # the file itself cannot be iterated
            names = json.loads((file.metadata() or {}).get(_ORDER, "[]"))
            order = names if sorted(names) == sorted(there) else there
            return ArrayRecord({name: Array(file.get_tensor(name)) for name in order})
    except SafetensorError as error:
        raise ValueError(f"{path} is no model in safetensors: {error}") from None


def _pictures(rows: Sequence[Outcome]) -> tuple[dict[str, bytes], list[str]]:
    """Return the pictures by their files' names, and why there is none if so."""
    drawn, hints = {}, []
    try:
        with warnings.catch_warnings():  # what diverged is off every scale
            warnings.simplefilter("ignore")
            drawn["plot.png"] = plots.plot(rows)
            if gossip := [row for row in rows if gossip_plot.is_gossip(row)]:
                drawn["gossip.png"] = gossip_plot.plot(gossip)
    except ImportError as error:
        hints.append(f"no plot: {error}")
    except Exception as error:  # a picture is never worth the results
        hints.append(f"no plot: {type(error).__name__}: {error}")
    return drawn, hints


def _run(outcome: Outcome, dense: Outcome | None) -> dict[str, Any]:
    ratio, source = outcome.ratio_to_dense(dense)
    verdict = outcome.verdict
    run = {
        "config": outcome.experiment.as_dict(),
        "status": verdict.status,
        "reason": verdict.reason,
        "left_out": list(verdict.left_out),
        "rounds": outcome.rounds,
        "final": outcome.final,
        "final_evaluate": outcome.final_evaluate,
        "up_bytes": outcome.up_bytes,
        "down_bytes": outcome.down_bytes,
        "up_collected": outcome.up_collected,
        "dense_up_bytes": outcome.dense_up_bytes,
        "ratio_to_dense": {"value": ratio, "source": source},
        "seconds": outcome.seconds,
        "clients": {str(client): asdict(part) for client, part in outcome.clients.items()},
        "history": [asdict(record) for record in outcome.history],
        "ledger": [asdict(row) for row in outcome.ledger_rounds],
    }
    return {key: as_json(value) for key, value in run.items()}


def _as_text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def versions() -> dict[str, str]:
    """Return the versions that figures may depend on."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _new_folder(directory: Path, begun: str, experiment: Experiment) -> Path:
    """Make a folder that no other run has, even one started in the same second."""
    name = f"{begun}-{experiment.label}-{experiment.strategy}"
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = directory / (name + suffix)
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise FileExistsError(f"it holds a thousand folders named {name}")


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # two processes may write it
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
