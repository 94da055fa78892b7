"""DASHA: server half.

Tyurin, Richtarik 2023 (arXiv:2202.01268), Algorithm 1, gradient version.

    1. broadcast x
    2. receive m_i = C_i(d_i - h_i - a (g_i - h_i)), a = 1/(2 omega + 1); g_i += m_i; h_i = d_i
    3. g += sum over S of w_i m_i               (w_i of the WHOLE population: / n, not / |S|)
    4. x -= lr * g                              (g^0: the mean of the gradients at x^0, sent whole)

The paper's iteration begins with the last of these, a round with the first. d_i is the gradient of
f_i at x, h_i the one before. As in MARINA differences are compressed, but never all workers at once
must send whole gradients: g is the weighted mean of the workers' g_i at every moment. The worker
half is in ``clients/dasha.py``.

An absent, late or failed worker keeps g_i and h_i, and so does g: for sampling this is an
extension, not the paper's DASHA-PP, which rescales by the probability of being asked. A new worker
starts with its whole gradient. If a worker's g_i is lost, all workers start over.
"""

from __future__ import annotations

from flowerpress.compressors import Traits
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import SWITCH, fixed, option
from flowerpress.server.suitable import UNBIASED
from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import dasha_lr, variance_constants


class Dasha(TheoreticalStrategy):
    """Compressed differences of gradients, with a correction instead of whole gradients."""

    name = "dasha"
    summary_line = "compressed differences of gradients that never need all workers at once"
    citation = "Tyurin, Richtarik 2023, arXiv:2202.01268"
    kept = ("_sum",)
    shared = True

    compressor: str = option(
        "randk:0.01", UNBIASED, "Unbiased, with known variance omega.", letter="C"
    )
    init_all: bool = option(
        True,
        SWITCH,
        "With sampling, whether all workers are asked in the round in which they are met: who was "
        "never heard counts with g_i = 0.",
    )
    local_steps: int = fixed(1, "1: no local steps here")

    def begin(self) -> None:
        self._sum = self.zeros()

    def forget(self) -> None:
        self._sum[:] = 0

    @property
    def g(self) -> FloatVector:
        """The server's estimate of the gradient: the weighted mean of the workers' g_i."""
        return self._sum / self.population.total

    def round(self, server_round: int) -> Steps:
        yield Ask(self.sample(server_round), into=self._sum)  # 1-3
        self.model.move(self.rate * self.g, server_round, self.rate)  # 4

    def theory_lr(self, traits: Traits, n: int) -> float:
        a, _ = variance_constants(traits, self.asked(n))
        return dasha_lr(self.constants, traits.omega or 0.0, a)
