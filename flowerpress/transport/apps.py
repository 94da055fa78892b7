"""A ServerApp and a ClientApp by name, and what is said on a command line."""

from __future__ import annotations

import re
import sys
import tomllib
import traceback
from collections.abc import Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

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
            The module has no such object.
        ImportError
            The module, or one it needs, is not there.
        """
        module_name, _, attribute = getattr(self, side).partition(":")
        if module_name.endswith(".py"):
            module = _load_file(Path(module_name))
        else:
            if self.folder is not None and str(self.folder) not in sys.path:
                sys.path.insert(0, str(self.folder))
            module = import_module(module_name)
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
        It stands for nothing: says what was looked for.
    """
    path = Path(name)
    if (path / "pyproject.toml").is_file():
        return _from_pyproject(path.resolve())
    if path.suffix == ".py" and path.is_file():
        where = str(path.resolve())
        config = dict(getattr(_load_file(path.resolve()), "run_config", {}))
        return App(f"{where}:server_app", f"{where}:client_app", config)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.split(".", maxsplit=1)[0] != error.name.split(".")[0]:
            raise  # the module is there, and lacks a package
        raise ValueError(
            f"{name!r} is neither a shipped task, nor a directory with a Flower pyproject.toml, "
            "nor a Python file or module with server_app and client_app"
        ) from None
    config = dict(getattr(module, "run_config", {}))
    return App(f"{name}:server_app", f"{name}:client_app", config)


def _load_file(path: Path) -> Any:
    """Import a Python file by its path; once."""
    name = f"flowerpress_app_{path.stem}_{crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _one_line(path, error) from error
    return module


def _one_line(path: Path, error: BaseException) -> BaseException:
    """Return what an app's file raises when it is imported, with the line where it does."""
    if not isinstance(error, Exception) or isinstance(error, ModuleNotFoundError):
        return error
    line = getattr(error, "lineno", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path:
            line = frame.lineno
    where = f"{path}, line {line}" if line else str(path)
    return ImportError(f"{where}: {type(error).__name__}: {error}")


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
