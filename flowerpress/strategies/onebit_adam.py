"""1-bit Adam: server half.

Tang, Gan, Awan, Rajbhandari, Li, Lian, Liu, Zhang, He 2021 (arXiv:2102.02888), without bias
correction.

Warm-up, the first ``warmup_rounds`` steps, dense both ways:

    1. broadcast x;  g = mean over S of g_i
    2. m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    3. x -= lr m / (sqrt(v) + eps)

Then v stands still, and everyone holds x, m and v:

    4. receive w_i = C(beta1 m + (1 - beta1) g_i + e_i) from the workers S that answer
    5. q = mean over S of w_i + e                    (weights renormalised over S)
    6. broadcast c = Q(q);  e = q - c
    7. everyone: m = c;  x -= lr m / (sqrt(v) + eps)

With ``feedback="none"``, to compare: e_i = e = 0 throughout.

With P = lr / (sqrt(v) + eps), x - P (e + mean of e_i) follows the uncompressed method exactly. The
server compresses q as one chunk: in the authors' code n workers do, each a part with a scale of its
own (``downlink="sign:scale=l2,block=SIZE"`` has as many scales). The worker half is in
``clients/onebit_adam.py``.

**Coordinates without a gradient.** c has the error of a sign everywhere, lr / (sqrt(v) + eps) times
which is a step. Where v is 0 at the end of the warm-up, or as good as 0, that step is huge: a bias
before batch normalisation, or of an attention's keys, has a true gradient of zero, and a computed
one of rounding errors, some 1e-7 of the others. The authors' code multiplies the momentum by a
mask, 0 where the user knows that there is no gradient (DeepSpeed's ``exp_avg_mask``). Here the mask
is found: where sqrt(v) is less than `mask_below` times its median, v is set to 0 for all, and where
v is 0 the model stands still (`flowerpress.protocol.rules.OneBit`). A warning counts these
coordinates, and names their tensors. Of a tensor that is used now and then, warm up until it was.

An absent, late or failed worker keeps what it owes (a lost packet is owed whole; one of the warm-up
is gone). A worker that loses its memory loses what it owed, nothing else, and like a new one is
sent x, m and v. In the authors' code errors start anew from a checkpoint; here a restart keeps
them. With sampling, which the paper does not have, missed steps are sent again.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import make_compressor
from flowerpress.compressors.quantized.sign import Sign
from flowerpress.protocol import Hyper
from flowerpress.protocol.rules import ratio
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import Values, number, option, text, whole
from flowerpress.server.suitable import CONTRACTIVE, FEEDBACK, require_contraction
from flowerpress.strategies.adaptive import BETA, Adaptive, require_finite_moment

log = logging.getLogger("flowerpress")


def require_sign_or_contraction(spec: str) -> str:
    """Return `spec`, normalised; `ValueError` unless it is contractive, unbiased, or sign's l2."""
    compressor = make_compressor(spec)
    return compressor.spec if isinstance(compressor, Sign) else require_contraction(spec)


class OneBitAdam(Adaptive):
    """Adam in a dense warm-up; then with its variance frozen, the momentum compressed both ways."""

    name = "onebit-adam"
    summary_line = "Adam in a dense warm-up, then 1-bit momentum over its frozen variance"
    citation = "Tang et al. 2021, arXiv:2102.02888"
    baseline = "adam"
    owing = True
    kept = ("_m", "_v")
    rule = "onebit"

    compressor: str = option(
        "sign:block=tensor",
        text(require_sign_or_contraction),
        CONTRACTIVE + " Or sign:scale=l2,block=tensor, the authors' code's. With one scale for all "
        "tensors, sign, those with small gradients move by noise.",
        letter="C_omega",
    )
    downlink: str = option(
        "sign:block=tensor",
        Values(
            lambda spec: isinstance(spec, str) and spec != "",
            "a compressor: onebit-adam sends momenta, not models (identity: uncompressed)",
            require_sign_or_contraction,
        ),
        "Compressor of the momentum for everyone, as `compressor`; identity: uncompressed.",
    )
    warmup_rounds: int = option(
        20,
        whole(1, ": v starts at zero"),
        "Steps of the warm-up; the authors advise 15 to 25 % of all.",
        letter="T_w",
    )
    beta2: float = option(
        0.999,
        BETA,
        "Weight of the OLD average of the squared gradients, in the warm-up.",
        letter="beta_2",
    )
    eps: float = option(1e-8, number("[0, inf)"), "Added to sqrt(v).", letter="epsilon", sent=True)
    mask_below: float = option(
        1e-4,
        number("[0, 1]"),
        "Coordinates stand still whose sqrt(v) is less than this times its median at the end of "
        "the warm-up, of those where it is not 0. 0: those alone where it is 0.",
    )
    feedback: str = FEEDBACK

    def begin(self) -> None:
        self._m, self._v = self.zeros(), self.zeros()

    @property
    def warming(self) -> bool:
        """Whether the next step is one of the warm-up."""
        return self.taken < self.warmup_rounds

    def round(self, server_round: int) -> Steps:
        S, total = self.sample(server_round), self.zeros()
        S = yield Ask(S, into=total)  # 1 or 4
        mean = total / self.mass(S)
        if self.warming:
            self._warm(mean, server_round)  # 2-3
        else:
            self.model.move(mean, server_round, self.rate)  # 5-7

    def _warm(self, g: FloatVector, server_round: int) -> None:
        """Take a step of Adam; after the last one of the warm-up everyone gets m and v too."""
        real = g.dtype.type
        with np.errstate(over="ignore", invalid="ignore"):
            self._m = real(self.beta1) * self._m + real(1 - self.beta1) * g  # 2
            self._v = real(self.beta2) * self._v + real(1 - self.beta2) * g * g  # 2
            direction = ratio(self._m, np.sqrt(self._v) + real(self.eps))
            x = self.model.x - self.rate * direction  # 3
        require_finite_moment(self._v, server_round)
        last = self.taken + 1 == self.warmup_rounds
        if last:
            self._mask()
        self.model.jump(x, server_round, **({"m": self._m, "v": self._v} if last else {}))

    def _mask(self) -> None:
        """Set v to 0 where it is as good as that, and say where."""
        used = self._v[self._v > 0]
        if used.size:
            least = self.mask_below**2 * np.median(used)
            self._v[self._v < least] = 0
        dead = np.flatnonzero(self._v == 0)
        if dead.size:
            names = self._tensors_of(dead)
            log.warning(
                "%s: %d of %d coordinates had no gradient in the warm-up, or one below %g of the "
                "median: they stand still from now on (%s); a longer warm-up finds those that are "
                "used now and then, mask_below=0 moves all but those without any",
                self.name,
                dead.size,
                self._v.size,
                self.mask_below,
                ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
            )

    def _tensors_of(self, places: npt.NDArray[np.intp]) -> list[str]:
        """Return the names of the tensors that these places of the vector are in, in order."""
        layout = self.model.layout
        trained = [entry.name for entry in layout.entries if entry.trained]
        found = np.unique(np.searchsorted(np.cumsum(layout.sizes), places, side="right"))
        return [trained[i] for i in found]

    def hyper(self) -> Hyper:
        return {**super().hyper(), "warmup": self.warming}
