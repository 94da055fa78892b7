"""Where a worker's memory lives between rounds: a live process, a directory, or Flower's context.

Flower carries `Context.state` after the reply, within a few seconds, and drops what does not fit:
error buffers as large as the model do not belong there in a deployment. All stores have the same
transitions: `load` gives the state as last saved (an empty one at first), `save` replaces it whole.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context

from flowerpress.compressors.vectors import is_tensor, placed
from flowerpress.protocol.files import (
    alone_with,
    first_bytes,
    opened,
    put_aside,
    remove_unfinished,
    write_atomically,
    write_over,
)
from flowerpress.protocol.tensors import pieces_of, read
from flowerpress.worker.answered import Answered
from flowerpress.worker.aside import Aside, Attic

FloatVector = npt.NDArray[np.floating[Any]]
Numbers = dict[str, int | float]

STORES = ("live", "disk", "context")
CONTEXT_LIMIT = 20 * 2**20  # bytes; beyond it Flower's deployment engine loses or delays the state
_KEY = "flowerpress"
_PACKET = "packet"
REPLY = "reply."
BEFORE = "-"  # ends the name of what a moment was before the packet in flight
_BLOCK = 4096  # bytes
_OVER_LIMIT = 2**20  # bytes; the making of a longer file is little beside its writing
_STATE = 2048  # bytes that the objects of a state take beside its vectors, about
log = logging.getLogger("flowerpress")


class StateError(ValueError):
    """A stored state cannot be read, or a store cannot be opened."""


@dataclass
class WorkerState:
    """A worker's memory: vectors by name, numbers by name, and the packet in flight.

    The last round's replies, by exchange, are objects in a process that lives on, and vectors
    `REPLY` and the exchange's number where they were stored. Vectors `aside` are in a file.
    """

    vectors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    packet: bytes = b""
    replies: dict[int, Answered] = field(default_factory=dict)
    aside: dict[str, Aside] = field(default_factory=dict)

    def stored(self) -> dict[str, npt.NDArray[Any]]:
        """Return all of it but the numbers as arrays by name."""
        arrays = {name: placed(vector, None) for name, vector in self.vectors.items()}
        arrays |= {f"{REPLY}{stage}": kept.to_vector() for stage, kept in self.replies.items()}
        if self.packet:
            arrays[_PACKET] = np.frombuffer(self.packet, np.uint8)
        return arrays


class StateStore(ABC):
    """One worker's memory in one run."""

    lives: ClassVar[bool] = False  # whether what it was given stays in this process, as it is

    @abstractmethod
    def load(self) -> WorkerState:
        """Return the state last saved, or an empty one."""

    @abstractmethod
    def save(self, state: WorkerState) -> None:
        """Replace the stored state by `state`, whole or not at all."""


class LiveStore(StateStore):
    """Memory of a long-lived process; `table` outlives the messages.

    What is kept in case an answer is refused goes to `attic`, where there is one.
    """

    lives = True

    def __init__(self, table: dict[Any, WorkerState], key: Any, attic: Attic | None = None) -> None:
        self._table, self._key, self._attic = table, key, attic

    def load(self) -> WorkerState:
        state = self._table.get(self._key)
        if state is None:
            state = self._table[self._key] = WorkerState()
        return state

    def save(self, state: WorkerState) -> None:
        self._table[self._key] = state
        if self._attic is None:
            return
        for name, vector in tuple(state.vectors.items()):
            if not name.endswith(BEFORE):
                continue
            aside = None if is_tensor(vector) else self._attic.put((self._key, name), vector)
            if aside is not None:
                state.aside[name] = aside
                del state.vectors[name]


class LastSaved:
    """States that a process saved last: one is not made from its file if that is as it was written.

    That is told by a checksum of the file, whoever changed it. Of many clients, those are kept that
    were saved last. A state is the caller's own: it must not be changed between `put` and `take`.

    Parameters
    ----------
    room : int, default 32 MiB
        How many bytes they may take together: those of a file, and 2 KiB for each state.
    """

    def __init__(self, room: int = 32 * 2**20) -> None:
        self._kept: dict[Path, tuple[WorkerState, int, int]] = {}  # the oldest first
        self._room, self._lock = room, threading.Lock()

    def put(self, path: Path, data: Sequence[bytes | memoryview], state: WorkerState) -> None:
        """Keep a state whose file consists of the pieces `data`."""
        size, crc = sum(map(len, data)), 0
        for piece in data:
            crc = crc32(piece, crc)
        with self._lock:
            self._forget(path)
            self._room -= size + _STATE
            self._kept[path] = (state, size, crc)
            while self._room < 0:
                self._forget(next(iter(self._kept)))

    def take(self, path: Path) -> WorkerState | None:
        """Return what was saved to a file, if that is what it holds, and forget it."""
        with self._lock:
            kept = self._forget(path)  # whoever has it changes it
        if kept is None:
            return None
        state, size, crc = kept
        found = first_bytes(path, size + 1)
        return state if len(found) == size and crc32(found) == crc else None

    def _forget(self, path: Path) -> tuple[WorkerState, int, int] | None:
        kept = self._kept.pop(path, None)
        if kept is not None:
            self._room += kept[1] + _STATE
        return kept


