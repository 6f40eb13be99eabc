"""The answer of a run on the terminal, for `sweep` and `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.report.console import PlainConsole
    from orchestrator.results.run import Run
    from orchestrator.spec.sweep_spec import SweepSpec


def print_answer(console: PlainConsole, run: Run, spec: SweepSpec) -> int:
    """Print the answer of a run to a spec, and return how many trials are missing."""
    from orchestrator.report.answer import note_on_others, summarise
    from orchestrator.report.answer_view import render_answer

    trials, search = run.trials(), run.search(spec)
    console.print(render_answer(spec, summarise(search, trials)))
    if others := note_on_others(search, trials):
        console.print(others)
    return search.n_unknown


def missing(n: int) -> str:
    """Return how many trials are missing, as a sentence begins."""
    return "1 trial is missing" if n == 1 else f"{n} trials are missing"
