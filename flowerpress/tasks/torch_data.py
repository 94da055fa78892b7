"""What `TorchTask` takes as data, and how examples are read from it by index.

======================================  ==========================================================
data                                    examples
======================================  ==========================================================
a tuple ``(X, y)`` of arrays; ``X``     the rows; arrays may be tensors, numpy arrays, nested lists
may be a tuple or a dict of arrays      of numbers, whatever numpy makes one array of
a dict of arrays, one array             the rows
a dataset with ``len()`` and ``[]``,    its items: tensors, arrays, numbers, lists of numbers, and
a list of examples                      tuples and dicts of these
a torch ``DataLoader``                  the items of its ``dataset``; of the rest its
                                        ``collate_fn`` is used, and its ``batch_size`` where the
                                        task is given none
======================================  ==========================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flowerpress.tasks.torch_batch import cast_dtype

if TYPE_CHECKING:
    import torch

Collate: TypeAlias = Callable[[list[Any]], Any]
"""`collate(examples) -> batch`."""

_PADS = "give collate=, a function of a list of examples that returns a batch (and pads, say)"


class Examples(ABC):
    """Examples of which any may be taken by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: npt.NDArray[np.int64] | None) -> Any:
        """Return the examples at `indices` as one batch, the caller's own; None: all."""

    def to(self, device: torch.device) -> Examples:
        """Return these examples on `device`, where they can be held there at all."""
        return self


class Columns(Examples):
    """A tree (tuples and dicts) of tensors with one example a row."""

    def __init__(self, tree: Any, length: int) -> None:
        self._tree, self._length = tree, length

    def __len__(self) -> int:
        return self._length

    def take(self, indices: npt.NDArray[np.int64] | None) -> Any:
        """Return rows."""
        import torch

        if indices is None:
            return _map(self._tree, lambda column: column.clone())
        index = torch.from_numpy(indices)
        return _map(self._tree, lambda column: column[index.to(column.device)])

    def to(self, device: torch.device) -> Examples:
        """Return these examples on `device`."""
        return Columns(_map(self._tree, lambda column: column.to(device)), self._length)


class Items(Examples):
    """The items of a map-style dataset, read one by one and put together by `collate`."""

    def __init__(self, dataset: Any, collate: Collate) -> None:
        self._dataset, self._collate = dataset, collate

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, indices: npt.NDArray[np.int64] | None) -> Any:
        """Read examples, all at once where the dataset offers that, as a DataLoader does."""
        every = range(len(self)) if indices is None else indices.tolist()
        read = getattr(self._dataset, "__getitems__", None)
        found = read(list(every)) if callable(read) else [self._dataset[i] for i in every]
        return self._collate(found)


def as_examples(
    data: Any, name: str, real: torch.dtype, collate: Collate | None
) -> tuple[Examples, int | None]:
    """Return the examples in `data`, and the batch size that a DataLoader states.

    Parameters
    ----------
    data : see the table above
    name : str
        What errors call it.
    real : torch.dtype
        What real numbers of columns are cast to; integers to int64.
    collate : callable, optional
        What makes batches of examples; by default a DataLoader's own function, else `stack`.

    Raises
    ------
    TypeError
        If `data` is of no known kind, or holds what are no numbers.
    ValueError
        If it is empty, or its columns differ in length.
    """
    batch_size = None
    if hasattr(data, "dataset") and hasattr(data, "collate_fn"):
        _check_dataset(data.dataset, name)
        _check_loader(data, name)
        batch_size, collate = data.batch_size, collate or _own_collate(data)
        data = data.dataset
    if isinstance(data, tuple) and collate is not None:
        data = _Rows(data, name)
    if isinstance(data, tuple | Mapping | np.ndarray) or _is_tensor(data):
        tree = _columns(data, name, real)
        examples: Examples = Columns(tree, _common_length(tree, name))
    else:
        _check_dataset(data, name)
        examples = Items(data, collate or (lambda found: stack(found, name)))
    if len(examples) == 0:
        raise ValueError(f"{name} holds no example")
    return examples, batch_size


def stack(examples: Sequence[Any], name: str) -> Any:
    """Return a batch of examples: each tensor of theirs stacked along a new first axis.

    Tuples and dicts keep their structure, lists of numbers become tensors. Inputs of one shape stay
    apart, whatever their dtypes.

    Raises
    ------
    TypeError
        If something is no number.
    ValueError
        If examples differ in structure, or tensors in shape.
    """
    import torch

    first = examples[0]
    if isinstance(first, Mapping):
        if any(not isinstance(one, Mapping) or one.keys() != first.keys() for one in examples):
            raise ValueError(f"{name}: not all examples have the keys {list(first)}: {_PADS}")
        return {key: stack([one[key] for one in examples], f"{name}[{key!r}]") for key in first}
    if isinstance(first, tuple) or (isinstance(first, list) and not _all_numbers(first)):
        if any(not isinstance(one, tuple | list) or len(one) != len(first) for one in examples):
            raise ValueError(f"{name}: not all examples have {len(first)} parts: {_PADS}")
        parts = zip(*examples, strict=True)
        return tuple(stack(part, f"{name}[{i}]") for i, part in enumerate(parts))
    tensors = [_item(one, name) for one in examples]
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise ValueError(f"{name}: examples of shapes {shapes[0]} and {shapes[1]}: {_PADS}")
    return torch.stack(tensors)


