"""CHOCO-SGD and plain decentralized SGD: settings of SQuARM-SGD.

CHOCO-SGD: Koloskova, Stich, Jaggi 2019 (arXiv:1902.00340): one step between synchronisations, no
momentum, no trigger. Plain decentralized SGD (D-PSGD): Lian et al. 2017 (arXiv:1705.09056): models
go to the neighbours whole, and gamma is 1. See ``strategies/gossip/squarm.py``.
"""

from __future__ import annotations

from typing import Any

from flowerpress.server.options import require
from flowerpress.strategies.gossip.squarm import SquarmSGD


class ChocoSGD(SquarmSGD):
    """Gossip on every step, without momentum or a trigger.

    Parameters
    ----------
    compressor : str (default: "topk:0.01")
        As in `SquarmSGD`.
    **options
        As in `SquarmSGD`, but for `momentum`, `local_steps` and the trigger's: those are its own.
    """

    name = "choco-sgd"
    summary_line = "gossip of compressed differences after every step"
    citation = "Koloskova, Stich, Jaggi 2019, arXiv:1902.00340"

    def __init__(
        self,
        *,
        compressor: str = "topk:0.01",
        momentum: float = 0.0,
        local_steps: int = 1,
        threshold: float = -1.0,
        **options: Any,
    ) -> None:
        given = (momentum, local_steps, threshold, options.get("threshold_step", 0.0))
        names = "(momentum, local_steps, threshold, threshold_step)"
        require(given == (0, 1, -1, 0), names, given, "(0, 1, -1, 0): use squarm-sgd for others")
        options |= {"momentum": 0.0, "local_steps": 1, "threshold": -1.0}
        super().__init__(compressor=compressor, **options)


class DPSGD(SquarmSGD):
    """Plain decentralized SGD: models go whole, and gamma is 1.

    Parameters
    ----------
    momentum : float (default: 0)
        As in `SquarmSGD`.
    local_steps : int (default: 1)
        As in `SquarmSGD`.
    **options
        As in `SquarmSGD`, without ``compressor``, ``gamma`` and the trigger's.
    """

    name = "d-psgd"
    summary_line = "plain decentralized SGD: whole models to the neighbours, the dense baseline"
    citation = "Lian et al. 2017, arXiv:1705.09056"

    def __init__(
        self,
        *,
        compressor: str = "identity",
        momentum: float = 0.0,
        local_steps: int = 1,
        threshold: float = -1.0,
        gamma: float = 1.0,
        **options: Any,
    ) -> None:
        given = (compressor, gamma, threshold, options.get("threshold_step", 0.0))
        names = "(compressor, gamma, threshold, threshold_step)"
        expected = "('identity', 1, -1, 0): use squarm-sgd for others"
        require(given == ("identity", 1, -1, 0), names, given, expected)
        options |= {"momentum": momentum, "local_steps": local_steps, "threshold": -1.0}
        options["client_compressors"] = False
        super().__init__(compressor=compressor, **options)
