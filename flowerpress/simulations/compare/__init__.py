"""Comparisons: methods x compressors x step sizes x seeds on one task, and reports of them.

================  ==================================================================
`runs`            many experiments over processes, each kept as it ends
================  ==================================================================
"""
