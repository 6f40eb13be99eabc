"""What figures are drawn from: a run's answer, its search and its tables, each read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.core.errors import RunFolderError, UsageError
from orchestrator.core.text import counted, visible
from orchestrator.report.page.facts import MethodFacts, Tables, method_facts
from orchestrator.results.run import Run
from orchestrator.search.answers.full_answer import Answer, ScenarioAnswer, answer_of
from orchestrator.search.answers.summary import CellSummary, ScenarioSummary, summarise
from orchestrator.search.cell_search import CellSearch
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.sweep_spec import SweepSpec

TALLEST = 10.0
"""Inches; a letter page has 11."""


@dataclass(frozen=True)
class Scene:
    """What a figure is drawn from.

    Args:
        where: the run, as it may be shown.
        search: of the run's own spec.
        answer: of the run.
        summaries: the answer's reasons, by scenario.
        tables: of the run.
        scenarios: that are drawn, in the order of the spec.
        metric: that was asked for, if one was.
        width: of the figure, in inches.
    """

    where: str
    search: SweepSearch
    answer: Answer
    summaries: dict[str, ScenarioSummary]
    tables: Tables
    scenarios: tuple[str, ...]
    metric: str | None
    width: float

    @property
    def spec(self) -> SweepSpec:
        """Return the spec of the run."""
        return self.search.spec

    @property
    def is_wide(self) -> bool:
        """Return whether it is as wide as a page's text, not a column."""
        return self.width > 5

    def place(self, method: str) -> int:
        """Return a method's place in the spec, which decides its colour."""
        return list(self.spec.methods).index(method)

    def cells(self, scenario: str) -> list[CellSearch]:
        """Return the searches of a scenario."""
        return [cell for cell in self.search.cells if cell.cell.scenario == scenario]

    def facts(self, scenario: str, methods: Sequence[str] | None = None) -> list[MethodFacts]:
        """Return what stands for each method that was measured, or for some methods, in their order."""
        summary = {cell.cell.method: cell for cell in self.summaries[scenario].cells}
        searches = {cell.cell.method: cell for cell in self.cells(scenario)}
        names = [name for name in (summary if methods is None else methods) if name in summary]
        found = [method_facts(self.spec, summary[name], searches[name], self.tables) for name in names]
        return [one for one in found if one is not None and one.n_tasks]

    def notes(self) -> list[str]:
        """Return what a reader must know whatever is drawn."""
        n = self.answer.n_missing
        return [f"Not final: {counted(n, 'trial')} missing, at most."] if n else []

    def kept(self, draws: Callable[[str], bool], what: str) -> list[str]:
        """Return the scenarios of which there is something to draw.

        Raises:
            RunFolderError: if there is none.
        """
        found = [scenario for scenario in self.scenarios if draws(scenario)]
        if not found:
            raise RunFolderError(
                f"plot: expected {what} in '{self.where}', got none for {some(self.scenarios)}; run the sweep "
                "to its end"
            )
        return found

    def refuse_tall(self, height: float) -> None:
        """Refuse a figure that fits no page because it has many scenarios.

        Raises:
            UsageError: if it is taller than `TALLEST` inches.
        """
        if height > TALLEST and len(self.scenarios) > 1:
            raise UsageError(
                f"plot: {len(self.scenarios)} scenarios make a figure of {height:.0f} inches, and a page has "
                f"{TALLEST:.0f}; choose one with --scenario: {some(self.scenarios)}"
            )

    def refuse_metric(self, kind: str) -> None:
        """Refuse a metric for a figure that shows the score itself.

        Raises:
            UsageError: if one was given.
        """
        if self.metric is not None:
            raise UsageError(f"--metric: {kind} shows the score that R holds, and no metric; drop it")


def scene_of(run: Run, scenario: str | None, metric: str | None, width: float) -> Scene:
    """Return what a figure of a run is drawn from.

    Raises:
        UsageError: if there is no such scenario.
        RunFolderError: if no trial has completed.
    """
    spec = run.spec
    names = tuple(dict.fromkeys(cell.scenario for cell in spec.cells))
    if scenario is not None and scenario not in names:
        raise UsageError(f"--scenario: expected one of this run's, got '{scenario}'; choose from: {', '.join(names)}")
    trials = run.tables.trials.read()
    if not (trials["status"] == "completed").any():
        raise RunFolderError(f"plot: expected completed trials in '{run.where}', got none; run the sweep first")
    search = run.search(spec)
    return Scene(
        run.where,
        search,
        answer_of(search, trials),
        {one.scenario: one for one in summarise(search, trials)},
        Tables(trials, run.tables.accuracy.read(), evaluations=run.tables.evaluations.read()),
        names if scenario is None else (scenario,),
        metric,
        width,
    )


def leading(summary: ScenarioSummary, answer: ScenarioAnswer) -> tuple[str, str] | None:
    """Return the method that stands for a scenario and why; None if nothing was measured.

    It is the recommended one, or else what misses the limits least, or may.
    """
    if answer.recommended is not None:
        return answer.recommended, "recommended"
    if summary.nearest_miss is not None:
        role = "nearest so far" if answer.status == "incomplete" else "nearest miss"
        return summary.nearest_miss[0].cell.method, role
    measured = [cell for cell in summary.cells if not cell.is_reference and (cell.chosen or cell.nearest)]
    role = "nothing learned" if answer.status == "nothing learned" else "nearest so far"
    return (min(measured, key=_distance).cell.method, role) if measured else None


def _distance(cell: CellSummary) -> int:
    return 0 if cell.chosen is not None and cell.is_candidate else 1 if cell.chosen is not None else 2


def some(names: Sequence[str], most: int = 12) -> str:
    """Return names as a list, the first of many."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(visible(name) for name in names[:most]) + more


def only(found: Sequence[str], all_of: Sequence[str], why: str) -> list[str]:
    """Return a sentence on the scenarios that are left out, if any are."""
    left = [name for name in all_of if name not in found]
    return [f"Left out, {why}: {some(left)}."] if left else []
