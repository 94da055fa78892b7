"""The values of spec fields: from text, and checked."""

from __future__ import annotations


def whole(text: str) -> int:
    """Return the integer that `text` is.

    >>> whole("512")
    512
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be an integer, got {text!r}") from None


def real(text: str) -> float:
    """Return the number that `text` is."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"must be a number, got {text!r}") from None


def require_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ValueError unless `value` is an integer from `low` to `high`."""
    limit = f"in [{low}, {high}]" if high is not None else f">= {low}"
    good = isinstance(value, int) and not isinstance(value, bool)
    if not good or value < low or (high is not None and value > high):  # type: ignore[operator]
        raise ValueError(f"{name} must be an integer {limit}, got {value!r}")


def require_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_share(ratio: float | None, k: int | None, as_count: str) -> None:
    """Raise ValueError unless exactly one of `ratio` in (0, 1] and `k` >= 1 is given.

    `as_count` is how a spec begins that gives the count, such as "topk:k=".
    """
    if (ratio is None) == (k is None):
        raise ValueError("give either ratio or k, for example 0.01 or k=200")
    if ratio is not None and not 0 < ratio <= 1:
        is_count = 1 < ratio < 2**32 and float(ratio).is_integer()
        meant = f"; if the count is meant, write {as_count}{int(ratio)}" if is_count else ""
        raise ValueError(f"ratio must be in (0, 1], got {ratio!r}{meant}")
    if k is not None:
        require_whole("k", k, 1)


def kept(ratio: float | None, k: int | None, dim: int) -> int:
    """Return how many of `dim` coordinates are kept: at least one, at most all.

    >>> kept(0.01, None, 1050), kept(0.01, None, 3), kept(None, 5, 3)
    (11, 1, 3)
    """
    wanted = k if k is not None else int((ratio or 0.0) * dim + 0.5)
    return min(dim, max(1, wanted))
