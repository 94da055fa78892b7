"""Packed codes as arrays of numbers, for stages that need each code: numpy's half."""

from __future__ import annotations

from flowerpress.compressors.kernels.packing import pack, unpack

__all__ = ["pack", "unpack"]