class _Rows:
    """Columns as they are, to be collated example by example."""

    def __init__(self, columns: tuple[Any, ...], name: str) -> None:
        lengths = [len(column) for column in columns]
        if len(set(lengths)) != 1:
            raise ValueError(f"{name}: its parts have {lengths} examples")
        self._columns, self._length = columns, lengths[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(column[index] for column in self._columns)


def _check_loader(loader: Any, name: str) -> None:
    """Refuse a DataLoader that leaves out or repeats examples: the task draws its own batches."""
    from torch.utils.data import RandomSampler, SequentialSampler

    sampler = getattr(loader, "sampler", None)
    plain = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)
    )
    if loader.batch_size is None or not (plain or sampler is None):
        used = "a batch sampler" if loader.batch_size is None else type(sampler).__name__
        raise TypeError(
            f"{name}: a DataLoader with {used} decides which examples a batch has, but the task "
            "draws them itself: give the dataset (torch.utils.data.Subset for a part of it), and "
            "collate= where needed"
        )


def _own_collate(loader: Any) -> Collate | None:
    """Return a DataLoader's collate function, unless it is torch's default."""
    from torch.utils.data import default_collate

    found: Collate = loader.collate_fn
    return None if found is default_collate else found


def _check_dataset(data: Any, name: str) -> None:
    readable = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if not readable or isinstance(data, str | bytes):
        raise TypeError(
            f"{name} must be a pair (X, y) or a dataset with len() and [], "
            f"not {type(data).__name__}; of what can only be iterated make a list"
        )
    if isinstance(data, list) and len(data) == 2 and all(map(_is_array, data)):
        raise TypeError(
            f"{name} is a list of two arrays: a list holds examples; give inputs and targets as a "
            "tuple (X, y)"
        )


def _columns(data: Any, name: str, real: torch.dtype) -> Any:
    if isinstance(data, tuple):
        labels = ("X", "y") if len(data) == 2 else range(len(data))
        return tuple(
            _columns(part, f"{name}[{label}]" if type(label) is int else f"{name}: {label}", real)
            for label, part in zip(labels, data, strict=True)
        )
    if isinstance(data, Mapping):
        return {key: _columns(part, f"{name}[{key!r}]", real) for key, part in data.items()}
    if isinstance(data, list) and any(map(_is_array, data)):
        data = _stacked_rows(data, name)
    tensor = _tensor(data, name)
    return tensor.to(cast_dtype(tensor.dtype, real))


def _stacked_rows(rows: list[Any], name: str) -> torch.Tensor:
    """Return a list of arrays as one tensor, unless they are several inputs rather than rows."""
    dtypes = {str(row.dtype).removeprefix("torch.") for row in rows if _is_array(row)}
    if len(dtypes) > 1:
        raise TypeError(
            f"{name} is a list of arrays of {' and '.join(sorted(dtypes))}: a list holds rows; "
            "give several inputs as a tuple or a dict"
        )
    found: torch.Tensor = stack(rows, name)
    return found


def _common_length(tree: Any, name: str) -> int:
    shapes = [tuple(column.shape) for column in _leaves(tree)]
    if not shapes or len({shape[:1] for shape in shapes}) != 1 or () in shapes:
        found = " and ".join(map(str, shapes)) or "none"
        raise ValueError(
            f"{name}: X and y need one row an example, but have shapes {found} (several inputs are "
            "a tuple or a dict)"
        )
    return int(shapes[0][0])


def _item(value: Any, name: str) -> torch.Tensor:
    """Return one example's part as a tensor; not what only looks like numbers, such as an image."""
    known = isinstance(value, np.ndarray | np.generic | bool | int | float | complex | list)
    if not (known or _is_tensor(value)):
        kind = type(value).__name__
        raise TypeError(f"{name} is a {kind}: leave it out, make numbers of it, or {_PADS}")
    return _tensor(value, name)


def _tensor(data: Any, name: str) -> torch.Tensor:
    """Return numbers as a dense tensor that shares nothing with what numpy holds."""
    import torch

    if torch.is_tensor(data):
        if data.layout != torch.strided or data.is_meta:
            raise TypeError(
                f"{name} is a tensor of layout {data.layout} on {data.device}: use "
                "a dense one with values"
            )
        found: torch.Tensor = data.detach()
        return found
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill what is masked")
    try:
        # np.array copies: torch neither takes read-only arrays nor should share the caller's.
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"{name}: rows of different lengths ({error}): {_PADS}") from None
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"{name} has dtype {array.dtype}: numbers are needed")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}, which int64 cannot hold")
    for wide, known in ((np.longdouble, np.float64), (np.clongdouble, np.complex128)):
        array = array.astype(known) if array.dtype == wide else array
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _map(tree: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(tree, tuple):
        return tuple(_map(part, function) for part in tree)
    if isinstance(tree, dict):
        return {key: _map(part, function) for key, part in tree.items()}
    return function(tree)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    _map(tree, found.append)
    return found


def _is_tensor(value: Any) -> bool:
    import torch

    return bool(torch.is_tensor(value))


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _all_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_all_numbers, value))
    return isinstance(value, bool | int | float | complex | np.generic)
