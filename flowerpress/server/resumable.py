"""What a strategy remembers from one round to the next, and where it is saved."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from flwr.app import ArrayRecord

from flowerpress.server.algorithm import Algorithm
from flowerpress.server.checkpoints import Checkpoints
from flowerpress.server.evaluation import FederatedEvaluation
from flowerpress.server.tree import Tree


class Resumable(Algorithm, FederatedEvaluation):
    """A strategy as the loop over its rounds knows it, and what checkpoints are made of."""

    kept: ClassVar[tuple[str, ...]] = ("lr",)  # attributes that last, besides those of the bases
    checkpoints: Checkpoints | None = None  # where `start` saves the run, if anywhere
    given: dict[str, Any]  # the options, as given
    looping = False  # whether `start` alone runs the rounds, with nobody between two of them

    @abstractmethod
    def begin_run(self, initial: ArrayRecord) -> None:
        """Forget all of an earlier run, and begin one from the model `initial`."""

    def state(self) -> dict[str, Tree]:
        """Return what the algorithm must remember from one round to the next."""
        names = {name for cls in type(self).__mro__ for name in vars(cls).get("kept", ())}
        return {name: getattr(self, name) for name in sorted(names)}

    def restore(self, state: dict[str, Tree]) -> None:
        """Take what `state` returned, after `begin`."""
        for name, value in state.items():
            setattr(self, name, value)
