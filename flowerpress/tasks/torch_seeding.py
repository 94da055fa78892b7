"""Passes through a torch model whose random numbers come from a seed, whatever draws them.

A model may draw anywhere: dropout modules and functions, noise layers, stochastic depth, masks made
by a collate function, augmentations of a dataset. All draw from generators that belong to the
process: torch's (one for the CPU, one for each device), numpy's and Python's. So a pass that draws
has the process' generators to itself: it runs alone, from its seed, and puts them back as they
were.

Most models never draw. Their passes run side by side and only look whether torch's generators have
moved meanwhile. Where they have, the pass is taken back and done again from its seed, and so are
all later ones. numpy's and Python's generators take longer to look at than a small model's pass:
they are watched in a task's first sixteen passes and in each eighth, and seeded in all from then
on if they moved.

A generator of the model's own (``torch.Generator()`` in an attribute) is out of reach.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_BEGINNING, _SELDOM = 16, 8  # passes that numpy's and Python's generators are watched in


class _Generator(NamedTuple):
    """A generator of the process."""

    get: Callable[[], Any]
    set: Callable[[Any], object]
    seed: Callable[[int], object]


class _SharedLock:
    """A lock that many may hold together, or one alone; who waits to be alone comes first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._together, self._waiting, self._alone = 0, 0, False

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not (self._alone or self._waiting))
            self._together += 1
        try:
            yield
        finally:
            with self._condition:
                self._together -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._waiting += 1
            try:
                self._condition.wait_for(lambda: not (self._alone or self._together))
                self._alone = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()


_LOCK = _SharedLock()


class SeededPasses:
    """The passes of one kind (training, evaluation) of one task.

    Parameters
    ----------
    device : torch.device
        Where the model is: the generators of all devices of its type are looked after, and the
        CPU's.
    """

    def __init__(self, device: torch.device) -> None:
        self._torch, self._others = _torch_generators(device), _other_generators()
        self._drawn = [*self._torch, *self._others]  # what a pass draws from: before one, anything
        self._passes = 0

    def run(
        self, seed: int, once: Callable[[], T], remember: Callable[[], Callable[[], None]]
    ) -> T:
        """Return `once()`, in which random numbers depend on `seed` alone.

        Parameters
        ----------
        remember : callable
            Returns a function that takes back what `once` does to the model. `once` may be done
            twice, with that in between.
        """
        first, watched = not self._passes, self._watched()
        self._passes += 1
        if first:
            with _LOCK.alone():
                return self._first(seed, once)
        with _LOCK.alone() if self._drawn else _LOCK.together():
            undo = remember() if watched else _nothing
            before = [generator.get() for generator in watched]
            with _from_seed(self._drawn, seed):
                result = once()
            moved = _moved(watched, before)
        if not moved:
            return result
        self._note([*self._drawn, *moved])
        with _LOCK.alone():
            undo()
            for generator, state in zip(watched, before, strict=True):
                generator.set(state)
            if len(self._drawn) > len(self._torch):
                with _from_seed(self._drawn, seed):
                    return once()
            return self._first(seed, once)  # another thread may have drawn, and torch's are watched

    def _watched(self) -> list[_Generator]:
        """Return the generators that the next pass is not known to draw from, and may."""
        often = self._passes < _BEGINNING or self._passes % _SELDOM == 0
        may_draw = [*self._torch, *self._others] if often else self._torch
        return [generator for generator in may_draw if generator not in self._drawn]

    def _first(self, seed: int, once: Callable[[], T]) -> T:
        """Do a pass from its seed, and note what it, and nobody else, draws from."""
        with _from_seed(self._drawn, seed):
            begun = [generator.get() for generator in self._drawn]
            result = once()
            self._note(_moved(self._drawn, begun))
        return result

    def _note(self, drawn: list[_Generator]) -> None:
        """Note what is drawn from: who draws from one of the others may draw from the rest."""
        others = any(generator in self._others for generator in drawn)
        torchs = others or any(generator in self._torch for generator in drawn)
        self._drawn = [*(self._torch if torchs else ()), *(self._others if others else ())]


def _moved(generators: list[_Generator], before: list[Any]) -> list[_Generator]:
    """Return those of the generators that have other states than before."""
    both = zip(generators, before, strict=True)
    return [generator for generator, state in both if not _equal(generator.get(), state)]


def _nothing() -> None:
    """Take nothing back."""


@contextmanager
def seeded(device: torch.device) -> Iterator[None]:
    """Let what is done inside draw from a fixed seed, and leave the generators as they were."""
    with _LOCK.alone(), _from_seed([*_torch_generators(device), *_other_generators()], 0):
        yield


@contextmanager
def _from_seed(generators: list[_Generator], seed: int) -> Iterator[None]:
    kept = [generator.get() for generator in generators]
    try:
        for generator in generators:
            generator.seed(seed)
        yield
    finally:
        for generator, state in zip(generators, kept, strict=True):
            generator.set(state)


def _torch_generators(device: torch.device) -> list[_Generator]:
    import torch

    cpu = torch.default_generator
    generators = [_Generator(cpu.get_state, cpu.set_state, cpu.manual_seed)]
    if device.type == "cpu":
        return generators
    module = getattr(torch, device.type)
    for index in range(module.device_count()):
        one = torch.device(device.type, index)
        generators.append(_device_generator(one, module))
    return generators


def _device_generator(device: torch.device, module: Any) -> _Generator:
    import torch

    def seed(number: int) -> None:
        # Not module.manual_seed_all: that of CUDA keeps a traceback of each call until it starts.
        fresh = torch.Generator(device=device)
        fresh.manual_seed(number)
        module.set_rng_state(fresh.get_state(), device)

    return _Generator(
        partial(module.get_rng_state, device),
        lambda state: module.set_rng_state(state, device),
        seed,
    )


def _other_generators() -> list[_Generator]:
    """Return Python's generator and numpy's; not one that the user has put in place of its own."""
    generators = [_Generator(random.getstate, random.setstate, random.seed)]
    get = partial(np.random.get_state, legacy=False)
    if get()["bit_generator"] == "MT19937":
        generators.append(_Generator(get, np.random.set_state, _seed_numpy))
    return generators


def _seed_numpy(seed: int) -> None:
    np.random.seed([seed >> 32, seed & 0xFFFFFFFF])  # noqa: NPY002


def _equal(a: Any, b: Any) -> bool:
    """Whether two states of one generator are the same."""
    if isinstance(a, dict):
        return all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a.equal(b)) if hasattr(a, "equal") else bool(a == b)
