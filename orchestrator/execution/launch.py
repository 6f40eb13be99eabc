"""Connects a session to a cluster, shows where to watch it, exports its metrics, and runs it.

Ray is imported inside `launch`, after its first line is on the screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.execution.cluster import Cluster
    from orchestrator.execution.monitoring.prometheus import CellState, SweepMetrics
    from orchestrator.execution.session import Session
    from orchestrator.report.progress import ProgressDisplay
    from orchestrator.search.cell_search import CellSearch
    from orchestrator.trial.result import TrialResult
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.storage.base import ignore

_LEAST_REST = 20
"""A cell's metrics are not exported again before so many times the time that they took: they look at the whole cell."""


def run_session(session: Session, address: str | None, num_cpus: int | None, display: ProgressDisplay | None) -> None:
    """Run the trials that a session misses, if its budget allows some, log what happens, and close it.

    Args:
        session: the sweep; one that misses nothing is closed, and logs nothing.
        address: of a running cluster.
        num_cpus: of an embedded one.
        display: shows progress.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    from orchestrator.execution.monitoring.sweep_log import SweepLog

    log = None if session.search.is_finished else SweepLog(session.run)
    try:
        if log is not None:
            session.listen(log.trial_ended)
            log.begin(session)
            if not session.spending.reached:
                launch(session, address, num_cpus, display, log.say)
        session.close()
        if log is not None:
            log.end(session)
    except BaseException as fault:
        session.abandon()
        if log is not None:
            log.end(session, fault)
        raise
    finally:
        if log is not None:
            log.close()


def launch(
    session: Session,
    address: str | None,
    num_cpus: int | None,
    display: ProgressDisplay | None,
    note: Callable[[str], None] = ignore,
) -> None:
    """Run a session on the cluster at `address`, or on an embedded one.

    Args:
        session: the sweep.
        address: of a running cluster.
        num_cpus: of an embedded one.
        display: shows progress.
        note: called with a line on each event that is shown.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    if display is not None:
        display.connecting(address)
    from orchestrator.execution.cluster import connected
    from orchestrator.execution.monitoring.prometheus import SweepMetrics

    with connected(address, num_cpus) as cluster:
        metrics = SweepMetrics(session.run.where)
        export_metrics(session, metrics, session.search.cells)
        session.listen(CellMetrics(metrics))

        def update() -> None:
            metrics.trials(counts(session))
            metrics.workers(session.count_workers())

        with metrics.refreshed(update):
            _run(session, cluster, display, note)


def _run(session: Session, cluster: Cluster, display: ProgressDisplay | None, note: Callable[[str], None]) -> None:
    from orchestrator.execution.tuner import run_on_ray

    note(f"cluster: {'one of this sweep' if cluster.is_embedded else 'one that runs already'}")
    if display is None:
        run_on_ray(session, cluster, on_event=note)
        return
    if cluster.dashboard:
        display.say(f"Ray dashboard: {cluster.dashboard} (its token: ray get-auth-token)")
    display.start(session)

    def say(text: str) -> None:
        display.say(text)
        note(text)

    def draining(n_running: int) -> None:
        say(
            f"Interrupted: finishing {n_running} trials in flight. Ctrl-C again stops now. "
            "Either way, run the same command again to go on."
        )

    run_on_ray(session, cluster, draining, on_event=say)


class CellMetrics:
    """Listens to a session and exports the metrics of each cell in which a trial ended; of a large cell less often.

    Args:
        metrics: those that Ray exports.
    """

    def __init__(self, metrics: SweepMetrics) -> None:
        self._metrics = metrics
        self._due: dict[str, float] = {}

    def __call__(self, session: Session, planned: PlannedTrial, result: TrialResult) -> None:
        """Count the trial, and export what is due."""
        n_measured, n_kept = (sum(c is not None for row in of for c in row) for of in (result.n_correct, result.right))
        self._metrics.ended(planned.cell.name, result.costs.get("seconds"), n_measured, n_kept)
        cell, now = session.search.cell_of(planned), time.monotonic()
        is_due = cell.is_finished or now >= self._due.get(cell.cell.name, now)
        export_metrics(session, self._metrics, [cell] if is_due else [])
        if is_due:
            self._due[cell.cell.name] = now + (1 + _LEAST_REST) * (time.monotonic() - now)


def export_metrics(session: Session, metrics: SweepMetrics, cells: Iterable[CellSearch]) -> None:
    """Set the metrics that Ray exports from the state of the session.

    Args:
        session: the sweep.
        metrics: those that Ray exports.
        cells: the cells that may have changed.
    """
    metrics.trials(counts(session))
    for cell in cells:
        metrics.cell(cell.cell.name, state_of(cell))


def state_of(cell: CellSearch) -> CellState:
    """Return what is exported of a cell."""
    from orchestrator.execution.monitoring.prometheus import CellState

    feasible = cell.feasible()
    best = cell.best_of(feasible)
    nearest = cell.nearest_miss(cell.judged_split)
    return CellState(
        len(feasible),
        sum(suggestion.has_stopped() for suggestion in cell.suggestions),
        best.mean(cell.judged_split, cell.spec.objective) if best else None,
        nearest.total_violation(cell.judged_split, cell.spec) if nearest else None,
    )


def counts(session: Session) -> dict[str, int]:
    """Return the number of trials by state."""
    search, progress = session.search, session.progress
    return {
        "completed": progress.n_cached + progress.n_done - progress.n_failed,
        "failed": progress.n_failed,
        "running": len(search.running),
        "waiting": search.n_waiting,
    }
