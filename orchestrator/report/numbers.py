"""Values as people read them: metrics and costs with their units, durations, counts, hyper-parameters."""

from __future__ import annotations

import math
from typing import Any

UNKNOWN = "–"
"""What stands for a number that was not measured."""


def number(metric: str, value: float) -> str:
    """Return a metric or cost: bytes and seconds with their unit, the rest with 3 decimals."""
    if math.isnan(value):
        return UNKNOWN
    if metric.endswith("_bytes"):
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if abs(value) >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.0f} B"
    if metric.endswith("seconds"):
        return f"{value:.2f} s"
    if metric == "n_parameters":
        return f"{value:,.0f}"
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return a duration, such as `90 s`, `12 min` or `2 h 30 min`."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def money(amount: float) -> str:
    """Return an amount of money: 2 decimals, or 2 significant digits below 0.1."""
    return f"{amount:.2f}" if amount >= 0.1 or amount <= 0 else f"{amount:.2g}"


def value_text(value: Any) -> str:
    """Return the value of a hyper-parameter: floats with 4 significant digits, others unchanged."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
