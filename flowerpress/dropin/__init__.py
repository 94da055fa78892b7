"""For a Flower app that exists: compressed updates by a mod and a grid, whatever its strategy.

On the client `press`, the first of its mods; on the server `pressed`, below ``@app.main()``, or
`press_grid` around the grid, or `pressed_app` around a ServerApp that has a ``server_fn``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerpress.dropin.app import press_grid, pressed, pressed_app
    from flowerpress.dropin.grid import PressedGrid
    from flowerpress.dropin.mod import press
    from flowerpress.dropin.settings import STATISTICS, Settings

__all__ = ["STATISTICS", "PressedGrid", "Settings", "press", "press_grid", "pressed", "pressed_app"]

# Looked up when they are asked for: a client needs none of the server's, and no server the mod.
_WHERE = {
    "STATISTICS": "settings",
    "PressedGrid": "grid",
    "Settings": "settings",
    "press": "mod",
    "press_grid": "app",
    "pressed": "app",
    "pressed_app": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
