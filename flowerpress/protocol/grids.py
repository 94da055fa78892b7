"""What grids of our own have in common: they carry the messages of one run, and no SuperLink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

if TYPE_CHECKING:
    from flwr.supercore.run import Run  # Grid's own signature; never needed at run time


class OneRunGrid(Grid):
    """The part of Flower's Grid that says which run it carries: there is only one."""

    def name_of(self, node: int) -> str:
        """Return what to call a node: grids of our own number theirs as the clients, from 2 on."""
        return f"client {node - 2}"

    def set_run(self, run: Run) -> None:
        """Not used: the run is the grid's own."""

    @property
    def run(self) -> Run:
        """Not available: the run is not one of a SuperLink."""
        raise RuntimeError("this run is none of a SuperLink's: it has no run info")

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
