"""The two halves of a kernel module: ``name`` is numpy's, ``jit_name`` is numba's."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from flowerpress.compressors.kernels.choice import kernels


def twin(name: str) -> ModuleType:
    """Return the half of the module `name` that is in use; see :func:`kernels.choice.kernels`."""
    compiled = kernels().__name__.endswith(".numba_kernels")
    return _load(f"{__package__}.{'jit_' if compiled else ''}{name}")


@cache
def _load(path: str) -> ModuleType:
    return import_module(path)
