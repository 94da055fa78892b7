"""Tasks of PyTorch models. torch is imported when a `TorchTask` is made, and not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from flowerpress.compressors.kernels.device import stays_on_device
from flowerpress.compressors.vectors import is_tensor
from flowerpress.tasks.task import Batch, FlatVector, Task, draw_indices
from flowerpress.tasks.torch_batch import Forward, check_batch, logits_of, plain_forward, put
from flowerpress.tasks.torch_data import Collate, Examples, as_examples
from flowerpress.tasks.torch_device import checked_device, own_loss, require_torch
from flowerpress.tasks.torch_model import TorchModel, to_numpy
from flowerpress.tasks.torch_seeding import SeededPasses, seeded
from flowerpress.tasks.torch_views import NOT_TRAINED, Views

if TYPE_CHECKING:
    import torch

_BATCH_SIZE = 32
_NOTHING_COUNTS = "the loss divides by zero on this batch: all its targets are ignored"


class TorchBatch(NamedTuple):
    """One batch: which examples (None: all), and the seed of what the pass draws (dropout)."""

    indices: npt.NDArray[np.int64] | None
    seed: int


class TorchTask(Task):
    """A PyTorch model, its loss and its data.

    The trainable arrays are the parameters with `requires_grad`, under their own names and in
    their own order. Frozen parameters stay on the client and never travel. Buffers (batch-norm
    statistics) travel beside the vector, each exactly.

    Parameters
    ----------
    model : torch.nn.Module
        The model, with float32 or float64 parameters (float64 throughout: the run is float64). A
        copy is taken, so clients of one process may be given the same one. Its values are where the
        run starts: seed them alike everywhere. Modules that are in evaluation mode, while others
        are not, stay so.
    loss : callable
        `loss(output, target) -> scalar tensor`, the mean over the examples of a batch. Of a module
        with tensors (class weights) a copy is taken, on the device.
    train_data : (X, y), torch.utils.data.Dataset, DataLoader, list of examples, ...
        See `flowerpress.tasks.torch_data`. Real values are cast to the model's dtype, integers to
        int64; complex numbers and booleans stay such. Batches are drawn by the task, whatever a
        DataLoader would do: of that, the dataset, the collate function and the batch size are used.
    test_data : same, optional
        What `evaluate` measures on. Default: the training data.
    batch_size : int, "auto" or None, default "auto"
        Examples in a batch, drawn without replacement. None, or no fewer than there are examples:
        all the data. "auto": the DataLoader's, else 32.
    device : str, default "cpu"
        Where the model and the data live, such as `"cuda"` or `"cuda:1"`. Vectors and gradients
        are on the host all the same.
    collate : callable, optional
        `collate(examples) -> batch`, of a list of examples. Default: tensors are stacked.
    forward : callable, optional
        `forward(model, batch) -> (output, target)`. Default: the table in
        `flowerpress.tasks.torch_batch`.
    chunk : int, optional
        The most examples in one pass through the model, where memory is short: a batch, all the
        data or what is evaluated is then taken in passes of nearly equal size. Default: one pass.
    normalizer : callable, needed with `chunk`
        `normalizer(target) -> float`, what the loss divides by on a batch with these targets: `len`
        for a mean over examples, `lambda y: weight[y].sum()` for a mean with class weights,
        `lambda y: (y != -100).sum()` where the loss ignores an index. Losses of passes are averaged
        by it, so that their mean is the loss of all in one pass.

    Raises
    ------
    ImportError
        If torch is not installed.
    ValueError
        If the device is not there, the data is empty or its lengths differ, `batch_size` or `chunk`
        is below 1, `chunk` comes without `normalizer`, or the model has no trainable parameter.
    TypeError
        If a parameter is neither float32 nor float64, a buffer cannot travel, or the data is of no
        known kind.

    Notes
    -----
    A gradient is a function of (x, buffers, batch) and torch's thread count alone, on a GPU as far
    as torch's kernels are. Whatever the model, the dataset or the collate function draw from the
    generators of torch, numpy and Python comes from the batch's own seed, so two gradients on one
    batch see one mask (`flowerpress.tasks.torch_seeding` says how, and what is out of reach).
    Those generators belong to the process, hence passes that draw run one at a time.
    The page ``docs/torch.md`` has examples, and the way back from a result to a model.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Callable[[Any, Any], torch.Tensor],
        train_data: Any,
        *,
        test_data: Any = None,
        batch_size: int | Literal["auto"] | None = "auto",
        device: str = "cpu",
        collate: Collate | None = None,
        forward: Forward | None = None,
        chunk: int | None = None,
        normalizer: Callable[[Any], Any] | None = None,
    ) -> None:
        require_torch()
        if batch_size != "auto":
            _check_size("batch_size", batch_size)
        _check_size("chunk", chunk)
        if chunk is not None and normalizer is None:
            raise ValueError(
                "chunk needs normalizer, what the loss divides by on a batch of targets: "
                "normalizer=len for a mean over examples, lambda y: weight[y].sum() for class "
                "weights"
            )
        self._device = checked_device(device)
        self._model = TorchModel(model, self._device)
        self._loss = own_loss(loss, self._device)
        self._forward = forward or plain_forward(self._model.module)
        self._chunk, self._normalizer = chunk, normalizer
        self._collate, self._plain = collate, forward is None
        self._train, size = self._examples(train_data, "train_data")
        self._test = self._train
        if test_data is not None:
            self._test, _ = self._examples(test_data, "test_data")
        self.num_examples = len(self._train)
        self.num_test_examples = len(self._test)
        self._batch_size = (size or _BATCH_SIZE) if batch_size == "auto" else batch_size
        self._begin_passes()

    def _begin_passes(self) -> None:
        self._training, self._evaluation = (SeededPasses(self._device) for _ in range(2))

    def _examples(self, data: Any, name: str) -> tuple[Examples, int | None]:
        """Return examples on the device, the first of them checked, and a loader's batch size."""
        examples, size = as_examples(data, name, self._model.real, self._collate)
        with seeded(self._device):
            try:
                batch = examples.take(np.zeros(1, np.int64))
            except (KeyError, IndexError, NotImplementedError) as error:
                raise TypeError(f"{name}: its first example cannot be read: {error!r}") from error
        if self._plain:
            check_batch(put(batch, self._device, self._model.real), name)
        return examples.to(self._device), size

    def to(self, device: str) -> TorchTask:
        """Move the model and the data to `device`; return this task.

        Raises
        ------
        ValueError
            If torch does not know the device or does not find it on this machine.
        """
        self._device = checked_device(device)
        self._model.to(self._device)
        self._loss = own_loss(self._loss, self._device)
        same = self._test is self._train
        self._train = self._train.to(self._device)
        self._test = self._train if same else self._test.to(self._device)
        self._begin_passes()
        return self

    def initial_arrays(self) -> ArrayRecord:
        """Return the model's current parameters, then its buffers, as numpy arrays by name."""
        named = {**self._model.values(), **self._model.buffers()}
        return ArrayRecord({name: Array(to_numpy(value)) for name, value in named.items()})

    def buffer_names(self) -> tuple[str, ...]:
        """Name the model's persistent buffers."""
        return tuple(self._model.buffers())

    def buffers(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of the buffers, as the last forward passes left them."""
        return {name: to_numpy(value) for name, value in self._model.buffers().items()}

    def load_buffers(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace buffers by `values`."""
        self._model.load_buffers(values)

    @contextmanager
    def keeping_buffers(self) -> Iterator[None]:
        """Put all buffers back afterwards, those that never travel too."""
        undo = self._model.remember()
        try:
            yield
        finally:
            undo()

    def kept_names(self) -> dict[str, int | str]:
        """Name frozen parameters, with their checksums, and the other names of tied ones."""
        return self._model.kept_names()

    def draw(self, rng: np.random.Generator) -> TorchBatch:
        """Draw a minibatch without replacement, and a seed of its own."""
        return TorchBatch(draw_indices(rng, self.num_examples, self._batch_size), _seed(rng))

    def draw_all(self, rng: np.random.Generator) -> TorchBatch:
        """Return the batch of all the data, with a seed."""
        return TorchBatch(None, _seed(rng))

    def gradient(self, x: FlatVector, batch: Batch) -> tuple[float, FlatVector]:
        """Return the mean loss on `batch` and its gradient at `x`, in training mode.

        Raises
        ------
        TypeError, ValueError
            If the loss is not one number, or data cannot be put together.
        MemoryError
            If a pass needs more memory than there is: says to give `chunk`.
        """
        loss, gradient = self._gradient_at(x, batch)
        found: FlatVector = gradient.cpu().numpy()
        return loss, found

    def _gradient_at(self, x: Any, batch: Batch) -> tuple[float, torch.Tensor]:
        self._model.load(x)
        self._model.train()
        indices, seed = (None, 0) if batch is None else batch
        with self._naming_chunk():
            return self._training.run(
                seed, lambda: self._gradient(indices), lambda: self._taking_back(x)
            )

    def _taking_back(self, x: Any) -> Callable[[], None]:
        """Return a function that takes back what a pass does to the model, its parameters too."""
        take_back = self._model.remember()

        def undo() -> None:
            take_back()
            self._model.load(x)

        return undo

    def vector_device(self) -> torch.device | None:
        """Return the device that a worker's vectors may stay on as tensors; None: the host.

        It is the model's, where that is one that compressors work on, see ``docs/torch.md``. A task
        with a `gradient` of its own is asked for that, and so has its vectors on the host.
        """
        import torch

        own = getattr(self.gradient, "__func__", None) is not TorchTask.gradient
        if own and type(self).gradient_into is TorchTask.gradient_into:
            return None
        like = torch.empty(0, dtype=self._model.real, device=self._device)
        return self._device if stays_on_device(like) else None

    def gradient_into(self, x: Any, out: Any, batch: Batch) -> float:
        """Put the gradient at `x` in `out`, and return the mean loss; both as `gradient` has them.

        Where the model is large, has one dtype, is on the device of the vectors and does not write
        to its parameters in a forward pass, these are views of `x` for as long as this takes, and
        each one's gradient goes to `out` as soon as it is known. The model then holds no values of
        its own until the next `x` comes.

        `x` and `out` may be tensors on the model's device (`vector_device`); then nothing is copied
        to the host but the loss.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As `gradient` does.
        """
        if self._model.takes_views(x, out):
            loss = self._gradient_on_views(x, out, batch)
            if loss is not None:
                return loss
        of: Any = self._gradient_at if is_tensor(x) else self.gradient
        loss, out[:] = of(x, batch)
        return float(loss)

    def _gradient_on_views(self, x: Any, out: Any, batch: Batch) -> float | None:
        """Do what `gradient_into` does, on views; returns None where the model may have none."""
        self._model.train()
        indices, seed = (None, 0) if batch is None else batch
        remember, loss = self._model.remember, None
        undo = remember()
        with self._naming_chunk(), self._model.on_views(x, out) as views:
            try:
                loss = self._training.run(
                    seed, lambda: self._gradient_into(views, indices), remember
                )
            except RuntimeError:
                if not views.guard.tried:
                    raise
        if views.guard.tried:
            undo()
            self._model.writes, loss = True, None
        return loss

    def _gradient_into(self, views: Views, indices: npt.NDArray[np.int64] | None) -> float:
        """Do what `_gradient` does, number by number, in the memory that the views are of."""
        mean = _Mean()
        for batch, weigh in self._batches(self._train, indices):
            with views.guard:
                loss, weight = self._loss_of(batch, weigh)
            if weight == 0:
                continue
            views.add(loss, weight, first=mean.mass == 0)
            mean.add(weight, float(loss.detach()))
        if mean.mass == 0:
            raise ValueError(_NOTHING_COUNTS)
        views.divide(mean.mass)
        return mean.loss

    def _loss_of(self, batch: Any, weigh: Callable[[Any], float]) -> tuple[torch.Tensor, float]:
        """Return the loss on a batch, and what it weighs."""
        output, target = self._forward(self._model.module, batch)
        loss = _checked(self._loss(output, target))
        if not loss.requires_grad:
            raise ValueError(NOT_TRAINED)
        return loss, weigh(target)

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return the mean `loss`, and `accuracy` where targets are class numbers.

        The accuracy is that of the output, the first of several, or the one named ``logits``, where
        it has a row of scores for each example; targets below zero (ignored ones) do not count.
        """
        self._model.load(x)
        self._model.evaluation()
        with self._naming_chunk():
            return self._evaluation.run(0, self._evaluate, self._model.remember)

    def _gradient(self, indices: npt.NDArray[np.int64] | None) -> tuple[float, torch.Tensor]:
        import torch

        mean = _Mean()
        parameters = list(self._model.parameters.values())
        for batch, weigh in self._batches(self._train, indices):
            loss, weight = self._loss_of(batch, weigh)
            if weight == 0:  # all targets ignored: the loss is 0/0
                continue
            parts: Any = torch.autograd.grad(loss, parameters, allow_unused=True)
            if all(part is None for part in parts):
                raise ValueError(NOT_TRAINED)
            pairs = zip(parts, parameters, strict=True)
            dense = [x.new_zeros(x.shape) if part is None else part.to_dense() for part, x in pairs]
            flat = torch.cat([part.reshape(-1) for part in dense])
            mean.add(weight, float(loss.detach()), flat.to(self._model.real))
        return mean.loss, mean.gradient

    def _evaluate(self) -> dict[str, float]:
        import torch

        mean, hits, counted = _Mean(), 0, 0
        with torch.no_grad():
            for batch, weigh in self._batches(self._test, None):
                output, target = self._forward(self._model.module, batch)
                mean.add(weigh(target), float(_checked(self._loss(output, target))))
                right, rows = _hits(output, target)
                hits, counted = hits + right, counted + rows
        return {"loss": mean.loss} | ({"accuracy": hits / counted} if counted else {})

    def _batches(
        self, examples: Examples, indices: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[Any, Callable[[Any], float]]]:
        """Yield what goes in one pass, and the function of its targets that weighs its loss."""
        import torch

        count = len(examples) if indices is None else len(indices)
        passes = -(-count // (self._chunk or count))
        if passes == 1 or self._normalizer is None:
            yield put(examples.take(indices), self._device, self._model.real), _one
            return
        normalizer, cpu = self._normalizer, torch.device("cpu")
        every = np.arange(count) if indices is None else indices
        for part in np.array_split(every, passes):  # sizes differ by one at most
            batch = put(examples.take(part), self._device, self._model.real)
            # On the CPU, where a user's class weights are, whatever device a node has chosen.
            yield batch, lambda target: float(normalizer(put(target, cpu, self._model.real)))

    @contextmanager
    def _naming_chunk(self) -> Iterator[None]:
        """Say what to do about a pass that is too large for the memory."""
        try:
            yield
        except RuntimeError as error:
            words = ("out of memory", "allocate memory", "not enough memory")
            if not any(word in str(error) for word in words):
                raise
            passes = f"in passes of {self._chunk}" if self._chunk else "all in one pass"
            raise MemoryError(
                f"{self._device} has no memory for the examples of a batch {passes}: give the "
                "TorchTask a chunk, the most examples in a pass, or a smaller one"
            ) from error


class _Mean:
    """The weighted mean of the losses of some passes, and of their gradients."""

    def __init__(self) -> None:
        self._mass, self._loss = 0.0, 0.0
        self._sum: torch.Tensor | None = None

    def add(self, weight: float, loss: float, gradient: torch.Tensor | None = None) -> None:
        """Take a pass; `gradient` is not used elsewhere."""
        if weight == 0:
            return
        self._loss += weight * loss
        self._mass += weight
        if gradient is not None:
            gradient = gradient if weight == 1 else gradient.mul_(weight)
            self._sum = gradient if self._sum is None else self._sum.add_(gradient)

    @property
    def mass(self) -> float:
        """The sum of the weights."""
        return self._mass

    @property
    def loss(self) -> float:
        """The mean loss; NaN, as torch has it, where the weights are zero."""
        return self._loss / self._mass if self._mass else float("nan")

    @property
    def gradient(self) -> torch.Tensor:
        """The gradient of the mean loss."""
        if self._sum is None:
            raise ValueError(_NOTHING_COUNTS)
        return self._sum if self._mass == 1 else self._sum.div_(self._mass)


def _check_size(name: str, size: Any) -> None:
    if size is not None and not (isinstance(size, int | np.integer) and size >= 1):
        raise ValueError(f"{name} must be at least 1, or None for all, not {size!r}")


def _seed(rng: np.random.Generator) -> int:
    """Return a seed by `rng` that leaves its stream where it is.

    Tasks without torch draw their batches from the same stream, and no seeds.
    """
    return int(rng.spawn(1)[0].integers(2**63))


def _one(target: Any) -> float:
    del target
    return 1.0


def _checked(loss: Any) -> torch.Tensor:
    import torch

    if not torch.is_tensor(loss):
        raise TypeError(f"the loss function must return a tensor, not {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(
            f"the loss function must return one number, the mean over the examples, not a tensor "
            f"of shape {tuple(loss.shape)}"
        )
    if loss.is_complex():
        raise TypeError(f"the loss function must return a real number, not a {loss.dtype}")
    found: torch.Tensor = loss
    return found


def _hits(output: Any, target: Any) -> tuple[int, int]:
    """Return how many examples are classified rightly, and of how many that can be said."""
    import torch

    scores = logits_of(output)
    if scores is None or not torch.is_tensor(target) or target.dtype != torch.int64:
        return 0, 0
    if not scores.ndim == target.ndim + 1 == 2 or len(scores) != len(target):
        return 0, 0
    if scores.shape[1] == 1:  # a number, not the scores of classes
        return 0, 0
    classes = target >= 0
    right = (scores.argmax(1) == target) & classes
    return int(right.sum()), int(classes.sum())
