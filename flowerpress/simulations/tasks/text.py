"""Task `text`: a character language model on Shakespeare's works, one play or more a client."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flowerpress.simulations.tasks import options
from flowerpress.simulations.tasks.base import PartitionedTaskFn
from flowerpress.simulations.tasks.partition import Indices
from flowerpress.simulations.tasks.text_source import CHARACTERS, SOURCES, Codes, read_texts
from flowerpress.tasks.task import FlatVector
from flowerpress.tasks.torch_device import require_torch
from flowerpress.tasks.torch_task import TorchTask

if TYPE_CHECKING:
    import torch

BY_TEXT = "by-text"
LENGTH = 64  # characters of a window
_DEPTH = 2
_MEASURED = 256  # windows that the server measures on
_HEADS = 4


class TextTask(TorchTask):
    """A character model: what is evaluated is also told in bits."""

    def evaluate(self, x: FlatVector) -> dict[str, float]:
        """Return `loss` (nats a character), `accuracy` (of the next one) and `bits_per_char`."""
        found = super().evaluate(x)
        return {**found, "bits_per_char": found["loss"] / math.log(2)}


class TextTaskFn(PartitionedTaskFn):
    """A small causal transformer on texts of this machine, one text or more a client.

    An example is a window of 64 characters and, for each, the next one. The last tenth of every
    text is held out: a client evaluates on what is held out of its own texts, the server on 256
    windows, spread evenly over what is held out of all.
    """

    name = "text"
    summary_line = "a small torch transformer, next characters of Shakespeare, one play a client"
    citation = (
        "McMahan, Moore, Ramage, Hampson and Aguera y Arcas, arXiv:1602.05629; Vaswani et al., "
        "arXiv:1706.03762"
    )
    options = {  # noqa: RUF012  (read only)
        "source": options.choice(*SOURCES),
        "hidden": options.whole(_HEADS),
        "batch_size": options.batch_size,
    }

    def __init__(
        self,
        *,
        partition: str = BY_TEXT,
        seed: int = 0,
        source: str = "auto",
        hidden: int = 64,
        batch_size: int | None = 16,
    ) -> None:
        """Read the texts.

        Parameters
        ----------
        partition : str, default "by-text"
            `by-text`: each client gets whole texts, about as many characters as any other.
            Or a partition spec, where the class of a window is its text.
        seed : int, default 0
            Fixes the shards and the initial model.
        source : str, default "auto"
            `shakespeare`, `stdlib` or `auto`, see `read_texts`.
        hidden : int, default 64
            Width of the transformer, a multiple of 4. 64: 116,193 parameters.
        batch_size : int or None, default 16
            Windows in a batch; None: all.
        """
        require_torch()
        if hidden % _HEADS:
            raise ValueError(
                f"task 'text', option 'hidden': expected a multiple of {_HEADS}, not {hidden}"
            )
        self._texts = read_texts(source)
        kept = [len(text.codes) * 9 // 10 for text in self._texts]
        self._train = [_starts(0, end) for end in kept]
        self._test = [
            _starts(end, len(text.codes)) for end, text in zip(kept, self._texts, strict=True)
        ]
        self._batch_size = batch_size
        # Of each training window: its text, and where in that it starts.
        self._owner = np.repeat(np.arange(len(self._texts)), [len(part) for part in self._train])
        self._start = np.concatenate(self._train)
        self._by_text = partition == BY_TEXT
        super().__init__(self._owner, "iid" if self._by_text else partition, seed)
        self._model = _build(hidden, seed)

    def shards(self, num_partitions: int) -> list[Indices]:
        """Return the training windows of each client."""
        if not self._by_text:
            return super().shards(num_partitions)
        count = len(self._texts)
        if not 1 <= num_partitions <= count:
            raise ValueError(
                f"{count} texts can't be dealt out to {num_partitions} clients, one or more each: "
                "give partition=iid, or fewer clients"
            )
        owners = deal([len(part) for part in self._train], num_partitions)
        return [np.flatnonzero(owners[self._owner] == i) for i in range(num_partitions)]

    def shard(self, indices: Indices) -> TextTask:
        """Return the task on the training windows at `indices`."""
        texts, starts = self._owner[indices], self._start[indices]
        own = np.unique(texts)
        tested = np.repeat(own, [len(self._test[i]) for i in own])
        test = self._windows(tested, np.concatenate([self._test[i] for i in own]))
        return self._task(self._windows(texts, starts), test)

    def held_out(self) -> TextTask:
        """Return the task on the server's windows."""
        texts = np.repeat(np.arange(len(self._texts)), [len(part) for part in self._test])
        starts = np.concatenate(self._test)
        some = np.linspace(0, len(starts) - 1, min(_MEASURED, len(starts))).astype(np.int64)
        return self._task(self._windows(texts[some], starts[some]), None)

    def _windows(self, texts: Indices, starts: Indices) -> tuple[Codes, Codes]:
        """Return windows and the next characters, each of shape (windows, LENGTH)."""
        rows = [
            self._texts[text].codes[start : start + LENGTH + 1]
            for text, start in zip(texts.tolist(), starts.tolist(), strict=True)
        ]
        table = np.stack(rows)
        return table[:, :-1], table[:, 1:]

    def _task(self, data: Any, test: Any) -> TextTask:
        return TextTask(
            self._model,
            _loss,
            data,
            test_data=test,
            batch_size=self._batch_size,
            forward=_forward,
        )


def deal(sizes: list[int], clients: int) -> Indices:
    """Return for each text the client that gets it: the longest left to the one with the least.

    Examples
    --------
    >>> deal([5, 9, 4, 4], 2).tolist()
    [1, 0, 1, 0]
    """
    owners, held = np.zeros(len(sizes), np.int64), [0] * clients
    for text in sorted(range(len(sizes)), key=lambda text: -sizes[text]):
        owners[text] = held.index(min(held))
        held[owners[text]] += sizes[text]
    return owners


def _starts(begin: int, end: int) -> Indices:
    """Return where windows start that lie, with the next character, within a part of a text."""
    return np.arange(begin, end - LENGTH, LENGTH)


def _forward(model: Any, batch: Any) -> tuple[Any, Any]:
    """Return the scores and the next characters, a row for each place of each window."""
    windows, following = batch
    scores = model(windows)
    return scores.reshape(-1, scores.shape[-1]), following.reshape(-1)


def _loss(scores: Any, following: Any) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(scores, following)


def _build(width: int, seed: int) -> torch.nn.Module:
    """Build the model with values fixed by the seed, leaving torch's generator alone."""
    import torch

    from flowerpress.simulations.tasks.text_model import CharacterModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CharacterModel(CHARACTERS, LENGTH, width, _DEPTH)
