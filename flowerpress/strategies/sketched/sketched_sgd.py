"""Sketched-SGD: server half.

Ivkin, Rothchild, Ullah, Braverman, Stoica, Arora 2019 (arXiv:1903.04488), Algorithm 2 with momentum
as in the authors' code. A round has two exchanges:

    1. broadcast x; receive S(v_i) from the workers that answer, S one sketch for all
    2. ask them for the P k coordinates of largest estimate in the mean of S(v_i)
    3. receive v_i there, exact, from the workers S that answer again
    4. w = the k largest of the mean over S of v_i        (weights renormalised over S)
    5. broadcast w;  everyone: x -= lr * w

where v_i is what worker i owes, and u_i its momentum: u_i = momentum * u_i + g_i, v_i += u_i, and
both are zero where w is not. The paper takes sums over the workers where this takes means: n
workers of equal weight need an lr n times the paper's. The worker half is in
``clients/sketched.py``.

An absent, late or failed worker keeps what it owes, whichever of its answers was lost; taking the
mean over those who answer is a heuristic: the paper has all of them. A worker that loses its memory
loses what it owed, nothing else. A new worker takes part at once.
"""

from __future__ import annotations

import numpy as np

from flowerpress.protocol.places import Places
from flowerpress.server.ask import Ask, FloatVector, Steps
from flowerpress.server.options import number, option, whole
from flowerpress.strategies.sketched.sketches import Sketched, adding_to, largest


class FoundBySketch(Sketched):
    """A strategy that finds candidates by sketches, and asks for their exact values."""

    owing = True

    candidates: int = option(
        4,
        whole(1),
        "How many times k coordinates are asked for in the second exchange.",
        letter="P",
    )

    def candidates_of(self, estimates: FloatVector) -> Places:
        """Return the places of the P k largest estimates."""
        return largest(estimates, min(self.candidates * self.k, estimates.size))

    def take(self, places: Places, w: FloatVector, server_round: int) -> None:
        """Take a step of lr times the k largest of `w`, given at the candidates `places`."""
        chosen = largest(w, self.k)
        with np.errstate(over="ignore"):
            step = self.rate * w[chosen]
        self.move(places[chosen], step, server_round)


class SketchedSGD(FoundBySketch):
    """SGD with momentum; sketches find the coordinates, a second exchange has their values."""

    name = "sketched-sgd"
    summary_line = "sketches find the largest coordinates, a second exchange has exact values"
    citation = "Ivkin et al. 2019, arXiv:1903.04488"

    momentum: float = option(
        0.0,
        number("[0, 1]"),
        "What remains of u_i in a round. The authors use 0.9; a coordinate then owes up to ten "
        "times the gradients met while it waited, which needs an lr that much smaller.",
        sent=True,
    )

    def round(self, server_round: int) -> Steps:
        S, table = self.sample(server_round), self.table(server_round)
        S = yield Ask(S, into=adding_to(table), what="sketch")  # 1
        places = self.candidates_of(table.estimates())  # 2
        v = self.zeros(places.size)
        S = yield Ask(S, into=v, what="values", places=places)  # 3
        self.take(places, v / self.mass(S), server_round)  # 4-5
