"""Open a run folder, and what is made from one: its page, its figures, fewer files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.results.compaction import Compacted
    from orchestrator.results.run import Run
    from orchestrator.storage.base import Place


def open_run(path: Place, cached: bool = False) -> Run:
    """Return a run folder, whose tables are data frames.

    Args:
        path: the folder, a path or a URI of an object store.
        cached: read each table once and never again, even if a sweep adds rows meanwhile.

    Raises:
        RunFolderError: if there is none.
    """
    from orchestrator.results.run import Run

    return Run.open(path, cached)


def report(run: str | Path, file: str | Path | None = None) -> str:
    """Write the page of a run and return where it is.

    Args:
        run: the run folder.
        file: where to; `report.html` in the run folder by default.

    Raises:
        MissingExtraError: if the extra `report` is not installed.
        RunFolderError: if there is no such run, or its tables are damaged.
        StorageError: if it cannot be written; a page that is there stays as it is.
    """
    from orchestrator.report.page.writing import write_page
    from orchestrator.results.run import Run

    return write_page(Run.open(run, cached=True), None if file is None else Path(file))


def plot(
    run: Run | Place, kind: str, scenario: str | None = None, metric: str | None = None, width: str = "text"
) -> Figure:
    """Return a figure of a run as a Matplotlib `Figure`, which `savefig` writes and a notebook shows.

    Args:
        run: the run, or its folder.
        kind: `matrix`, `curves`, `frontier`, `bars` or `critical-difference`.
        scenario: the one that is drawn; all by default.
        metric: the limit's metric of `frontier`, or the only one of `bars`, or what `critical-difference` ranks by.
        width: `column` (3.5 inches, one of a paper's two) or `text` (7 inches).

    Raises:
        UsageError: if an argument is unknown or does not fit the run.
        RunFolderError: if there is no such run, or it has nothing to draw yet.
        MissingExtraError: if the extra `report` is not installed.
    """
    from orchestrator.report.figures.kinds import draw
    from orchestrator.results.run import Run

    return draw(run if isinstance(run, Run) else Run.open(run, cached=True), kind, scenario, metric, width).figure


def compact(run: str | Path) -> list[Compacted]:
    """Merge the small files of a run's tables into few; readers see each row once before, during and after.

    Raises:
        RunFolderError: if there is no such run, a sweep uses it, or it lies in an object store.
        StorageError: if the system refuses; no row is lost.
    """
    from orchestrator.results.compaction import compact as compact_tables
    from orchestrator.results.run import Run

    opened = Run.open(run)
    with opened.locked():
        return compact_tables(opened.tables)
