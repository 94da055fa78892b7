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

from typing import Any

from flowerpress.compressors import Traits, add_to, make_compressor
from flowerpress.protocol import Hyper
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import check_options, require
from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import diana_lr
from flowerpress.server.update import Update

_SOME_DIM = 1024  # whether a compressor is unbiased does not depend on the dimension


class Diana(TheoreticalStrategy):
    """Unbiased compression of differences to a learned shift.

    Parameters
    ----------
    compressor : str (default: "randk:0.01")
        Unbiased, with known variance omega: the shifts learn at rate 1/(1 + omega).
    smoothness_plus : float (default: 0)
        For lr="theory": the largest of the workers' L_i, which this theorem needs; not their mean.
    init : {"compressed", "dense"} (default: "compressed")
        The first shift: zero, or a worker's gradient, sent whole.
    init_all : bool (default: False)
        With sampling, whether all workers are asked in the round in which they are met. A shift of
        zero, of a worker that was never heard, makes no estimate wrong: only less sure.
    **options
        As in `TheoreticalStrategy`.
    """

    name = "diana"
    summary_line = "unbiased differences to learned shifts: no floor where workers differ"
    citation = "Mishchenko et al. 2019, arXiv:1901.09269"
    kept = ("_shifts",)
    shared = True

    def __init__(
        self,
        *,
        compressor: str = "randk:0.01",
        init: str = "compressed",
        init_all: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(compressor=compressor, **options)
        require(type(init_all) is bool, "init_all", init_all, "true or false")
        check_options({"init": init})
        require(init in ("dense", "compressed"), "init", init, "dense or compressed")
        require_unbiased(self.name, self.compressor)
        self.init, self.init_all = init, init_all

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
        return diana_lr(self.smoothness, traits.omega or 0.0, self.asked(n))

    def hyper(self) -> Hyper:
        return {**super().hyper(), "init": self.init}


def require_unbiased(name: str, spec: str) -> None:
    """Raise `ValueError` unless the compressor is unbiased, with known variance."""
    traits = make_compressor(spec).traits(_SOME_DIM)
    known = traits.unbiased and traits.omega is not None
    expected = f"unbiased, with known variance, for {name}: randk, qsgd, natural; or use ef21"
    require(known, "compressor", spec, expected)
