"""Limits on metrics and costs, and by how much a value violates one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from search_spaces.space import SpaceError

_LIMIT = re.compile(
    r"^\s*(?P<metric>\w+)\s*(?P<operator><=|>=)\s*(?P<limit>[-+.\deE]+)\s*(\(\s*tolerance\s+(?P<tolerance>[.\deE+-]+)\s*\))?\s*$"
)


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric or cost of a trial, aggregated over seeds.

    Args:
        metric: a metric or cost column of the trials table.
        operator: `<=` or `>=`.
        limit: the bound, in the metric's unit.
        tolerance: > 0; the unit in which violations of several limits are compared.
    """

    metric: str
    operator: str
    limit: float
    tolerance: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Return the constraint of a text such as `worst_forgetting <= 0.05` or `... (tolerance 0.01)`.

        The default tolerance is a tenth of the limit but at least 0.001, or 0.01 if the limit is 0.

        Raises:
            SpaceError: if the text has another form.
        """
        match = _LIMIT.match(text)
        try:
            if match is None:
                raise ValueError
            limit = float(match["limit"])
            tolerance = float(match["tolerance"]) if match["tolerance"] else max(abs(limit) / 10, 1e-3)
            if limit == 0 and not match["tolerance"]:
                tolerance = 0.01
            if not (tolerance > 0 and math.isfinite(limit) and math.isfinite(tolerance)):
                raise ValueError
        except ValueError:
            raise SpaceError(
                f"expected 'METRIC <= NUMBER' or 'METRIC >= NUMBER', got '{text}'; for example worst_forgetting <= 0.05"
            ) from None
        return cls(match["metric"], match["operator"], limit, tolerance)

    @property
    def name(self) -> str:
        """Return the limit as text, without its tolerance."""
        return f"{self.metric} {self.operator} {self.limit:.12g}"

    def margin(self, value: float) -> float:
        """Return how far `value` is inside the limit, in the metric's unit; negative if it violates the limit."""
        return self.limit - value if self.operator == "<=" else value - self.limit

    def violation(self, value: float) -> float:
        """Return the violation in units of the tolerance; ≤ 0 if the limit is met."""
        return -self.margin(value) / self.tolerance
