"""Notices a forward pass that writes to a vector, before it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class WriteError(RuntimeError):
    """A pass would have written to a vector that is not its own."""


class Unwritten(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, an operation that would write to a vector's memory raises `WriteError` instead.

    So do models whose embedding has a ``max_norm``, and those that clip their own weights. It is
    seen whatever way the parameter was reached, ``.data`` too. An operation takes 10 microseconds
    longer.

    Attributes
    ----------
    tried : str
        The operation that would have, whatever became of the error.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch's compiler is to pass over this class: not where that would import it.

        It takes 35 MB, and seconds; whoever has compiled a model has it already.
        """
        return "torch._dynamo" in sys.modules

    def __init__(self, vector: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._start = vector.data_ptr()
        self._end = self._start + vector.numel() * vector.element_size()
        self.tried = ""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        given = kwargs or {}
        for place, name in _written_by(func):
            value = args[place] if place < len(args) else given.get(name)
            if any(self._start <= each.data_ptr() < self._end for each in _tensors(value)):
                self.tried = str(func)
                raise WriteError(f"{func} would write to a vector that is not the model's own")
        return func(*args, **given)


@cache
def _written_by(func: Any) -> list[tuple[int, str]]:
    """Return the places and names of the arguments that an operation writes to."""
    arguments = enumerate(func._schema.arguments)
    return [(i, each.name) for i, each in arguments if each.alias_info and each.alias_info.is_write]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
