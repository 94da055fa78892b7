"""Figures as text."""

from __future__ import annotations

from collections.abc import Mapping

from flowerpress.protocol import Metric


def format_bytes(count: int) -> str:
    """Format a number of bytes in decimal units.

    Examples
    --------
    >>> format_bytes(999), format_bytes(1_234), format_bytes(123_456_789)
    ('999 B', '1.23 kB', '123 MB')
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def format_metric(name: str, value: float) -> str:
    """Format a metric: accuracies in percent, others to four digits.

    Examples
    --------
    >>> format_metric("accuracy", 0.9312), format_metric("loss", 0.25)
    ('93.12 %', '0.25')
    """
    return f"{100 * value:.2f} %" if name == "accuracy" else f"{value:.4g}"


def format_metrics(head: str, metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Return those metrics that are single numbers as text, by name, sorted, after `head`.

    Examples
    --------
    >>> format_metrics("train ", {"loss": 0.25, "accuracy": 0.5, "recall": [0.1, 0.9]})
    {'train accuracy': '50.00 %', 'train loss': '0.25'}
    """
    return {
        head + name: format_metric(name, value)
        for name, value in sorted(metrics.items())
        if isinstance(value, int | float)
    }
