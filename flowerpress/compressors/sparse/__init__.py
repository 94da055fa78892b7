"""Compressors that send some coordinates and their places.

============ =======================================================================
`topk`       the largest
`threshold`  those that are large enough
`randk`      random ones, drawn from a key
`permk`      shared out among the senders of a cohort
`signtopk`   the signs of the largest, and one scale
============ =======================================================================
"""
