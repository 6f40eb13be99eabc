"""Values as people read them: metrics and costs with their units, durations, counts, hyper-parameters."""

from __future__ import annotations

from typing import Any

from orchestrator.core.metrics import UNKNOWN as UNKNOWN
from orchestrator.core.metrics import number as number


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
