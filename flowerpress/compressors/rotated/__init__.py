"""Compressors that rotate the vector first, so that no coordinate stands out.

============ =======================================================================
`rotation`   a random rotation, and its way back
`hadamard`   the rotation alone, for another compressor to go on from
`drive`      the signs of a rotated vector
`eden`       a few bits for each coordinate of a rotated vector
============ =======================================================================
"""
