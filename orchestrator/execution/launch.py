"""Connects a session to a cluster, shows where to watch it, exports its metrics, and runs it.

Ray is imported inside `launch`, after its first line is on the screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.execution.cluster import Cluster
    from orchestrator.execution.prometheus import SweepMetrics
    from orchestrator.execution.session import Session
    from orchestrator.report.progress import ProgressDisplay
    from orchestrator.search.cell_search import CellSearch


def launch(session: Session, address: str | None, num_cpus: int | None, display: ProgressDisplay | None) -> None:
    """Run a session on the cluster at `address`, or on an embedded one.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    if display is not None:
        display.connecting(address)
    from orchestrator.execution.cluster import connected
    from orchestrator.execution.prometheus import SweepMetrics

    with connected(address, num_cpus) as cluster:
        metrics = SweepMetrics(session.spec.name)
        export_metrics(session, metrics, session.search.cells)
        session.listen(lambda now, planned, result: export_metrics(now, metrics, [now.search.cell_of(planned)]))
        with metrics.refreshed(lambda: metrics.trials(counts(session))):
            _run(session, cluster, display)


def _run(session: Session, cluster: Cluster, display: ProgressDisplay | None) -> None:
    from orchestrator.execution.tuner import run_on_ray

    if display is None:
        run_on_ray(session, cluster)
        return
    if cluster.dashboard:
        display.say(f"Ray dashboard: {cluster.dashboard} (its token: ray get-auth-token)")
    display.start(session)

    def draining(n_running: int) -> None:
        display.say(
            f"Interrupted: finishing {n_running} trials in flight. Ctrl-C again stops now. "
            "Either way, run the same command again to go on."
        )

    run_on_ray(session, cluster, draining, on_event=display.say)


def export_metrics(session: Session, metrics: SweepMetrics, cells: Iterable[CellSearch]) -> None:
    """Set the metrics that Ray exports from the state of the session.

    Args:
        session: the sweep.
        metrics: those that Ray exports.
        cells: the cells that may have changed.
    """
    metrics.trials(counts(session))
    for cell in cells:
        feasible = cell.feasible()
        best = cell.best_of(feasible)
        objective = best.mean(cell.judged_split, session.spec.objective) if best else None
        metrics.cell(cell.cell.name, len(feasible), objective)


def counts(session: Session) -> dict[str, int]:
    """Return the number of trials by state."""
    search, progress = session.search, session.progress
    return {
        "completed": progress.n_cached + progress.n_done - progress.n_failed,
        "failed": progress.n_failed,
        "running": len(search.running),
        "waiting": search.n_waiting,
    }
