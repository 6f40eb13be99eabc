"""The kinds of figures, and how one is drawn by its name."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from orchestrator.core.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from orchestrator.report.figures.drawing import Drawing
    from orchestrator.results.run import Run

KINDS = {
    "matrix": "the accuracy matrix R of the recommended method beside naive and joint",
    "curves": "the score of each task over time, a panel a method",
    "frontier": "the objective against a limited metric, and what another limit would give",
    "bars": "the objective and the limited metrics of each method on test",
    "critical-difference": "methods ranked over scenarios, and which are not told apart",
}
"""Name -> what it shows."""

WIDTHS = {"column": 3.5, "text": 7.0}
"""Name -> inches: a column of a two-column paper, and its whole text."""

FORMATS = ("pdf", "svg", "png")


def draw(run: Run, kind: str, scenario: str | None = None, metric: str | None = None, width: str = "text") -> Drawing:
    """Return a figure of a run.

    Args:
        run: the run, whose tables are read once if they are cached.
        kind: one of `KINDS`.
        scenario: the one that is drawn; all by default.
        metric: the limit's metric of `frontier`, or the only one of `bars`, or what `critical-difference` ranks by.
        width: one of `WIDTHS`.

    Raises:
        UsageError: if an argument is unknown or does not fit the run.
        RunFolderError: if the run has nothing to draw yet.
        MissingExtraError: if Matplotlib or scikit-posthocs is not installed.
    """
    check_choice("KIND", kind, KINDS)
    check_choice("--width", width, WIDTHS)
    try:
        import matplotlib  # noqa: F401

        if kind == "critical-difference":
            import scikit_posthocs  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"plot {kind}", "report") from error
    from orchestrator.report.figures.bars import bars
    from orchestrator.report.figures.critical_difference import critical_difference
    from orchestrator.report.figures.curves import curves
    from orchestrator.report.figures.frontier import frontier
    from orchestrator.report.figures.matrix import matrix
    from orchestrator.report.figures.scene import scene_of

    drawers = dict(zip(KINDS, (matrix, curves, frontier, bars, critical_difference), strict=True))
    return drawers[kind](scene_of(run, scenario, metric, WIDTHS[width]))


def check_choice(where: str, value: str, known: Collection[str]) -> None:
    """Refuse a value that is none of some.

    Raises:
        UsageError: naming all of them.
    """
    if value not in known:
        raise UsageError(f"{where}: expected one of {', '.join(known)}, got '{value}'")
