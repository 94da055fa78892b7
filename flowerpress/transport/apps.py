"""A ServerApp and a ClientApp by name, and what is said on a command line."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flowerpress.user_code import is_module, load_module

Config = dict[str, bool | int | float | str]
_PAIR = re.compile(r"""\s*([\w.-]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"']+)(?=\s|$)""")


class App(NamedTuple):
    """Where a ServerApp and a ClientApp are, and the run config they come with.

    Parameters
    ----------
    server, client : str
        ``module:object``; imported when they are loaded, for a client may lack what a server needs.
    run_config : dict
        Defaults.
    folder : Path or None
        Where the modules are, if they are not installed.
    """

    server: str
    client: str
    run_config: Config
    folder: Path | None = None

    def load(self, side: str) -> Any:
        """Import the ServerApp (`side` "server") or the ClientApp ("client").

        Raises
        ------
        ValueError
            There is no such module, it raises, or has no such object: says what and where.
        """
        module_name, _, attribute = getattr(self, side).rpartition(":")
        if self.folder is not None and str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        module = load_module(module_name)
        found = getattr(module, attribute, None)
        if found is None:
            raise ValueError(f"{module_name} has no {attribute!r}")
        return found


def find_app(name: str) -> App:
    """Return the app that a name stands for.

    Parameters
    ----------
    name : str
        A directory whose ``pyproject.toml`` has ``[tool.flwr.app.components]``, a Python file, or
        a module. File and module have `server_app` and `client_app`, and may have `run_config`, a
        dictionary.

    Raises
    ------
    ValueError
        It stands for nothing: says what was looked for. Or the file or module raises: says where.
    """
    path = Path(name)
    if (path / "pyproject.toml").is_file():
        return _from_pyproject(path.resolve())
    if path.suffix == ".py" and path.is_file():
        name = str(path.resolve())
    elif not is_module(name):
        raise ValueError(
            f"{name!r} is neither a shipped task, nor a directory with a Flower pyproject.toml, "
            "nor a Python file or module with server_app and client_app, or with task_fn"
        )
    config = dict(getattr(load_module(name), "run_config", {}))
    return App(f"{name}:server_app", f"{name}:client_app", config)


def _from_pyproject(folder: Path) -> App:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        app = project["tool"]["flwr"]["app"]
        components = app["components"]
        server, client = str(components["serverapp"]), str(components["clientapp"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'pyproject.toml'} has no [tool.flwr.app.components] with serverapp and "
            f"clientapp: {error}"
        ) from None
    return App(server, client, _flat(app.get("config", {})), folder)


def _flat(config: Mapping[str, Any], before: str = "") -> Config:
    """Join the keys of nested tables with dots, as Flower does."""
    flat: Config = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value
    return flat


def check_given(given: Config, declared: Config) -> None:
    """Check what a command line says against the run config that an app declares.

    An app that declares nothing may read any key; the same holds for the type of a key that is
    declared as an empty text.

    Raises
    ------
    ValueError
        A key that the app does not declare, or a value of another type: says which.

    Examples
    --------
    >>> check_given({"rouns": 3}, {"rounds": 2})
    Traceback (most recent call last):
    ...
    ValueError: --run-config: this app has no 'rouns'; it has rounds
    """
    for key, value in given.items():
        if declared and key not in declared:
            raise ValueError(
                f"--run-config: this app has no {key!r}; it has {', '.join(sorted(declared))}"
            )
        default = declared.get(key, "")
        wanted = (int, float) if type(default) is float else (type(default),)
        if default != "" and type(value) not in wanted:
            name = {bool: "true or false", int: "a whole number", float: "a number"}
            raise ValueError(
                f"--run-config: {key} is {value!r}, expected "
                f"{name.get(type(default), 'a text in quotes')}, such as {default!r}"
            )


def parse_config(text: str) -> Config:
    """Read ``key=value key="text"`` as Flower's ``--run-config`` has it; quotes may be left out.

    Raises
    ------
    ValueError
        Something in it is no pair: says what.

    Examples
    --------
    >>> parse_config('lr=0.5 compressor="topk:k=5" strategy=ef21 client-compressors=true')
    {'lr': 0.5, 'compressor': 'topk:k=5', 'strategy': 'ef21', 'client-compressors': True}
    """
    config: Config = {}
    text = text.strip()
    while text:
        found = _PAIR.match(text)
        if found is None:
            raise ValueError(f"{text!r:.60} does not begin with key=value")
        key, value = found.groups()
        if key in config:
            raise ValueError(f"{key!r} is given twice")
        config[key] = _value(value)
        text = text[found.end() :].strip()
    return config


def _value(text: str) -> bool | int | float | str:
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
