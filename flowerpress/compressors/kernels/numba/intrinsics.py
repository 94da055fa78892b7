"""Single instructions that Python has no word for.

Each function here is called from compiled code only.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import core, extending

U32 = npt.NDArray[np.uint32]

# Partly typed, and not as they are used here.
cgutils: Any = core.cgutils
config: Any = core.config
types: Any = core.types
intrinsic: Any = extending.intrinsic

ROW = 128  # bytes that `carryless_fold` takes at once
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def has_carryless() -> bool:
    """Return whether kernels are compiled for a processor with `carryless_fold`'s instruction."""
    return bool(_carryless_bits())


def _carryless_bits() -> int:
    """Return the bits of the widest carry-less product: 512, 128, or 0 for none."""
    if config.CPU_NAME or config.CPU_FEATURES:  # numba was told to compile for another processor
        return 0
    features = binding.get_host_cpu_features()
    if features.get("vpclmulqdq") and features.get("avx512f"):
        return 512
    return 128 if features.get("pclmul") and features.get("sse2") else 0


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(_typing: Any, _word: Any) -> Any:
    """Return the place of the lowest bit that is set; any number for zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def ones(_typing: Any, _word: Any) -> Any:
    """Return how many bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def eight_bytes(_typing: Any, data: Any, index: Any) -> Any:
    """Return the bytes from ``data[index]`` on as one number, the first one lowest; unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = context.cast(builder, arguments[1], signature.args[1], types.intp)
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(view.data, [at]), _I64.as_pointer())
        word = builder.load(pointer)
        word.align = 1
        return word if sys.byteorder == "little" else builder.bswap(word)

    return types.uint64(data, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def butterflies(_typing: Any, x: Any, index: Any) -> Any:
    """Replace a, b of ``x[index:index + 16]`` by a + b, a - b, at the distances 1, 2, 4 and 8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        at = context.cast(builder, arguments[1], signature.args[1], types.intp)
        view = context.make_array(kind)(context, builder, arguments[0])
        number = context.get_value_type(kind.dtype)
        vector = ir.VectorType(number, 16)
        pointer = builder.bitcast(builder.gep(view.data, [at]), vector.as_pointer())
        lanes = builder.load(pointer)
        lanes.align = kind.dtype.bitwidth // 8
        for distance in (1, 2, 4, 8):
            places = ir.Constant(ir.VectorType(_I32, 16), [lane ^ distance for lane in range(16)])
            others = builder.shuffle_vector(lanes, lanes, places)
            # b - a where the other lane is the lower one: a product with -1 is exact.
            signs = [number(-1.0 if lane & distance else 1.0) for lane in range(16)]
            lanes = builder.fadd(others, builder.fmul(lanes, ir.Constant(vector, signs)))
        builder.store(lanes, pointer).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(x, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def carryless_fold(_typing: Any, message: Any, state: Any, _low: Any, _high: Any) -> Any:
    """Fold rows of 128 bytes of `message`, words of 32 bits, into the 32 words of `state`.

    For each row in turn, every 128 bits of the state become their lower half times the third
    argument, plus their upper half times the fourth, plus the row's 128 bits, as polynomials over
    the field of two elements.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        width = _carryless_bits()
        lanes, count = width // 64, 8 * ROW // width
        vector = ir.VectorType(_I64, lanes)
        name = "llvm.x86.pclmulqdq" + (".512" if width == 512 else "")
        kind = ir.FunctionType(vector, [vector, vector, _I8])
        product = cgutils.get_or_insert_function(builder.module, kind, name)
        rows, source = _rows(context, builder, signature.args[0], arguments[0], vector)
        _, target = _rows(context, builder, signature.args[1], arguments[1], vector)
        factors = ir.Constant(vector, ir.Undefined)
        for lane in range(lanes):
            factors = builder.insert_element(factors, arguments[2 + lane % 2], _I32(lane))
        kept = [cgutils.alloca_once(builder, vector) for _ in range(count)]
        for part, room in enumerate(kept):
            builder.store(_load(builder, target, _I64(part)), room)
        with cgutils.for_range(builder, rows) as loop:
            first = builder.mul(loop.index, ir.Constant(loop.index.type, count))
            for part, room in enumerate(kept):
                at = builder.add(first, ir.Constant(first.type, part))
                old = builder.load(room)
                lower = builder.call(product, [old, factors, _I8(0x00)])
                upper = builder.call(product, [old, factors, _I8(0x11)])
                both = builder.xor(lower, upper)
                builder.store(builder.xor(both, _load(builder, source, at)), room)
        for part, room in enumerate(kept):
            store = builder.store(builder.load(room), builder.gep(target, [_I64(part)]))
            store.align = 4
        return context.get_dummy_value()

    return types.void(message, state, types.uint64, types.uint64), generate


def _rows(context: Any, builder: Any, kind: Any, array: Any, vector: Any) -> Any:
    """Return the number of rows of an array of words, and a pointer to its vectors."""
    view = context.make_array(kind)(context, builder, array)
    rows = builder.udiv(view.nitems, ir.Constant(view.nitems.type, ROW // 4))
    return rows, builder.bitcast(view.data, vector.as_pointer())


def _load(builder: Any, pointer: Any, index: Any) -> Any:
    loaded = builder.load(builder.gep(pointer, [index]))
    loaded.align = 4
    return loaded
