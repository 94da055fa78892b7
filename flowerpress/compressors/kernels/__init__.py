"""Kernels: the loops over coordinates, each written twice, with byte-identical results."""

from __future__ import annotations

from flowerpress.compressors.kernels.choice import kernels

__all__ = ["kernels"]
