"""Presets of the task `breast-cancer`: full gradients, and step sizes by theory."""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset, Work

WHOLE = Work("whole", 500, None, {"equal_shards": 10}, {})

PRESETS: dict[str, Preset] = {
    "fedavg": Preset(WHOLE, 1, None, {"lr": "theory"}),
    "ef21": Preset(WHOLE, 1, "topk:k=3", {"lr": "theory"}),
    "marina": Preset(WHOLE, 1, "randk:k=3", {"lr": "theory", "p": 0.1}),
    "diana": Preset(WHOLE, 1, "randk:k=3", {"lr": "theory"}),
    "dasha": Preset(WHOLE, 1, "randk:k=3", {"lr": "theory"}),
}
