"""The client side: tasks, workers, their memory, and the ClientApp that serves every algorithm."""

from flowerpress.clients.app import client_app
from flowerpress.clients.registry import make_worker, worker_names
from flowerpress.clients.stores import StateError
from flowerpress.clients.task import FunctionTask, Task
from flowerpress.clients.torch_task import TorchTask

__all__ = [
    "FunctionTask",
    "StateError",
    "Task",
    "TorchTask",
    "client_app",
    "make_worker",
    "worker_names",
]
