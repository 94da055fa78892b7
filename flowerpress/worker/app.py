"""`client_app`: one Flower ClientApp that serves every algorithm, on every engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.protocol import (
    HELD,
    Hello,
    Instruction,
    Layout,
    MetricReader,
    Reply,
    config_of,
)
from flowerpress.tasks.task import Task
from flowerpress.user_code import place_of
from flowerpress.worker.aside import Attic
from flowerpress.worker.memory import begin_session
from flowerpress.worker.node import check_node, warn_of_keys
from flowerpress.worker.registry import make_worker
from flowerpress.worker.stores import LastSaved, WorkerState, open_store
from flowerpress.worker.worker import Job, load_buffers

log = logging.getLogger("flowerpress")
_RAISED = 2  # Flower's code for a ClientApp that raised
TaskFn = Callable[[int, int], Task]
Config = Mapping[str, Any]


class Trouble(threading.local):
    """Why a client cannot take part; of each thread its own, for clients may share an app."""

    reason = ""


TROUBLE = Trouble()  # the module's: apps that hold it could not be sent to other processes


def client_app(task_fn: TaskFn) -> TaskApp:
    """Return the ClientApp of a task.

    The algorithm and its hyperparameters come with each instruction, so the same ClientApp serves
    every strategy. From the node config it reads ``partition-id`` and ``num-partitions`` (which
    shard this client holds; ``client-id`` if its stable id is another), and optionally
    ``compressor`` (this client's own choice), ``device``, ``state-store`` and ``state-dir``.

    Parameters
    ----------
    task_fn : callable
        ``task_fn(partition_id, num_partitions)`` returns this client's `Task`. Called once per
        process and client.

    Returns
    -------
    ClientApp
        With train, evaluate and query registered. A worker that raises answers with the reason,
        in one line; the traceback goes to its own log.

    Examples
    --------
    >>> import numpy as np
    >>> from flowerpress.clients import FunctionTask, client_app
    >>> app = client_app(lambda i, n: FunctionTask(np.zeros(2), lambda x, _: (0.0, x - i)))
    """
    return TaskApp(_Client(task_fn))


class TaskApp(ClientApp):
    """What `client_app` returns: a ClientApp that a client over the link can ask a little more."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self._client = client
        self.train()(client.train)
        self.evaluate()(client.evaluate)
        self.query()(client.hello)

    @property
    def unfit(self) -> str:
        """Why this thread's client cannot take part, as it said when it was last asked."""
        return TROUBLE.reason

    def check_config(self, node_config: Config, task: str) -> None:
        """Raise `ValueError` for a node config that is wrong, whatever the run and its task."""
        del task
        check_node(node_config)
        warn_of_keys(node_config)

    def check_run(self, node_config: Config, run_config: Config) -> None:
        """Raise `ValueError` where this node cannot take part in a run."""
        del run_config
        partition_of(node_config)

    def parts(self, run_config: Config, partition: int, partitions: int) -> int:
        """Return in how many parts the data are for a node, where the server says `partitions`."""
        del run_config, partition
        return partitions


class _Client:
    """The functions of a ClientApp, with what a long-lived process keeps between messages."""

    def __init__(self, task_fn: TaskFn) -> None:
        self._task_fn = task_fn
        self._tasks: dict[Any, tuple[Task, Layout]] = {}
        self._states: dict[Any, WorkerState] = {}
        self._attic, self._last = Attic(), LastSaved()
        self._lock = threading.Lock()
        self._metrics = MetricReader("the task's evaluate")
        self._unused: set[str] = set()  # keys of configs that were named in the log
        self._failures: dict[int, str] = {}  # the last of each client

    def __reduce__(self) -> tuple[Callable[[TaskFn], _Client], tuple[TaskFn]]:
        """Return what another process needs: Ray sends it the app with every message."""
        return _client_here, (self._task_fn,)

    def hello(self, message: Message, context: Context) -> Message:
        """Say who this client is."""
        TROUBLE.reason = ""
        try:
            client, task, layout = self._task(context)
            state = open_store(context, client, self._states).load()
            held, session = (
                int(state.numbers.get(k, d)) for k, d in (("held", -1), ("session", 0))
            )
            kept, own = task.kept_names(), str(context.node_config.get("compressor", ""))
            content = Hello(
                client, task.num_examples, layout, held, session, kept=kept, compressor=own
            ).encode()
        except Exception as error:  # one line to the server, the traceback here
            reply = self._failed(context, 0, error)
            content = reply.encode()
            TROUBLE.reason = reply.reason if is_lasting(error) else ""
        return Message(content, reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        """Take part in one round."""
        version, held = 0, False
        try:
            order = Instruction.decode(message.content)
            version = order.version
            client, task, layout = self._task(context)
            if order.layout != layout.digest:
                raise _other_layout(order, layout)
            if order.stage == 1:
                self._configure(task, order, message, "train_config")
            store = open_store(context, client, self._states, "", self._attic, self._last)
            state = store.load()
            own = str(context.node_config.get("compressor", ""))
            try:
                job = Job(order, client, task, layout, state, own)
                reply = make_worker(order.algorithm).answer(job)
            finally:
                store.save(state)
            kept = state.replies.get(order.stage)
            held = store.lives and kept is not None and kept.reply is reply
        except Exception as error:  # one line to the server, the traceback here
            reply = self._failed(context, version, error)
        return Message(reply.encode(held=held), reply_to=message)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Evaluate the model on this client's data."""
        try:
            content = RecordDict({"metrics": self._evaluated(message, context)})
        except Exception as error:  # as an error of Flower's: a reply to an evaluation has metrics
            reason = self._failed(context, 0, error).reason
            return Message(Error(_RAISED, reason), reply_to=message)
        return Message(content, reply_to=message)

    def _evaluated(self, message: Message, context: Context) -> MetricRecord:
        order = Instruction.decode(message.content)
        client, task, layout = self._task(context)
        if order.layout != layout.digest:
            raise _other_layout(order, layout)
        self._configure(task, order, message, "evaluate_config")
        replica = bool(order.hyper.get("downlink"))
        store = open_store(context, client, self._states)
        comes_whole = order.model.base < 0 and not replica
        state = WorkerState() if comes_whole else store.load()
        begin_session(state, order.session)
        job = Job(order, client, task, layout, state)
        try:
            x = make_worker(order.algorithm).held_model(job)
        finally:
            if replica:
                store.save(state)
        load_buffers(job)
        examples = getattr(task, "num_test_examples", 0) or task.num_examples
        metrics: dict[str, Any] = {"num-examples": examples}
        metrics |= self._metrics.read(task.evaluate(x))
        if replica and "held" in state.numbers:
            metrics[HELD] = int(state.numbers["held"])
        return MetricRecord(metrics)

    def _configure(self, task: Task, order: Instruction, message: Message, source: str) -> None:
        """Give the round's config to the task, or say once which keys have no effect."""
        config = config_of(message.content)
        configure = getattr(task, "configure", None)
        if getattr(configure, "__func__", configure) not in (None, Task.configure):
            task.configure({**config, "server-round": order.round})
        elif unused := sorted(set(config) - self._unused):
            self._unused.update(unused)
            log.warning(
                "%s has no effect: this task has no configure(config), so %s will not be read "
                "(lr, local_lr and local_steps are options of the strategy)",
                source,
                ", ".join(unused),
            )

    def _task(self, context: Context) -> tuple[int, Task, Layout]:
        """Return this client's id, its task and its layout, made at the first message."""
        config = context.node_config
        partition, partitions = partition_of(config)
        key = (partition, partitions, str(config.get("device", "")))
        with self._lock:
            if key not in self._tasks:
                task = self._task_fn(partition, partitions)
                if (device := config.get("device")) and hasattr(task, "to"):
                    task.to(str(device))
                self._tasks[key] = task, Layout.of(task.initial_arrays(), task.buffer_names())
            task, layout = self._tasks[key]
        return int(config.get("client-id", partition)), task, layout

    def _failed(self, context: Context, version: int, error: Exception) -> Reply:
        """Return the answer of a client that has failed, and log why; the same reason once."""
        try:
            client = client_id(context)
        except ValueError:
            client = max(0, int(context.node_config.get("partition-id", 0)))
        place = place_of(error)
        where = f"{place}: " if place else ""
        reason = f"{where}{type(error).__name__}: {error}".replace("\n", " ")[:300]
        if reason != self._failures.get(client):
            if isinstance(error, ValueError | OSError | ImportError):
                log.warning("client %d: %s%s", client, where, error)
            else:
                log.exception("client %d failed: %s", client, reason)
        self._failures[client] = reason
        return Reply(client, version, status="failed", reason=reason)


def _client_here(task_fn: TaskFn) -> _Client:
    """Return this process's client of a task function: the same one whenever it is sent again."""
    try:
        return _kept(task_fn)
    except TypeError:  # it cannot be hashed: one that is told apart by nothing is made anew
        return _Client(task_fn)


@lru_cache(maxsize=8)
def _kept(task_fn: TaskFn) -> _Client:
    return _Client(task_fn)


_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_MISTAKES = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NameError),
    *(AssertionError, ImportError, SyntaxError, StopIteration),
    *(NotImplementedError, RecursionError),  # no other RuntimeError: of a GPU that is busy, say
)


