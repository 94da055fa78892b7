"""Errors that end a run."""

from __future__ import annotations


class RoundError(RuntimeError):
    """A run cannot go on: all workers fail, too few take part, or the model is not finite."""


class FailedRunError(RuntimeError):
    """A run has gone through its rounds, and nothing came of it: says what happened."""
