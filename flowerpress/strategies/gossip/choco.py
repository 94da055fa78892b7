"""CHOCO-SGD and plain decentralized SGD: settings of SQuARM-SGD.

CHOCO-SGD: Koloskova, Stich, Jaggi 2019 (arXiv:1902.00340): one step between synchronisations, no
momentum, no trigger. Plain decentralized SGD (D-PSGD): Lian et al. 2017 (arXiv:1705.09056): models
go to the neighbours whole, and gamma is 1. See ``strategies/gossip/squarm.py``.
"""

from __future__ import annotations

from flowerpress.server.options import fixed, option
from flowerpress.strategies.gossip.squarm import SquarmSGD


class ChocoSGD(SquarmSGD):
    """Gossip on every step, without momentum or a trigger."""

    name = "choco-sgd"
    summary_line = "gossip of compressed differences after every step"
    citation = "Koloskova, Stich, Jaggi 2019, arXiv:1902.00340"

    compressor: str = option("topk:0.01")
    momentum: float = fixed(0.0, "0: use squarm-sgd for others")
    local_steps: int = fixed(1, "1: use squarm-sgd for others")
    threshold: float = fixed(-1.0, "-1: use squarm-sgd for others")
    threshold_step: float = fixed(0.0, "0: use squarm-sgd for others")


class DPSGD(SquarmSGD):
    """Plain decentralized SGD: models go whole, and gamma is 1."""

    name = "d-psgd"
    summary_line = "plain decentralized SGD: whole models to the neighbours, the dense baseline"
    citation = "Lian et al. 2017, arXiv:1705.09056"

    compressor: str = fixed("identity", "identity: use squarm-sgd for others")
    client_compressors: bool = fixed(False, "false: models go whole")
    momentum: float = option(0.0)
    local_steps: int = option(1)
    gamma: float | str = fixed(1.0, "1: use squarm-sgd for others")
    threshold: float = fixed(-1.0, "-1: use squarm-sgd for others")
    threshold_step: float = fixed(0.0, "0: use squarm-sgd for others")
