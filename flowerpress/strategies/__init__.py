"""The server side: one strategy per published algorithm, by name."""

from flowerpress.strategies.ask import Ask, Steps
from flowerpress.strategies.base import CompressedStrategy
from flowerpress.strategies.checkpoints import Checkpoints
from flowerpress.strategies.client import Client
from flowerpress.strategies.errors import RoundError
from flowerpress.strategies.registry import (
    make_strategy,
    strategy_class,
    strategy_names,
    strategy_options,
)
from flowerpress.strategies.tree import CheckpointError
from flowerpress.strategies.update import Update

__all__ = [
    "Ask",
    "CheckpointError",
    "Checkpoints",
    "Client",
    "CompressedStrategy",
    "RoundError",
    "Steps",
    "Update",
    "make_strategy",
    "strategy_class",
    "strategy_names",
    "strategy_options",
]
