"""The budgets of one command: how long it may take, how many trials it may train, and for how much money.

A budget ends a sweep early and changes nothing of what it computes, so it is no part of the spec or of a trial's key.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.search.suggestion import PlannedTrial
    from orchestrator.spec.fields import ResolvedRequest
    from orchestrator.spec.sweep_spec import SweepSpec

_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}

NAMES = {name: f"budget.{name}" for name in ("seconds", "trials", "cost", "price_per_hour", "gpu_price_per_hour")}
"""Field of a `Budget` -> what messages call it."""


@dataclass(frozen=True)
class Budget:
    """What one run of a sweep may spend; None is no limit.

    Once a budget is reached no trial begins; those in flight finish. Running the same sweep again goes on.

    Args:
        seconds: wall time, from the start of `run_sweep`.
        trials: trials that are trained, not counting those in the tables.
        cost: money for the trials of the run: the wall time of each × what its CPUs and GPUs cost.
        price_per_hour: of one CPU; nothing by default.
        gpu_price_per_hour: of one GPU; nothing by default.

    Raises:
        UsageError: if a budget is not above 0, a price is below 0, or a cost has no price, with every fault.
    """

    seconds: float | None = None
    trials: int | None = None
    cost: float | None = None
    price_per_hour: float | None = None
    gpu_price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if faults := self.faults(vars(self), NAMES):
            raise UsageError(*faults)

    @staticmethod
    def faults(values: Mapping[str, float | None], names: Mapping[str, str]) -> list[str]:
        """Return what is wrong with the values of fields, which messages call by `names`."""
        found = []
        for field in ("seconds", "trials", "cost"):
            value = values.get(field)
            if value is not None and not (math.isfinite(value) and value > 0):
                found.append(f"{names[field]}: expected more than 0, got {value:g}; leave it out for no limit")
        prices = ("price_per_hour", "gpu_price_per_hour")
        for field in prices:
            value = values.get(field)
            if value is not None and not (math.isfinite(value) and value >= 0):
                found.append(f"{names[field]}: expected 0 or more, got {value:g}; give the price of one for an hour")
        if values.get("cost") is not None and all(values.get(field) is None for field in prices):
            found.append(
                f"{names['cost']}: expected a price beside it; add {names['price_per_hour']} (of one CPU) or "
                f"{names['gpu_price_per_hour']} (of one GPU)"
            )
        return found

    def check(self, spec: SweepSpec, names: Mapping[str, str] = NAMES) -> None:
        """Refuse a maximal cost if some trials of a sweep would cost nothing by the prices.

        Raises:
            UsageError: with the price that is missing.
        """
        requests = dict.fromkeys(spec.resources.of(cell.scenario, *cell.names) for cell in spec.cells)
        for request in requests if self.cost is not None else ():
            missing = "gpu_price_per_hour" if request.gpus and self.gpu_price_per_hour is None else "price_per_hour"
            if self.price_of(request) == 0 or missing == "gpu_price_per_hour":
                raise UsageError(
                    f"{names['cost']}: expected prices for what trials use, and some ask for {request.cpus:g} CPUs and "
                    f"{request.gpus:g} GPUs; add {names[missing]}"
                )

    @property
    def has_price(self) -> bool:
        """Return whether a price is given."""
        return self.price_per_hour is not None or self.gpu_price_per_hour is not None

    def price_of(self, request: ResolvedRequest) -> float:
        """Return what a trial with this request costs an hour."""
        return request.cpus * (self.price_per_hour or 0.0) + request.gpus * (self.gpu_price_per_hour or 0.0)


class Spending:
    """What a run has spent of its budget, from now on.

    `reached` names the budget that ended the run; it is empty until then.

    Args:
        budget: the budget.
        clock: seconds of wall time.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.n_started = 0
        self._clock = clock
        self._start = clock()
        self._spent = 0.0
        self._reached = ""
        self._running: dict[str, tuple[float, PlannedTrial]] = {}
        self._ended: dict[str, list[float]] = {}

    def start(self, trial: PlannedTrial) -> None:
        """Note that a trial has its worker; a trial that is tried again goes on costing."""
        if trial.spec.key not in self._running:
            self.n_started += 1
            self._running[trial.spec.key] = self._clock(), trial

    def end(self, trial: PlannedTrial) -> None:
        """Note that a trial ended."""
        if trial.spec.key in self._running:
            begun, _ = self._running.pop(trial.spec.key)
            seconds = self._clock() - begun
            self._ended.setdefault(trial.cell.name, []).append(seconds)
            self._spent += self._cost(trial, seconds)

    @property
    def cost(self) -> float:
        """Return what the trials have cost so far, with those in flight."""
        now = self._clock()
        return self._spent + sum(self._cost(trial, now - begun) for begun, trial in self._running.values())

    @property
    def reached(self) -> str:
        """Return the budget that is spent, as in 'the time budget of 2h', or an empty text."""
        budget = self.budget
        if not self._reached:
            if budget.seconds is not None and self._clock() - self._start >= budget.seconds:
                self._reached = f"the time budget of {spelled(budget.seconds)}"
            elif budget.cost is not None and self.cost >= budget.cost:
                self._reached = self._of_cost()
        return self._reached

    def allows(self, trial: PlannedTrial, waiting: Collection[PlannedTrial]) -> bool:
        """Return whether one more trial may be handed out.

        Its cost is taken to be the mean of those of its cell that ended in this run, or else of all that did; before
        any has ended, it counts for nothing. If nothing that was handed out waits for its worker, the budget that
        refuses the trial is reached.

        Args:
            trial: the next one.
            waiting: trials that were handed out and have no worker yet.
        """
        budget, refused = self.budget, ""
        if self.reached:
            return False
        if budget.trials is not None and self.n_started + len(waiting) >= budget.trials:
            refused = f"the budget of {budget.trials} {'trial' if budget.trials == 1 else 'trials'}"
        elif budget.cost is not None and self._committed([*waiting, trial]) > budget.cost:
            refused = self._of_cost()
        if refused and not waiting:
            self._reached = refused
        return not refused

    def left(self) -> dict[str, float]:
        """Return what is left of each budget: `seconds`, `trials`, `cost`."""
        budget, found = self.budget, dict[str, float]()
        if budget.seconds is not None:
            found["seconds"] = max(budget.seconds - (self._clock() - self._start), 0.0)
        if budget.trials is not None:
            found["trials"] = max(budget.trials - self.n_started, 0)
        if budget.cost is not None:
            found["cost"] = max(budget.cost - self.cost, 0.0)
        return found

    def _committed(self, more: Iterable[PlannedTrial]) -> float:
        """Return what the run will have cost once all in flight and `more` have ended."""
        now, total = self._clock(), self._spent
        for begun, trial in self._running.values():
            total += self._cost(trial, max(now - begun, self._expected(trial)))
        return total + sum(self._cost(trial, self._expected(trial)) for trial in more)

    def _expected(self, trial: PlannedTrial) -> float:
        """Return about how many seconds a trial takes."""
        ended = self._ended.get(trial.cell.name) or [s for own in self._ended.values() for s in own]
        return sum(ended) / len(ended) if ended else 0.0

    def _cost(self, trial: PlannedTrial, seconds: float) -> float:
        return seconds / 3600 * self.budget.price_of(trial.request)

    def _of_cost(self) -> str:
        return f"the maximal cost of {self.budget.cost:g}"


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as `90s`, `45min`, `2h` or `1h30min`, or None if it is none."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*(d|h|min|m|s)\s*", text.strip().lower())
    units = [unit for _, unit in parts]
    rebuilt = "".join(f"{number}{unit}" for number, unit in parts)
    if not parts or rebuilt != re.sub(r"\s", "", text.lower()) or len(set(units)) < len(units):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def spelled(seconds: float) -> str:
    """Return a duration as `parse_duration` reads it."""
    parts, left = [], seconds
    for unit in ("h", "min"):
        n, left = divmod(left, _UNITS[unit])
        parts += [f"{n:.0f}{unit}"] if n else []
    return "".join([*parts, *([f"{left:g}s"] if left or not parts else [])])
