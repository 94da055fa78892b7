"""Compressors that send linear measurements of the vector, or factors of its matrices.

============= ======================================================================
`countsketch` sums with random signs: tables that can be added before they are read
`powersgd`    each tensor as a product of two thin matrices
============= ======================================================================
"""
