"""Errors that end a run."""

from __future__ import annotations


class RoundError(RuntimeError):
    """A run cannot go on: every worker fails, or the model is no longer finite."""


class FailedRunError(RuntimeError):
    """A run has gone through its rounds, and nothing came of it: says what happened."""
