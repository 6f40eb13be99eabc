"""When a method is losing its plasticity, and what is known to help."""

from __future__ import annotations

import math

import pandas as pd

LOST = 0.05
"""Accuracy that a trial lags behind a fresh network, from which on it is said to lose its plasticity."""

_MANY_DEAD = 0.3
"""Share of dead units from which on they are named."""

_CURES = {
    "ewc": "a penalty that decays (penalty_decay below 1, or fisher_decay, γ, below 1 with variant: online)",
    "si": "a smaller penalty_weight",
    "mas": "a smaller penalty_weight",
    "packnet": "a larger pruning_rate, or pruning: equal_share, so that later tasks have weights to train",
    "freeze": "fewer frozen_layers",
}
"""Part of a method -> what in its own hyper-parameters helps."""


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over trials of each quantity, part and task: after_task, name, part, value; by task."""
    found: pd.DataFrame = rows.groupby(["after_task", "name", "part"], sort=False)["value"].mean().reset_index()
    return found.sort_values("after_task", kind="stable", ignore_index=True)


def late_gap(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the mean plasticity gap on the late tasks, and twice its standard error over tasks and trials.

    Late is the second half of the tasks, or the last alone if its mean is smaller in size: what was caught up is not
    lost. Both are NaN with fewer than three values.

    Args:
        rows: the rows of some trials of a cell.
    """
    gaps = rows[rows["name"] == "plasticity_gap"]
    last = gaps["after_task"].max()
    late = gaps.loc[gaps["after_task"] >= (last + 1) / 2, "value"]
    if len(late) < 3:
        return math.nan, math.nan
    mean = max(float(late.mean()), float(gaps.loc[gaps["after_task"] == last, "value"].mean()))
    return mean, 2 * float(late.std(ddof=1)) / math.sqrt(len(late))


def plasticity_warning(method: str, rows: pd.DataFrame) -> str:
    """Return a sentence if a method is losing its plasticity, else nothing.

    It does if, on the last task and in the mean of the second half of them, its trials are `LOST` or more below a fresh
    network after as many steps on the same data, and by more than two standard errors.
    Source of the last cure: Ash & Adams 2020, arXiv 1910.08475; of it against lost plasticity: Dohare et al. 2024.

    Args:
        method: its name.
        rows: the rows of the trials that stand for it.
    """
    gap, error = late_gap(rows)
    if math.isnan(gap + error) or gap > -LOST or gap + error >= 0:
        return ""
    dead = rows[(rows["name"] == "dead_units") & (rows["part"] == "")].groupby("after_task")["value"].mean()
    many = (
        f", and {100 * dead.iloc[-1]:.0f} % of its units are dead" if len(dead) and dead.iloc[-1] >= _MANY_DEAD else ""
    )
    own = [_CURES[part] for part in method.split("+") if part in _CURES]
    replay = [] if "replay" in method else ["replay"]
    cures = [
        *dict.fromkeys(own),
        *replay,
        "shrink-and-perturb: weights times a factor below 1, plus noise, before a task",
    ]
    return (
        f"{method} is losing its plasticity: early in a late task it is {-gap:.2f} below a fresh network{many}. "
        f"What helps: {'; '.join(cures)}"
    )
