"""The algorithms a ClientApp serves, by the name the instruction carries."""

from __future__ import annotations

from flowerpress.clients.amsgrad import CompAMSWorker, FedAMSWorker, FedCAMSWorker
from flowerpress.clients.birder import BirderWorker
from flowerpress.clients.cdadam import CDAdamWorker
from flowerpress.clients.dasha import DashaWorker
from flowerpress.clients.dsgd import DSGDWorker
from flowerpress.clients.ef14 import EF14Worker
from flowerpress.clients.ef21 import EF21SGD2MWorker, EF21SGDMWorker, EF21Worker
from flowerpress.clients.efficient_adam import EfficientAdamWorker
from flowerpress.clients.fetchsgd import FetchSGDWorker
from flowerpress.clients.gossip import GossipWorker
from flowerpress.clients.marina import MarinaWorker, PPMarinaWorker, VRMarinaWorker
from flowerpress.clients.onebit_adam import OneBitAdamWorker
from flowerpress.clients.sketched import SketchedAMSGradWorker, SketchedSGDWorker
from flowerpress.clients.worker import Worker

_WORKERS: dict[str, type[Worker]] = {
    "adam": DSGDWorker,
    "amsgrad": DSGDWorker,
    "birder": BirderWorker,
    "cdadam": CDAdamWorker,
    "choco-sgd": GossipWorker,
    "comp-ams": CompAMSWorker,
    "d-psgd": GossipWorker,
    "dasha": DashaWorker,
    "diana": EF21Worker,
    "dsgd": DSGDWorker,
    "ef14": EF14Worker,
    "ef21": EF21Worker,
    "ef21-sgd2m": EF21SGD2MWorker,
    "ef21-sgdm": EF21SGDMWorker,
    "efficient-adam": EfficientAdamWorker,
    "fedams": FedAMSWorker,
    "fedavg": DSGDWorker,
    "fedcams": FedCAMSWorker,
    "fetchsgd": FetchSGDWorker,
    "marina": MarinaWorker,
    "onebit-adam": OneBitAdamWorker,
    "pp-marina": PPMarinaWorker,
    "sketched-amsgrad": SketchedAMSGradWorker,
    "sketched-sgd": SketchedSGDWorker,
    "squarm-sgd": GossipWorker,
    "vr-marina": VRMarinaWorker,
}


def worker_names() -> list[str]:
    """Names of the algorithms with a worker, sorted."""
    return sorted(_WORKERS)


def make_worker(name: str) -> Worker:
    """Return the worker half of algorithm `name`.

    Raises
    ------
    ValueError
        Unknown name: lists the known ones. The server may run a newer flowerpress.
    """
    try:
        return _WORKERS[name]()
    except KeyError:
        known = ", ".join(worker_names())
        raise ValueError(f"unknown algorithm {name!r}: this client knows {known}") from None
