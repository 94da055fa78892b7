"""What the benchmark compares with: each compressor as it is plainly written in numpy or torch.

A form takes a vector and returns two functions: one compresses it, one adds what was compressed to
a buffer. Codes are not packed where that is what people write (8-bit levels, 64-bit places).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerpress.simulations import bench_shared_forms as shared

Vector = npt.NDArray[np.float32]
Form = tuple[Callable[[], Any], Callable[[Any, Vector], None]]


def naive(spec: str, x: Vector) -> dict[str, Form]:
    """Return the forms of a compressor, by library; none for a compressor that has no row here."""
    name = spec.partition(":")[0]
    forms: dict[str, Form] = {}
    libraries = {"numpy": _NUMPY} | ({"torch": _TORCH} if find_spec("torch") else {})
    for library, table in libraries.items():
        if "+" not in spec and name in table:
            forms[library] = table[name](x, spec)
    return forms


def _number(spec: str, default: float) -> float:
    found = re.search(r":(?:\w+=)?([\d.e-]+)", spec)
    return float(found.group(1)) if found else default


def _numpy_sign(x: Vector, spec: str) -> Form:
    del spec

    def encode() -> Any:
        return np.abs(x).mean(), np.packbits(x >= 0)

    def add(code: Any, out: Vector) -> None:
        scale, packed = code
        out += np.where(np.unpackbits(packed, count=out.size), scale, -scale)

    return encode, add


def _torch_sign(x: Vector, spec: str) -> Form:
    import torch

    del spec
    tensor = torch.from_numpy(x)
    place = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8)

    def encode() -> Any:
        bits = torch.nn.functional.pad((tensor >= 0).to(torch.uint8), (0, -x.size % 8))
        return tensor.abs().mean(), (bits.view(-1, 8) * place).sum(1, dtype=torch.uint8)

    def add(code: Any, out: Vector) -> None:
        scale, packed = code
        bits = ((packed[:, None] & place) != 0).view(-1)[: out.size]
        torch.from_numpy(out).add_(torch.where(bits, scale, -scale))

    return encode, add


def _numpy_levels(x: Vector, spec: str, levels: int, bucket: int, largest: bool) -> Form:
    del spec
    rng = np.random.default_rng(0)
    pad = -x.size % bucket

    def encode() -> Any:
        rows = np.pad(x, (0, pad)).reshape(-1, bucket)
        scale = np.abs(rows).max(1) if largest else np.linalg.norm(rows, axis=1)
        scaled = np.abs(rows) / scale[:, None] * np.float32(levels)
        level = np.floor(scaled + rng.random(rows.shape, dtype=np.float32))
        return scale, (np.sign(rows) * level).astype(np.int16 if levels > 127 else np.int8)

    def add(code: Any, out: Vector) -> None:
        scale, level = code
        dense = level.astype(np.float32) * (scale / np.float32(levels))[:, None]
        out += dense.reshape(-1)[: out.size]

    return encode, add


def _torch_levels(x: Vector, spec: str, levels: int, bucket: int, largest: bool) -> Form:
    import torch

    del spec
    tensor = torch.from_numpy(x)
    generator = torch.Generator().manual_seed(0)
    pad = -x.size % bucket

    def encode() -> Any:
        rows = torch.nn.functional.pad(tensor, (0, pad)).view(-1, bucket)
        scale = rows.abs().amax(1) if largest else rows.norm(dim=1)
        scaled = rows.abs() / scale[:, None] * levels
        level = torch.floor(scaled + torch.rand(rows.shape, generator=generator))
        return scale, (rows.sign() * level).to(torch.int16 if levels > 127 else torch.int8)

    def add(code: Any, out: Vector) -> None:
        scale, level = code
        dense = level.to(torch.float32) * (scale / levels)[:, None]
        torch.from_numpy(out).add_(dense.view(-1)[: out.size])

    return encode, add


def _qsgd(form: Callable[..., Form]) -> Callable[[Vector, str], Form]:
    def build(x: Vector, spec: str) -> Form:
        return form(x, spec, int(_number(spec, 7)), 512, False)

    return build


def _uniform(form: Callable[..., Form]) -> Callable[[Vector, str], Form]:
    def build(x: Vector, spec: str) -> Form:
        return form(x, spec, max(1, (1 << int(_number(spec, 4)) - 1) - 1), 1024, True)

    return build


def _numpy_top(x: Vector, spec: str) -> Form:
    k = max(1, int(_number(spec, 0.01) * x.size + 0.5))

    def encode() -> Any:
        ids = np.argpartition(np.abs(x), x.size - k)[x.size - k :]
        return ids, x[ids]

    return encode, _numpy_scatter


def _numpy_scatter(code: Any, out: Vector) -> None:
    dense = np.zeros_like(out)
    dense[code[0]] = code[1]
    out += dense


def _torch_top(x: Vector, spec: str) -> Form:
    import torch

    tensor = torch.from_numpy(x)
    k = max(1, int(_number(spec, 0.01) * x.size + 0.5))

    def encode() -> Any:
        ids = torch.topk(tensor.abs(), k, sorted=False).indices
        return ids, tensor[ids]

    return encode, _torch_scatter


def _torch_scatter(code: Any, out: Vector) -> None:
    import torch

    dense = torch.zeros(out.size)
    dense[code[0]] = code[1]
    torch.from_numpy(out).add_(dense)


def _numpy_random(x: Vector, spec: str) -> Form:
    k = max(1, int(_number(spec, 0.01) * x.size + 0.5))
    rng = np.random.default_rng(0)
    factor = np.float32(x.size / k)

    def encode() -> Any:
        ids = rng.permutation(x.size)[:k]
        return ids, x[ids] * factor

    return encode, _numpy_scatter


def _torch_random(x: Vector, spec: str) -> Form:
    import torch

    tensor = torch.from_numpy(x)
    k = max(1, int(_number(spec, 0.01) * x.size + 0.5))
    generator = torch.Generator().manual_seed(0)

    def encode() -> Any:
        ids = torch.randperm(x.size, generator=generator)[:k]
        return ids, tensor[ids] * (x.size / k)

    return encode, _torch_scatter


def _numpy_natural(x: Vector, spec: str) -> Form:
    del spec
    rng = np.random.default_rng(0)

    def encode() -> Any:
        mantissa, exponent = np.frexp(np.abs(x))
        up = rng.random(x.size, dtype=np.float32) < 2 * mantissa - 1
        return np.sign(x).astype(np.int8), np.clip(exponent - 1 + up, -127, 127).astype(np.int8)

    def add(code: Any, out: Vector) -> None:
        sign, exponent = code
        out += np.ldexp(sign.astype(np.float32), exponent)

    return encode, add


def _with_number(form: Callable[[Vector, int], Form], default: int) -> Callable[..., Form]:
    return lambda x, spec: form(x, int(_number(spec, default)))


def _sketched(form: Callable[[Vector, int], Form]) -> Callable[[Vector, str], Form]:
    return lambda x, spec: form(x, max(1, int(_number(spec, 0.004) * x.size + 0.5)))


def _bare(form: Callable[[Vector], Form]) -> Callable[[Vector, str], Form]:
    def build(x: Vector, spec: str) -> Form:
        del spec
        return form(x)

    return build


_NUMPY: dict[str, Callable[[Vector, str], Form]] = {
    "sign": _numpy_sign,
    "qsgd": _qsgd(_numpy_levels),
    "uniform": _uniform(_numpy_levels),
    "natural": _numpy_natural,
    "topk": _numpy_top,
    "randk": _numpy_random,
    "cq": _with_number(shared.numpy_correlated, 2),
    "permk": _bare(shared.numpy_share),
    "countsketch": _sketched(shared.numpy_sketch),
    "hadamard": _bare(shared.numpy_rotation),
}
_TORCH: dict[str, Callable[[Vector, str], Form]] = {
    "sign": _torch_sign,
    "qsgd": _qsgd(_torch_levels),
    "uniform": _uniform(_torch_levels),
    "topk": _torch_top,
    "randk": _torch_random,
    "cq": _with_number(shared.torch_correlated, 2),
    "permk": _bare(shared.torch_share),
    "countsketch": _sketched(shared.torch_sketch),
    "hadamard": _bare(shared.torch_rotation),
}
