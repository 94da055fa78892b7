"""DIANA: server half.

Mishchenko, Gorbunov, Takac, Richtarik 2019 (arXiv:1901.09269).

    1. broadcast x
    2. receive m_i = Q(d_i - h_i) from the workers S that answer; h_i += a_i m_i, a_i = 1/(1+omega)
    3. g = h + mean over S of m_i               (unbiased: the mean is over those who answer)
    4. h += sum over S of w_i a_i m_i           (w_i of the WHOLE population: / n, not / |S|)
    5. x -= lr * g

d_i is the gradient of f_i at x. h is the weighted mean of the workers' h_i at every moment; they
learn the gradients at the solution, so that what is quantized goes to zero and no floor is left
where f_i differ. The worker half is in ``clients/diana.py``.

An absent, late or failed worker keeps h_i, and so does h. A new worker starts from h_i = 0. If a
worker's h_i is lost, h cannot be corrected without it: all workers start over.
"""

from __future__ import annotations

from typing import ClassVar

from flowerpress.compressors import Traits, add_to
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import SWITCH, one_of, option
from flowerpress.server.suitable import UNBIASED
from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import diana_lr
from flowerpress.server.update import Update

_SOME_DIM = 1024  # whether a compressor is unbiased does not depend on the dimension


class Diana(TheoreticalStrategy):
    """Unbiased compression of differences to a learned shift."""

    name = "diana"
    summary_line = "unbiased differences to learned shifts: no floor where workers differ"
    citation = "Mishchenko et al. 2019, arXiv:1901.09269"
    kept = ("_shifts",)
    shared = True

    compressor: str = option(
        "randk:0.01",
        UNBIASED,
        "Unbiased, with known variance omega: the shifts learn at rate 1/(1 + omega).",
        letter="Q",
    )
    plus_is_largest: ClassVar[bool] = True
    smoothness_plus: float = option(
        0.0,
        says='For lr="theory": the largest of the workers\' L_i, which this theorem needs; not '
        "their mean.",
    )
    init: str = option(
        "compressed",
        one_of("dense", "compressed"),
        "The first shift: zero, or a worker's gradient, sent whole.",
        sent=True,
    )
    init_all: bool = option(
        False,
        SWITCH,
        "With sampling, whether all workers are asked in the round in which they are met. A "
        "shift of zero, of a worker that was never heard, makes no estimate wrong: only less "
        "sure.",
    )

    def begin(self) -> None:
        self._shifts = self.zeros()  # sum of w_i h_i

    def forget(self) -> None:
        self._shifts[:] = 0

    @property
    def h(self) -> FloatVector:
        """The weighted mean of the workers' shifts."""
        return self._shifts / self.population.total

    def round(self, server_round: int) -> Steps:
        S = self.sample(server_round)
        m, change = self.zeros(), self.zeros()

        def receive(update: Update) -> None:
            add_to(update.packets[0], m, update.mass)  # of the two weights the larger
            update.add_to(change)  # a_i is the update's scale

        S = yield Ask(S, into=receive, scaled=False)  # 1-2
        g = self.h + m / self.mass(S)  # 3
        self._shifts += change  # 4
        self.model.move(self.rate * g, server_round, self.rate)  # 5

    def theory_lr(self, traits: Traits, n: int) -> float:
        return diana_lr(self.constants, traits.omega or 0.0, self.asked(n))
