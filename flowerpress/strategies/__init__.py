"""The server side: one strategy per published algorithm, by name."""

from flowerpress.server.ask import Ask, Steps
from flowerpress.server.base import CompressedStrategy
from flowerpress.server.checkpoints import Checkpoints
from flowerpress.server.client import Client
from flowerpress.server.errors import RoundError
from flowerpress.server.options import (
    SWITCH,
    Option,
    Values,
    fixed,
    number,
    offered,
    one_of,
    option,
    text,
    whole,
)
from flowerpress.server.tree import CheckpointError
from flowerpress.server.update import Update
from flowerpress.strategies.registry import (
    make_strategy,
    strategy_class,
    strategy_names,
    strategy_options,
)

__all__ = [
    "SWITCH",
    "Ask",
    "CheckpointError",
    "Checkpoints",
    "Client",
    "CompressedStrategy",
    "Option",
    "RoundError",
    "Steps",
    "Update",
    "Values",
    "fixed",
    "make_strategy",
    "number",
    "offered",
    "one_of",
    "option",
    "strategy_class",
    "strategy_names",
    "strategy_options",
    "text",
    "whole",
]
