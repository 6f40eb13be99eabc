"""Metrics of a sweep that Ray exports."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.cluster import Cluster
from orchestrator.execution.launch import CellMetrics, export_metrics
from orchestrator.execution.monitoring import prometheus
from orchestrator.execution.monitoring.prometheus import CellState, SweepMetrics
from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.protocol import run_trial
from tests.cluster.conftest import RAY_IN_THIS_PROCESS, SMALL

pytestmark = RAY_IN_THIS_PROCESS

Settings = list[tuple[str, float, str]]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return what is set from now on: the end of a gauge's name, the value, the state or cell."""
    found: Settings = []
    set_gauge = prometheus.Gauge.set

    def note(gauge: Any, value: float, tags: dict[str, str]) -> None:
        found.append((gauge.info["name"].removeprefix("continual_sweep_"), value, *tags.values()))
        set_gauge(gauge, value, tags)

    monkeypatch.setattr(prometheus.Gauge, "set", note)
    return found


def test_every_value_is_set_again_until_the_end(
    cluster: Cluster, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "SECONDS_BETWEEN_METRICS", 0.01)
    metrics, enough = SweepMetrics("small"), threading.Event()
    metrics.trials({"running": 1, "waiting": 2})
    metrics.cell("split-digits/task naive", CellState(3, 0, 0.5, 0.0))
    metrics.cell("split-digits/task ewc", CellState(0, 2))
    metrics.cell("split-digits/task naive", CellState(4, 1, 0.75, 0.0))
    with metrics.refreshed(lambda: metrics.trials({"running": 3})):
        while ("trials", 3, "running") not in settings:
            assert not enough.wait(0.01)
        settings.clear()
        while min(Counter(settings).values(), default=0) < 3:
            assert not enough.wait(0.01)
    n_at_the_end = len(settings)
    assert set(settings) == {
        ("trials", 3, "running"),
        ("trials", 2, "waiting"),
        ("feasible_suggestions", 4, "split-digits/task naive"),
        ("best_objective", 0.75, "split-digits/task naive"),
        ("feasible_suggestions", 0, "split-digits/task ewc"),
        ("stopped_suggestions", 1, "split-digits/task naive"),
        ("stopped_suggestions", 2, "split-digits/task ewc"),
        ("nearest_violation", 0.0, "split-digits/task naive"),
    }
    assert not enough.wait(0.1)
    assert len(settings) == n_at_the_end


def test_metrics_are_those_of_the_session_at_its_end(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    """What is set for the cell of each trial that ends comes to what all cells have at the end."""
    spec = parse_spec(SMALL | {"scenarios": ["split-digits/task"], "methods": ["naive", "replay"]})
    session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)
    metrics = SweepMetrics("small")
    export_metrics(session, metrics, session.search.cells)
    session.listen(CellMetrics(metrics))
    while not session.search.is_finished:
        trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
        session.finish(run_trial(trial, session.arrays(trial)))
    at_last = {(name, of): value for name, value, of in settings}
    settings.clear()
    export_metrics(session, metrics, session.search.cells)
    now = {(name, of): value for name, value, of in settings}
    assert now == {place: value for place, value in at_last.items() if place[0] != "rows_written"}
    assert at_last["trials", "completed"] == len(session.run.trials()) > 0
    assert at_last["trials", "running"] == at_last["trials", "waiting"] == 0
    assert at_last["feasible_suggestions", "split-digits/task replay"] > 0
    assert at_last["rows_written", "trials"] == len(session.run.trials())
    assert at_last["rows_written", "accuracy"] == len(session.run.accuracy())
    assert at_last["rows_written", "outcomes"] == len(session.run.example_outcomes())