def is_lasting(error: Exception) -> bool:
    """Whether an error comes again, however often one tries: a mistake, or something missing."""
    return isinstance(error, (*_MISTAKES, *_MISSING))


def partition_of(node_config: Config) -> tuple[int, int]:
    """Return (partition-id, num-partitions) of a node config.

    Raises
    ------
    ValueError
        One is missing or out of range: says how to give it.
    """
    try:
        partition = int(node_config["partition-id"])
        partitions = int(node_config["num-partitions"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "the node config lacks partition-id and num-partitions: start the client with "
            "--node-config 'partition-id=0 num-partitions=3'"
        ) from None
    if not 0 <= partition < partitions:
        raise ValueError(
            f"partition-id {partition} is not in 0 ... {partitions - 1}: the data are in "
            f"{partitions} parts; give a free number of these, or to all clients the same larger "
            f"--node-config 'num-partitions={partition + 1}'"
        )
    return partition, partitions


def client_id(context: Context) -> int:
    """Return the client's stable id: ``client-id`` of the node config, else its partition."""
    own = context.node_config.get("client-id")
    return partition_of(context.node_config)[0] if own is None else int(own)


def _other_layout(order: Instruction, layout: Layout) -> ValueError:
    return ValueError(
        f"this client's model has layout {layout.digest}, the server's {order.layout}: "
        "give both the same task and model options"
    )
