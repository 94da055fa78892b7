"""A node config, checked before its client works: mistakes are said where they were made."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from flowerpress.compressors import make_compressor
from flowerpress.suggestions import did_you_mean, unknown
from flowerpress.worker.stores import STORES

log = logging.getLogger("flowerpress")
Config = Mapping[str, Any]
Checks = Mapping[str, Callable[[Any], None]]


def check_node(node_config: Config, more: Checks | None = None) -> None:
    """Check the keys that clients of flowerpress read, and `more`; others are passed over.

    Raises
    ------
    ValueError
        A value is none that can be: says which, and what can be.
    """
    for key, check in {**CHECKS, **(more or {})}.items():
        if key in node_config:
            try:
                check(node_config[key])
            except ValueError as error:
                raise ValueError(f"node config: {key} is {node_config[key]!r}: {error}") from None
    partition, partitions = node_config.get("partition-id", 0), node_config.get("num-partitions")
    if partitions is not None and partition >= partitions:
        raise ValueError(
            f"node config: partition-id is {partition}, and num-partitions {partitions}: parts are "
            f"counted from 0 to {partitions - 1}"
        )


def check_keys(node_config: Config, more: Iterable[str] = ()) -> None:
    """Raise `ValueError` for a key that is neither one of `check_node`'s nor among `more`."""
    known = {*CHECKS, *more}
    for key in node_config:
        if key not in known:
            what = f"node config: unknown key {key!r}"
            raise ValueError(unknown(what, key, sorted(known), "known are"))


def warn_of_keys(keys: Iterable[str], more: Iterable[str] = ()) -> None:
    """Log which keys look like one of `check_node`'s, or of `more`, and are none.

    They may be the app's own, which nobody here knows: so they are no error.
    """
    known = {*CHECKS, *_ELSEWHERE, *more}
    for key in keys:
        if key not in known and (guess := did_you_mean(key, sorted(known))):
            log.warning("node config: flowerpress reads no %r%s", key, guess)


def check_folder(folder: Path, what: str = "memory", option: str = "--state-dir") -> None:
    """Raise `ValueError` for a folder that `what` cannot be kept in; makes it if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"no {what} can be kept in {folder}: {error.strerror or error}; give another {option}"
        ) from None


def _whole(least: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not int or not least <= value < 2**31:
            raise ValueError(f"expected a whole number from {least} on")

    return check


def _compressor(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError("expected a compressor in quotes, such as topk:0.01")
    if value:
        make_compressor(value)


def _device(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError("expected a device of torch in quotes, such as cpu or cuda:0")
    if value.partition(":")[0] == "meta":
        raise ValueError("tensors there have no numbers")
    if importlib.util.find_spec("torch") is None:
        return  # for a task without torch it is of no effect
    import torch

    try:
        torch.empty(0, device=value)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _one_of(*values: Any) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not any(value is each or (value == each and type(value) is str) for each in values):
            raise ValueError(f"expected {' or '.join(str(each).lower() for each in values)}")

    return check


def _text(value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text in quotes")


def _uplink(value: Any) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError("expected a number of Mbit/s above 0")


CHECKS: Checks = {
    "partition-id": _whole(0),
    "num-partitions": _whole(1),
    "client-id": _whole(0),
    "compressor": _compressor,
    "device": _device,
    "state-store": _one_of(*STORES),
    "state-dir": _text,
    "state-sync": _one_of(True, False),
}
IN_SIMULATIONS: Checks = {"uplink": _uplink}
_ELSEWHERE = (*IN_SIMULATIONS, "flowerpress")  # this one by `press`
