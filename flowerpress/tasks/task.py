"""Tasks: what a user brings to a run, that is data, a model and its gradient.

A worker sees a model as one flat vector `x`: the trainable arrays of `Task.initial_arrays`, each in
C order, one after the other in the order they are listed. This module needs numpy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, MetricRecord

from flowerpress.protocol import Layout, MetricReader, as_metric

FlatVector: TypeAlias = npt.NDArray[np.floating[Any]]
"""A 1-D float32 or float64 numpy array."""

Batch: TypeAlias = Any
"""What a gradient is taken on, opaque to the worker: often example indices. None: all the data."""

TaskFn: TypeAlias = Callable[[int, int], "Task"]
"""`task_fn(partition_id, num_partitions)`: the task of one client."""

EvaluateFn: TypeAlias = Callable[[int, ArrayRecord], MetricRecord]
"""`evaluate_fn(server_round, arrays)`: metrics of the server's model, as Flower asks for them."""


class Task(ABC):
    """One client's learning problem.

    An algorithm asks only for gradients, so one task serves every algorithm. Two calls of
    `gradient` with the same batch use the same examples, as variance-reduced algorithms need.

    A task of a large model may also have ``gradient_into(x, out, batch) -> loss``, which puts the
    gradient at `x` in `out`, a vector like `x`, and which is then called in place of `gradient`.
    Both vectors are lent for the call: the task writes to `out` alone, all of it, and keeps neither
    of them, nor a view. The worker uses their memory again, and needs one to three vectors of the
    model's length less.

    One with ``gradient_into`` whose model is on a GPU may have ``vector_device() -> torch.device``,
    or None for the host. Workers that can then keep their vectors there: `x` and `out` are tensors
    on that device.

    Attributes
    ----------
    num_examples : int
        Number of local training examples, at least 1: the client's weight when weights are
        `num-examples`.
    num_test_examples : int
        Number of examples that `evaluate` measures on: what its metrics count for in the mean over
        clients. 0, the default: as many as `num_examples`.
    draws : bool
        Whether `draw` is to be called for each gradient. If not, every batch is None, all the data.
    """

    num_examples: int
    num_test_examples: int = 0
    draws: bool = True

    @abstractmethod
    def initial_arrays(self) -> ArrayRecord:
        """Return the initial model by name: trainable arrays and buffers, in layout order."""

    @abstractmethod
    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return the mean loss on `batch` and its gradient at `x`, a new vector like `x`."""

    @abstractmethod
    def evaluate(self, x: FlatVector) -> Mapping[str, Any]:
        """Return metrics of the model `x` on this client's data, such as `{"accuracy": 0.9}`.

        A metric is a number or a list of numbers, of Python, numpy or torch. One that is called
        "num-examples" is what the others count for, in place of `num_test_examples`.
        """

    def configure(self, config: Mapping[str, Any]) -> None:
        """Hear the round's settings, before its gradients or its evaluation are asked for.

        `config` is what the server's ``train_config`` or ``evaluate_config`` says, as in Flower,
        with the round as "server-round". By default nothing is done, and a config that was given
        is named in the log.
        """
        del config

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw the next batch from `rng` and nothing else, so that a run repeats exactly.

        By default None, all the data.
        """
        return None

    def draw_all(self, rng: np.random.Generator) -> Batch:
        """Return the batch of all the data, with what its gradient draws besides from `rng`.

        By default None: a gradient on all the data that draws nothing.
        """
        return None

    def buffer_names(self) -> tuple[str, ...]:
        """Name the arrays that are not trained, such as batch-norm statistics; by default none."""
        return ()

    def buffers(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of the current local values of the buffers, by name."""
        return {}

    def load_buffers(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the local buffers by `values`.

        Raises
        ------
        ValueError
            If a name or a shape in `values` is not one of this task's buffers.
        """
        if values:
            raise ValueError(f"this task has no buffers, but was given {', '.join(values)}")

    @contextmanager
    def keeping_buffers(self) -> Iterator[None]:
        """Put the buffers back afterwards, as if what was done meanwhile had not been."""
        kept = self.buffers()
        try:
            yield
        finally:
            self.load_buffers(kept)

    def kept_names(self) -> dict[str, int | str]:
        """Name what the model has and what never travels, for a server whose arrays name it too.

        Returns
        -------
        dict
            For a frozen array the CRC-32 of its values, little-endian, in C order; for one that is
            the same as another (tied), the name under which that travels. By default empty.
        """
        return {}

    def evaluate_fn(self) -> EvaluateFn:
        """Return a function that evaluates the server's model on this task's data.

        It is what `simulate` and Flower's strategies take as ``evaluate_fn``: make a task with the
        server's data and give them ``task.evaluate_fn()``.

        Returns
        -------
        callable
            ``evaluate_fn(server_round, arrays)`` returns the metrics of `evaluate`. It raises
            `ValueError` where `arrays` are not a model of this task, saying what differs. The
            task's own buffers stay as they are.

        Examples
        --------
        >>> import numpy as np
        >>> task = FunctionTask(np.ones(2), lambda x, batch: (float(x @ x), 2 * x))
        >>> task.evaluate_fn()(0, task.initial_arrays())
        {'loss': 2.0}
        """
        layout = Layout.of(self.initial_arrays(), self.buffer_names())
        reader = MetricReader("the task's evaluate")

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            del server_round  # the model is measured alike in every round
            # A state_dict, which round 0 may begin with, names frozen and tied arrays too.
            named_more = len(arrays) > len(layout.entries)
            layout.match(arrays, self.kept_names() if named_more else {})
            x, buffers = layout.flatten(arrays)
            with self.keeping_buffers():
                self.load_buffers(buffers)
                return MetricRecord(dict(reader.read(self.evaluate(x))))

        return evaluate


class FunctionTask(Task):
    """A task made of plain numpy functions.

    Parameters
    ----------
    x0 : array or mapping of str to array
        Initial model, float32 or float64: one array (named `"x"` in the layout) or several by
        name. With float64 throughout, the whole run is float64.
    gradient : callable
        `gradient(x, batch) -> (loss, gradient)`, with `x` flat (a copy: it may be kept or changed)
        and the gradient of the shape of `x`. A float64 gradient of a float32 model is rounded; a
        float32 one of a float64 model is refused, for its digits are lost already.
    draw : callable, optional
        `draw(rng) -> batch`. By default every batch is None, which means all the data.
    num_examples : int, default 1
        Number of local examples.
    num_test_examples : int, default 0
        Number of examples that `evaluate` measures on; 0: as many.
    evaluate : callable, optional
        `evaluate(x) -> {name: value}`, see `Task.evaluate`. By default the loss on all the data
        where `draw` is not given, else nothing.

    Raises
    ------
    TypeError
        If `x0` is not float32 or float64, or a given function is not callable.
    ValueError
        If `x0` is empty or not finite, or `num_examples` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> task = FunctionTask(np.array([3.0, 4.0]), lambda x, batch: (0.5 * float(x @ x), x))
    >>> task.gradient(np.array([1.0, 2.0]), None)
    (2.5, array([1., 2.]))
    """

    def __init__(
        self,
        x0: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        gradient: Callable[[FlatVector, Batch], tuple[float, npt.ArrayLike]],
        *,
        draw: Callable[[np.random.Generator], Batch] | None = None,
        num_examples: int = 1,
        num_test_examples: int = 0,
        evaluate: Callable[[FlatVector], Mapping[str, Any]] | None = None,
    ) -> None:
        _check_callable("gradient", gradient)
        _check_callable("draw", draw, optional=True)
        _check_callable("evaluate", evaluate, optional=True)
        if num_examples < 1:
            raise ValueError(f"num_examples must be at least 1, not {num_examples}")
        if num_test_examples < 0:
            raise ValueError(f"num_test_examples must not be negative, but is {num_test_examples}")
        named = x0 if isinstance(x0, Mapping) else {"x": x0}
        if not named:
            raise ValueError("x0 names no array; give one array, or a mapping of name to array")
        self._initial = {name: _initial_array(name, value) for name, value in named.items()}
        self._gradient = gradient
        self._draw, self.draws = draw, draw is not None
        self._evaluate = evaluate
        self.num_examples = int(num_examples)
        self.num_test_examples = int(num_test_examples)

    def initial_arrays(self) -> ArrayRecord:
        """Return `x0` by name."""
        return ArrayRecord({name: Array(value) for name, value in self._initial.items()})

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch with the given function; without one, None: all the data."""
        return None if self._draw is None else self._draw(rng)

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Call the given function.

        Raises
        ------
        TypeError
            If it does not return `(loss, gradient)`, or the gradient's dtype does not fit.
        ValueError
            If the gradient's shape is not the shape of `x`.
        """
        # Copies both ways: `lambda x, _: (loss, x)` would otherwise hand the worker its own model.
        result: object = self._gradient(x.copy(), batch)
        if not isinstance(result, tuple) or len(result) != 2:
            got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise TypeError(f"the gradient function must return (loss, gradient), not {got}")
        loss, gradient = result
        return float(loss), _checked_gradient(gradient, x)

    def evaluate(self, x: FlatVector) -> Mapping[str, Any]:
        """Call the given function; without one, return the loss where a batch is all the data."""
        if self._evaluate is not None:
            found: object = self._evaluate(x.copy())
            if found is None:
                return {}
            if not isinstance(found, Mapping):
                raise TypeError(
                    "the evaluate function must return metrics by name (a dictionary or a "
                    f"MetricRecord) or None, not {type(found).__name__}"
                )
            numbers = {name: as_metric(value) for name, value in found.items()}
            return {k: found[k] if number is None else number for k, number in numbers.items()}
        if self._draw is None:
            return {"loss": self.gradient(x, None)[0]}
        return {}


def draw_indices(
    rng: np.random.Generator, num_examples: int, batch_size: int | None
) -> npt.NDArray[np.int64] | None:
    """Draw `batch_size` example indices without replacement; None when that is all the data.

    Tasks that draw by this function see the same examples whatever computes their gradients.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(draw_indices(np.random.default_rng(0), 4, 3).tolist())
    [1, 2, 3]
    >>> draw_indices(np.random.default_rng(0), 4, None)
    """
    if batch_size is None or batch_size >= num_examples:
        return None
    return rng.choice(num_examples, size=batch_size, replace=False)


def _check_callable(name: str, function: object, *, optional: bool = False) -> None:
    if not (callable(function) or (optional and function is None)):
        raise TypeError(f"{name} must be a function, not {type(function).__name__}")


_INITIAL: WeakValueDictionary[tuple[Any, ...], FlatVector] = WeakValueDictionary()


def _initial_array(name: str, value: npt.ArrayLike) -> FlatVector:
    """Return a copy of `value`, the one of a task before it where that is equal, to the bit.

    A thousand clients of one process begin at the same model, and nobody writes to it.
    """
    given = np.asarray(value, order="C")
    key = name, given.shape, given.dtype
    before = _INITIAL.get(key)
    if before is not None and np.array_equal(_octets(before), _octets(given)):
        return before
    array = _INITIAL[key] = _checked_initial(name, given)
    return array


def _octets(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def _checked_initial(name: str, value: npt.NDArray[Any]) -> FlatVector:
    array = np.array(value, order="C")
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"x0[{name!r}] has dtype {array.dtype}; a model is float32 or float64")
    if array.size == 0:
        raise ValueError(f"x0[{name!r}] is empty (shape {array.shape})")
    if not np.isfinite(array).all():
        raise ValueError(f"x0[{name!r}] holds NaN or infinity")
    return array


def _checked_gradient(gradient: npt.ArrayLike, x: FlatVector) -> FlatVector:
    array = np.asarray(gradient)
    if array.shape != x.shape:
        raise ValueError(f"the gradient has shape {array.shape}, but the model {x.shape}")
    if array.dtype not in (np.float32, np.float64) or array.dtype.itemsize < x.dtype.itemsize:
        raise TypeError(f"the gradient has dtype {array.dtype}, but the model {x.dtype}")
    return array.astype(x.dtype, copy=True)
