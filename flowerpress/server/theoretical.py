"""Step sizes by theory on request: ``lr="theory"``."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, ClassVar

from flowerpress.compressors import Traits, make_compressor
from flowerpress.server.base import CompressedStrategy
from flowerpress.server.client import Client
from flowerpress.server.options import require, require_number
from flowerpress.server.theory import Smoothness

log = logging.getLogger("flowerpress")


class TheoreticalStrategy(CompressedStrategy):
    """A strategy whose step size may follow from smoothness constants and the compressor's own.

    Parameters
    ----------
    lr : float or "theory" (default: 0.1)
        "theory": from the constants below, settled in the first round for the workers there.
    smoothness : float (default: 0)
        L of the mean of the workers' functions; needed for lr="theory".
    smoothness_plus : float (default: 0)
        L_plus, the quadratic mean of the L_i or less; 0: L.
    smoothness_pm : float (default: -1)
        L_pm, the workers' heterogeneity; negative: L_plus.
    **options
        As in `CompressedStrategy`.
    """

    kept: ClassVar[tuple[str, ...]] = ("_constants",)

    def __init__(
        self,
        *,
        lr: float | str = 0.1,
        smoothness: float = 0.0,
        smoothness_plus: float = 0.0,
        smoothness_pm: float = -1.0,
        **options: Any,
    ) -> None:
        self.theory = lr == "theory"
        step: Any = 1.0 if self.theory else lr
        super().__init__(lr=step, **options)
        require_number("smoothness", smoothness)
        require_number("smoothness_plus", smoothness_plus)
        require_number("smoothness_pm", smoothness_pm, least=-1.0)
        require(not self.theory or smoothness > 0, "smoothness", smoothness, "L > 0 for lr=theory")
        once = not self.theory or self.local_steps == 1
        require(once, "local_steps", self.local_steps, "1 for lr=theory")
        self.smoothness = Smoothness(smoothness, smoothness_plus, smoothness_pm)

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
