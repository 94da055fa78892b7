"""Which of the two kernel modules runs."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from flowerpress.compressors.kernels.device import on_device

VARIABLE = "FLOWERPRESS_KERNELS"


def kernels(x: object = None) -> ModuleType:
    """Return the kernel module in use: numba's where numba is installed, else numpy's.

    For a vector `x` that is on a device it is torch's, which has what encoding needs.

    The environment variable ``FLOWERPRESS_KERNELS`` forces ``numpy`` or ``numba``; both give the
    same bytes.

    Raises
    ------
    ValueError
        If the variable has another value.
    ImportError
        If it asks for numba and numba is not installed.
    """
    if on_device(x):
        from flowerpress.compressors.kernels import torch_encode

        return torch_encode
    return _load(os.environ.get(VARIABLE, ""))


@cache
def _load(wanted: str) -> ModuleType:
    if wanted not in ("", "numpy", "numba"):
        raise ValueError(f"{VARIABLE} must be numpy or numba, got {wanted!r}")
    installed = find_spec("numba") is not None
    if wanted == "numba" and not installed:
        raise ImportError(f"{VARIABLE}=numba, but numba is missing: pip install numba")
    if wanted == "numpy" or not installed:
        from flowerpress.compressors.kernels import numpy_kernels

        return numpy_kernels
    # Imported on first use: numba takes most of a second.
    from flowerpress.compressors.kernels import numba_kernels

    return numba_kernels
