"""What a strategy remembers from one round to the next, and where it is saved."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from flowerpress.strategies.checkpoints import Checkpoints
from flowerpress.strategies.tree import Tree


class Resumable:
    """The part of a strategy that checkpoints are made of."""

    kept: ClassVar[tuple[str, ...]] = ("lr",)  # attributes that last, besides those of the bases
    checkpoints: Checkpoints | None = None  # where `start` saves the run, if anywhere
    given: dict[str, Any]  # the options, as given

    def __new__(cls, **options: Any) -> Self:
        self = super().__new__(cls)
        self.given = options
        return self

    def state(self) -> dict[str, Tree]:
        """Return what the algorithm must remember from one round to the next."""
        names = {name for cls in type(self).__mro__ for name in vars(cls).get("kept", ())}
        return {name: getattr(self, name) for name in sorted(names)}

    def restore(self, state: dict[str, Tree]) -> None:
        """Take what `state` returned, after `begin`."""
        for name, value in state.items():
            setattr(self, name, value)
