"""Checks that a compressor keeps its promises, for those who write one.

============= ======================================================================
`conformance` every promise of a compressor, and of its packets
`hostile`     damaged packets, made on purpose
============= ======================================================================
"""

from flowerpress.compressors.kernels.choice import forced_kernels
from flowerpress.compressors.testing.conformance import check_compressor

__all__ = ["check_compressor", "forced_kernels"]
