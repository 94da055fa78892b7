"""A small causal transformer for the task `text`. Imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HEADS = 4


class Attention(nn.Module):
    """Each character sees itself and those before it.

    Parameters
    ----------
    width : int
        Numbers of a character's vector, a multiple of `HEADS`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inward = nn.Linear(width, 3 * width, bias=False)
        self.outward = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return for vectors of shape (windows, length, width) as many new ones."""
        windows, length, width = x.shape
        parts = self.inward(x).view(windows, length, 3, HEADS, width // HEADS)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        result: Tensor = self.outward(seen.transpose(1, 2).reshape(x.shape))
        return result


class Block(nn.Module):
    """Attention, then a layer of ReLUs, each added to what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.before_layers = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return for vectors of shape (windows, length, width) as many new ones."""
        x = x + self.attention(self.before_attention(x))
        result: Tensor = x + self.layers(self.before_layers(x))
        return result


class CharacterModel(nn.Module):
    """Scores of the next character, at each place of a window.

    Parameters
    ----------
    characters : int
        Size of the alphabet.
    length : int
        Characters of the longest window.
    width : int
        Numbers of a character's vector, a multiple of `HEADS`.
    depth : int
        Number of blocks.
    """

    def __init__(self, characters: int, length: int, width: int, depth: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.place = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.last = nn.LayerNorm(width)
        self.scores = nn.Linear(width, characters)
        for name, value in self.named_parameters():
            if value.dim() == 2:
                nn.init.normal_(value, std=_deviation(name, width, depth))

    def forward(self, windows: Tensor) -> Tensor:
        """Return scores, shape (windows, length, characters), for numbers of characters."""
        places = torch.arange(windows.shape[1], device=windows.device)
        x = self.character(windows) + self.place(places)
        result: Tensor = self.scores(self.last(self.blocks(x)))
        return result


def _deviation(name: str, width: int, depth: int) -> float:
    """Return the standard deviation of a matrix's initial values."""
    if name.endswith(("outward.weight", "layers.2.weight")):  # what is added starts small
        return 0.02 / math.sqrt(2 * depth)
    return width**-0.5 / 2 if name.startswith("blocks") else 0.02
