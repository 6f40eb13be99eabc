"""The table of a paper, methods × scenarios, from a run's answer alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.core.errors import UsageError
from orchestrator.core.metrics import quantity
from orchestrator.core.scores import Score
from orchestrator.report.exports.entries import BOUND, Entry, entry_of, known_metrics, limited
from orchestrator.report.exports.notes import notes_of
from orchestrator.report.methods_table import head
from orchestrator.search.answers.full_answer import Answer


@dataclass(frozen=True)
class Panel:
    """Columns that stand beside one another.

    Args:
        title: what they have in common.
        columns: head, scenario and metric of each.
    """

    title: str
    columns: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class PaperTable:
    """Methods × scenarios of an answer.

    Args:
        name: of the sweep.
        objective: what decides.
        metrics: what is shown of each scenario.
        scenarios: the columns.
        methods: the rows.
        entries: (method, scenario, metric) -> the entry; every combination has one.
        heads: (scenario, metric) -> how a column is headed.
        notes: what the marks mean and what else a reader must know, a sentence each.
    """

    name: str
    objective: str
    metrics: tuple[str, ...]
    scenarios: tuple[str, ...]
    methods: tuple[str, ...]
    entries: dict[tuple[str, str, str], Entry]
    heads: dict[tuple[str, str], str]
    notes: tuple[str, ...]

    @property
    def panels(self) -> list[Panel]:
        """Return the parts of the table: one for each metric, or of a single scenario one with a column a metric."""
        if len(self.scenarios) == 1:
            columns = tuple((self.heads[scenario, metric], scenario, metric) for scenario, metric in self.heads)
            return [Panel(self.scenarios[0], columns)]
        return [self._panel(metric) for metric in self.metrics]

    def _panel(self, metric: str) -> Panel:
        heads = {scenario: self.heads[scenario, metric] for scenario in self.scenarios}
        are_same = len(set(heads.values())) == 1
        columns = tuple((one if are_same else f"{one} ({heads[one]})", one, metric) for one in self.scenarios)
        return Panel(heads[self.scenarios[0]] if are_same else metric, columns)

    def row(self, method: str, panel: Panel) -> list[Entry]:
        """Return the entries of a method in a panel, by column."""
        return [self.entries[method, scenario, metric] for _, scenario, metric in panel.columns]

    def row_head(self, method: str) -> str:
        """Return the name of a method, marked if it is an upper bound."""
        is_bound = any(entry.is_bound for (name, _, _), entry in self.entries.items() if name == method)
        return method + (BOUND if is_bound else "")


def table_of(answer: Answer, metrics: Sequence[str] = ()) -> PaperTable:
    """Return the table of an answer.

    Args:
        answer: of a run.
        metrics: what is shown; by default the objective and every limited metric.

    Raises:
        UsageError: if the answer has no such metric.
    """
    shown = _chosen(answer, metrics)
    methods = dict.fromkeys(method.method for scenario in answer.scenarios for method in scenario.methods)
    entries = {
        (name, scenario.scenario, metric): entry_of(answer, scenario, name, metric, shown)
        for scenario in answer.scenarios
        for name in methods
        for metric in shown
    }
    heads = {
        (scenario.scenario, metric): head(metric, Score.parse(scenario.score))
        for scenario in answer.scenarios
        for metric in shown
    }
    scenarios = tuple(scenario.scenario for scenario in answer.scenarios)
    notes = tuple(notes_of(answer, shown, entries.values()))
    return PaperTable(answer.name, answer.objective, shown, scenarios, tuple(methods), entries, heads, notes)


def _chosen(answer: Answer, metrics: Iterable[str]) -> tuple[str, ...]:
    known, chosen, faults = known_metrics(answer), [], []
    for text in metrics:
        try:
            name = str(quantity(text))
        except ValueError:
            name = text
        if name not in known:
            faults.append(
                f"--metric: expected a metric that this answer has, got '{text}'; choose from: {', '.join(known)}"
            )
        chosen.append(name)
    if faults:
        raise UsageError(*faults)
    return tuple(dict.fromkeys(chosen or [answer.objective, *limited(answer)]))
