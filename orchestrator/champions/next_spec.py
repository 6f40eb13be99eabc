"""The spec of a sweep over the next task of a model: what the model does not say has the defaults of a sweep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orchestrator.champions.card import Card
from orchestrator.champions.folder import read_folder
from search_spaces import TRAINING_KNOBS, default_space
from strategies import find_method

STREAM = "next"
"""The name of the stream in such a spec."""

LIMIT = "worst_forgetting <= 0.05"
"""What limits the drop of earlier tasks if the model was chosen under no limits."""


def next_spec(model: str, data: str, task: str, test_data: str | None = None) -> dict[str, Any]:
    """Return the fields of a sweep over an update: its scenario, method, network, training, limits and what is fixed.

    What the model's kept state was made with, and what is never searched, stays as the model has it.

    Args:
        model: its folder.
        data: the examples of the new task.
        task: its name.
        test_data: held-out examples of the new task.

    Raises:
        RunFolderError: if there is no model.
    """
    card, _ = read_folder(model)
    trial = card.trial
    stream = {"model": model, "data": data, "task": task, **({"test_data": test_data} if test_data is not None else {})}
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", f"{Path(model).name}-{task}").strip("-._")[:64] or "update",
        "scenarios": [f"{STREAM}/{trial.incremental_type}"],
        "methods": [trial.method],
        "limits": list(card.limits) or [LIMIT],
        "objective": card.objective,
        "score": card.score,
        "spaces": {trial.method: _kept(card)},
        "model": trial.model.model_dump(mode="json"),
        "training": trial.training.model_dump(mode="json"),
        "streams": {STREAM: {"from_model": stream}},
    }


def _kept(card: Card) -> dict[str, Any]:
    """Return the hyper-parameters that stay as the model has them."""
    method, own = find_method(card.trial.method), card.trial.hyperparameters
    searched = set(default_space(method)) - method.fixed_by_state
    return {name: value for name, value in own.items() if name not in searched or name in TRAINING_KNOBS}
