"""What a figure of the page is: charts, and the table from which they are drawn and in which anyone can read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.report.numbers import UNKNOWN, number

Cell = str | float | int | None
"""A value of a table: text, a number, or nothing where it was not measured."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b2a100")
"""Okabe & Ito's colours, told apart by all kinds of colour vision; the two that are hard to see on white are darker."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")


@dataclass(frozen=True)
class Column:
    """A column of a figure's table.

    Args:
        name: of the field in the rows.
        title: above the column.
        metric: whose form the numbers have; empty for text and counts.
    """

    name: str
    title: str
    metric: str = ""

    def text(self, value: Cell) -> str:
        """Return a value as it is shown."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return UNKNOWN
        return number(self.metric, float(value)) if self.metric and not isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Slider:
    """A control that moves a parameter of the charts.

    Args:
        parameter: its name in the charts.
        label: in words.
        low: least value.
        high: largest value.
        value: at first.
        step: 0 for any value.
        says: for each value that changes something, the value and the sentence shown from there on; the first also
            before it. With `is_falling`, from there downwards.
        is_falling: whether sentences hold for their value and below.
    """

    parameter: str
    label: str
    low: float
    high: float
    value: float
    step: float
    says: tuple[tuple[float, str], ...]
    is_falling: bool = False

    @property
    def first_words(self) -> str:
        """Return the sentence at the first value."""
        return self.words_at(self.value)

    def words_at(self, value: float) -> str:
        """Return the sentence at a value: that of the last entry which it has reached, as the page's script does."""
        reached = [words for at, words in self.says if (value <= at if self.is_falling else value >= at)]
        return reached[-1] if reached else ""


@dataclass(frozen=True)
class Figure:
    """A figure.

    Args:
        name: unique on the page.
        title: above it.
        caption: what one sees, in a sentence or two.
        columns: of its table.
        rows: of its table, and the data of its charts.
        charts: a title and a Vega-Lite chart each, without data; they are drawn side by side where there is room.
        slider: moves a parameter of all of its charts.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Cell]]
    charts: Sequence[tuple[str, dict[str, Any]]]
    slider: Slider | None = None

    def drawn(self) -> dict[str, Any]:
        """Return what the page's script draws: numbers that are not known are null."""
        return {
            "charts": [{"description": f"{self.title}. {title}".strip(), **chart} for title, chart in self.charts],
            "values": [{name: plain(value) for name, value in row.items()} for row in self.rows],
        }


@dataclass(frozen=True)
class Colours:
    """The colour and shape of each method, the same in all figures of a scenario.

    Args:
        methods: in the order of the spec.
    """

    methods: tuple[str, ...]

    def encodings(self, rows: Sequence[Mapping[str, Cell]]) -> dict[str, Any]:
        """Return the encodings of colour and shape, for the methods that the rows of a figure have."""
        present = {row["method"] for row in rows}
        shown = [(index, name) for index, name in enumerate(self.methods) if name in present]
        colours = [COLOURS[index % len(COLOURS)] for index, _ in shown]
        shapes = [SHAPES[(index + index // len(COLOURS)) % len(SHAPES)] for index, _ in shown]  # differ where colours
        names = [name for _, name in shown]  # come again
        field = {"field": "method", "type": "nominal", "title": None}
        legend = {"orient": "bottom", "columns": 4}
        return {
            "color": {**field, "scale": {"domain": names, "range": colours}, "legend": legend},
            "shape": {**field, "scale": {"domain": names, "range": shapes}},
        }


def plain(value: Cell) -> Cell:
    """Return a value as JSON can hold it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def real(name: str, title: str, **more: Any) -> dict[str, Any]:
    """Return the encoding of a number, on an axis that need not begin at 0."""
    return {"field": name, "type": "quantitative", "title": title, "scale": {"zero": False, "nice": True}, **more}
