"""Presets of the task `text`, for a transformer of width 32 and batches of 8 windows.

- *steps*: 300 rounds of one batch, for methods with an Adam step on every gradient;
- *local*: 300 rounds of four local steps of plain gradient descent; the server's step is a tenth in
  the last 50, in which what error feedback still owes arrives.

Found by trying a few on seed 0, for ten clients.
"""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Options, Preset, Work

_SMALL: Options = {"hidden": 32, "batch_size": 8}
STEPS = Work("steps", 300, 0.003, _SMALL, {})
_LAST_50 = "step:every=250,factor=0.1"
LOCAL = Work("local", 300, 0.5, _SMALL, {"local_steps": 4, "local_lr": 0.5, "schedule": _LAST_50})

_FEW = "topk:0.05+natural"  # 0.7 bits
_SIGNS = "sign:block=tensor"

PRESETS: dict[str, Preset] = {
    "adam": Preset(STEPS, 0.99, None, {"lr": 0.003}),
    "onebit-adam": Preset(STEPS, 7, _SIGNS, {"lr": 0.001, "downlink": _SIGNS, "warmup_rounds": 30}),
    "efficient-adam": Preset(
        STEPS, 40, _FEW, {"lr": 0.01, "downlink": "identity", "bias_correction": True}
    ),
    "fedavg": Preset(LOCAL, 0.99, None, {"lr": 0.5}),
    "ef14": Preset(LOCAL, 34, "topk:0.06+natural", {"lr": 0.5}),
    "ef21-sgdm": Preset(LOCAL, 32, "topk:0.02", {"lr": 0.5, "momentum": 0.3}),
}
