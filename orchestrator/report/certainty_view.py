"""How sure an answer is, in words for the terminal; and the curve of what another limit would give."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.core.metrics import quantity
from orchestrator.core.text import counted, visible
from orchestrator.report.numbers import number
from orchestrator.search.answers.full_answer import MethodAnswer, ScenarioAnswer
from orchestrator.search.stops import Shown


def certainty_lines(objective: str, answer: ScenarioAnswer) -> Iterator[str]:
    """Yield how sure the answer for a scenario is, and what it took."""
    if answer.recommended is not None:
        yield from _recommended(objective, answer.method(answer.recommended))
        yield from _runner_up(objective, answer)
    elif answer.relaxation is not None:
        relaxed = answer.relaxation
        metric, operator = parts_of(relaxed.limit)
        yield (
            f"  cheapest relaxation: with {metric} {operator} {number(metric, relaxed.value)} instead, "
            f"{relaxed.method} would meet the limits on validation"
        )
    if answer.validation_less_test:
        differences = ", ".join(
            f"{visible(name)} {_signed(name, value)}" for name, value in answer.validation_less_test.items()
        )
        yield f"  validation less test in this sweep: {differences}"
    full = sum(one.n_trials_of_all_seeds for one in answer.methods)
    if spared := full - sum(one.n_trials for one in answer.methods):
        yield f"  the races of seeds spared {spared} of {counted(full, 'search trial')}"
    yield from _stopped([method.stopped for method in answer.methods])


def _stopped(cells: list[Shown]) -> Iterator[str]:
    """Yield what stopping at task boundaries saved, and what the trials showed that ran on to judge it by."""
    n_stopped, n_controls = sum(one.n_stopped for one in cells), sum(one.n_controls for one in cells)
    if n_stopped:
        saved = sum(one.trials_saved for one in cells if one.n_stopped)
        work = "" if math.isnan(saved) else f", which spared the work of {saved:.1f}"
        yield f"  stopped early by a rule: {counted(n_stopped, 'trial')}{work}"
    if n_controls:
        n_recovered = sum(one.n_recovered for one in cells)
        yield (
            f"  run on to judge stopping by: {counted(n_controls, 'trial')}; {n_recovered} of them met in the end what "
            "they would have been stopped for"
        )


def _recommended(objective: str, best: MethodAnswer) -> Iterator[str]:
    if best.test is None:
        return
    found = best.test.numbers[objective]
    if not math.isnan(found.low):
        yield (
            f"  95 % interval of the mean {visible(objective)}: {number(objective, found.low)} to "
            f"{number(objective, found.high)}, on {counted(best.test.n_seeds, 'seed')}"
        )
    for check in best.test.limits:
        run = check.new_run
        numbers = best.test.numbers[parts_of(check.limit)[0]]
        if math.isnan(run.probability) or numbers.std == 0:  # of one seed, or the same for all, as memory is
            continue
        doubt = "; the seeds do not look normal, so trust the count" if run.looks_normal is False else ""
        yield (
            f"  one new run meets {visible(check.limit)} with probability {run.probability:.2f} if seeds are normal, "
            f"and at least {run.at_least:.2f} by counting alone{doubt}"
        )
    if best.n_tried_on_test > 1:
        yield f"  {best.n_tried_on_test} suggestions of {best.method} were tried on test, one after the other"


def _runner_up(objective: str, answer: ScenarioAnswer) -> Iterator[str]:
    if answer.runner_up is None:
        return
    compared = answer.method(answer.runner_up).against_recommended
    if compared is None:
        yield f"  runner-up: {answer.runner_up}"
        return
    by = f"{_signed(objective, compared.difference)} for {answer.recommended}, paired by seed"
    if compared.is_told_apart:
        yield f"  runner-up: {answer.runner_up}; {by}, told apart (p = {compared.p_holm:.3f} after Holm)"
        return
    if compared.n_more_seeds is None:
        more = "more seeds would hardly tell them apart"
    else:
        more = f"about {counted(compared.n_more_seeds, 'more confirm seed')} would"
    yield f"  runner-up: {answer.runner_up}; {by}, not told apart; {more}"


def parts_of(limit: str) -> tuple[str, str]:
    """Return metric and operator of a limit as text."""
    operator = "<=" if "<=" in limit else ">="
    return limit.partition(operator)[0].strip(), operator


def _signed(metric: str, value: float) -> str:
    return ("+" if value >= 0 else "-") + number(quantity(metric).metric, abs(value))


def render_what_if(objective: str, answer: ScenarioAnswer, limit: str) -> Table:
    """Return the curve 'limit → best objective and method' as a table, the strictest limit first."""
    metric, operator = parts_of(limit)
    title = f"{answer.scenario}: what another limit on {metric} would give, on validation"
    table = Table(title=Text(visible(title)), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column(Text(visible(f"{metric} {operator}")), justify="right")
    table.add_column(Text(visible(objective)), justify="right")
    table.add_column("method")
    table.add_column("suggestion", justify="right")
    table.add_column("seeds", justify="right")
    for step in answer.what_if[limit]:
        table.add_row(
            number(quantity(metric).metric, step.limit),
            number(quantity(objective).metric, step.objective),
            Text(visible(step.method)),
            str(step.suggestion),
            str(step.n_seeds),
        )
    return table
