"""A paper's table in Markdown, for GitHub, notebooks and issues."""

from __future__ import annotations

import re

from orchestrator.core.text import visible
from orchestrator.report.exports.entries import Entry
from orchestrator.report.exports.paper_table import Panel, PaperTable

_SPECIAL = re.compile(r"[\\`*_\[\]|~$]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(text: str) -> str:
    """Return plain text for Markdown: nothing in it is read as a mark, a link, a column or HTML."""
    escaped = _SPECIAL.sub(r"\\\g<0>", visible(text))
    return "".join(_ENTITIES.get(one, one) for one in escaped)


def render_markdown(table: PaperTable) -> str:
    """Return a table with aligned columns for each panel, and the notes as a list."""
    panels = [line for panel in table.panels for line in _panel(table, panel)]
    return "\n".join([*panels, *(f"- {markdown(note)}" for note in table.notes)]) + "\n"


def _panel(table: PaperTable, panel: Panel) -> list[str]:
    rows = [["method", *(markdown(head) for head, _, _ in panel.columns)]]
    rows += [[markdown(table.row_head(name)), *map(_cell, table.row(name, panel))] for name in table.methods]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [f"**{markdown(panel.title)}**", "", *(_line(row, widths) for row in (rows[0], rule, *rows[1:])), ""]


def _line(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
    return f"| {' | '.join(padded)} |"


def _cell(entry: Entry) -> str:
    text = markdown(entry.text)
    return (f"**{text}**" if entry.is_best else text) + markdown(entry.marks)
