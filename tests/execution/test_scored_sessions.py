"""A sweep's score from the trial to the tables and back: what is trained again if it changes, and what is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.execution.session import Session, outcome_of
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.protocol import run_trial
from tests.conftest import without_finals

FIELDS: dict[str, Any] = {
    "scenarios": ["tx/domain"],
    "methods": ["naive", "replay"],
    "seeds": {"search": 1, "confirm": 1},
    "search": {"suggestions": 2, "batch": 2},
    "model": {"hidden": [8]},
    "training": {"epochs": 2},
    "validation_share": 0.3,
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of three quarters, of which the second has no fraud among its rows."""
    generator = np.random.default_rng(0)
    quarter = np.repeat(["2023Q1", "2023Q2", "2023Q3"], 100)
    is_fraud = (generator.random(300) < 0.2) & (quarter != "2023Q2")
    values = generator.normal(size=(300, 2)) + 2 * is_fraud[:, None]
    frame = pd.DataFrame({"a": values[:, 0], "b": values[:, 1], "quarter": quarter})
    frame["outcome"] = np.where(is_fraud, "fraud", "legit")
    frame.to_csv(tmp_path / "tx.csv", index=False)
    return tmp_path / "tx.csv"


def sweep(table: Path, **fields: Any) -> tuple[Session, int]:
    """Run a sweep without Ray in one folder; return its session and how many trials were trained."""
    streams = {"tx": {"table": str(table), "label": "outcome", "task": "quarter"}}
    spec = parse_spec(without_finals(FIELDS | {"streams": streams} | fields))
    session, n = Session(spec, Run.create(table.parent / "run", spec), table.parent), 0
    while not session.search.is_finished:
        trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
        result = run_trial(trial, session.arrays(trial))
        assert result.status == "completed", result.reason
        session.finish(result)
        score = spec.score_of(trial.scenario)
        (stored,) = [o for key, o in session.run.outcomes(spec).items() if key == trial.key]
        live = outcome_of(result, spec, score)
        assert {k: v for k, v in stored.values.items() if v == v} == {k: v for k, v in live.values.items() if v == v}
        n += 1
    session.close()
    return session, n


def test_another_score_of_counts_trains_nothing(table: Path) -> None:
    """The accuracy table counts classes, so every such score follows from it."""
    _, n = sweep(table)
    assert n == 5
    limits = ["recall(fraud).worst_forgetting <= 0.9", "forgetting[2023Q1] <= 0.9", "worst_score >= 0.1"]
    session, n = sweep(table, score="balanced_accuracy", scores=["macro_f1"], limits=limits)
    assert n == 0
    for cell in session.search.cells:
        (outcome,) = cell.suggestions[0].outcomes["search"].values()
        assert math.isfinite(outcome.values["recall(fraud).worst_forgetting"])
        assert math.isfinite(outcome.values["forgetting[2023Q1]"])
        assert outcome.values["average"] != outcome.values["average_accuracy"]


def test_a_score_that_ranks_is_measured_once_it_is_asked_for(table: Path) -> None:
    _, n = sweep(table, score="auroc")
    assert n == 5
    session, n = sweep(table, score="accuracy", scores=["auroc"])
    assert n == 0, "the same trials"
    session, n = sweep(table)
    assert n == 5, "these have keys of their own"
    accuracy = session.run.accuracy()
    asked = accuracy[accuracy["auroc"].notna()]
    assert set(asked["task_name"]) == {"2023Q1", "2023Q3"}, "the second quarter has no fraud"
    rows = accuracy.iloc[0]
    assert list(rows["classes"]) == ["fraud", "legit"]
    assert rows["n_true"].sum() == rows["n_predicted"].sum() == rows["n_examples"]
    assert rows["n_right"].sum() == rows["n_correct"]


def test_the_row_says_which_score_it_holds(table: Path) -> None:
    session, _ = sweep(table, score={"tx/domain": "auroc"})
    trials = session.run.trials()
    assert set(trials["score"]) == {"auroc"}
    assert set(trials["constant_score"]) == {0.5}
    assert trials["untrained_score"].between(0, 1).all()
    assert (trials["average"] != trials["average_accuracy"]).all()
    key = trials["key"].iloc[0]
    matrix = session.run.matrix(key)
    assert list(matrix.index) == ["2023Q1", "2023Q2", "2023Q3"]
    assert matrix.loc["2023Q2"].isna().all(), "undefined, and not 0"


def test_rows_of_before_are_trained_again_only_for_what_they_do_not_tell(tmp_path: Path) -> None:
    """Those of schema 1 hold accuracy, so `worst_score` follows from them, and a recall does not."""
    import shutil

    run = Run.open(shutil.copytree(Path(__file__).parents[1] / "fixtures" / "run-schema-1", tmp_path / "run"))
    fields = run.spec.model_dump(mode="json")
    new = parse_spec(fields | {"limits": ["worst_score >= 0.01", "worst_forgetting_ever <= 0.99"]})
    assert run.n_missing(new) == 0
    assert all(math.isfinite(outcome.values["worst_score"]) for outcome in run.outcomes(new).values())
    assert run.n_missing(parse_spec(fields | {"score": "recall(1)"})) == 6
    assert run.n_missing(parse_spec(fields | {"limits": ["forgetting[0/1] <= 0.9"]})) == 6, "tasks had no names"
