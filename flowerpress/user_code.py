"""Code of a user's: loaded by a file's path or a module's name, and the place where it fails."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent
_PYTHON = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = {"site-packages", "dist-packages"}  # wherever they are


def split_name(text: str, default: str = "") -> tuple[str, str]:
    """Split ``file.py:name`` or ``module:name`` into its halves.

    Examples
    --------
    >>> split_name("tasks/mine.py:task_fn"), split_name("mine", "task_fn")
    (('tasks/mine.py', 'task_fn'), ('mine', 'task_fn'))
    """
    source, colon, name = text.rpartition(":")
    return (source, name) if colon and name.isidentifier() else (text, default)


def is_file(source: str) -> bool:
    """Whether a name means a file, whether or not it is there."""
    return source.endswith(".py") or "/" in source or "\\" in source


def is_module(name: str) -> bool:
    """Whether there is a module of this name, installed or in the current folder."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    _look_in(Path.cwd())
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a package on the way is missing, or is none
        return False


def load_module(source: str) -> ModuleType:
    """Import a Python file by its path, or a module by its name; once.

    A file's folder, and for a module the current one, is where its own imports are looked for too.

    Parameters
    ----------
    source : str
        ``path/to/file.py`` or ``package.module``.

    Raises
    ------
    ValueError
        There is no such file or module, or it raises: says what and where, in one line.
    """
    path = Path(source)
    if is_file(source) and not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        raise ValueError(f"{path} is {what}: give the path of a Python file")
    if not is_file(source) and not is_module(source):
        raise ValueError(f"there is no module {source!r}")
    try:
        return _load_file(path) if is_file(source) else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        raise ValueError(_told(source, error)) from error


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _load_file(path: Path) -> ModuleType:
    _look_in(path.resolve().parent)
    name = f"flowerpress_user_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path.resolve()):
        return loaded
    spec = spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _told(source: str, error: BaseException) -> str:
    """Return the error about loading a user's code in one line, with the place in it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {error.msg}"
    place = place_of(error)
    if not place:
        return f"{source}: {error}"
    if isinstance(error, SystemExit):
        return f"{place}: {source} ends the process when it is imported"
    return f"{place}: {type(error).__name__}: {error}"


def place_of(error: BaseException) -> str:
    """Return the innermost line of a user's code that an error came from: ``mine.py, line 7``.

    Empty where none did. A user's is what is neither flowerpress's nor an installed package's.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if frame.filename.startswith("<"):  # made by Python itself, of a dataclass say
            continue
        folders = path.resolve().parents
        ours = _PACKAGE in folders or _PYTHON in folders
        if not ours and _INSTALLED.isdisjoint(folder.name for folder in folders):
            return f"{path.name}, line {frame.lineno}"
    return ""
