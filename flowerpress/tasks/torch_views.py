"""Parameters that lie in a flat vector, and gradients that go to another one, without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NOT_TRAINED = (
    "the loss does not depend on the parameters that are trained (the task copies the model: does "
    "its forward use another one, by a closure?)"
)
LARGE = 1 << 23
"""Numbers of a model from which copies are avoided: below, they take less than what avoids them."""


def can_be_view(value: torch.nn.Parameter, flat: torch.Tensor) -> bool:
    """Whether a parameter can be a view of a flat vector: it is where that is, and of its dtype."""
    return (
        value.is_leaf  # those of a scripted model are not
        and value.device == flat.device
        and value.dtype == flat.dtype
        and type(value.data).__name__ == "Tensor"  # and not a subclass with memory of its own kind
        and value.is_contiguous()  # else its kernels would compute in another order
    )


class Views:
    """The parameters of a model as views of a vector, while gradients are taken.

    Parameters
    ----------
    parameters, shapes : lists of Parameter and Size
        In the vector's order.
    x, out : tensors
        Where the parameters' values are, and where their gradients go.

    Attributes
    ----------
    guard : Unwritten
        Keeps what is done inside it from writing to `x`.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        shapes: Sequence[torch.Size],
        x: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        self._parameters, self._handles = parameters, list[Any]()
        from flowerpress.tasks.torch_writes import Unwritten

        self._weight, self._first = 1.0, True
        self.guard = Unwritten(x)
        self._met: set[int] = set()
        self._total = out
        self._parts: list[torch.Tensor] = []
        start = 0
        for i, (value, shape) in enumerate(zip(parameters, shapes, strict=True)):
            stop = start + shape.numel()
            value.grad = None
            self._parts.append(out[start:stop])
            value.data = x[start:stop].view(shape)
            owner: Any = value  # torch has no types here
            self._handles.append(owner.register_post_accumulate_grad_hook(self._taker(i)))
            start = stop

    def _taker(self, i: int) -> Any:
        """Return what takes the gradient of parameter `i` as soon as it is known."""

        def take(value: torch.nn.Parameter) -> None:
            grad, value.grad = value.grad, None
            if grad is not None:
                self._put(i, grad.detach().to_dense().reshape(-1))

        return take

    def _put(self, i: int, grad: torch.Tensor) -> None:
        part = self._parts[i]
        self._met.add(i)
        if self._first:
            part.copy_(grad)
            if self._weight != 1:
                part.mul_(self._weight)
        else:
            part.add_(grad if self._weight == 1 else grad * self._weight)

    def add(self, loss: Any, weight: float, *, first: bool) -> None:
        """Put the gradient of a loss, times its weight, into the vector, or add it."""
        self._weight, self._first = weight, first
        self._met.clear()
        loss.backward(inputs=list(self._parameters))
        if not self._met:
            raise ValueError(NOT_TRAINED)
        for i, part in enumerate(self._parts):
            if i not in self._met:  # the loss does not depend on it
                self._put(i, part.new_zeros(1).expand(part.numel()))

    def divide(self, mass: float) -> None:
        """Divide the vector by the sum of the weights."""
        if mass != 1:
            self._total.div_(mass)

    def leave(self) -> None:
        """Leave the parameters without values."""
        for handle in self._handles:
            handle.remove()
        for value in self._parameters:
            value.grad = None
            value.data = value.data.new_empty(0)
        self._parts.clear()
