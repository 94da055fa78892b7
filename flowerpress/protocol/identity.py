"""The one private import of Flower: a message is only made in a process with a task identity.

Flower's engines set it when they start a ServerApp or a ClientApp; an engine of our own must do so
too, and there is no public way. Early releases of the supported range make messages without one.
"""

from __future__ import annotations

try:
    from flwr.supercore.task_identity import TaskIdentity
except ModuleNotFoundError:  # flwr 1.36: messages need no identity
    TaskIdentity = None  # type: ignore[assignment,misc]


def ensure_task_identity(run_id: int) -> None:
    """Give this process an identity, unless an engine of Flower's has done so."""
    if TaskIdentity is None:
        return
    try:
        _ = TaskIdentity.run_id
    except RuntimeError:  # not set
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 1, 1
