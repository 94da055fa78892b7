"""A strict reader of LIBSVM text, plain or gzipped: `label index:value index:value ...` lines.

Indices start at 1 and ascend within a line. Everything from `#` on is a comment; empty lines are
skipped. Whatever else a line holds is an error that names the file and the line.
"""

from __future__ import annotations

import gzip
import math
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

_MOST_BYTES = 4 * 2**30


def read_libsvm(
    path: str | Path, dim: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    r"""Read a LIBSVM file into a dense matrix.

    Dense suits the classical binary sets (up to 50,000 rows of 300 features: 120 MB); a matrix of
    more than 4 GiB is refused.

    Parameters
    ----------
    path : path
        The file; gzip is recognised by its first bytes.
    dim : int, optional
        Number of features. Default: the largest index in the file.

    Returns
    -------
    features : array, shape (N, dim), float64
        Absent entries are zero.
    labels : array, shape (N,), float64
        Labels as they stand in the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is empty, broken, or too large; says where.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "two.libsvm")
    ...     _ = file.write_text("+1 1:0.5 3:2\n-1 2:1\n")
    ...     features, labels = read_libsvm(file)
    >>> features
    array([[0.5, 0. , 2. ],
           [0. , 1. , 0. ]])
    >>> labels
    array([ 1., -1.])
    """
    path = Path(path)
    labels, starts = array("d"), array("q", [0])
    columns, values = array("q"), array("d")
    for number, line in _lines(path):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            _append(fields, labels, columns, values, dim)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        starts.append(len(columns))
    if not labels:
        raise ValueError(f"{path}: holds no example")
    column = np.array(columns, dtype=np.int64)
    features = dim or int(column.max(initial=-1)) + 1
    if features < 1:
        raise ValueError(f"{path}: holds no feature")
    if (size := len(labels) * features * 8) > _MOST_BYTES:
        raise ValueError(
            f"{path}: {len(labels)} rows of {features} features take {size / 2**30:.1f} GiB as a "
            f"dense matrix; at most {_MOST_BYTES / 2**30:.0f} GiB are read"
        )
    matrix = np.zeros((len(labels), features))
    rows = np.repeat(np.arange(len(labels)), np.diff(np.array(starts)))
    matrix[rows, column] = np.array(values)
    return matrix, np.array(labels)


def _append(
    fields: list[str],
    labels: array[float],
    columns: array[int],
    values: array[float],
    dim: int | None,
) -> None:
    """Append one line's label, columns (from 0) and values."""
    label = _number(fields[0], "label")
    last = 0
    for field in fields[1:]:
        index, colon, value = field.partition(":")
        if not (colon and index.isdecimal() and index.isascii()):
            raise ValueError(f"expected index:value with a whole index, not {field[:40]!r}")
        # Indices of more digits than any feature could have are refused before they overflow.
        column = int(index) if len(index) <= 18 else 0
        if column < 1:
            raise ValueError(f"index {index[:40]} is out of range; indices start at 1")
        if dim is not None and column > dim:
            raise ValueError(f"index {column} is above the {dim} features asked for")
        if column <= last:
            raise ValueError(f"index {column} comes after {last}; indices must ascend")
        columns.append(column - 1)
        values.append(_number(value, f"value of index {column}"))
        last = column
    labels.append(label)


def _number(text: str, what: str) -> float:
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} is {text[:40]!r}, not a finite number")
    return number


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line), refusing broken gzip data and anything but ASCII."""
    number = 0
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=file) if zipped else file)
            for raw in stream:
                number += 1
                yield number, raw.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{path}, line {number}: holds bytes that are not ASCII text") from None
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no file {str(path)!r}; give the path of a LIBSVM text file, plain or .gz"
        ) from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a directory, not a LIBSVM text file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}, after line {number}: broken gzip data: {error}") from None
