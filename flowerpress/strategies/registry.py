"""Strategies by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.strategies.adam import Adam
from flowerpress.strategies.amsgrad import AMSGrad, CompAMS, FedAMS, FedCAMS
from flowerpress.strategies.base import CompressedStrategy
from flowerpress.strategies.birder import Birder
from flowerpress.strategies.cdadam import CDAdam
from flowerpress.strategies.choco import DPSGD, ChocoSGD
from flowerpress.strategies.dasha import Dasha
from flowerpress.strategies.diana import Diana
from flowerpress.strategies.dsgd import DSGD, FedAvg
from flowerpress.strategies.ef14 import EF14
from flowerpress.strategies.ef21 import EF21, EF21SGD2M, EF21SGDM
from flowerpress.strategies.efficient_adam import EfficientAdam
from flowerpress.strategies.fetchsgd import FetchSGD
from flowerpress.strategies.gossip import SquarmSGD
from flowerpress.strategies.marina import Marina, PPMarina, VRMarina
from flowerpress.strategies.onebit_adam import OneBitAdam
from flowerpress.strategies.options import declared_options
from flowerpress.strategies.sketched import SketchedSGD
from flowerpress.strategies.sketched_amsgrad import SketchedAMSGrad
from flowerpress.suggestions import unknown

_STRATEGIES: dict[str, type[CompressedStrategy]] = {
    cls.name: cls
    for cls in (
        AMSGrad,
        Adam,
        CDAdam,
        DPSGD,
        DSGD,
        EF14,
        EF21,
        EF21SGD2M,
        EF21SGDM,
        Birder,
        ChocoSGD,
        CompAMS,
        Dasha,
        Diana,
        EfficientAdam,
        FedAMS,
        FedAvg,
        FedCAMS,
        FetchSGD,
        Marina,
        OneBitAdam,
        PPMarina,
        SketchedAMSGrad,
        SketchedSGD,
        SquarmSGD,
        VRMarina,
    )
}


def strategy_names() -> list[str]:
    """Names of the strategies, sorted."""
    return sorted(_STRATEGIES)


def strategy_class(name: str) -> type[CompressedStrategy]:
    """Return the class registered as `name`; raises `ValueError` listing the names."""
    try:
        return _STRATEGIES[name]
    except KeyError:
        raise ValueError(unknown(f"unknown strategy {name!r}", name, strategy_names())) from None


def strategy_options(name: str) -> dict[str, Any]:
    """Return the options of strategy `name` with their defaults, most specific first."""
    cls = strategy_class(name)
    options = declared_options(cls, CompressedStrategy)
    if cls.dense:
        del options["compressor"], options["client_compressors"]
    return options


def make_strategy(name: str, **options: Any) -> CompressedStrategy:
    """Return the strategy `name`.

    Parameters
    ----------
    name : str
        One of `strategy_names()`.
    **options
        Its options; see `strategy_options` and the class. numpy's numbers are taken as Python's.

    Raises
    ------
    ValueError
        Unknown name or option (lists the valid ones), or an option out of range.

    Examples
    --------
    >>> make_strategy("ef21", compressor="topk:k=2", lr=0.1).compressor
    'topk:k=2'
    """
    cls = strategy_class(name)
    known = strategy_options(name)
    for option in options:
        if option not in known and not (cls.dense and option == "compressor"):
            what = f"strategy {name} has no option {option!r}"
            raise ValueError(unknown(what, option, sorted(known), "it has"))
    if options.get("lr") == "theory" and "smoothness" not in known:
        able = [each for each in strategy_names() if "smoothness" in strategy_options(each)]
        raise ValueError(
            f"lr is 'theory': {name} has no formula for it; these have one: {', '.join(able)}"
        )
    return cls(**{option: _plain(value) for option, value in options.items()})


def _plain(value: Any) -> Any:
    """Return one of numpy's numbers, as a sweep over an array gives them, as Python's own."""
    if isinstance(value, np.floating):
        return float(str(value))  # 0.1 and not 0.10000000149011612 of a float32
    return value.item() if isinstance(value, np.generic) else value