class DiskStore(StateStore):
    """One safetensors file, replaced atomically, with its client's name and a checksum.

    A file that is damaged (a power cut, a failing disk) or another client's is put aside as
    ``NAME.damaged-1`` and so on, of which three are kept, and a line is logged: the worker has then
    lost its memory, and starts over as after any such loss.

    Parameters
    ----------
    path : Path
        The file.
    sync : bool
        Whether it is flushed to the disk before `save` returns: if not, it survives a crash of the
        process, and not one of the machine, and a short one is written over the file before the
        last (`write_over`).
    last : LastSaved, optional
        Has what was saved last, if it is short.
    """

    _swept: ClassVar[set[Path]] = set()  # by this process

    def __init__(self, path: Path, *, sync: bool = True, last: LastSaved | None = None) -> None:
        self._path, self._sync, self._last = path, sync, last

    def load(self) -> WorkerState:
        kept = self._last.take(self._path) if self._last is not None else None
        if kept is not None:
            return kept
        if self._path not in self._swept:
            self._swept.add(self._path)
            remove_unfinished(self._path.parent, self._path.name)
        try:
            return self._read()
        except _DamagedError:
            pass
        # It may have been written over while it was read.
        with alone_with(self._path, seconds=1.0, reads=True):
            try:
                return self._read()
            except _DamagedError as error:
                return self._start_over(error)

    def _read(self) -> WorkerState:
        try:
            file = opened(self._path)
        except FileNotFoundError:
            return WorkerState()
        except IsADirectoryError as error:
            raise _DamagedError(str(error)) from None
        except OSError as error:  # it may be whole: this is no damage
            raise StateError(f"this client's memory cannot be read: {error}") from None
        with file:
            return _read(file, self._path.stem)

    def _start_over(self, error: Exception) -> WorkerState:
        try:
            aside = put_aside(self._path)
        except OSError as wrong:
            raise StateError(
                f"this client's memory {self._path} is damaged ({error}), and cannot be put aside "
                f"({wrong}): delete it to let this client start over"
            ) from None
        log.warning(
            "this client's memory %s is damaged (%s): kept as %s; the client starts over",
            self._path,
            error,
            aside.name,
        )
        return WorkerState()

    def save(self, state: WorkerState) -> None:
        arrays = state.stored()
        numbers = json.dumps(state.numbers)
        # One entry: safetensors writes several in any order, and equal states are equal files.
        text = f"{self._path.stem} {numbers}"
        data = pieces_of(arrays, {"numbers": f"{_checksum(arrays, text)} {text}"})
        try:
            try:
                self._write(data)
            except FileNotFoundError:  # to look for the folder at each save takes longer
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._write(data)
        except OSError as error:
            raise StateError(
                f"this client's memory cannot be written below {self._path.parent} "
                f"({error.strerror or error}): it stays as it was, and this round's answer is not "
                "sent; make room there, or give another --state-dir"
            ) from None
        if self._last is not None and sum(map(len, data)) <= _OVER_LIMIT:
            self._last.put(self._path, data, state)

    def _write(self, data: list[bytes | memoryview]) -> None:
        if self._sync or sum(map(len, data)) > _OVER_LIMIT:
            write_atomically(self._path, data, sync=self._sync)
        else:
            write_over(self._path, data)


class _DamagedError(Exception):
    """A file is not what was written."""


def _read(file: BufferedReader, owner: str) -> WorkerState:
    """Read the file of a `DiskStore`; raises `_DamagedError` where it is not what was written.

    It says whose it is, since another client's would be as good a file, and a wrong memory.
    """
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _DamagedError("it is no file")
        vectors, metadata = read(file)
        text = metadata.pop("numbers")
        if not text.startswith("{"):  # files of earlier versions have no checksum
            known, _, text = text.partition(" ")
            if metadata or known != _checksum(vectors, text):
                raise _DamagedError("its checksum is wrong")
            start = text.find("{")
            whose = text[:start].strip()  # "" in files of earlier versions
            if whose and whose != owner:
                raise _DamagedError(f"it is that of {whose}")
            text = text[start:]
        numbers = dict(json.loads(text))
    except MemoryError:  # no fault of the file
        raise
    except Exception as error:  # whatever a damaged header makes of it
        raise _DamagedError(str(error) or type(error).__name__) from None
    packet = vectors.pop(_PACKET, np.empty(0, np.uint8)).tobytes()
    return WorkerState(vectors, numbers, packet)


