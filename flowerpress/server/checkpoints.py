"""Checkpoints of a run: a folder from which a server that was killed goes on.

=========================  =======================================================================
file                       content
=========================  =======================================================================
round-000012.safetensors   all that the server knows after round 12, but for what only grows
journal.jsonl              what only grows: a line for each checkpoint, with the ledger's rows, the
                           metrics and the history since the one before
=========================  =======================================================================

So a checkpoint takes as long after a thousand rounds as after one. The last two are kept. Each says
how long the journal was and what its CRC-32 was; what is behind that is of a round that did not
end, and is cut off. All files are flushed to the disk before the next round begins.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from flowerpress.protocol.files import put_aside, remove_unfinished, write_atomically
from flowerpress.server.options import whole
from flowerpress.server.tree import CheckpointError, Tree, dump, load

log = logging.getLogger("flowerpress")
FORMAT = 1
KEPT = 2  # so that one is left if the disk damages the other
_JOURNAL = "journal.jsonl"
_ANEW = "name another folder for a new run, or delete this one to start over"


class Beside(Protocol):
    """What is saved with a run, and is not its strategy's: a simulation's history, say."""

    def news(self, after: int) -> list[Any]:
        """Return what has come in the rounds after this one, as JSON values."""

    def hear(self, news: list[Any]) -> None:
        """Take what `news` returned, in a run that goes on."""

    def state(self) -> Tree:
        """Return what is not told by `news`."""

    def restore(self, state: Tree) -> None:
        """Take what `state` returned."""


@dataclass
class Checkpoints:
    """A folder of checkpoints; give it to a strategy as its ``checkpoints`` before `start`.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    every : int (default: 1)
        Rounds between checkpoints. Above 1, clients may have gone on further than the checkpoint:
        the run then goes on, but not as it would have without the stop.
    resume : bool (default: False)
        Whether to go on from what is there; where nothing is, the run starts from the beginning.
    facts : mapping
        What else must be the same when a run is resumed: JSON values by name.
    beside : Beside, optional
        What to save besides.

    Raises
    ------
    ValueError
        `every` is not a whole number above 0.
    """

    folder: Path
    every: int = 1
    resume: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    beside: Beside | None = None
    _found: Tree = field(default=None, init=False)
    _opened: bool = field(default=False, init=False)  # and nothing was saved since
    _lines: list[Any] = field(default_factory=list, init=False)
    _run_id: int = field(default=0, init=False)
    _journal: tuple[int, int] = field(default=(0, 0), init=False)  # length, CRC-32

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        whole(1).check("checkpoint_every", self.every)

    def open(self) -> Tree:
        """Return the newest checkpoint that can be read, or None to start from the beginning.

        Raises
        ------
        CheckpointError
            There are checkpoints and `resume` is not set, or none of them can be read, or they are
            gone and their journal is not.
        """
        if self._opened:
            return self._found
        remove_unfinished(self.folder, "round-*.safetensors")
        paths = self._paths()
        if paths and not self.resume:
            raise CheckpointError(
                f"{self.folder} holds a run up to round {_round_of(paths[-1])}: resume it "
                "(--resume, or resume=true), or name another folder for this one"
            )
        if not paths:
            self._check_journal()
        if self.resume and not paths:
            log.info("no checkpoint in %s: starting from the beginning", self.folder)
        self._found, passed_over = self._newest(paths)
        for why in passed_over:
            log.warning("%s: going back to the checkpoint before", why)
        self._run_id = int(self._found["run_id"]) if self._found else secrets.randbits(62)
        self._opened = True
        return self._found

    def check(self) -> None:
        """Raise `CheckpointError` where none of the checkpoints can be read; changes nothing."""
        paths = self._paths()
        if not paths:
            self._check_journal()
        self._newest(paths)

    def _check_journal(self) -> None:
        """Raise `CheckpointError` for a journal without a checkpoint that a run has gone on from.

        One line is no more than a process leaves that was killed while it saved the first.
        """
        journal = self.folder / _JOURNAL
        if not os.path.lexists(journal):
            return
        if not journal.is_file():
            raise CheckpointError(f"{journal} is no file: {_ANEW}")
        with journal.open("rb") as file:
            rounds = sum(1 for _ in file)
        if rounds > 1:
            raise CheckpointError(
                f"{self.folder} holds the journal of a run ({rounds} checkpoints), but none of its "
                f"round-*.safetensors to resume it from: put one back, or {_ANEW}"
            )

    def _newest(self, paths: list[Path]) -> tuple[Tree, list[str]]:
        """Return the newest that can be read, None if there is none; and why others cannot be."""
        passed_over = list[str]()
        for path in reversed(paths):
            try:
                return self._read(path), passed_over
            except CheckpointError as error:
                passed_over.append(str(error))
        if paths:
            raise CheckpointError(f"no checkpoint in {self.folder} is left: {passed_over[-1]}")
        return None, []

    @property
    def run_id(self) -> int:
        """The run's number, drawn at its beginning and the same whenever it is resumed.

        Raises `CheckpointError` as `open` does.
        """
        if not self._run_id:
            self.open()
        return self._run_id

    @property
    def lines(self) -> list[Any]:
        """The journal's lines up to the checkpoint that `open` returned."""
        return self._lines

    def due(self, server_round: int, last: int) -> bool:
        """Whether a checkpoint is to be saved after a round, of a run of `last` rounds."""
        return server_round % self.every == 0 or server_round == last

    def save(self, server_round: int, state: dict[str, Tree], line: Any) -> None:
        """Save a checkpoint; what it says stays true whenever the process is killed.

        Parameters
        ----------
        server_round : int
            The last round that has ended.
        state : dict
            All that is not in the journal.
        line : JSON value
            What the journal gets.
        """
        self._opened = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._append(json.dumps(line).encode() + b"\n")
        tree = {"format": FORMAT, "run_id": self.run_id, "journal": self._journal, **state}
        path = self.folder / f"round-{server_round:06d}.safetensors"
        if path.is_dir():
            put_aside(path)
        write_atomically(path, dump(tree))
        paths = self._paths()
        newer = [path for path in paths if _round_of(path) > server_round]  # passed over: damaged
        for path in [*newer, *paths[: len(paths) - len(newer) - KEPT]]:
            put_aside(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.safetensors"), key=_round_of)

    def _read(self, path: Path) -> Tree:
        tree = load(path)
        if tree.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} has format {tree.get('format')}, this flowerpress reads {FORMAT}"
            )
        length, crc = tree["journal"]
        journal = self.folder / _JOURNAL
        try:
            if not journal.is_file():  # a pipe would be waited for
                raise FileNotFoundError("it is no file")
            data = journal.read_bytes()[:length]
        except OSError as error:
            raise CheckpointError(f"the journal beside {path} cannot be read ({error})") from None
        if len(data) != length or crc32(data) != crc:
            raise CheckpointError(f"the journal beside {path} is damaged")
        self._lines = [json.loads(line) for line in data.splitlines()]
        self._journal = length, crc
        return tree

    def _append(self, data: bytes) -> None:
        """Add a line, cutting off what a killed process may have left behind the last."""
        length, crc = self._journal
        handle = os.open(self.folder / _JOURNAL, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as file:
            file.truncate(length)
            file.seek(length)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._journal = length + len(data), crc32(data, crc)


def _round_of(path: Path) -> int:
    """Return the round in a checkpoint's name; -1 where it is none's."""
    number = path.stem.removeprefix("round-")
    return int(number) if number.isdecimal() else -1
