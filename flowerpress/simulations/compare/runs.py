"""Many experiments over processes, each kept as it ends, so that none is ever run twice."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from flowerpress.simulations.experiment import Experiment
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.reading import read_runs
from flowerpress.simulations.results import save_runs, versions
from flowerpress.simulations.verdict import FAILED, Verdict
from flowerpress.user_code import is_file, split_name

# One thread each: the processes share the cores, and sums keep their order whatever the machine.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_NOT_FINITE = "no longer finite"  # how a run that goes to infinity ends

OnDone = Callable[[Outcome], None]


def run_all(
    experiments: Sequence[Experiment],
    *,
    jobs: int | None = None,
    folder: Path | None = None,
    on_done: OnDone | None = None,
) -> list[Outcome]:
    """Run experiments, some at a time, and return their outcomes in the order given.

    Each runs in a process of one thread, so that a result depends neither on `jobs` nor on what
    else runs. One that diverges, or that an error ends, is an outcome that says so.

    Parameters
    ----------
    experiments : sequence of Experiment
        Those that are equal are run once.
    jobs : int, optional
        How many run at a time. Default: one on each core.
    folder : Path, optional
        Keeps every outcome in a file of its own, ``KEY.json`` in the form of ``results.json``.
        What is there already, by the same releases, is not run again.
    on_done : callable, optional
        Called with each outcome as it is there, in any order.

    Raises
    ------
    MemoryError
        A process was killed, by the system for want of memory as a rule. What has ended is kept.
    """
    found: dict[str, Outcome] = {}
    left: dict[str, Experiment] = {}
    for experiment in experiments:
        name = key(experiment)
        kept = _kept(folder, name) if name not in found and name not in left else None
        if kept is not None:
            found[name] = kept
            _tell(on_done, kept)
        elif name not in found:
            left[name] = experiment
    # Closed here: what is raised below would keep it, and its processes at work, in the traceback.
    with closing(_run(left, jobs or os.cpu_count() or 1)) as outcomes:
        for name, outcome in outcomes:
            found[name] = outcome
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                save_runs(folder / f"{name}.json", [outcome])
            _tell(on_done, outcome)
    return [found[key(experiment)] for experiment in experiments]


def key(experiment: Experiment) -> str:
    """Return what names an experiment's file: a hash of all that its result depends on.

    That is its description, without the number of threads, and the source of the user's own task.
    """
    described = replace(experiment, threads=None).as_dict()
    source, _ = split_name(experiment.task)
    if is_file(source):
        described["source"] = source_hash(source)
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_hash(path: str) -> str:
    """Return a hash of a user's file; raises `OSError` where it cannot be read."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _kept(folder: Path | None, name: str) -> Outcome | None:
    """Return the outcome that a folder has; None where it has none that can be read.

    Nor is one taken of another release of flowerpress, torch or numpy: it need not be the same. Nor
    one that an error ended, a full disk say: that may be gone.
    """
    if folder is None:
        return None
    path = folder / f"{name}.json"
    with suppress(OSError, ValueError):
        (found, *_) = read_runs(path)  # first: it knows what is no file of runs
        if json.loads(path.read_text("utf-8")).get("versions") == versions():
            return None if broken(found) else found
    return None


def broken(outcome: Outcome) -> bool:
    """Return whether a run says nothing: an error ended it, which was no divergence."""
    return outcome.status == FAILED and _NOT_FINITE not in outcome.reason


def _tell(on_done: OnDone | None, outcome: Outcome) -> None:
    if on_done is not None:
        on_done(outcome)


def _run(
    experiments: dict[str, Experiment], jobs: int
) -> Generator[tuple[str, Outcome], None, None]:
    """Run experiments, and yield each outcome as it is there."""
    if not experiments:
        return
    with _one_thread_each():
        # Not forked: a copy of a process that has threads, as torch starts them, may hang.
        context = multiprocessing.get_context("spawn")
        workers = min(jobs, len(experiments))
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
        waiting: dict[Future[Outcome], str] = {}
        try:
            for name, experiment in experiments.items():
                waiting[pool.submit(run, experiment)] = name
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise MemoryError(
                "a process that ran an experiment was killed, for want of memory as a rule: what "
                "has ended is kept, so go on with fewer at a time (jobs). A script of your own "
                "must start below `if __name__ == '__main__':`"
            ) from None
        finally:
            # Waiting futures are there where it ended before its time: then nothing is waited for.
            if waiting:
                _kill(pool)
            else:
                pool.shutdown()


def _begin() -> None:
    """Begin a process: Ctrl-C, which a terminal sends to all, is left to the one that started it.

    What one run warns of, all like it do: a process says it once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    seen: set[str] = set()

    def first_time(record: logging.LogRecord) -> bool:
        known = record.getMessage() in seen
        seen.add(record.getMessage())
        return not known

    logging.lastResort = logging.StreamHandler()
    logging.lastResort.setLevel(logging.WARNING)
    logging.lastResort.addFilter(first_time)


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, which cannot end it then."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes, also those that run something."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(cancel_futures=True)  # its own thread reaps them: two that do may both miss one


def run(experiment: Experiment) -> Outcome:
    """Run one experiment in one thread; an error makes an outcome that tells of it."""
    try:
        with warnings.catch_warnings():
            # What diverges overflows in many places: the outcome says it once.
            warnings.simplefilter("ignore", RuntimeWarning)
            prepared = replace(experiment, threads=1).prepare()
            result = prepared.simulate()
        # Under the description that was asked for, by which it is found again.
        return Outcome.of(replace(prepared.experiment, threads=experiment.threads), result)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        verdict = Verdict(FAILED, reason)
        return Outcome(experiment, (), (), 0, 0, 0, 0.0, verdict=verdict)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start meanwhile have one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