def _checksum(arrays: Mapping[str, npt.NDArray[Any]], text: str) -> str:
    """Return 8 hexadecimal digits that change with any bit of names, shapes, dtypes and values.

    It is a CRC-32 of the sums of the arrays' 64-bit words, by blocks of 4 KiB: a CRC of the arrays
    themselves takes ten times as long (10 ms for 12 MB, at each load and save).
    """
    crc = crc32(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        crc = crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        octets = array.reshape(-1).view(np.uint8)
        whole = octets.size - octets.size % _BLOCK
        if whole:
            words = octets[:whole].view(np.uint64).reshape(-1, _BLOCK // 8)
            crc = crc32(words.sum(axis=1, dtype=np.uint64).data, crc)
        crc = crc32(octets[whole:].data, crc)
    return f"{crc:08x}"


class ContextStore(StateStore):
    """Flower's own client state: right for its simulation engine, and for small states."""

    def __init__(self, context: Context, part: str = "") -> None:
        self._context = context
        self._key = f"{_KEY}-{part}" if part else _KEY

    def load(self) -> WorkerState:
        # Not by `array_records`: it makes a cycle, which keeps the state until it is collected.
        arrays = self._context.state.get(self._key)
        config = self._context.state.get(f"{self._key}-numbers")
        if not (isinstance(arrays, ArrayRecord) and isinstance(config, ConfigRecord)):
            return WorkerState()
        # Arrays unpickled from Flower's record are read-only views: the worker settles in place.
        vectors = {str(name): array.numpy().copy() for name, array in arrays.items()}
        packet = vectors.pop(_PACKET, np.empty(0, np.uint8)).tobytes()
        return WorkerState(vectors, json.loads(str(config["numbers"])), packet)

    def save(self, state: WorkerState) -> None:
        vectors = state.stored()
        size = sum(vector.nbytes for vector in vectors.values())
        if size > CONTEXT_LIMIT and "ray" not in sys.modules:
            log.warning(
                "worker state of %.0f MB in Flower's context: its deployment engine loses states "
                "of this size; use --node-config 'state-store=\"disk\"'",
                size / 1e6,
            )
        arrays = {name: Array(vector) for name, vector in vectors.items()}
        self._context.state[self._key] = ArrayRecord(arrays)
        self._context.state[f"{self._key}-numbers"] = ConfigRecord(
            {"numbers": json.dumps(state.numbers)}
        )


def open_store(
    context: Context,
    client: int,
    table: dict[Any, WorkerState],
    part: str = "",
    attic: Attic | None = None,
    last: LastSaved | None = None,
) -> StateStore:
    """Open the store for `client`: as configured, else the one that is safe where this runs.

    ``state-store`` in the node config (or the run config) names it: "live", "disk" or "context".
    Unset, it is "context" inside Flower's Ray simulation and "disk" elsewhere, in the directory
    ``state-dir`` of the node config, else ``$FLOWERPRESS_STATE_DIR``, else
    ``~/.local/state/flowerpress``.

    ``state-sync=false`` does without waiting for the disk, see `DiskStore`.

    A client with memory of several kinds has a store for each `part`.

    Memory goes by the run: by its number, or, where it has checkpoints, by the name of their folder
    (``checkpoint`` of the run config, or ``flowerpress.checkpoint`` of a pressed app), since a run
    that is resumed gets another number from Flower.

    Raises
    ------
    StateError
        Another name.
    """
    name = context.node_config.get("state-store") or context.run_config.get("state-store") or ""
    if not name:
        name = "context" if _in_ray() else "disk"
    config = context.run_config
    saved = str(config.get("checkpoint") or config.get("flowerpress.checkpoint") or "")
    run = (saved and _as_name(saved)) or str(context.run_id)
    if name == "live":
        return LiveStore(table, (run, client, part), attic)
    if name == "context":
        return ContextStore(context, part)
    if name == "disk":
        sync = bool(context.node_config.get("state-sync", True))
        name = f"client-{client}-{part}" if part else f"client-{client}"
        path = _path_in(str(state_folder(context.node_config)), run, name)
        return DiskStore(path, sync=sync, last=last)
    raise StateError(f"unknown state-store {name!r}: choose one of {', '.join(STORES)}")


@lru_cache(maxsize=4096)
def _path_in(folder: str, run: str, name: str) -> Path:
    """Return the file of a memory; kept, for it is asked for with each question."""
    return Path(folder) / f"run-{run}" / f"{name}.safetensors"


@lru_cache(maxsize=8)
def _as_name(saved: str) -> str:
    return re.sub(r"[^\w.-]+", "-", saved).strip("-")


def state_folder(node_config: Mapping[str, Any]) -> Path:
    """Return the directory of all memory on disk, as `open_store` says."""
    folder = node_config.get("state-dir") or os.environ.get("FLOWERPRESS_STATE_DIR")
    return Path(str(folder)) if folder else Path.home() / ".local/state/flowerpress"


def _in_ray() -> bool:
    ray = sys.modules.get("ray")
    return bool(ray is not None and ray.is_initialized())
