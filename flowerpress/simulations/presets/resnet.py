"""Presets of the task `resnet`: none is tuned yet."""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset

PRESETS: dict[str, Preset] = {}
