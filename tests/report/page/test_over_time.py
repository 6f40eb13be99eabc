"""The figure of scores while tasks were trained: the numbers of the table, and nothing without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.report.page.content import PageContent
from orchestrator.report.page.figure import Figure
from orchestrator.report.page.render import content_of
from orchestrator.results.run import Run
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.trial.result import TrialResult
from tests.report.page.world import TASKS, made_up, make_run

FEW: dict[str, Any] = {"scenarios": ["split-digits/task"], "methods": ["naive", "joint", "replay"]}
N_EACH = 130


def evaluated(planned: PlannedTrial) -> TrialResult:
    """Return a made-up result with evaluations within tasks; seeds have tasks of slightly different sizes."""
    result, shift = made_up(planned), planned.spec.seed % 3
    moments = [[task, 1000 * task + 7 * (place + 1) + shift] for task in range(len(TASKS)) for place in range(N_EACH)]
    row = [[25, 25], [25, 25], [20, 20]]
    return replace(
        result,
        moments=moments,
        measured_within=[[row] * (task + 1) for task, _ in moments],
        ranked_within=[[{}] * (task + 1) for task, _ in moments],
        n_given=[1000 * (task + 1) + shift for task in range(len(TASKS))],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = {"training": {"evaluate_every": 7}}
    return make_run(tmp_path_factory.mktemp("over-time") / "run", {**FEW, **training}, result=evaluated)


def figure_of(content: PageContent) -> Figure:
    (figure,) = [figure for figure in content.figures if figure.name.endswith("over-time")]
    return figure


def test_rows_are_means_over_the_trials_that_stand_for_a_method(run: Run) -> None:
    rows = pd.DataFrame(figure_of(content_of(run)).rows)
    trials, table = run.trials(), run.evaluations()
    test = trials[(trials["phase"] == "confirm") & trials["is_chosen"].fillna(False) & (trials["method"] == "naive")]
    found = table[table["key"].isin(test["key"])]
    own = rows[rows["method"] == "naive"]
    ends = own[own["ends"] == 1].set_index(["during", "task"])
    for during, name in enumerate(TASKS):
        last = found[(found["during_task"] == during) & (found["n_given"] >= 1000 * (during + 1))]
        assert len(last) == len(test) * (during + 1)
        for task, values in last.groupby("task_name")["score"]:
            drawn = ends.loc[(name, task)]
            assert (drawn["mean"], drawn["low"], drawn["high"]) == pytest.approx(
                (values.mean(), values.min(), values.max())
            )
    assert set(own.loc[own["ends"] == 0, "mean"]) == {0.8}


def test_of_many_evaluations_some_are_drawn(run: Run) -> None:
    """524 of each trial: every third, and the last of each task."""
    rows = pd.DataFrame(figure_of(content_of(run)).rows)
    naive = rows[rows["method"] == "naive"]
    assert naive.groupby("during")["n_given"].nunique().tolist() == [N_EACH // 3 + 2] * len(TASKS)


def test_a_run_without_has_no_such_figure(tmp_path: Path) -> None:
    names = [figure.name for figure in content_of(make_run(tmp_path / "run", FEW)).figures]
    assert "scenario-0-curves" in names
    assert "scenario-0-over-time" not in names
