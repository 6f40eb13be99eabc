"""The metrics of a cell are exported as its trials end, and never take much of the driver's time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.execution import launch
from orchestrator.execution.launch import CellMetrics


class Exported(list[Any]):
    """What was exported; trials that end are counted elsewhere."""

    def ended(self, cell: str, seconds: float, n_measured: int, n_kept: int) -> None:
        assert (cell, seconds, n_measured, n_kept) == ("a cell", 2.0, 2, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list with the time, in seconds; exporting a cell takes one."""
    now = [100.0]

    def export(session: Any, metrics: Any, cells: list[Any]) -> None:
        metrics.append((now[0], len(cells)))
        now[0] += len(cells)

    monkeypatch.setattr(launch, "export_metrics", export)
    monkeypatch.setattr(launch.time, "monotonic", lambda: now[0])
    return now


def test_a_slow_cell_is_exported_less_often(clock: list[float]) -> None:
    cell = SimpleNamespace(is_finished=False, cell=SimpleNamespace(name="a cell"))
    session: Any = SimpleNamespace(search=SimpleNamespace(cell_of=lambda planned: cell))
    exported = Exported()
    planned = SimpleNamespace(cell=cell.cell)
    ended = SimpleNamespace(n_correct=[[1, 2, None]], right=[[None, "gA==", None]], costs={"seconds": 2.0})
    listener = CellMetrics(exported)  # type: ignore[arg-type]
    for time in (100.0, 110.0, 120.0, 121.0, 130.0):
        clock[0] = time
        listener(session, planned, ended)
    assert exported == [(100.0, 1), (110.0, 0), (120.0, 0), (121.0, 1), (130.0, 0)], "the trials' counts are always set"
    cell.is_finished = True
    listener(session, planned, ended)
    assert exported[-1] == (130.0, 1), "how a cell ended is exported at once"
