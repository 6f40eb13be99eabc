"""Old runs stay readable: a run folder of every schema version that was ever written, as it was written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from orchestrator import api, compaction
from orchestrator.run import Run
from orchestrator.schema import READERS, SCHEMA_VERSION, SCHEMAS
from orchestrator.show import answer
from orchestrator.summary import summarise

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(params=sorted(READERS))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Return a copy of the run folder of one version."""
    return api.open_run(shutil.copytree(FIXTURES / f"run-schema-{request.param}", tmp_path / "run"))


def test_every_version_has_a_reader_and_a_fixture() -> None:
    assert sorted(READERS) == list(range(1, SCHEMA_VERSION + 1))
    assert sorted(p.name for p in FIXTURES.glob("run-schema-*")) == [f"run-schema-{v}" for v in sorted(READERS)]


def test_an_old_run_is_read_in_full(run: Run) -> None:
    trials, accuracy = run.trials(), run.accuracy()
    assert list(trials.columns) == SCHEMAS["trials"].names
    assert list(accuracy.columns) == SCHEMAS["accuracy"].names
    assert (len(trials), len(accuracy)) == (6, 90)
    assert sorted(trials["method"]) == ["joint", "joint", "naive", "naive", "replay", "replay"]
    row = trials.set_index("key").loc["030f807b01fc3a08"]
    assert (row["scenario"], row["method"], row["phase"], row["seed"]) == (
        "split-digits/task",
        "replay",
        "confirm",
        1000,
    )
    assert row["average_accuracy"] == pytest.approx(0.7717527386541472, abs=0)
    assert row["intransigence"] == pytest.approx(0.15289514866979656, abs=0)
    assert math.isnan(row["forward_transfer"])
    assert row["started_at"] == pd.Timestamp("2026-11-21 01:24:25.814608+00:00")
    assert run.matrix("030f807b01fc3a08").shape == (5, 5)


def test_an_old_run_is_complete_and_gives_its_answer(run: Run) -> None:
    assert run.n_missing(run.spec) == 0
    assert len(run.outcomes()) == 6
    (scenario,) = summarise(run.spec, run.trials())
    assert any(line.startswith("Best feasible: replay") for line in answer(run.spec, scenario))


def test_an_old_run_is_compacted_into_todays_schema(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.0)
    before = run.trials()
    assert [done.n_after for done in api.compact(run.path)] == [1, 1]
    pd.testing.assert_frame_equal(before, run.trials())
