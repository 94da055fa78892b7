"""What grids of our own have in common: they carry the messages of one run, and no SuperLink.

A strategy may tell a grid, and ask it, more than Flower's `Grid` has methods for. The functions
here do so where the grid is one of ours, and are of no effect where it is not.
"""

from __future__ import annotations

import itertools
import secrets
from abc import abstractmethod
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

# Names of messages are counted from a random start: to ask the system for random bytes for each of
# them would cost 25 microseconds.
_NAMES, _NUMBERS = secrets.token_hex(6), itertools.count()

if TYPE_CHECKING:
    from flwr.supercore.run import Run  # Grid's own signature; never needed at run time


class Upload(NamedTuple):
    """How long an answer took to come.

    Parameters
    ----------
    bytes : int
        Those that came after the first frame.
    seconds : float
        From the first frame to the last.
    """

    bytes: int
    seconds: float


class OneRunGrid(Grid):
    """The part of Flower's Grid that is the same however messages travel."""

    def name_of(self, node: int) -> str:
        """Return what to call a node: grids of our own number theirs as the clients, from 2 on."""
        return f"client {node - 2}"

    run_id: int

    def set_run(self, run: Run) -> None:
        """Not used: the run is the grid's own."""

    @property
    def run(self) -> Run:
        """What is known of the run: its number.

        Apps made of `server_fn` and a strategy of `flwr.server` ask for it.
        """
        return cast("Run", SimpleNamespace(run_id=self.run_id, override_config={}))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message (deprecated by Flower in favour of `Message`)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    # Flower before 1.43 has message_ids in the first place: by place and by name, it is taken here.
    def pull_messages(  # type: ignore[override]
        self,
        reply_to_message_ids: Iterable[str] | None = None,
        *,
        message_ids: Iterable[str] | None = None,
    ) -> list[Message]:
        """Return the replies that are there, each of them once; one that was lost never is.

        Parameters
        ----------
        reply_to_message_ids : iterable of str, optional
            What `push_messages` returned: only replies to these, and none for an empty one. None:
            all that are there; a reply's ``metadata.reply_to_message_id`` says what it answers.
        message_ids : iterable of str, optional
            What that parameter is called before Flower 1.43.

        Raises
        ------
        TypeError
            Both are given.
        """
        if message_ids is not None and reply_to_message_ids is not None:
            raise TypeError("give reply_to_message_ids, or message_ids (its older name), not both")
        ids = message_ids if reply_to_message_ids is None else reply_to_message_ids
        return self._pull(None if ids is None else list(ids))

    @abstractmethod
    def _pull(self, ids: list[str] | None) -> list[Message]:
        """Return the replies to the messages of these ids that are there; None: all."""


def name_message(message: Message) -> str:
    """Give a message an id, as Flower's own grids do when they send it; returns the id."""
    name = f"{_NAMES}{next(_NUMBERS):08x}"
    message.metadata.__dict__["_message_id"] = name  # there is no public way
    return name


def name_reply(reply: Message, name: str) -> Message:
    """Let a reply name the message it answers, also where that was sent again since."""
    reply.metadata.__dict__["_reply_to_message_id"] = name
    return reply


def has_strangers(grid: Grid) -> bool:
    """Return whether nodes come that may be silent, or slow, and must not hold up the others."""
    return bool(getattr(grid, "strangers", False))


def proven_client(grid: Grid, node: int) -> int | None:
    """Return the client that a node has proven to be; None where nobody proves anything."""
    client: int | None = _call(grid, "proven_client", node)
    return client


def dismiss(grid: Grid, node: int, why: str) -> None:
    """Tell a node that it cannot take part in this run, so that it does not go on trying."""
    _call(grid, "dismiss", node, why)


def allow_answers(grid: Grid, nbytes: int) -> None:
    """Say how many bytes a node's answer may have from now on."""
    _call(grid, "allow_answers", nbytes)


def note_waiting(grid: Grid, waiting: tuple[int, int] | None) -> None:
    """Say how many clients are there of how many that a round waits for; None: it does not."""
    _call(grid, "note_waiting", waiting)


def measures_uploads(grid: Grid) -> bool:
    """Return whether a grid measures how long answers take to come."""
    return bool(_call(grid, "measures_uploads"))


def last_upload(grid: Grid, node: int) -> Upload | None:
    """Return how long a node's last answer took to come; None where nothing was measured."""
    upload: Upload | None = _call(grid, "last_upload", node)
    return upload


def stop_waiting(grid: Grid, message_ids: list[str]) -> None:
    """Say that nobody waits for the answers to these messages any more."""
    _call(grid, "stop_waiting", message_ids)


def checkpoints_of(grid: Grid) -> Any:
    """Return where a run on this grid is saved if nobody else says it; None: nowhere."""
    return _call(grid, "checkpoints")


def _call(grid: Grid, name: str, *arguments: Any) -> Any:
    method = getattr(grid, name, None)
    return method(*arguments) if method is not None else None
