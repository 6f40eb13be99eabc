"""When the loss of plasticity is warned of, by numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest

from orchestrator.results.diagnostics.losing import late_gap, means, plasticity_warning


def rows(gaps: Mapping[int, Sequence[float]], dead: float | None = None) -> pd.DataFrame:
    """Return rows of trials: task -> the gap of each trial, and the share of dead units after the last of them."""
    found = [
        {"key": str(trial), "after_task": task, "name": "plasticity_gap", "part": "", "value": gap}
        for task, values in gaps.items()
        for trial, gap in enumerate(values)
    ]
    if dead is not None:
        found.append({"key": "0", "after_task": max(gaps), "name": "dead_units", "part": "", "value": dead})
    return pd.DataFrame(found, columns=["key", "after_task", "name", "part", "value"])


def test_the_late_gap_is_that_of_the_second_half() -> None:
    """Of tasks 1 to 4 those from 2.5 on are late: -0.1, -0.3, -0.2 and -0.2 have the mean -0.2."""
    mean, error = late_gap(rows({1: [0.5, 0.5], 2: [0.4, 0.4], 3: [-0.1, -0.3], 4: [-0.2, -0.2]}))
    assert mean == pytest.approx(-0.2)
    assert error == pytest.approx(2 * math.sqrt((0.01 + 0.01) / 3) / 2)


def test_what_was_caught_up_on_the_last_task_is_not_lost() -> None:
    mean, _ = late_gap(rows({3: [-0.5, -0.5], 4: [0.0, 0.0]}))
    assert mean == 0.0


@pytest.mark.parametrize("gaps", [{}, {4: [-0.5]}, {4: [-0.5, -0.5]}])
def test_fewer_than_three_values_say_nothing(gaps: dict[int, list[float]]) -> None:
    assert math.isnan(late_gap(rows(gaps))[0])
    assert plasticity_warning("naive", rows(gaps)) == ""


def test_a_method_that_lags_is_named_with_the_cures() -> None:
    found = plasticity_warning("ewc", rows({3: [-0.3, -0.3], 4: [-0.3, -0.3]}, dead=0.57))
    assert found == (
        "ewc is losing its plasticity: early in a late task it is 0.30 below a fresh network, and 57 % of its units "
        "are dead. What helps: a penalty that decays (penalty_decay below 1, or fisher_decay, γ, below 1 with variant: "
        "online); replay; shrink-and-perturb: weights times a factor below 1, plus noise, before a task"
    )


def test_cures_are_those_of_the_method() -> None:
    lagging = rows({4: [-0.3, -0.3, -0.31]}, dead=0.1)
    assert "units" not in plasticity_warning("naive", lagging)
    combined = plasticity_warning("replay+ewc", lagging)
    assert "penalty_decay" in combined
    assert "; replay;" not in combined, "it replays already"
    assert "equal_share" in plasticity_warning("packnet", lagging)


@pytest.mark.parametrize("gaps", [[-0.04, -0.04, -0.04], [0.3, 0.3, 0.3], [-0.4, 0.3, -0.1]])
def test_small_gaps_and_chance_are_not_warned_of(gaps: list[float]) -> None:
    """The mean of the last is -0.067, less than its two standard errors."""
    assert plasticity_warning("naive", rows({4: gaps})) == ""


def test_means_are_over_trials_and_in_the_order_of_the_tasks() -> None:
    found = means(rows({2: [0.1, 0.3], 1: [0.0, 1.0]}))
    assert found[["after_task", "value"]].to_dict("records") == [
        {"after_task": 1, "value": 0.5},
        {"after_task": 2, "value": pytest.approx(0.2)},
    ]
