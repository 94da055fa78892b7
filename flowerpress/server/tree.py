"""Plain values, nested, as one safetensors file: what a checkpoint is written as.

A tree is made of None, booleans, numbers, strings, bytes, numpy arrays and scalars, and lists,
tuples, sets and dictionaries of these. Arrays are the file's tensors, all bytes together are one
tensor more, and the rest is JSON in the file's metadata, with a CRC-32 of that and of all tensors'
bytes. Nothing that is read back is ever run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

Tree = Any
_BYTES = "bytes"


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or belongs to another run."""


class _Writer:
    """Turns a tree into JSON values, and collects its arrays and bytes."""

    def __init__(self) -> None:
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._parts: list[bytes] = []
        self._length = 0

    def value(self, tree: Tree) -> Any:
        if tree is None or type(tree) in (bool, int, float, str):
            return tree
        if type(tree) is list:
            return [self.value(each) for each in tree]
        if type(tree) is dict:
            return {"dict": [[self.value(key), self.value(each)] for key, each in tree.items()]}
        if type(tree) in (tuple, set):
            each = sorted(tree) if type(tree) is set else tree
            return {type(tree).__name__: [self.value(one) for one in each]}
        if type(tree) is bytes:
            self._parts.append(tree)
            self._length += len(tree)
            return {_BYTES: [self._length - len(tree), len(tree)]}
        if isinstance(tree, np.ndarray | np.generic):
            name = f"array-{len(self.arrays)}"
            self.arrays[name] = np.array(tree, order="C")
            return {"array" if isinstance(tree, np.ndarray) else "scalar": name}
        raise TypeError(f"a checkpoint cannot hold a {type(tree).__name__}")

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {**self.arrays, _BYTES: np.frombuffer(b"".join(self._parts), np.uint8)}


class _Reader:
    """Turns JSON values back into a tree."""

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors
        self._bytes = tensors[_BYTES].tobytes()

    def tree(self, value: Any) -> Tree:
        if isinstance(value, list):
            return [self.tree(each) for each in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "dict":
            return {self.tree(key): self.tree(each) for key, each in content}
        if kind in ("tuple", "set"):
            items = (self.tree(each) for each in content)
            return tuple(items) if kind == "tuple" else set(items)
        if kind == _BYTES:
            start, length = content
            return self._bytes[start : start + length]
        array = self._tensors[content]
        return array if kind == "array" else array[()]


def dump(tree: Tree) -> bytes:
    """Return the file's bytes; raises `TypeError` for a value that no tree has."""
    from safetensors.numpy import save

    writer = _Writer()
    text = json.dumps(writer.value(tree))
    tensors = writer.tensors()
    return save(tensors, metadata={"tree": text, "crc32": str(_check(text, tensors))})


def load(path: Path) -> Tree:
    """Read the file that holds what `dump` returned.

    Raises
    ------
    CheckpointError
        It is damaged, or no such file.
    """
    from safetensors import safe_open

    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError("it is no file")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())  # the file itself cannot be iterated
            # In memory that is aligned and may be written to, whatever the file was read into.
            tensors = {name: np.array(file.get_tensor(name)) for name in names}
        text = metadata["tree"]
        if int(metadata["crc32"]) != _check(text, tensors):
            raise ValueError("its checksum is wrong")
        return _Reader(tensors).tree(json.loads(text))
    except MemoryError:  # no fault of the file
        raise
    except Exception as error:  # safetensors raises what it likes: AttributeError for some dtypes
        raise CheckpointError(f"{path} cannot be read ({error})") from None


def _check(text: str, tensors: dict[str, npt.NDArray[Any]]) -> int:
    crc = crc32(text.encode())
    for name in sorted(tensors):
        crc = crc32(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data, crc)
    return crc
