"""Presets of the task `text`: one batch a round, for methods with a step of Adam on each gradient.

The dense run is Adam, whose 0.003 is the best of 0.003 and 0.006 on seed 0. Pressed methods are
slower on it so far: see the page of tasks.
"""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Preset, Work

STEPS = Work("steps", 300, 0.003, {}, {})

PRESETS: dict[str, Preset] = {
    "adam": Preset(STEPS, 0.99, None, {"lr": 0.003}),
    "efficient-adam": Preset(STEPS, 30, "sign", {"lr": 0.001}),
}
