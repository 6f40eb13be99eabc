"""The answer of a run on the terminal, for `sweep` and `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator.cli.shared.exits import EXIT_INCOMPLETE, EXIT_NO_ANSWER

if TYPE_CHECKING:
    from orchestrator.report.console import PlainConsole
    from orchestrator.results.run import Run
    from orchestrator.spec.sweep_spec import SweepSpec


def print_answer(console: PlainConsole, run: Run, spec: SweepSpec) -> tuple[int, list[str]]:
    """Print the answer of a run to a spec.

    Returns: how many trials are missing, and the scenarios without a recommendation.
    """
    from orchestrator.report.answer_view import render_answer
    from orchestrator.report.inside_view import inside_lines, lacking
    from orchestrator.search.answers.full_answer import answer_of
    from orchestrator.search.answers.summary import note_on_others, summarise

    trials, search = run.tables.trials.read(), run.search(spec)
    scenarios = summarise(search, trials)
    console.print(render_answer(spec, scenarios, answer_of(search, trials)))
    if others := note_on_others(search, trials):
        console.print(others)
    diagnostics = run.diagnostics()
    for line in inside_lines(search, scenarios, diagnostics):
        console.print(f"warning: {line}")
    if spec.diagnostics and (without := lacking(trials, diagnostics)):
        console.print(without)
    return search.n_unknown, [scenario.scenario for scenario in scenarios if scenario.best is None]


def missing(n: int) -> str:
    """Return how many trials are missing, as a sentence begins."""
    return "1 trial is missing" if n == 1 else f"{n} trials are missing"


def end(
    console: PlainConsole, n_missing: int, unanswered: list[str], is_required: bool, budget_reached: str = ""
) -> None:
    """End a command whose answer was printed with the exit code that says what is missing, or return.

    Args:
        console: where the last sentence goes.
        n_missing: trials that are missing.
        unanswered: scenarios without a recommendation.
        is_required: whether the user asked for a recommendation in each scenario.
        budget_reached: the budget that ended the sweep, such as 'the time budget of 2h'.
    """
    if n_missing:
        if budget_reached:
            console.print(f"{budget_reached[0].upper()}{budget_reached[1:]} ended this run.")
        console.print(f"{missing(n_missing)}, so this answer is not final. Run the sweep again to continue.")
        raise typer.Exit(EXIT_INCOMPLETE)
    if is_required and unanswered:
        console.print(f"--require-answer: no recommendation for {', '.join(unanswered)}.")
        raise typer.Exit(EXIT_NO_ANSWER)
