"""An answer's table in any of the formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from orchestrator.report.exports.latex import render_latex
from orchestrator.report.exports.markdown import render_markdown
from orchestrator.report.exports.paper_table import table_of
from orchestrator.report.exports.sheets import render_csv, render_json, render_xlsx
from orchestrator.search.answers.full_answer import Answer

Format = Literal["latex", "markdown", "csv", "xlsx", "json"]


def export_table(answer: Answer, format: Format, metrics: Sequence[str] = ()) -> str | bytes:
    """Return the table of an answer, methods × scenarios on the test split; a workbook as bytes, all else as text.

    Args:
        answer: of a run, `run.answer()`.
        format: `latex` (for `booktabs`), `markdown`, `csv`, `xlsx` or `json`.
        metrics: metrics and costs to show; by default the objective and every limited metric.

    Raises:
        UsageError: if the answer has no such metric, or a workbook is asked for without openpyxl.
    """
    table = table_of(answer, metrics)
    if format == "xlsx":
        return render_xlsx(table)
    render = {"latex": render_latex, "markdown": render_markdown, "csv": render_csv, "json": render_json}[format]
    return render(table)
