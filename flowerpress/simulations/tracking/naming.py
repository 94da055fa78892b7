"""Configurations and metrics as flat names and plain values, the same for every tracker."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from flowerpress.protocol import Metrics

Setting = bool | int | float | str


def clean(name: str) -> str:
    """Return a name of letters, digits, spaces and ``_ . - /``: MLflow takes no others.

    Examples
    --------
    >>> clean("recall@5 (macro)"), clean("/class//0/../x")
    ('recall_5 _macro_', 'class/0/x')
    """
    parts = [re.sub(r"[^\w .-]", "_", part) for part in name.split("/")]
    return "/".join(part for part in parts if part.strip(". ")) or "_"


def flat_metrics(head: str, metrics: Metrics) -> dict[str, float]:
    """Return each number by its name after `head`, each number of a list by its place.

    Examples
    --------
    >>> flat_metrics("train", {"loss": 0.5, "recall": [0.25, 1]})
    {'train/loss': 0.5, 'train/recall/0': 0.25, 'train/recall/1': 1.0}
    """
    found = {}
    for name, value in metrics.items():
        if isinstance(value, int | float):
            found[f"{head}/{clean(name)}"] = float(value)
        else:
            found |= {f"{head}/{clean(name)}/{i}": float(each) for i, each in enumerate(value)}
    return found


def flat_config(config: Mapping[str, Any], head: str = "") -> dict[str, Setting]:
    """Return the settings of a nested configuration by dotted names; None is left out.

    Examples
    --------
    >>> flat_config({"lr": 0.5, "task": {"path": None, "classes": [1, 2]}})
    {'lr': 0.5, 'task.classes': '[1, 2]'}
    """
    found: dict[str, Setting] = {}
    for name, value in config.items():
        dotted = clean(f"{head}{name}")
        if isinstance(value, Mapping):
            found |= flat_config(value, f"{dotted}.")
        elif isinstance(value, bool | int | float | str):
            found[dotted] = value
        elif value is not None:
            found[dotted] = json.dumps(value, default=str)
    return found
