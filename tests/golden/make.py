"""Write the golden packets: ``python -m tests.golden.make``.

A golden packet is a promise: bytes of a frame version decode for ever to what they held, and the
compressor of today still writes them. So files are only added; one that exists is never written
again. A change of the bytes takes a new codec number or a new frame version.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from flowerpress.compressors import Draw, decompress, make_compressor
from tests.golden import composed

FOLDER = Path(__file__).parent / "v1"
DRAW = {"seed": 0x0123456789ABCDEF, "round": 5, "rank": 2, "cohort": 4, "stream": 1}

# name: spec, dim, dtype. 1100 is one whole block of 1024 and a rest.
CASES = {
    "identity": ("identity", 5, "<f4"),
    "identity-float64": ("identity", 5, "<f8"),
    "topk-varint": ("topk:k=4", 1100, "<f4"),
    "topk-rice": ("topk:k=40", 1100, "<f4"),
    "topk-bitmap": ("topk:0.5", 1100, "<f4"),
    "topk-tiny": ("topk:k=1", 5, "<f4"),
    "topk-float64": ("topk:k=3", 50, "<f8"),
    "randk-uniform": ("randk:k=20", 1100, "<f4"),
    "randk-uniform-float64": ("randk:k=3", 300, "<f8"),
    "randk-stratified": ("randk:0.01,law=stratified", 1100, "<f4"),
    "sign": ("sign", 1100, "<f4"),
    "sign-l2-blocks-float64": ("sign:l2,block=100", 1100, "<f8"),
    "sign-tensors": ("sign:block=tensor", 1100, "<f4"),
    "qsgd-1-one-norm": ("qsgd:1,bucket=0", 1100, "<f4"),
    "qsgd-2-three-bits": ("qsgd:2,bucket=64", 1100, "<f4"),
    "qsgd-7": ("qsgd", 1100, "<f4"),
    "qsgd-7-float64": ("qsgd", 1100, "<f8"),
    "fp16": ("fp16", 1100, "<f4"),
    "fp16-float64": ("fp16", 50, "<f8"),
    "bf16": ("bf16", 1100, "<f4"),
    "bf16-float64": ("bf16", 50, "<f8"),
    "uniform-4": ("uniform", 1100, "<f4"),
    "uniform-3-buckets": ("uniform:3,bucket=100", 1100, "<f4"),
    "uniform-8-float64": ("uniform:8,bucket=0", 1100, "<f8"),
    "uniform-1-nearest": ("uniform:1,rounding=nearest", 50, "<f4"),
    "uniform-5-nearest": ("uniform:5,rounding=nearest", 1100, "<f4"),
    "permk": ("permk", 1100, "<f4"),
    "permk-float64": ("permk", 50, "<f8"),
    "permk-one-place": ("permk", 3, "<f4"),
    "cq": ("cq:range=l2", 1100, "<f4"),
    "cq-float64": ("cq:range=l2", 50, "<f8"),
    "cq-5-shared": ("cq:5,range=1024", 1100, "<f4"),
    "cq-independent": ("cq:4,range=l2,rounding=independent", 1100, "<f4"),
    "cq-16-float64": ("cq:16,range=l2", 1100, "<f8"),
    "cq-rms": ("cq", 1100, "<f4"),
    "cq-5-rms-float64": ("cq:5,c=1.5,rounding=independent", 1100, "<f8"),
    "cq-max-buckets": ("cq:4,range=max,bucket=1024", 3500, "<f4"),
    "cq-3-l2-buckets": ("cq:3,range=l2,bucket=2048", 5000, "<f4"),
    "cq-shared": ("cq:3,range=shared", 1100, "<f4"),
    "cq-number-beyond": ("cq:3,range=100", 1100, "<f4"),
    "terngrad": ("terngrad", 1100, "<f4"),
    "loggrid-3": ("loggrid", 1100, "<f4"),
    "loggrid-5-float64": ("loggrid:5", 50, "<f8"),
    "randsign": ("randsign:1024", 1100, "<f4"),
    "signtopk": ("signtopk:0.05", 1100, "<f4"),
    "signtopk-float64": ("signtopk:k=3", 50, "<f8"),
    "threshold": ("threshold:100", 1100, "<f4"),
    "threshold-none-float64": ("threshold:5000", 50, "<f8"),
    "natural": ("natural", 1100, "<f4"),
    "natural-float64": ("natural", 50, "<f8"),
    "powersgd-tall": ("powersgd:rows=40", 1100, "<f4"),
    "powersgd-wide-float64": ("powersgd:1,rows=5", 52, "<f8"),
    "powersgd-vectors": ("powersgd", 50, "<f4"),
    **composed.CASES,
}


def vector(dim: int, dtype: str) -> np.ndarray:
    """Return numbers that are exact in float32, of many magnitudes, with zeros and ties."""
    i = np.arange(dim)
    mantissas = (i * 7919 % 2003 - 1001) // 3 * 3
    return np.ldexp(mantissas, -(i * 31 % 17)).astype(dtype)


def case(spec: str, dim: int, dtype: str) -> dict[str, object]:
    """Compress the vector and note everything that a reader needs."""
    x = vector(dim, dtype)
    packet = make_compressor(spec).bind((dim // 3, dim - dim // 3)).compress(x, Draw(**DRAW))
    return {
        "spec": spec,
        "draw": DRAW,
        "sizes": [dim // 3, dim - dim // 3],
        "dtype": dtype,
        "input": _text(x.tobytes()),
        "packet": _text(packet.data),
        "decoded": _text(decompress(packet).tobytes()),
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (spec, dim, dtype) in CASES.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(case(spec, dim, dtype), indent=1) + "\n")
            print("wrote", path.name)
