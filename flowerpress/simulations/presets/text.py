"""Presets of the task `text`."""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset

PRESETS: dict[str, Preset] = {}
