"""Plain numpy and torch forms of the compressors whose random numbers a cohort shares.

As people write them: the random numbers come from the library's generator, hashed places of a
sketch are drawn once and kept, one bit takes a byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Form = tuple[Callable[[], Any], Callable[[Any, Vector], None]]

COHORT = 100
RANK = 7
ROWS = 5
ROTATED = 8192


def numpy_correlated(x: Vector, levels: int) -> Form:
    """Round, the sender's rank shifted at each coordinate instead of shuffled.

    What is beyond the range is cut.
    """
    rng = np.random.default_rng(0)

    def encode() -> Any:
        reach = np.float32(3 * np.sqrt(np.dot(x, x) / x.size))
        place = (np.clip(x / reach, -1, 1) + np.float32(1)) * np.float32((levels - 1) / 2)
        order = (rng.integers(0, COHORT, x.size, dtype=np.int32) + RANK) % COHORT
        spread = (order + rng.random(x.size, dtype=np.float32)) / np.float32(COHORT)
        level = np.floor(place)
        return reach, (level + (spread < place - level)).astype(np.uint8)

    def add(code: Any, out: Vector) -> None:
        reach, level = code
        out += level * np.float32(2 * reach / (levels - 1)) - reach

    return encode, add


def torch_correlated(x: Vector, levels: int) -> Form:
    """Do the same in torch."""
    import torch

    tensor = torch.from_numpy(x)
    generator = torch.Generator().manual_seed(0)

    def encode() -> Any:
        reach = 3 * float(tensor.norm()) / math.sqrt(tensor.numel())
        place = ((tensor / reach).clamp(-1, 1) + 1) * ((levels - 1) / 2)
        shift = torch.randint(COHORT, tensor.shape, generator=generator, dtype=torch.int32)
        spread = ((shift + RANK) % COHORT + torch.rand(tensor.shape, generator=generator)) / COHORT
        level = place.floor()
        return reach, (level + (spread < place - level)).to(torch.uint8)

    def add(code: Any, out: Vector) -> None:
        reach, level = code
        torch.from_numpy(out).add_(level * (2 * reach / (levels - 1)) - reach)

    return encode, add


def numpy_share(x: Vector) -> Form:
    """One sender's share of a permutation of all coordinates."""
    rng, share = np.random.default_rng(0), -(-x.size // COHORT)

    def encode() -> Any:
        ids = rng.permutation(x.size)[RANK * share : (RANK + 1) * share]
        return ids, x[ids] * np.float32(COHORT)

    def add(code: Any, out: Vector) -> None:
        out[code[0]] += code[1]

    return encode, add


def torch_share(x: Vector) -> Form:
    """Do the same in torch."""
    import torch

    tensor, share = torch.from_numpy(x), -(-x.size // COHORT)
    generator = torch.Generator().manual_seed(0)

    def encode() -> Any:
        places = torch.randperm(tensor.numel(), generator=generator)
        ids = places[RANK * share : (RANK + 1) * share]
        return ids, tensor[ids] * COHORT

    def add(code: Any, out: Vector) -> None:
        torch.from_numpy(out).index_add_(0, code[0], code[1])

    return encode, add


def numpy_sketch(x: Vector, columns: int) -> Form:
    """Sketch with hashed places that are kept, counted by ``bincount``."""
    rng = np.random.default_rng(0)
    places = [rng.integers(0, columns, x.size, dtype=np.int32) for _ in range(ROWS)]
    signs = [rng.integers(0, 2, x.size, dtype=np.int8) * np.int8(2) - np.int8(1) for _ in places]

    def encode() -> Any:
        cells = [
            np.bincount(row, weights=x * sign, minlength=columns)
            for row, sign in zip(places, signs, strict=True)
        ]
        return np.stack(cells).astype(np.float32)

    def add(table: Any, out: Vector) -> None:
        said = [table[row][places[row]] * signs[row] for row in range(ROWS)]
        out += np.median(np.stack(said), axis=0).astype(np.float32)

    return encode, add


def torch_sketch(x: Vector, columns: int) -> Form:
    """Do the same in torch."""
    import torch

    tensor, generator = torch.from_numpy(x), torch.Generator().manual_seed(0)
    draw: dict[str, Any] = {"size": tensor.shape, "generator": generator}
    places = [torch.randint(columns, dtype=torch.int32, **draw) for _ in range(ROWS)]
    signs = [torch.randint(2, dtype=torch.int8, **draw) * 2 - 1 for _ in range(ROWS)]

    def encode() -> Any:
        pairs = zip(places, signs, strict=True)
        return torch.stack([torch.bincount(row, tensor * sign, columns) for row, sign in pairs])

    def add(table: Any, out: Vector) -> None:
        said = [table[row][places[row]] * signs[row] for row in range(ROWS)]
        torch.from_numpy(out).add_(torch.stack(said).median(dim=0).values)

    return encode, add


def numpy_rotation(x: Vector) -> Form:
    """Random signs and butterflies on blocks padded with zeros."""
    rng, pad = np.random.default_rng(0), -x.size % ROTATED
    signs = rng.choice(np.array([-1, 1], dtype=np.float32), x.size + pad).reshape(-1, ROTATED)

    def transform(rows: Vector) -> Vector:
        distance = 1
        while distance < ROTATED:
            pairs = rows.reshape(-1, 2, distance)
            rows = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
            distance *= 2
        return rows.reshape(-1, ROTATED) * np.float32(ROTATED**-0.5)

    def add(code: Any, out: Vector) -> None:
        out += (transform(code) * signs).reshape(-1)[: out.size]

    return lambda: transform(np.pad(x, (0, pad)).reshape(-1, ROTATED) * signs), add


def torch_rotation(x: Vector) -> Form:
    """Do the same in torch."""
    import torch

    tensor, pad = torch.from_numpy(x), -x.size % ROTATED
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (x.size + pad,), generator=generator).view(-1, ROTATED) * 2.0 - 1

    def transform(rows: Any) -> Any:
        distance = 1
        while distance < ROTATED:
            pairs = rows.view(-1, 2, distance)
            rows = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], dim=1)
            distance *= 2
        return rows.view(-1, ROTATED) * ROTATED**-0.5

    def add(code: Any, out: Vector) -> None:
        torch.from_numpy(out).add_((transform(code) * signs).view(-1)[: out.size])

    padded = torch.nn.functional.pad
    return lambda: transform(padded(tensor, (0, pad)).view(-1, ROTATED) * signs), add
