"""The options of budgets and prices, and how their values are parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.execution.budget import Budget

TimeBudget = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Begin no trial after this time, such as 90s, 45min, 2h or 1h30min."),
]
TrialBudget = Annotated[str | None, typer.Option(metavar="N", help="Train no more trials than this in this run.")]
MaxCost = Annotated[
    str | None,
    typer.Option(metavar="MONEY", help="Begin no trial with which this run would cost more; needs a price."),
]
PricePerHour = Annotated[
    str | None,
    typer.Option(metavar="MONEY", help="What one CPU costs an hour; a trial pays for those it asks for."),
]
GpuPricePerHour = Annotated[str | None, typer.Option(metavar="MONEY", help="What one GPU costs an hour, likewise.")]

OPTIONS = {
    "seconds": "--time-budget",
    "trials": "--trial-budget",
    "cost": "--max-cost",
    "price_per_hour": "--price-per-hour",
    "gpu_price_per_hour": "--gpu-price-per-hour",
}
"""Field of a `Budget` -> the option that sets it."""


def parse_budget(
    time_budget: str | None = None,
    trial_budget: str | None = None,
    max_cost: str | None = None,
    price_per_hour: str | None = None,
    gpu_price_per_hour: str | None = None,
) -> Budget:
    """Return the budget that the options give.

    Raises:
        UsageError: with every fault of them.
    """
    from orchestrator.execution.budget import Budget, parse_duration

    texts = dict(zip(OPTIONS, (time_budget, trial_budget, max_cost, price_per_hour, gpu_price_per_hour), strict=True))
    values: dict[str, float | None] = {}
    faults = []
    for field, text in texts.items():
        if text is None:
            continue
        values[field] = parse_duration(text) if field == "seconds" else _number(text, field == "trials")
        if values[field] is None:
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            faults.append(f"{OPTIONS[field]}: expected {_EXPECTED[field]}, got '{shown}'")
            values[field] = 1.0  # so that what depends on it is checked too
    if faults := [*faults, *Budget.faults(values, OPTIONS)]:
        raise UsageError(*faults)
    trials = values.pop("trials", None)
    return Budget(trials=None if trials is None else int(trials), **values)


_MONEY = "an amount such as 20 or 0.9, without a currency"
_EXPECTED = {
    "seconds": "a duration such as 90s, 45min, 2h or 1h30min",
    "trials": "a whole number such as 500",
    "cost": _MONEY,
    "price_per_hour": _MONEY,
    "gpu_price_per_hour": _MONEY,
}


def _number(text: str, is_whole: bool) -> float | None:
    if is_whole:
        return int(text) if text.removeprefix("-").isdecimal() and len(text) <= 15 else None
    try:
        return float(text)
    except ValueError:
        return None
