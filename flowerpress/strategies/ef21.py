"""EF21, EF21-SGDM and EF21-SGD2M: server half.

EF21: Richtarik, Sokolov, Fatkhullin 2021 (arXiv:2106.05203). Partial participation and a compressed
downlink (EF21-PP, EF21-BC): Fatkhullin et al. 2021 (arXiv:2110.03294). Momentum (EF21-SGDM,
EF21-SGD2M): Fatkhullin, Tyurin, Richtarik 2023 (arXiv:2305.15155).

    1. broadcast x
    2. receive c_i = C(d_i - g_i) from the workers S that answer; g_i += c_i
    3. g += sum over S of w_i c_i              (w_i of the WHOLE population: / n, not / |S|)
    4. x -= lr * g

With ``downlink`` Q (EF21-BC), instead of 1 and 4, where h is what everyone knows of g:

    4. broadcast b = Q(g - h);  everyone: h += b;  x -= lr * h

g is the weighted mean of the workers' g_i at every moment. It is kept as a sum, so that a worker
who joins changes the divisor alone. The worker half is in ``clients/ef21.py``.

An absent, late or failed worker keeps g_i, and so does g. A new worker starts from g_i = 0 with a
dense message. If a worker's g_i is lost, g cannot be corrected without it: all workers start over
from a dense message.

A worker that was never heard counts in the mean with g_i = 0. In the papers and the authors' code
all g_i are there from the start, so with sampling all workers are asked in the first round, and who
joins when it joins (``init_all``).

Step sizes by theory are those of the papers' theorems for f that need not be convex, see
`flowerpress.server.theory`.
"""

from __future__ import annotations

from flowerpress.compressors import Traits
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import SWITCH, number, one_of, option, require, whole
from flowerpress.server.suitable import CONTRACTION, CONTRACTION_OR_DENSE, CONTRACTIVE
from flowerpress.server.theoretical import TheoreticalStrategy
from flowerpress.server.theory import ef21_lr, ef21_momentum_lr, ef21_pp_lr


class EF21(TheoreticalStrategy):
    """EF21: workers send compressed differences to what the server already has of them."""

    name = "ef21"
    summary_line = (
        "differences to a shared state (EF21); EF21-PP by sampling, EF21-BC with downlink"
    )
    citation = "Richtarik et al. 2021, arXiv:2106.05203; Fatkhullin et al. 2021, arXiv:2110.03294"
    contractive = True
    kept = ("_sum",)
    rule = "ef21"
    shared = True

    compressor: str = option("topk:0.01", CONTRACTION, CONTRACTIVE, letter="C")
    downlink: str = option(
        "",
        CONTRACTION_OR_DENSE,
        "Compressor of the server's gradient estimate (EF21-BC); empty: the model is sent dense.",
    )
    init: str = option(
        "dense",
        one_of("dense", "compressed"),
        "A worker's first message: its gradient (the authors' code), or C of it (the paper).",
        sent=True,
    )
    init_all: bool = option(
        True,
        SWITCH,
        "With sampling, whether all workers are asked in the round in which they are met; if not, "
        "each starts when it is drawn.",
    )
    init_batches: int = option(
        1,
        whole(0),
        "Batches that a worker's first gradient is the mean of; 0: all of its data.",
        letter="B_init",
        sent=True,
    )

    def check(self) -> None:
        super().check()
        whole = self.init_batches or self.local_steps == 1
        expected = "1 or more where there are local steps"
        require(bool(whole), "init_batches", self.init_batches, expected)
        if self.theory:
            self.check_theory()

    def begin(self) -> None:
        self._sum = self.zeros()
        self.model.dense_first = self.init == "dense"

    def forget(self) -> None:
        self._sum[:] = 0

    @property
    def g(self) -> FloatVector:
        """The server's estimate of the gradient: the weighted mean of the workers' g_i."""
        return self._sum / self.population.total

    def round(self, server_round: int) -> Steps:
        yield Ask(self.sample(server_round), into=self._sum)  # 1-3
        total = self.population.total
        self.model.move(lambda part: self._sum[part] / total, server_round, self.rate)  # 4

    def check_theory(self) -> None:
        """Raise `ValueError` where no theorem has a step size for these options."""
        require(not self.downlink, "lr", "theory", "a number: no theorem here has a downlink")

    def theory_lr(self, traits: Traits, n: int) -> float:
        alpha = alpha_of(traits)
        if self.asked(n) == n:
            return ef21_lr(self.constants, alpha)
        return ef21_pp_lr(self.constants, alpha, self.asked(n) / n)


class EF21SGDM(EF21):
    """EF21 with momentum on the worker, for stochastic gradients of any batch size."""

    name = "ef21-sgdm"
    summary_line = "EF21 on the momentum of the gradients: converges with small batches"
    citation = "Fatkhullin, Tyurin, Richtarik 2023, arXiv:2305.15155"
    bounds = (20.0, 7.0)  # of the theorem: alpha / 20 and momentum / 7

    momentum: float = option(
        0.1,
        number("(0, 1]"),
        "Weight of the NEW gradient; 1 is EF21 without momentum.",
        letter="eta",
        sent=True,
    )

    def check_theory(self) -> None:
        super().check_theory()
        fraction = self.fraction_train
        require(fraction == 1.0, "lr", "theory", "a number: the theorem has no sampling")

    def theory_lr(self, traits: Traits, n: int) -> float:
        return ef21_momentum_lr(self.constants, alpha_of(traits), self.momentum, *self.bounds)


class EF21SGD2M(EF21SGDM):
    """EF21 with two momenta on the worker: averages the noise over the workers too.

    Parameters
    ----------
    momentum : float (default: 0.1)
        The paper's eta in (0, 1], the same for both momenta.
    **options
        As in `EF21`.
    """

    name = "ef21-sgd2m"
    summary_line = "EF21 on the momentum of the momentum: noise averages out over the workers"
    citation = "Fatkhullin, Tyurin, Richtarik 2023, arXiv:2305.15155"
    bounds = (60.0, 16.0)


def alpha_of(traits: Traits) -> float:
    """Return the alpha of what error feedback makes of a compressor, see `contraction_scale`."""
    if traits.alpha is not None:
        return traits.alpha
    return 1.0 / (1.0 + (traits.omega or 0.0))
