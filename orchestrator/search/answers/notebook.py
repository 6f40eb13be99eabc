"""An answer as notebooks show it. Every text is escaped: names in a run folder may be anybody's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.metrics import UNKNOWN, number, quantity
from orchestrator.core.text import counted, visible
from search_spaces import Constraint

if TYPE_CHECKING:
    from orchestrator.search.answers.full_answer import Answer, Measured, MethodAnswer, ScenarioAnswer

_MINUS = "color:#777"


def run_html(where: str, answer: Callable[[], Answer]) -> str:
    """Return a run: its folder and its answer, or why that cannot be read."""
    try:
        shown = answer_html(answer())
    except OrchestratorError as error:
        shown = f"<pre>{_text(error)}</pre>"
    return f"<p>run <code>{_text(where)}</code></p>{shown}"


def answer_html(answer: Answer) -> str:
    """Return the answer: a table for each scenario, with the recommended method in bold."""
    asked = dict.fromkeys([answer.objective, *_limited(answer)])
    missing = f", {counted(answer.n_missing, 'trial')} missing at most" if answer.n_missing else ""
    limits = ", ".join(answer.limits) or "none"
    head = f"<p><b>{_text(answer.name)}</b>: objective {_text(answer.objective)}, limits: {_text(limits)}{missing}</p>"
    return head + "".join(_scenario(answer.objective, list(asked), one) for one in answer.scenarios)


def _limited(answer: Answer) -> Iterable[str]:
    return (str(quantity(Constraint.parse(limit).metric)) for limit in answer.limits)


def _scenario(objective: str, metrics: list[str], scenario: ScenarioAnswer) -> str:
    said = scenario.recommended or scenario.status
    rows = "".join(_method(metrics, one, one.method == scenario.recommended) for one in scenario.methods)
    heads = "".join(f"<th>{_text(name)}</th>" for name in ("method", *metrics, "limits", "measured on"))
    score = "" if quantity(objective).score else f" (score {_text(scenario.score)})"
    return (
        f"<table><caption>{_text(scenario.scenario)}{score}: <b>{_text(said)}</b></caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _method(metrics: list[str], method: MethodAnswer, is_recommended: bool) -> str:
    found = method.test or method.validation
    name = _text(method.method + (" (upper bound)" if method.is_reference else ""))
    cells = [f"<b>{name}</b>" if is_recommended else name]
    cells += [_text(_with_interval(metric, found)) for metric in metrics]
    cells += [_text(_limits(found))]
    cells += [_text(f"{found.split}, {counted(found.n_seeds, 'seed')}" if found else "no result")]
    style = f' style="{_MINUS}"' if found is None or found.violated else ""
    return f"<tr{style}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _with_interval(metric: str, found: Measured | None) -> str:
    if found is None or metric not in found.numbers:
        return UNKNOWN
    one, unit = found.numbers[metric], quantity(metric).metric
    half = "" if math.isnan(one.half_width) else f" ± {number(unit, one.half_width)}"
    return number(unit, one.mean) + half


def _limits(found: Measured | None) -> str:
    if found is None or not found.limits or not found.is_known:
        return UNKNOWN
    return "violated: " + ", ".join(found.violated) if found.violated else "met"


def _text(value: object) -> str:
    return escape(visible(str(value)))
