"""Presets of the task `mnist`, one for every strategy.

All are for ten clients with unequal shards of MNIST and one hidden layer (d = 50,890). There are
some kinds of work, so that each method is compared with dense rounds that compute the same:

- *local*: 120 rounds of four local steps on batches of 32;
- *whole*: 200 rounds of one gradient of all the data, for methods that are about exact gradients;
- *steps*: 300 rounds of one batch, for methods with an adaptive step on every gradient, and for
  sketches, whose momentum and errors are about gradients;
- *gossip* and *gossip-steps*: 300 rounds on a ring, of four local steps with momentum or of one
  step without. Here dense is plain decentralized SGD.

Steps and compressors were found by trying a few on seeds 0 and 1; `benchmarks/presets.py` runs
all of them on other seeds too.
"""

from __future__ import annotations

from flowerpress.simulations.presets.settings import Options, Preset, Work

_SHARDS: Options = {"partition": "dirichlet:0.5", "model": "mlp"}
LOCAL = Work("local", 120, 0.1, _SHARDS, {"local_steps": 4, "local_lr": 0.1})
WHOLE = Work("whole", 200, 0.5, {**_SHARDS, "batch_size": 0}, {})
STEPS = Work("steps", 300, 0.3, {**_SHARDS, "batch_size": 32}, {})
_RING: Options = {"topology": "ring", "collect_every": 20}
GOSSIP = Work("gossip", 300, 0.05, _SHARDS, {**_RING, "local_steps": 4, "momentum": 0.9})
GOSSIP_STEPS = Work("gossip-steps", 300, 0.2, _SHARDS, _RING)

_SKETCH: Options = {"k_ratio": 0.005, "candidates": 2}

_CORRELATED = "hadamard+cq:5,c=5+rans"  # 1.25 bits
# MARINA's estimate is the worst in the first hundred rounds, where gradients change the most.
_CAREFUL: Options = {"lr": 0.3, "schedule": "constant:warmup=80"}

_GROWING: Options = {"threshold": 600.0, "threshold_step": 200.0, "threshold_every": 50}

PRESETS: dict[str, Preset] = {
    "squarm-sgd": Preset(GOSSIP, 150, "signtopk:0.02", {"lr": 0.06, "gamma": 0.15, **_GROWING}),
    "choco-sgd": Preset(GOSSIP_STEPS, 75, "signtopk:0.05", {"lr": 0.3, "gamma": 0.25}),
    "d-psgd": Preset(GOSSIP, 1, None, {"lr": 0.05}),
    "fedavg": Preset(LOCAL, 1, None, {"lr": 0.1}),
    "dsgd": Preset(LOCAL, 75, "hadamard+cq:3,c=16+rans", {"lr": 0.1}),
    "ef14": Preset(LOCAL, 70, "topk:0.01", {"lr": 0.1, "downlink": "topk:0.01"}),
    "ef21": Preset(WHOLE, 50, "topk:0.01", {"lr": 0.2}),
    "ef21-sgdm": Preset(LOCAL, 28, "topk:0.02", {"lr": 0.15, "momentum": 0.3}),
    "ef21-sgd2m": Preset(LOCAL, 28, "topk:0.02", {"lr": 0.1, "momentum": 0.4}),
    "diana": Preset(LOCAL, 45, "qsgd:3+rans", {"lr": 0.1}),
    "dasha": Preset(WHOLE, 23, "qsgd:7+rans", {"lr": 0.2}),
    "marina": Preset(WHOLE, 7.4, _CORRELATED, {**_CAREFUL, "p": 0.08}),
    "vr-marina": Preset(WHOLE, 7.4, _CORRELATED, {**_CAREFUL, "p": 0.08}, {"batch_size": 256}),
    "pp-marina": Preset(WHOLE, 4.5, _CORRELATED, {**_CAREFUL, "p": 0.15, "fraction_train": 0.7}),
    "adam": Preset(STEPS, 0.99, None, {"lr": 0.003}),
    "amsgrad": Preset(STEPS, 0.99, None, {"lr": 0.003}),
    "fedams": Preset(LOCAL, 0.99, None, {"lr": 0.1}),
    "efficient-adam": Preset(STEPS, 30, "sign", {"lr": 0.001, "downlink": "sign"}),
    "onebit-adam": Preset(
        STEPS, 12, "sign", {"lr": 0.001, "downlink": "sign", "warmup_rounds": 15}
    ),
    "birder": Preset(STEPS, 30, "randsign", {"lr": 0.03, "decay": "sqrt"}),
    "cdadam": Preset(STEPS, 38, "topk:0.02", {"lr": 0.002, "downlink": "topk:0.05"}),
    "comp-ams": Preset(STEPS, 350, "signtopk:0.005", {"lr": 0.003}),
    "fedcams": Preset(LOCAL, 240, "signtopk:0.01", {"lr": 0.05}),
    "fetchsgd": Preset(
        STEPS, 5, "countsketch:columns=2000", {"lr": 0.5, "momentum": 0.0, "k_ratio": 0.02}
    ),
    "sketched-sgd": Preset(STEPS, 30, "countsketch:columns=200", {"lr": 0.2, **_SKETCH}),
    "sketched-amsgrad": Preset(
        STEPS,
        15,
        "countsketch:columns=200",
        {"lr": 0.03, "eps": 0.01, "beta1": 0.0, "beta2": 0.9, **_SKETCH, "k_ratio": 0.01},
    ),
}
