"""Presets of the task `resnet`."""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset

PRESETS: dict[str, Preset] = {}
