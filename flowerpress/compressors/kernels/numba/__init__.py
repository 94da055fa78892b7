"""The kernels compiled by numba, with the bytes of those in `kernels.numpy`.

A file whose name is there too has the twins of its loops. Besides:

==================== ================================================================
`jit`                how kernels are compiled, and the random words inside them
`disk_cache`         compiled kernels on disk
`background`         kernels are compiled by another process
`background_process` that process
`signatures`         what it is told: a kernel and its types, as a line
`intrinsics`         instructions of the processor
`blocks`             sums, signs and levels, in blocks of 1024
`levels`             rounding to levels
`packing`            packing of codes inside other kernels
`select`             the largest coordinates, and random subsets
`crc`                check sums
`generated`          unrolled loops, written by a script
==================== ================================================================

Here ``import numba`` is the package numba: imports are absolute.
"""
