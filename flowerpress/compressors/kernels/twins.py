"""The parts of a kernel module: ``name`` is numpy's, with ``jit_`` numba's, ``torch_`` torch's."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from flowerpress.compressors.kernels.choice import kernels
from flowerpress.compressors.kernels.device import on_device


def twin(name: str, x: object = None) -> ModuleType:
    """Return the part of the module `name` to use for `x`; see :func:`kernels.choice.kernels`."""
    if on_device(x):
        return _load(f"{__package__}.torch_{name}")
    compiled = kernels().__name__.endswith(".numba_kernels")
    return _load(f"{__package__}.{'jit_' if compiled else ''}{name}")


@cache
def _load(path: str) -> ModuleType:
    return import_module(path)
