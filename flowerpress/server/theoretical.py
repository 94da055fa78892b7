"""Step sizes by theory on request: ``lr="theory"``."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import ClassVar

from flowerpress.compressors import Traits, make_compressor
from flowerpress.server.base import CompressedStrategy
from flowerpress.server.client import Client
from flowerpress.server.options import Values, number, option, require
from flowerpress.server.theory import Smoothness

log = logging.getLogger("flowerpress")


class TheoreticalStrategy(CompressedStrategy):
    """A strategy whose step size may follow from smoothness constants and the compressor's own."""

    kept: ClassVar[tuple[str, ...]] = ("_constants",)
    plus_is_largest: ClassVar[bool] = False  # whether `smoothness_plus` is the largest L_i

    lr: float = option(
        0.1,
        Values(lambda v: v == "theory" or number("(0, inf)").held(v), "a number > 0, or theory"),
        'Step size on the (pseudo-)gradient; "theory": from the constants below, settled in the '
        "first round for the workers there.",
    )
    smoothness: float = option(
        0.0,
        number("[0, inf)"),
        'Smoothness of the mean of the workers\' functions; needed for lr="theory".',
        letter="L",
    )
    smoothness_plus: float = option(
        0.0,
        number("[0, inf)"),
        "Quadratic mean of the workers' own L_i, or less; 0: `smoothness`.",
        letter="L_plus",
    )
    smoothness_pm: float = option(
        -1.0,
        number("[-1, inf)"),
        "How much the workers' functions differ; negative: `smoothness_plus`.",
        letter="L_pm",
    )

    def check(self) -> None:
        super().check()
        self.theory = self.given.get("lr") == "theory"
        if self.theory:
            self.lr = 1.0
            require(self.smoothness > 0, "smoothness", self.smoothness, "L > 0 for lr=theory")
            require(self.local_steps == 1, "local_steps", self.local_steps, "1 for lr=theory")
        self.constants = Smoothness(self.smoothness, self.smoothness_plus, self.smoothness_pm)

    def reset(self) -> None:
        super().reset()
        self._constants = False  # whether they are settled

    def sample(self, server_round: int, fraction: float | None = None) -> list[Client]:
        """As `CompressedStrategy.sample`; in the first round the constants are settled."""
        cohort = super().sample(server_round, fraction)
        if not self._constants:
            self._constants = True
            layout = self.model.layout
            compressor = make_compressor(self.compressor).bind_shapes(layout.shapes)
            n = len(self.population.clients)
            self.settle(compressor.traits(layout.dim, self.asked(n)), n)
        return cohort

    def asked(self, n: int) -> int:
        """Return how many of n workers are asked in a round."""
        return min(n, max(int(n * self.fraction_train), self.min_train_nodes, 1))

    def settle(self, traits: Traits, n: int) -> None:
        """Settle what depends on the compressor's constants and the number of workers."""
        if self.theory:
            self.lr = self.theory_lr(traits, n)
            log.info("%s: lr = %.3g by theory", self.name, self.lr)

    @abstractmethod
    def theory_lr(self, traits: Traits, n: int) -> float:
        """Return the step size by theory for `n` workers; `ValueError` where there is none."""
