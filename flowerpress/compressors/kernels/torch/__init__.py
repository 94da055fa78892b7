"""The kernels of encoding by torch's operations, with the bytes of those in `kernels.numpy`.

A file whose name is there too has the twins of its loops. Besides:

============ =======================================================================
`sums`       sums in the order of `kernels.sums`, and maxima of blocks
`words`      random words and packed codes
============ =======================================================================

Here ``import torch`` is the package torch: imports are absolute.
"""
