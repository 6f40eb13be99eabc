"""Which hyper-parameters matter: the share of the objective's variance that each explains."""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from orchestrator.search.cell_search import CellSearch
from orchestrator.search.study import direction_of
from orchestrator.spec.sweep_spec import SweepSpec
from search_spaces import to_optuna

_LEAST, _MOST = 12, 200
"""Suggestions that are asked for, and the newest that are looked at."""


def importances(spec: SweepSpec, search: CellSearch) -> dict[str, float]:
    """Return hyper-parameter -> share of the variance of the objective that it explains, the largest first.

    By fANOVA (Hutter et al. 2014), with a fixed seed. Empty for a cell with fewer than two hyper-parameters, with fewer
    than 12 suggestions whose objective is known, or where all are equal.
    """
    space = to_optuna(search.cell.space.distributions)
    values = [(s.hyperparameters, s.mean("validation", spec.objective)) for s in search.suggestions]
    known = [(given, value) for given, value in values if math.isfinite(value) and given.keys() == space.keys()]
    if len(space) < 2 or len(known) < _LEAST or len({value for _, value in known}) < 2:
        return {}
    study = optuna.create_study(direction=direction_of(spec))
    study.add_trials([create_trial(value=value, params=dict(g), distributions=space) for g, value in known[-_MOST:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
