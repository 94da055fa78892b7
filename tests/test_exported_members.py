"""The public names of each package are those in `__all__`, no more and no fewer."""

from __future__ import annotations

import importlib
import types
from typing import Any

import pytest

PACKAGES = [
    "flowerpress.clients",
    "flowerpress.compressors",
    "flowerpress.protocol",
    "flowerpress.simulations",
    "flowerpress.strategies",
]


def _public(name: str, value: Any) -> bool:
    return not (
        name.startswith("_") or name == "annotations" or isinstance(value, types.ModuleType)
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_what_is_public(package: str) -> None:
    module = importlib.import_module(package)
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        getattr(module, name)
    unlisted = {name for name, value in vars(module).items() if _public(name, value)}
    assert unlisted <= set(module.__all__)


def test_promised_names_are_there() -> None:
    promised = {
        "flowerpress.clients": "FunctionTask Task TorchTask client_app",
        "flowerpress.compressors": "Compressor Draw Packet PacketError Traits Vector add_to "
        "compressor_names decompress make_compressor",
        "flowerpress.simulations": "simulate",
        "flowerpress.strategies": "make_strategy strategy_names",
    }
    for package, names in promised.items():
        assert set(names.split()) <= set(importlib.import_module(package).__all__), package
