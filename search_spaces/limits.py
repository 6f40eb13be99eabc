"""Limits on metrics and costs, and by how much a value violates one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from search_spaces.space import SpaceError

_LIMIT = re.compile(
    r"\s*(?P<metric>(?:[^<>=≤≥()\[\]]|\([^()]*\)|\[[^\[\]]*\])+?)\s*(?P<operator><=|>=|≤|≥)\s*(?P<limit>[-+.\deE]+)\s*(?P<percent>%?)\s*"
    r"(\(\s*tolerance\s+(?P<tolerance>[.\deE+-]+)\s*(?P<in_percent>%?)\s*\))?\s*",
    re.DOTALL,
)
_OPERATORS = {"≤": "<=", "≥": ">="}


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric or cost of a trial, aggregated over seeds.

    Args:
        metric: what it bounds: a metric or a cost, such as `worst_forgetting` or `auroc.forgetting[2023Q1]`.
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
        """Return the constraint of a text such as `worst_forgetting <= 0.05`, `… <= 5%` or `… (tolerance 0.01)`.

        The default tolerance is a tenth of the limit but at least 0.001, or 0.01 if the limit is 0.

        Raises:
            SpaceError: if the text has another form.
        """
        match = _LIMIT.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            limit = _number(match["limit"], match["percent"])
            tolerance = max(abs(limit) / 10, 1e-3)
            if match["tolerance"]:
                tolerance = _number(match["tolerance"], match["in_percent"])
            if limit == 0 and not match["tolerance"]:
                tolerance = 0.01
            if not (tolerance > 0 and math.isfinite(limit) and math.isfinite(tolerance)):
                raise ValueError
        except ValueError:
            raise SpaceError(
                f"expected 'METRIC <= NUMBER' or 'METRIC >= NUMBER', got '{text}'; for example worst_forgetting <= 0.05"
            ) from None
        operator = match["operator"]
        return cls(match["metric"], _OPERATORS.get(operator, operator), limit, tolerance)

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


def _number(text: str, percent: str | None) -> float:
    """Return the number of a text, which is in hundredths if a percent sign follows: 3% is 0.03 to the last bit."""
    return float(f"{text}e-2") if percent and "e" not in text.lower() else float(text) / (100 if percent else 1)
