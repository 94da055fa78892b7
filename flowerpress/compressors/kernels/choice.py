"""Which of the two kernel modules runs."""

from __future__ import annotations

from types import ModuleType

from flowerpress.compressors.kernels import numpy_kernels


def kernels() -> ModuleType:
    """Return the kernel module in use."""
    return numpy_kernels
