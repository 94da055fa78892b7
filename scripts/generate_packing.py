#!/usr/bin/env python3
"""Write the unrolled loops: the files `*_lanes.py` in `compressors/kernels/numba/generated`.

    python scripts/generate_packing.py

A loop over rows with a variable shift leaves the compiler little to work with. Written out, each
word is one expression of constant shifts, which becomes vector instructions over the 32 lanes: ten
times as fast. The result is committed, because compiled code is cached on disk only for functions
of a real file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd
from pathlib import Path

LANES = 32
WIDTHS = range(1, 9)
SUMS = ("add_magnitudes", "add_squares", "add_squares_32")
ROWS = 16  # that are added at once
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "flowerpress" / "compressors" / "kernels" / "numba" / "generated"

HEAD = '''"""{title}

Written by ``scripts/generate_packing.py``: change it there.
"""

from __future__ import annotations

{imports}

from flowerpress.compressors.kernels.numba.jit import jit

{types}
'''
ARRAYS = "import numpy as np\nimport numpy.typing as npt"
U32 = "U32 = npt.NDArray[np.uint32]"
FLOATS = """Floats = npt.NDArray[np.floating[Any]]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]"""


def sources() -> dict[Path, str]:
    """Return the text of each module."""
    layout = "of 1024 codes of one to eight bits, unrolled; `kernels.packing` has the layout."
    packing = HEAD.format(title=f"Packing {layout}", imports=ARRAYS, types=U32)
    unpacking = HEAD.format(title=f"Unpacking {layout}", imports=ARRAYS, types=U32)
    title = "Sums over the lanes of 512 coordinates, unrolled, in the order of `kernels.sums`."
    imports = f"from typing import Any\n\n{ARRAYS}"
    summing = HEAD.format(title=title, imports=imports, types=FLOATS)
    return {
        FOLDER / "pack_lanes.py": module(packing, *map(pack, WIDTHS)),
        FOLDER / "unpack_lanes.py": module(unpacking, *map(unpack, WIDTHS)),
        FOLDER / "sum_lanes.py": module(summing, *map(add_up, SUMS)),
    }


def module(head: str, *functions: Iterable[str]) -> str:
    """Return a module's text."""
    return "\n\n".join([head, *("\n".join(lines) for lines in functions)])


def pack(width: int) -> Iterator[str]:
    """Yield the lines of a function that packs codes of `width` bits."""
    codes, words = period(width)
    margin, p = inside(codes)
    yield from opening("pack", "codes: U32, packed: U32", width)
    for word in range(words):
        rows = (row for row in range(codes) if -width < row * width - 32 * word < 32)
        terms = [shifted(f"codes[c + {row * LANES}]", row * width - 32 * word) for row in rows]
        yield f"{margin}packed[{p} + {word * LANES}] = np.uint32("
        yield from (f"{margin}    {'| ' * bool(i)}{term}" for i, term in enumerate(terms))
        yield f"{margin})"
    yield ""


def unpack(width: int) -> Iterator[str]:
    """Yield the lines of a function that unpacks codes of `width` bits."""
    codes, words = period(width)
    margin, p = inside(codes)
    yield from opening("unpack", "packed: U32, codes: U32", width)
    yield f"{margin}mask = np.uint32({(1 << width) - 1})"
    for word in range(words):
        yield f"{margin}w{word} = packed[{p} + {word * LANES}]"
    for row in range(codes):
        word, shift = divmod(row * width, 32)
        code = shifted(f"w{word}", -shift)
        if shift + width > 32:
            code = f"({code} | {shifted(f'w{word + 1}', 32 - shift)})"
        yield f"{margin}codes[c + {row * LANES}] = np.uint32({code} & mask)"
    yield ""


def add_up(name: str) -> Iterator[str]:
    """Yield the lines of a function that adds rows to the lanes' sums, one after the other."""
    yield "@jit"
    lanes = "F32" if name.endswith("_32") else "F64"
    yield f"def {name}(x: Floats, lanes: {lanes}) -> None:"
    yield f'    """Add coordinates w, w + 32, ..., w + {LANES * (ROWS - 1)} to lane w, in order."""'
    yield f"    for w in range({LANES}):"
    yield "        s = lanes[w]"
    for row in range(ROWS):
        value = f"x[w + {row * LANES}]"
        if name == "add_magnitudes":
            yield f"        s += np.float64(abs({value}))"
        elif name == "add_squares":
            yield f"        a = np.float64({value})"
            yield "        s += a * a"
        else:
            yield f"        s = np.float32(s + np.float32({value} * {value}))"
    yield "        lanes[w] = s"
    yield ""


def opening(verb: str, parameters: str, width: int) -> Iterator[str]:
    """Yield the lines up to the loop over the lanes."""
    codes, words = period(width)
    yield "@jit"
    yield f"def {verb}_{width}({parameters}) -> None:"
    yield f'    """{verb.capitalize()} 1024 codes of {width} bits."""'
    if codes == LANES:  # one round of the loop over groups, so no loop
        yield f"    for c in range({LANES}):"
    else:
        yield f"    for group in range({LANES // codes}):"
        yield f"        for lane in range({LANES}):"
        yield f"            c, p = {codes * LANES} * group + lane, {words * LANES} * group + lane"


def inside(codes: int) -> tuple[str, str]:
    """Return the margin of what is inside the loops, and the name of its first word."""
    return (" " * 8, "c") if codes == LANES else (" " * 12, "p")


def period(width: int) -> tuple[int, int]:
    """Return after how many codes and words of a lane the shifts repeat."""
    common = gcd(width, 32)
    return 32 // common, width // common


def shifted(value: str, shift: int) -> str:
    """Return `value`, shifted left, or right for a negative `shift`."""
    if not shift:
        return value
    return f"({value} {'<<' if shift > 0 else '>>'} np.uint32({abs(shift)}))"


if __name__ == "__main__":
    for path, text in sources().items():
        path.write_text(text, encoding="utf-8")
