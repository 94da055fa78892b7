"""FetchSGD: server half.

Rothchild, Panda, Ullah, Ivkin, Stoica, Braverman, Gonzalez, Arora 2020 (arXiv:2007.07682),
Algorithm 1. S is one fixed linear sketch, U its estimates, S_u and S_e tables on the server.

    1. broadcast x
    2. receive S(g_i) from the workers S that answer
    3. S_u = momentum * S_u + mean over S of S(g_i)       (weights renormalised over S)
    4. S_e += lr * S_u
    5. D = the k largest of U(S_e)
    6. the cells of S_e and S_u that S(D) touches = 0;  broadcast D;  everyone: x -= D

As the paper's experiments do. With ``error_update="subtract"`` 6 is S_e -= S(D), as in the
algorithm's text, and without ``mask_momentum`` S_u keeps its cells: exact where little collides,
but where the table is narrow for the gradient it diverges whatever lr, since what is subtracted for
a coordinate that was not large stays in S_e. The worker half is in ``clients/fetchsgd.py``.

Workers keep nothing but a replica of the model: what is owed lies in S_e, on the server. An absent,
late or failed worker is left out of that round's mean; a new worker takes part at once.
"""

from __future__ import annotations

import numpy as np

from flowerpress.compressors import Draw
from flowerpress.server.ask import Ask, Steps
from flowerpress.server.options import SWITCH, number, one_of, option
from flowerpress.server.tree import Tree
from flowerpress.strategies.sketched.sketches import Sketched, adding_to, largest

_UPDATES = ("zero", "subtract")


class FetchSGD(Sketched):
    """Momentum and error feedback inside sketches on the server."""

    name = "fetchsgd"
    summary_line = "count sketches of gradients; momentum and error feedback on the server"
    citation = "Rothchild et al. 2020, arXiv:2007.07682"

    momentum: float = option(0.9, number("[0, 1]"), "What remains of S_u in a round.", letter="rho")
    error_update: str = option(
        "zero",
        one_of("zero", "subtract"),
        "What becomes of S_e once D is sent: the cells S(D) touches are zeroed, or it is "
        "subtracted.",
    )
    mask_momentum: bool = option(
        True, SWITCH, "Whether the cells that S(D) touches are set to zero in S_u."
    )

    def hash_of(self, server_round: int) -> Draw:
        """Return the same hash in all rounds: tables of several rounds are added."""
        return super().hash_of(0)

    def begin(self) -> None:
        super().begin()
        self._momentum, self._error, self._sent = (self.table(0) for _ in range(3))

    def state(self) -> dict[str, Tree]:
        tables = {"momentum": self._momentum.cells, "error": self._error.cells}
        return {**super().state(), **tables}

    def restore(self, state: dict[str, Tree]) -> None:
        self._momentum.cells[:] = state.pop("momentum")
        self._error.cells[:] = state.pop("error")
        super().restore(state)

    def round(self, server_round: int) -> Steps:
        S, table = self.sample(server_round), self.table(server_round)
        S = yield Ask(S, into=adding_to(table))  # 1-2
        u, e, real = self._momentum.cells, self._error.cells, self.model.x.dtype.type
        with np.errstate(over="ignore", invalid="ignore"):
            u *= real(self.momentum)  # 3
            u += table.cells / self.mass(S)
            e += self.rate * u  # 4
            estimates = self._error.estimates()
        places = largest(estimates, self.k)  # 5
        step = self.move(places, estimates[places], server_round)  # 6
        self._sent.cells[:] = 0
        self._sent.add(self.sketch.compress(step, self.hash_of(0)))
        touched = self._sent.cells != 0
        if self.error_update == "zero":
            e[touched] = 0
        else:
            e -= self._sent.cells
        if self.mask_momentum:
            u[touched] = 0
