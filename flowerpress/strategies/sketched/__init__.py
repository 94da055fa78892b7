"""Algorithms whose workers send count sketches."""
