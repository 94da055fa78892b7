"""Unrolled loops. Not edited by hand: ``python scripts/generate_packing.py`` writes these files.

============== =====================================================================
`pack_lanes`   packing of 1024 codes, for each width
`unpack_lanes` unpacking of these
`sum_lanes`    sums over the lanes of 512 coordinates
============== =====================================================================
"""
