"""Presets of the task `quadratic`: unlike clients, and step sizes by theory."""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset, Work

EXACT = Work("exact", 1000, None, {"dim": 300, "noise": 0.2, "convexity": 1e-3}, {})

PRESETS: dict[str, Preset] = {
    "fedavg": Preset(EXACT, 1, None, {"lr": "theory"}),
    "ef21": Preset(EXACT, 3, "topk:k=30", {"lr": "theory"}),
    "marina": Preset(EXACT, 3, "randk:k=30", {"lr": "theory", "p": 0.1}),
}
