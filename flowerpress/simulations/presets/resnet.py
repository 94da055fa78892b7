"""Presets of the task `resnet`: 60 rounds of four local steps. Found by trying a few on seed 0."""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset, Work

LOCAL = Work("local", 60, 0.3, {}, {"local_steps": 4, "local_lr": 0.3})

PRESETS: dict[str, Preset] = {
    "fedavg": Preset(LOCAL, 0.99, None, {"lr": 0.3}),
    "ef14": Preset(LOCAL, 25, "topk:0.02", {"lr": 0.3}),
    "ef21-sgdm": Preset(LOCAL, 18, "topk:0.02", {"lr": 0.3, "momentum": 0.8}),
}
