"""What a cell is asked: an Optuna study that is a pure function of the spec and of what it was told.

The study is asked in batches of a fixed size, each with a sampler seeded for it, and told the results of a batch in
number order. What it answered is logged under a hash of everything that the answer depends on, so that reading a run
need not ask again. The log is a cache: without it, the same suggestions are made.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from typing import Literal

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.core.canonical import canonical_json
from orchestrator.core.metrics import lower_is_better
from orchestrator.search.suggestion import rank
from orchestrator.spec.cells import Cell
from orchestrator.spec.sweep_spec import SweepSpec
from search_spaces import Distribution, IntRange, Value, to_optuna
from strategies import derive_seed

_STARTUP_SUGGESTIONS = 8
"""Random suggestions before TPE takes over; a constant, so that a larger budget extends a search without redoing it."""

_DIVERGED = 1e6
"""Violation, in tolerances, of a suggestion whose trials did not complete: worse than any that did."""

_NEWEST_SHOWN, _MOST_SHOWN = 100, 125
"""How many of the newest results, and of all, a sampler sees."""

_WIDE = 50
"""A range of more whole numbers is searched as one of real numbers: Optuna takes time for each pair of them."""

SuggestionLog = dict[str, list[dict[str, Value]]]
"""Hash of everything that a batch of suggestions depends on -> the batch."""


class CellStudy:
    """The study of one cell.

    Args:
        spec: the sweep.
        cell: the cell, which is searched.
        log: what was asked before; what is asked now is added to it.
    """

    def __init__(self, spec: SweepSpec, cell: Cell, log: SuggestionLog) -> None:
        self._spec, self._cell, self._log = spec, cell, log
        self._whole = {} if spec.is_of_before else _wide_ranges(cell.space.distributions)
        self._distributions = to_optuna(cell.space.distributions) | {
            name: FloatDistribution(one.low - 0.5, one.high + 0.5, log=one.log) for name, one in self._whole.items()
        }
        self._told: list[FrozenTrial] = []
        self._worst: float | None = None
        self._digest = hashlib.sha256(
            canonical_json(
                {
                    "optuna": optuna.__version__,
                    "cell": cell.name,
                    "sampler": [spec.search.sampler, spec.search.seed, spec.search.batch],
                    "direction": direction_of(spec),
                    "space": {name: repr(one) for name, one in cell.space.distributions.items()},
                    "start": dict(cell.space.start),
                    "is_of_before": spec.is_of_before,
                    "shown": [_NEWEST_SHOWN, _MOST_SHOWN, _WIDE, _STARTUP_SUGGESTIONS],
                }
            ).encode()
        )

    def ask(self, n: int) -> list[dict[str, Value]]:
        """Return the next batch of `n` suggestions, from the log if it has them."""
        key = self._key(n)
        if key not in self._log:
            self._log[key] = self._sample(n)
        return [dict(values) for values in self._log[key]]

    def tell(
        self,
        hyperparameters: Mapping[str, Value],
        objective: float,
        violations: list[float],
        has_stopped: bool = False,
    ) -> FrozenTrial:
        """Take the result of the next suggestion in number order.

        Args:
            hyperparameters: the suggestion.
            objective: mean objective; NaN if a trial did not complete.
            violations: of each limit, in tolerances; NaN if not known.
            has_stopped: whether a rule stopped one of its trials, so that the violations are those at a boundary.
        """
        names = [constraint.name for constraint in self._spec.constraints]
        is_known = (math.isfinite(objective) or has_stopped) and all(map(math.isfinite, violations))
        state = TrialState.COMPLETE
        constraints = dict(zip(names, violations, strict=True)) if is_known else dict.fromkeys(names, _DIVERGED)
        if self._spec.is_of_before:
            state, constraints = (state, constraints) if is_known else (TrialState.FAIL, {})
        elif not names:
            constraints = {"completed": 0.0 if is_known else _DIVERGED}
        value = objective if math.isfinite(objective) and is_known else (self._worst or 0.0)  # the worst that was told
        told = create_trial(
            state=state,
            value=None if state == TrialState.FAIL else value,
            params=dict(hyperparameters),
            distributions=self._distributions,
            constraints=constraints,
        )
        if state != TrialState.FAIL:
            worst = max if lower_is_better(self._spec.objective) else min
            self._worst = value if self._worst is None else worst(self._worst, value)
        told.number = len(self._told)
        self._told.append(told)
        self._digest.update(repr((state.name, value, sorted(constraints.items()))).encode())
        return told

    def _sample(self, n: int) -> list[dict[str, Value]]:
        """Ask Optuna, in a study of what is shown to it."""
        settings, first = self._spec.search, len(self._told)
        seed = derive_seed(settings.seed, self._cell.name, first // settings.batch)
        study = optuna.create_study(direction=direction_of(self._spec), sampler=_sampler(settings.sampler, seed))
        study.add_trials(self._shown())
        if first == 0 and self._cell.space.start:
            study.enqueue_trial(dict(self._cell.space.start))
        return [self._rounded(study.ask(self._distributions).params) for _ in range(n)]

    def _rounded(self, asked: Mapping[str, Value]) -> dict[str, Value]:
        """Return a suggestion with whole numbers where they are asked for."""
        values = dict(asked)
        for name, one in self._whole.items():
            values[name] = min(max(round(float(asked[name] or 0)), one.low), one.high)
        return values

    def _shown(self) -> list[FrozenTrial]:
        """Return what the sampler sees: all that was told, or the newest of it and the best of the rest.

        Optuna takes time for each, and of many its TPE learns from the 25 best alone.
        """
        if len(self._told) <= _MOST_SHOWN or self._spec.is_of_before:
            return self._told
        old, new = self._told[:-_NEWEST_SHOWN], self._told[-_NEWEST_SHOWN:]

        def place(trial: FrozenTrial) -> tuple[float, float, int]:
            violation = sum(max(found, 0.0) for found in trial.constraints.values())
            return violation, rank(self._spec.objective, trial.value or 0.0), trial.number

        best = sorted(old, key=place)[: _MOST_SHOWN - _NEWEST_SHOWN]
        return sorted(best, key=lambda trial: trial.number) + new

    def _key(self, n: int) -> str:
        digest = self._digest.copy()
        digest.update(f"{len(self._told)} {n}".encode())
        return digest.hexdigest()[:32]


def _wide_ranges(space: Mapping[str, Distribution]) -> dict[str, IntRange]:
    """Return the ranges of many whole numbers without a step."""
    return {
        name: one
        for name, one in space.items()
        if isinstance(one, IntRange) and one.step == 1 and one.high - one.low >= _WIDE
    }


def direction_of(spec: SweepSpec) -> Literal["minimize", "maximize"]:
    """Return whether Optuna minimizes or maximizes the objective."""
    return "minimize" if lower_is_better(spec.objective) else "maximize"


def encode_log(log: SuggestionLog) -> bytes:
    """Return a log as the bytes that `decode_log` reads."""
    return json.dumps(log, sort_keys=True, separators=(",", ":")).encode()


def decode_log(content: bytes) -> SuggestionLog:
    """Return the log in `content`; an empty one if it is damaged, since it is only a cache."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    is_log = isinstance(found, dict) and all(
        isinstance(batch, list) and all(isinstance(values, dict) for values in batch) for batch in found.values()
    )
    return found if is_log else {}


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    seed %= 2**32
    match name:
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "gp":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_STARTUP_SUGGESTIONS)
        case _:
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_SUGGESTIONS)
