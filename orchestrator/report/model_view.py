"""A model as text: what it is, its score on each task, and what its user should know."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.champions.card import Card
from orchestrator.champions.updating import drops
from orchestrator.core.text import visible


def render_model(card: Card, notes: Sequence[str] = ()) -> RenderableType:
    """Return a model's tasks with their scores right after they were learned and now, on held-out examples."""
    trial = card.trial
    values = ", ".join(f"{name} {value}" for name, value in trial.hyperparameters.items())
    seeds = ", ".join(str(member.seed) for member in card.members)
    lines: list[RenderableType] = [
        Text(visible(f"{trial.method} for {trial.scenario}, seed {seeds}{f': {values}' if values else ''}"))
    ]
    if card.frozen is not None and card.data.features is not None:
        taken = f"on {card.frozen.n_features} features of {card.data.features.module}, which is in the folder"
        lines.append(Text(visible(taken)))
    scores = drops(card)
    if scores:
        table = Table("task", "held-out examples", "learned", "now", "drop", box=None, header_style="")
        for column in table.columns[1:]:
            column.justify = "right"
        for task in card.tasks:
            learned, now = scores[task.name]
            shown = (f"{learned:.4f}", f"{now:.4f}", f"{learned - now:.4f}")
            table.add_row(Text(visible(task.name)), str(task.n_evaluation), *shown)
        lines += [Text(visible(f"{card.score} on the test split:")), table]
    lines += [Text(visible(f"note: {note}")) for note in notes]
    return Group(*lines)
