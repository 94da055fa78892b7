"""What grids of our own have in common: they carry the messages of one run, and no SuperLink.

A strategy may tell a grid, and ask it, more than Flower's `Grid` has methods for. The functions
here do so where the grid is one of ours, and are of no effect where it is not.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

if TYPE_CHECKING:
    from flwr.supercore.run import Run  # Grid's own signature; never needed at run time


class OneRunGrid(Grid):
    """The part of Flower's Grid that says which run it carries: there is only one."""

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


def stop_waiting(grid: Grid, message_ids: list[str]) -> None:
    """Say that nobody waits for the answers to these messages any more."""
    _call(grid, "stop_waiting", message_ids)


def checkpoints_of(grid: Grid) -> Any:
    """Return where a run on this grid is saved if nobody else says it; None: nowhere."""
    return _call(grid, "checkpoints")


def _call(grid: Grid, name: str, *arguments: Any) -> Any:
    method = getattr(grid, name, None)
    return method(*arguments) if method is not None else None
