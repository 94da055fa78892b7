"""Compressors by name: from a text to an object.

============ =======================================================================
`grammar`    how specs are written
`registry`   names and codec numbers, and other packages' compressors
`allowed`    the packets that compressors of some specs make
============ =======================================================================
"""
