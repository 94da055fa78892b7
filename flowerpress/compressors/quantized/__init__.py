"""Compressors that send a few bits for every coordinate.

============ =======================================================================
`qsgd`       levels of a block's norm, at random
`uniform`    even steps over a block's range, at random or to the nearest
`cq`         even steps, the senders of a cohort rounding against each other
`terngrad`   minus, zero or plus the largest, at random
`loggrid`    the nearest of a few powers of two below the largest
`natural`    powers of two, at random, in eight bits
`halves`     fp16 and bf16
`sign`       one bit, and a scale for each block
`randsign`   one bit, at random
`points`     evenly spaced points over ranges, as `cq` places them
`ranges`     the ranges of `cq`
`blocks`     blocks of coordinates that share a scale
============ =======================================================================
"""
