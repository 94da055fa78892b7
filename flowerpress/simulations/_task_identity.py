"""The one private import of Flower: a message can only be made in a process that has a task identity.

Flower's engines set it when they start a ServerApp or a ClientApp; an engine of our own must do so
too, and there is no public way.
"""

from __future__ import annotations

from flwr.supercore.task_identity import TaskIdentity


def ensure_task_identity(run_id: int) -> None:
    """Give this process an identity, unless an engine of Flower's has done so."""
    try:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id  # noqa: B018
    except RuntimeError:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 1, 1
