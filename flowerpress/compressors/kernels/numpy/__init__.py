"""The kernels in numpy's operations: they say what each function does, and run without numba.

============= ======================================================================
`common`      what `kernels()` returns: sums, signs, levels, places, check sums
`affine`      codes on evenly spaced points
`countsketch` count sketches
`cq`          correlated rounding
`eden`        nearest centroids
`hadamard`    randomised Hadamard transforms
`halves`      numbers of 16 bits
`huffman`     Huffman codes
`id_codes`    varint and Rice codes of gaps
`loggrid`     the nearest of powers of two
`natural`     powers of two in 8 bits
`permk`       who sends which coordinate
`products`    sums of products of thin matrices
`rans`        range asymmetric numeral systems
`subsets`     random subsets from a key
`symbols`     packed codes as arrays of numbers
============= ======================================================================

Here ``import numpy`` is the package numpy: imports are absolute.
"""
