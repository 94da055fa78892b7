"""SketchedAMSGrad: server half.

Xian, Huang, Huang 2022 (arXiv:2210.07454), in the two exchanges of Sketched-SGD (Ivkin et al. 2019,
arXiv:1903.04488). m_i is worker i's momentum, e_i what it owes, and lr_e the lr it was owed at:

    1. broadcast x; receive S(a_i) from the workers that answer, a_i = m_i + (lr_e / lr) e_i
    2. ask them for the P k coordinates where (mean of a_i) / sqrt(v_hat) is estimated largest
    3. receive a_i and g_i there, exact, from the workers S that answer again
    4. there: v = beta2 v + (1 - beta2) (mean g)^2;  v_hat = max(v_hat, v)
    5. w = the k largest of (mean a) / sqrt(v_hat)        (weights renormalised over S)
    6. broadcast w;  everyone: x -= lr * w

and a_i, less what was sent in w, is the new e_i: it is in units of the gradient, whereas w is not.
v and v_hat start at ``eps``. They are refreshed before a coordinate is used: one whose v_hat is
still eps would take a step of a_i / sqrt(eps). The worker half is in ``clients/sketched.py``.

An absent, late or failed worker keeps what it owes, whichever of its answers was lost; taking the
mean over those who answer is a heuristic: the paper has all of them. A worker that loses its memory
loses what it owed and its momentum. A new worker takes part at once.
"""

from __future__ import annotations

import numpy as np

from flowerpress.protocol.places import Places
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.errors import RoundError
from flowerpress.server.options import number, option, require
from flowerpress.strategies.sketched.sketched_sgd import FoundBySketch
from flowerpress.strategies.sketched.sketches import adding_to


class SketchedAMSGrad(FoundBySketch):
    """AMSGrad on the coordinates that sketches find."""

    name = "sketched-amsgrad"
    summary_line = "AMSGrad on the coordinates that sketches find; v on the server"
    citation = "Xian et al. 2022, arXiv:2210.07454"
    baseline = "amsgrad"
    kept = ("v", "v_hat")

    lr: float = option(0.001, says="Step size.")
    beta1: float = option(
        0.9, number("[0, 1]"), "What remains of m_i in a round.", letter="beta_1", sent=True
    )
    beta2: float = option(
        0.99,
        number("[0, 1]"),
        "What remains of v in a round, where it is refreshed. A coordinate is refreshed where "
        "it is a candidate, hence less often than in AMSGrad.",
        letter="beta_2",
    )
    eps: float = option(1e-8, number("(0, inf)"), "v and v_hat at the start.", letter="epsilon")

    def begin(self) -> None:
        super().begin()
        self.v = np.full_like(self.model.x, self.eps)
        self.v_hat = self.v.copy()
        require(bool(self.v[0] > 0), "eps", self.eps, f"above 0 in {self.v.dtype}")

    def round(self, server_round: int) -> Steps:
        S, table = self.sample(server_round), self.table(server_round)
        S = yield Ask(S, into=adding_to(table), what="sketch")  # 1
        places = self.candidates_of(table.estimates() / np.sqrt(self.v_hat))  # 2
        both = self.zeros(2 * places.size)
        S = yield Ask(S, into=both, what="values", places=places, vectors=2)  # 3
        a, g = (both / self.mass(S)).reshape(2, -1)
        v_hat = self._refresh(places, g, server_round)  # 4
        self.take(places, a / np.sqrt(v_hat), server_round)  # 5-6

    def _refresh(self, asked: Places, g: FloatVector, server_round: int) -> FloatVector:
        """Take a step of v and v_hat at the candidates, and return v_hat there."""
        real = g.dtype.type
        with np.errstate(over="ignore"):
            v = real(self.beta2) * self.v[asked] + real(1 - self.beta2) * g * g  # 4
        if not np.isfinite(v).all():
            raise RoundError(
                f"round {server_round}: the gradient's square overflows {v.dtype}: lower lr, or "
                "leave out the clients that send huge updates"
            )
        v_hat: FloatVector = np.maximum(self.v_hat[asked], v)  # 4
        self.v[asked], self.v_hat[asked] = v, v_hat
        return v_hat
