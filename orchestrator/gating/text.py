"""A report of a gate as text: lines for a terminal, JSON, and Markdown for a pull request."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from orchestrator.core.metrics import UNKNOWN, number
from orchestrator.core.text import counted, visible
from orchestrator.gating.deciding import GateReport, Line
from orchestrator.gating.policy import COST_KINDS

GATE_VERSION = 1
"""Version of the form of the JSON; raised whenever a field changes its meaning or goes."""

_MARKS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔"}


def to_lines(report: GateReport) -> list[str]:
    """Return a report for a terminal: the outcome, and one line a check and task. Foreign text is made visible."""
    rows = [[line.verdict, line.severity, _subject(line), _finding(line, report.alpha)] for line in report.lines]
    rows = [[visible(text) for text in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(3)] if rows else [0, 0, 0]
    table = ["  ".join([*(text.ljust(w) for text, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
    reasons = [f"  {visible(reason)}" for reason in report.reasons]
    return [report.outcome, *reasons, "", *(line.rstrip() for line in table)]


def to_json(report: GateReport) -> dict[str, Any]:
    """Return a report for machines; a number that is not known is None."""
    lines = [{name: _plain(value) for name, value in asdict(line).items()} for line in report.lines]
    return {
        "schema_version": GATE_VERSION,
        "outcome": report.outcome,
        "alpha": report.alpha,
        "reasons": list(report.reasons),
        "checks": lines,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(report: GateReport) -> str:
    """Return a report for a pull request. Nothing in a name is read as a mark, a link, a mention or HTML."""
    level = f"{1 - 2 * report.alpha:.0%}"
    head = ["check", "task", "severity", "result", "difference", f"{level} interval", "limit", "n", "what it means"]
    table = [head, ["---"] * len(head), *map(_row, report.lines)]
    reasons = [f"- {escaped(reason)}" for reason in report.reasons]
    parts = [f"## {_MARKS[report.outcome]} {report.outcome}", *(["\n".join(reasons)] if reasons else [])]
    return "\n\n".join([*parts, "\n".join(f"| {' | '.join(row)} |" for row in table)]) + "\n"


def _row(line: Line) -> list[str]:
    task = "" if line.task is None else code(line.task)
    low, high = line.interval
    interval = f"{_signed(low)} to {_signed(high)}" if math.isfinite(low) else ""
    n = counted(line.n, line.unit) if line.n else ""
    estimate, limit = _estimate(line), _limit(line)
    name, reason = escaped(_score_named(line)), escaped(line.reason)
    return [name, task, line.severity, line.verdict, estimate, interval, limit, n, reason]


def escaped(text: str) -> str:
    """Return foreign text for Markdown: every sign is spelled as an entity, so none has a meaning.

    GitHub looks for mentions and numbers of issues after that; an invisible joiner keeps it from finding any.
    """
    spelled = _spelled(" ".join(text.split()), " ,;")
    return spelled.replace("&#64;", "&#64;&#8288;").replace("&#35;", "&#35;&#8288;")


def code(text: str) -> str:
    """Return foreign text for Markdown as code, in which GitHub looks for nothing."""
    return f"<code>{_spelled(text, ' ')}</code>"


def _spelled(text: str, kept: str) -> str:
    letters = (one if not one.isascii() or one.isalnum() or one in kept else f"&#{ord(one)};" for one in visible(text))
    return "".join(letters)


def _score_named(line: Line) -> str:
    return line.name if line.score in (None, "accuracy") else f"{line.name} ({line.score})"


def _subject(line: Line) -> str:
    return _score_named(line) if line.task is None else f"{_score_named(line)}: {line.task}"


def _finding(line: Line, alpha: float) -> str:
    """Return what a line found: estimate, interval, limit, size of the evidence, and the reason."""
    parts = []
    if math.isfinite(line.estimate):
        low, high = line.interval
        interval = f" ({1 - 2 * alpha:.0%} interval {_signed(low)} to {_signed(high)})" if math.isfinite(low) else ""
        parts += [f"{_estimate(line)}{interval}, limit {_limit(line)}"]
        parts += [counted(line.n, line.unit)] if line.n else []
        p = line.p_violated if line.verdict == "violated" else line.p_met
        parts += [_p_text(p)] if line.n else []
    found = ", ".join(parts)
    return f"{found}: {line.reason}" if found and line.reason else found or line.reason


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _estimate(line: Line) -> str:
    if math.isnan(line.estimate):
        return UNKNOWN
    return number(line.kind, line.estimate) if line.kind in COST_KINDS else _signed(line.estimate)


def _limit(line: Line) -> str:
    return number(line.kind, line.limit) if line.kind in COST_KINDS else f"-{line.limit:g}" if line.limit else "0"


def _signed(value: float) -> str:
    return f"{value:+.3f}"
