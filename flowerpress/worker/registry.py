"""The algorithms a ClientApp serves, by the name the instruction carries."""

from __future__ import annotations

from functools import lru_cache

from flowerpress.algorithms import Algorithm, algorithm, algorithm_names
from flowerpress.worker.mistakes import check_worker
from flowerpress.worker.worker import Worker


def worker_names() -> list[str]:
    """Names of the algorithms with a worker, sorted."""
    return algorithm_names()


def make_worker(name: str) -> Worker:
    """Return the worker half of algorithm `name`.

    Raises
    ------
    ValueError
        Unknown name: lists the known ones. The server may run a newer flowerpress, or have a
        package that this client lacks. Or the class is no worker: says what it must have.
    """
    try:
        half = _half(algorithm(name), name)
    except ValueError as error:
        raise ValueError(f"this client cannot work for {name!r}: {error}") from None
    return half()


@lru_cache(maxsize=64)
def _half(found: Algorithm, name: str) -> type[Worker]:
    cls = found.load("worker")
    if not (isinstance(cls, type) and issubclass(cls, Worker)):
        raise ValueError(
            f"{cls!r} is registered as the worker of {name!r}: expected a subclass of "
            "flowerpress.clients.Worker"
        )
    check_worker(cls)
    return cls
