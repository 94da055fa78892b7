"""A user's task as an app of the link: `flowerpress serve ./my_task.py`, `join ./my_task.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowerpress.transport.apps import App

_SERVER = "flowerpress.simulations.flower_app:server_app"


class OwnTaskApp(App):
    """A task function with flowerpress's own ServerApp.

    Each side loads its own file, named on its own command line: what the server says of the task is
    never loaded by a client.
    """

    def load(self, side: str) -> Any:
        """Return the ServerApp, or the ClientApp of the task; see `App.load`."""
        if side == "server":
            return super().load(side)
        from flowerpress.clients import client_app
        from flowerpress.simulations.own_task import find_task

        return client_app(find_task(self.client).task_fn)


def own_task_app(name: str) -> App | None:
    """Return the app of a task of one's own; None where a name stands for no such task.

    Raises
    ------
    ValueError
        The file or module raises: says where.
    """
    from flowerpress.simulations.own_task import DEFAULT, is_own
    from flowerpress.simulations.run_config import DEFAULTS
    from flowerpress.user_code import is_file, load_module, split_name

    source, wanted = split_name(name, DEFAULT)
    if Path(source).is_dir() or not is_own(name) or (is_file(source) and not Path(source).exists()):
        return None
    module = load_module(source)
    explicit = source != name
    if not explicit and hasattr(module, "server_app"):
        return None
    if not explicit and not hasattr(module, wanted):
        return None
    if is_file(source):
        name = f"{Path(source).resolve()}:{wanted}"
    return OwnTaskApp(_SERVER, name, {**DEFAULTS, "task": name})
