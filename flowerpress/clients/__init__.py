"""The client side: tasks, workers, their memory, and the ClientApp that serves every algorithm."""

from flowerpress.compressors.feedback import EF14Sender, EF21Sender, PlainSender
from flowerpress.tasks.task import FunctionTask, Task
from flowerpress.tasks.torch_task import TorchTask
from flowerpress.worker.app import client_app
from flowerpress.worker.outgoing import Outgoing
from flowerpress.worker.registry import make_worker, worker_names
from flowerpress.worker.stores import StateError
from flowerpress.worker.worker import Job, Worker

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
