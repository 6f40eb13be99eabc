"""A paper's table for programs and spreadsheets: CSV, JSON and xlsx, a row a number, at full precision."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.core.canonical import plain
from orchestrator.core.errors import UsageError
from orchestrator.core.text import visible
from orchestrator.report.exports.entries import Entry
from orchestrator.report.exports.paper_table import PaperTable

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

TABLE_VERSION = 1
"""Version of the form of the JSON; raised whenever a field changes its meaning or goes."""

INSTALL = "pip install 'continual-sweep[report]'"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet reads a text that begins like this as a formula."""

_MOST_WIDTH = 60


def rows_of(table: PaperTable) -> Iterator[dict[str, Any]]:
    """Yield each number with what is marked at it; what is not known is None.

    Yields: scenario, method, is_upper_bound, metric; mean, std, half_width, low and high of the 95 % interval; n_seeds;
    limits (met, not surely, violated, unknown) and violated_limits; is_best, is_told_apart_from_best (None if they were
    not compared), p_holm, difference (the best less this one); is_recommended; reason why there is no number.
    """
    for scenario in table.scenarios:
        for method in table.methods:
            for metric in table.metrics:
                yield _row(table.entries[method, scenario, metric])


def _row(entry: Entry) -> dict[str, Any]:
    number, compared = entry.number, entry.comparison
    shown = (number.mean, number.std, number.half_width, number.low, number.high) if number else (None,) * 5
    found = {
        "scenario": entry.scenario,
        "method": entry.method,
        "is_upper_bound": entry.is_bound,
        "metric": entry.metric,
        **dict(zip(("mean", "std", "half_width", "low", "high"), shown, strict=True)),
        "n_seeds": entry.n_seeds,
        "limits": entry.verdict,
        "violated_limits": "; ".join(entry.violated),
        "is_best": entry.is_best,
        "is_told_apart_from_best": None if compared is None or math.isnan(compared.p_holm) else compared.is_told_apart,
        "p_holm": compared.p_holm if compared else None,
        "difference": compared.difference if compared else None,
        "is_recommended": entry.is_recommended,
        "reason": entry.reason,
    }
    return {name: plain(value) for name, value in found.items()}


def render_json(table: PaperTable) -> str:
    """Return the table as JSON: its form's version, the numbers and the notes."""
    content = {
        "version": TABLE_VERSION,
        "name": table.name,
        "objective": table.objective,
        "metrics": list(table.metrics),
        "rows": list(rows_of(table)),
        "notes": list(table.notes),
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def render_csv(table: PaperTable) -> str:
    """Return the numbers as CSV; a text that a spreadsheet would compute has an apostrophe in front."""
    rows, text = list(rows_of(table)), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    writer.writerows([_safe(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return ("'" if value.startswith(_FORMULA) else "") + visible(value)
    return repr(value) if isinstance(value, float) else value


def render_xlsx(table: PaperTable) -> bytes:
    """Return a workbook: the table as it is read, with the best in bold; its numbers; its notes.

    Raises:
        UsageError: if openpyxl is not installed.
    """
    try:
        from openpyxl import Workbook
    except ImportError as error:
        raise UsageError(f"--format xlsx: openpyxl is not installed; {INSTALL}") from error
    book = Workbook()
    book.remove(book.worksheets[0])
    _write_table(book.create_sheet("table"), table)
    rows = list(rows_of(table))
    numbers = book.create_sheet("numbers")
    for line in [[*rows[0]] if rows else [], *([*row.values()] for row in rows)]:
        _append(numbers, line)
    numbers.freeze_panes = "A2"
    notes = book.create_sheet("notes")
    for note in table.notes:
        _append(notes, [note])
    for sheet in book.worksheets:
        _widen(sheet)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def _write_table(sheet: Worksheet, table: PaperTable) -> None:
    """Write the panels one below the other; a number is a number, and its half-width and marks stand beside it."""
    from openpyxl.styles import Font

    for panel in table.panels:
        _append(sheet, [panel.title], is_bold=True)
        heads = [part for head, _, _ in panel.columns for part in (head, "± 95 %", "marks")]
        _append(sheet, ["method", *heads], is_bold=True)
        for method in table.methods:
            entries = table.row(method, panel)
            _append(sheet, [table.row_head(method), *(part for entry in entries for part in _parts(entry))])
            for place, entry in enumerate(entries):
                if entry.is_best:
                    sheet.cell(sheet.max_row, 2 + 3 * place).font = Font(bold=True)
        _append(sheet, [""])


def _parts(entry: Entry) -> tuple[Any, Any, str]:
    if entry.number is None:
        return entry.text, None, ""
    half = entry.number.half_width
    return entry.number.mean, None if math.isnan(half) else half, entry.marks


def _append(sheet: Worksheet, values: list[Any], is_bold: bool = False) -> None:
    """Add a row, in which a text is never a formula."""
    from openpyxl.styles import Font

    row = sheet.max_row + 1 if sheet.max_row > 1 or sheet.cell(1, 1).value is not None else 1
    for column, value in enumerate(values, 1):
        cell = sheet.cell(row, column)
        cell.value = visible(value) if isinstance(value, str) else value
        if isinstance(value, str):
            cell.data_type = "s"
        elif isinstance(value, float) and abs(value) < 10:
            cell.number_format = "0.000"  # how it is shown; the cell keeps all digits
        if is_bold:
            cell.font = Font(bold=True)


def _widen(sheet: Worksheet) -> None:
    """Make each column as wide as its longest text."""
    for column in sheet.iter_cols():
        longest = max((len(str(cell.value)) for cell in column if cell.value is not None), default=0)
        sheet.column_dimensions[column[0].column_letter].width = min(max(longest, 8), _MOST_WIDTH) + 2
