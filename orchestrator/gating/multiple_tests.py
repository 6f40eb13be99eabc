"""Tests that are many at once."""

from __future__ import annotations

import math
from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number (Holm 1979); NaN stays NaN and is not counted."""
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    found, largest = dict(p_values), 0.0
    for index, (p, name) in enumerate(known):
        largest = max(largest, min((len(known) - index) * p, 1.0))
        found[name] = largest
    return found
