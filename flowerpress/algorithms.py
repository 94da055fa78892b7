"""The table of algorithms: each has a server half and a client half, by one name.

A line of `OWN` says in which file of ``strategies`` and of ``clients`` the halves are. Other
packages add algorithms through the entry-point group ``flowerpress.algorithms``: an entry point's
name is the algorithm's, and its object an `Algorithm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from flowerpress.plugins import Plugins
from flowerpress.suggestions import unknown

__all__ = ["GROUP", "Algorithm", "algorithm", "algorithm_names"]

GROUP = "flowerpress.algorithms"
_BASES = {
    "strategy": "flowerpress.strategies.CompressedStrategy",
    "worker": "flowerpress.clients.Worker",
}


@dataclass(frozen=True)
class Algorithm:
    """An algorithm's two halves.

    Parameters
    ----------
    strategy : type or str
        The server half, a subclass of `flowerpress.strategies.CompressedStrategy`; as a text
        ``package.module:Class`` it is imported where a server is, and nowhere else.
    worker : type or str
        The client half, a subclass of `flowerpress.clients.Worker`; or a text, likewise.

    Raises
    ------
    ValueError
        A half is missing, or is neither a class nor such a text.

    Examples
    --------
    >>> Algorithm(strategy="majority.server:Majority", worker="")
    Traceback (most recent call last):
    ...
    ValueError: an algorithm without its worker: both halves are needed, worker=... is a subclass \
of flowerpress.clients.Worker or a text 'package.module:Class'
    """

    strategy: type | str = ""  # so that one without is told both what is missing and what it is
    worker: type | str = ""

    def __post_init__(self) -> None:
        for half, base in _BASES.items():
            value = getattr(self, half)
            module, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
            if not isinstance(value, type) and not (module and name.isidentifier()):
                what = f"{half} is {value!r}" if value else f"an algorithm without its {half}"
                raise ValueError(
                    f"{what}: both halves are needed, {half}=... is a subclass of {base} or a text "
                    "'package.module:Class'"
                )

    def load(self, half: str) -> Any:
        """Return the class of "strategy" or "worker"; `ValueError` where it cannot be imported."""
        value = getattr(self, half)
        if isinstance(value, type):
            return value
        module, _, name = value.partition(":")
        try:
            return getattr(import_module(module), name)
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{half}={value!r} cannot be imported: {said}") from error


def _own(server: str, client: str) -> Algorithm:
    return Algorithm(f"flowerpress.strategies.{server}", f"flowerpress.clients.{client}")


OWN: dict[str, Algorithm] = {
    "adam": _own("adam:Adam", "dsgd:DSGDWorker"),
    "amsgrad": _own("amsgrad:AMSGrad", "dsgd:DSGDWorker"),
    "birder": _own("birder:Birder", "birder:BirderWorker"),
    "cdadam": _own("cdadam:CDAdam", "cdadam:CDAdamWorker"),
    "choco-sgd": _own("gossip.choco:ChocoSGD", "gossip:GossipWorker"),
    "comp-ams": _own("amsgrad:CompAMS", "amsgrad:CompAMSWorker"),
    "d-psgd": _own("gossip.choco:DPSGD", "gossip:GossipWorker"),
    "dasha": _own("dasha:Dasha", "dasha:DashaWorker"),
    "diana": _own("diana:Diana", "ef21:EF21Worker"),
    "dsgd": _own("dsgd:DSGD", "dsgd:DSGDWorker"),
    "ef14": _own("ef14:EF14", "ef14:EF14Worker"),
    "ef21": _own("ef21:EF21", "ef21:EF21Worker"),
    "ef21-sgd2m": _own("ef21:EF21SGD2M", "ef21:EF21SGD2MWorker"),
    "ef21-sgdm": _own("ef21:EF21SGDM", "ef21:EF21SGDMWorker"),
    "efficient-adam": _own("efficient_adam:EfficientAdam", "efficient_adam:EfficientAdamWorker"),
    "fedams": _own("amsgrad:FedAMS", "amsgrad:FedAMSWorker"),
    "fedavg": _own("dsgd:FedAvg", "dsgd:DSGDWorker"),
    "fedcams": _own("amsgrad:FedCAMS", "amsgrad:FedCAMSWorker"),
    "fetchsgd": _own("sketched.fetchsgd:FetchSGD", "fetchsgd:FetchSGDWorker"),
    "marina": _own("marina:Marina", "marina:MarinaWorker"),
    "onebit-adam": _own("onebit_adam:OneBitAdam", "onebit_adam:OneBitAdamWorker"),
    "pp-marina": _own("marina:PPMarina", "marina:PPMarinaWorker"),
    "sketched-amsgrad": _own(
        "sketched.sketched_amsgrad:SketchedAMSGrad", "sketched:SketchedAMSGradWorker"
    ),
    "sketched-sgd": _own("sketched.sketched_sgd:SketchedSGD", "sketched:SketchedSGDWorker"),
    "squarm-sgd": _own("gossip.squarm:SquarmSGD", "gossip:GossipWorker"),
    "vr-marina": _own("marina:VRMarina", "marina:VRMarinaWorker"),
}


def _read(name: str, loaded: Any, _: dict[str, Algorithm]) -> Algorithm:
    if not isinstance(loaded, Algorithm):
        kind = loaded.__name__ if isinstance(loaded, type) else type(loaded).__name__
        raise ValueError(
            f"its entry point is a {kind}, expected flowerpress.algorithms.Algorithm(strategy, "
            "worker) with both halves"
        )
    strategy = loaded.strategy
    said = getattr(strategy, "name", name) if isinstance(strategy, type) else name
    if said != name:
        raise ValueError(f"its strategy's name is {said!r}")
    return loaded


@cache
def _plugins() -> Plugins[Algorithm]:
    return Plugins("strategy", GROUP, OWN, _read)


def algorithm_faults() -> dict[str, str]:
    """Return why other packages' algorithms cannot be used, by name."""
    return _plugins().faults


def algorithm_names() -> list[str]:
    """Return the names of all algorithms, sorted."""
    return sorted({*OWN, *_plugins().found})


def algorithm(name: str) -> Algorithm:
    """Return the algorithm `name`.

    flowerpress's own goes before another package's of the same name, which a warning then names.

    Raises
    ------
    ValueError
        There is none: lists the names; or it is another package's and cannot be used: says why.
    """
    plugins = _plugins()
    if name in OWN:
        if name in plugins.claimed:
            plugins.warn_if_taken(name)
        return OWN[name]
    if name in plugins.faults:
        raise ValueError(plugins.faults[name])
    if name not in plugins.found:
        where = "`flowerpress list strategies` shows all"
        raise ValueError(
            unknown(f"unknown strategy {name!r}", name, algorithm_names(), where=where)
        )
    return plugins.found[name]
