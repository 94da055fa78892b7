"""Runs that have ended, wherever below some folders they are; and what had to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerpress.simulations.compare.comparison import RUNS
from flowerpress.simulations.compare.settings import SETTINGS, read_settings
from flowerpress.simulations.outcome import Outcome
from flowerpress.simulations.reading import UnfinishedError, finished_at, read_runs
from flowerpress.simulations.results import RESULTS
from flowerpress.simulations.verdict import FAILED, INTERRUPTED

_NAMED = 5  # runs that a line names, before it counts the others


@dataclass(frozen=True)
class Found:
    """A run that has ended.

    Attributes
    ----------
    path : Path
        Its file.
    finished : str
        When, in ISO 8601 and UTC.
    outcome : Outcome
    """

    path: Path
    finished: str
    outcome: Outcome

    @property
    def rank(self) -> tuple[bool, int, str]:
        """What makes it the one to keep of several: it is whole, the longest, the newest."""
        whole = self.outcome.status not in (INTERRUPTED, FAILED)
        return whole, self.outcome.rounds, self.finished


def find_runs(paths: Sequence[Path]) -> tuple[list[Found], list[str]]:
    """Return the runs that paths have, and a sentence for each file that was left out.

    Parameters
    ----------
    paths : sequence of Path
        ``results.json`` files; folders with one; folders of comparisons, of which it is the runs on
        the seeds reported; and folders with such at any depth. A file that is there twice is read
        once.

    Raises
    ------
    ValueError, OSError
        A path has no run, or is none itself; or none of the runs has ended.
    """
    found: list[Found] = []
    left_out: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        places = list(_places(path, set()))
        if not places:
            raise ValueError(f"{path}: no {RESULTS} of a run is in it, nor in a folder below")
        new = [each for each in places if each.resolve() not in seen]
        seen.update(each.resolve() for each in new)
        for place in new:
            runs, why = _read_leniently(place, strict=len(places) == 1)
            found += runs
            left_out += why
    if not found:
        raise ValueError(f"no run has ended: {left_out[0]}")
    return found, left_out


def _places(path: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the files of runs and the folders of comparisons, in order of their names."""
    if not path.is_dir() or (path / SETTINGS).exists():
        yield path
    elif (path / RESULTS).exists():
        yield path / RESULTS
    elif path.resolve() not in seen:  # links may lead in a circle
        seen.add(path.resolve())
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.name.startswith("."):
                yield from _places(below, seen)


def _read_leniently(place: Path, *, strict: bool) -> tuple[list[Found], list[str]]:
    """Return runs, and why some could not be had.

    What has not ended is left out, wherever it is. What is damaged is an error where it alone was
    asked for (`strict`), and among others one more that is left out.
    """
    try:
        return _read_comparison(place) if place.is_dir() else (_read(place), [])
    except UnfinishedError as error:
        return [], [str(error)]
    except (ValueError, OSError) as error:
        if strict:
            raise
        return [], [str(error)]


def _read(file: Path) -> list[Found]:
    outcomes = read_runs(file)
    return [Found(file, finished_at(file), outcome) for outcome in outcomes]


def _read_comparison(folder: Path) -> tuple[list[Found], list[str]]:
    """Return a comparison's runs on the seeds reported; those on tuning seeds are no one's."""
    seeds = read_settings(folder).get("seeds")
    if not isinstance(seeds, list):
        raise ValueError(f"{folder / SETTINGS} is of no comparison: it names no seeds")
    found: list[Found] = []
    left_out: list[str] = []
    for file in sorted((folder / RUNS).glob("*.json")):
        runs, why = _read_leniently(file, strict=False)
        found += [each for each in runs if each.outcome.experiment.seed in seeds]
        left_out += why
    if not found:
        why = left_out[:1] or ["`flowerpress compare` goes on with it by --resume"]
        raise ValueError(f"{folder}: no run of this comparison has ended: {why[0]}")
    return found, left_out


def one_each(
    found: Sequence[Found], method_of: Callable[[Outcome], str]
) -> tuple[list[Outcome], list[str]]:
    """Return one run for each method and seed, and a sentence about the others if there are any.

    A run that was resumed leaves two folders, and dense baselines are run with each method: of
    several the longest is kept, or else the newest, for a mean over seeds takes each seed once.
    """
    kept: dict[tuple[str, int], Found] = {}
    for each in found:
        name = method_of(each.outcome), each.outcome.experiment.seed
        if name not in kept or each.rank >= kept[name].rank:
            kept[name] = each
    chosen = {id(each) for each in kept.values()}
    outcomes = [each.outcome for each in found if id(each) in chosen]
    others = [each for each in found if id(each) not in chosen]
    return outcomes, [_others(others)] if others else []


def _others(runs: Sequence[Found]) -> str:
    """Return the sentence about runs of which there are others with the same method and seed."""
    named = [
        f"{_short(each.path)} ({each.outcome.experiment.title}, "
        f"seed {each.outcome.experiment.seed}, {each.outcome.rounds} rounds)"
        for each in runs[:_NAMED]
    ]
    more = [f"{len(runs) - _NAMED} more"] if len(runs) > _NAMED else []
    listed = ", ".join([*named, *more])
    return f"{listed}: of the same method and seed there is a longer or a newer run"


def _short(path: Path) -> Path:
    """Return the folder of a run's file, which has its name."""
    return path.parent if path.name == RESULTS else path
