"""Presets of the task `divergence`: the noise that EF21-SGD does not get rid of, and its momentum.

The bytes are no matter here: a model of two numbers is smaller than what frames it.
"""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset, Work

NOISE = Work("noise", 3000, None, {"example": "noise"}, {})

PRESETS: dict[str, Preset] = {
    "ef21": Preset(NOISE, 0, "topk:k=1", {"lr": 0.01}),
    "ef21-sgdm": Preset(NOISE, 0, "topk:k=1", {"lr": 0.01, "momentum": 0.1}),
    "ef21-sgd2m": Preset(NOISE, 0, "topk:k=1", {"lr": 0.01, "momentum": 0.1}),
    "ef14": Preset(NOISE, 0, "topk:k=1", {"lr": 0.01}),
}
