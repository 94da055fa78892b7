"""A small residual network for the task `resnet`. Imports torch."""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions, each normalized, added to what comes in.

    Parameters
    ----------
    inward, outward : int
        Channels. Where they differ, a convolution of 1x1 takes what comes in to the new ones.
    stride : int
        Pixels from one place of the first convolution to the next.
    """

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inward, outward, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outward),
            nn.ReLU(),
            nn.Conv2d(outward, outward, 3, padding=1, bias=False),
            nn.BatchNorm2d(outward),
        )
        self.past: nn.Module = nn.Identity()
        if (inward, stride) != (outward, 1):
            self.past = nn.Sequential(
                nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return for images of shape (m, inward, h, w) such of (m, outward, h', w')."""
        return nn.functional.relu(self.layers(x) + self.past(x))


class ResidualNetwork(nn.Module):
    """A convolution, four blocks in two sizes, and the mean over the pixels.

    Parameters
    ----------
    channels : int
        Of the first two blocks; the last two have twice as many.
    classes : int
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.first = nn.Sequential(  # 28 x 28 pixels become 14 x 14
            nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            Block(channels, channels, 1),
            Block(channels, channels, 1),
            Block(channels, wide, 2),
            Block(wide, wide, 1),
        )
        self.scores = nn.Linear(wide, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores of the classes, shape (m, classes), for images of shape (m, 1, 28, 28)."""
        scores: Tensor = self.scores(self.blocks(self.first(images)).mean(dim=(2, 3)))
        return scores
