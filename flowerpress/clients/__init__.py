"""The client side: tasks, workers, their memory, and the ClientApp that serves every algorithm."""

from flowerpress.clients.app import client_app
from flowerpress.clients.outgoing import Outgoing
from flowerpress.clients.registry import make_worker, worker_names
from flowerpress.clients.stores import StateError
from flowerpress.clients.task import FunctionTask, Task
from flowerpress.clients.torch_task import TorchTask
from flowerpress.clients.worker import Job, Worker
from flowerpress.compressors.feedback import EF14Sender, EF21Sender, PlainSender

__all__ = [
    "EF14Sender",
    "EF21Sender",
    "FunctionTask",
    "Job",
    "Outgoing",
    "PlainSender",
    "StateError",
    "Task",
    "TorchTask",
    "Worker",
    "client_app",
    "make_worker",
    "worker_names",
]
