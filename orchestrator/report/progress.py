"""Live progress: a table that redraws itself in a terminal, plain lines elsewhere.

Imports nothing heavy: the first line of a sweep is printed before PyTorch and Ray are imported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.core.text import counted, visible
from orchestrator.report.numbers import UNKNOWN, duration, money, number

if TYPE_CHECKING:
    from orchestrator.execution.budget import Spending
    from orchestrator.execution.session import Listener, Session
    from orchestrator.search.cell_search import CellSearch
    from orchestrator.search.suggestion import PlannedTrial
    from orchestrator.trial.result import TrialResult

_SECONDS_BETWEEN_LINES = 5.0
_LEAST_REST = 20
"""The table is not made again before so many times the time that it took: it looks at every suggestion."""


Detail = Literal["quiet", "normal", "verbose"]


class ProgressDisplay:
    """Shows a session while it runs; its `trial_ended` listens to the session.

    `spending` is that of the session's run, once that is known.

    Args:
        console: where to show it.
        detail: `quiet` shows nothing, `verbose` a line for every trial.
    """

    def __init__(self, console: Console, detail: Detail = "normal") -> None:
        self._console = console
        self._detail = detail
        self._live: Live | None = None
        self._session: Session | None = None
        self.spending: Spending | None = None
        self._last_line = 0.0
        self._has_said_cluster = False
        self._shown: RenderableType = Text("")
        self._due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def connecting(self, address: str | None) -> None:
        """Say once which Ray cluster the sweep is about to use; None is one that is started here."""
        if self._has_said_cluster:
            return
        self._has_said_cluster = True
        if address is None:
            self.say("starting a Ray cluster on this machine …")
        else:
            self.say("joining a running Ray cluster …" if address == "auto" else f"joining Ray cluster {address} …")

    def watch(self, spending: Spending) -> Listener:
        """Take what the session's run spends, and return what listens to the session."""
        self.spending = spending
        return self.trial_ended

    def start(self, session: Session) -> None:
        """Begin to show `session`."""
        self._session = session
        if self._console.is_terminal and self._detail == "normal":
            self._live = Live(console=self._console, get_renderable=self._in_time, refresh_per_second=2, transient=True)
            self._live.start()

    def trial_ended(self, session: Session, planned: PlannedTrial, result: TrialResult) -> None:
        """Print a failed trial; without a terminal, also each finished cell and a line every few seconds."""
        if result.status not in ("completed", "stopped") or self._detail == "verbose":
            where = f"{planned.cell.name} #{planned.suggestion} seed {planned.spec.seed}"
            self.say(f"{result.status}: {where}" + (f": {result.reason}" if result.reason else ""))
        search = session.search.cell_of(planned)
        if self._live is None and search.is_finished:
            self.say(f"{planned.cell.name}: {self._verdict(search)}")
        now = time.monotonic()
        if self._live is None and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            # The next trial takes this one's slot at once.
            has_next = session.search.n_waiting > 0 and not session.spending.reached
            self.say(self._line(session, len(session.search.running) + has_next))

    def say(self, text: str) -> None:
        """Print a line above the display, unless it is quiet."""
        if self._detail == "quiet":
            return
        self._console.print(Text(visible(text)), soft_wrap=True)

    def _line(self, session: Session, n_running: int) -> str:
        progress = session.progress
        n_recorded, n_likely, is_known = self._counts(session)
        of = "/" if is_known else " of about "
        return (
            f"{n_recorded}{of}{n_recorded + n_likely} trials done, {n_running} running, {progress.n_failed} failed, "
            f"{_time_left(progress.seconds_left(n_likely))}{_budget_left(session.spending.left())}"
        )

    def _in_time(self) -> RenderableType:
        """Return the table, or the last one if the sweep is so large that a new one would slow it down."""
        now = time.monotonic()
        if now >= self._due:
            self._shown = self._render()
            self._due = now + (1 + _LEAST_REST) * (time.monotonic() - now)
        return self._shown

    def _render(self) -> RenderableType:
        session = self._session
        if session is None:
            return Text("")
        table = Table(box=box.SIMPLE_HEAD)
        best_within = f"best {session.spec.objective}" + (" within the limits" if session.spec.limits else "")
        for column in ("cell", "trials", "suggestions", best_within, "state"):
            table.add_column(column)
        for search in session.search.cells:
            best = search.best_feasible()
            objective = session.spec.objective
            shown = number(objective, best.mean(search.judged_split, objective)) if best else UNKNOWN
            about = "~" if search.n_likely < search.n_unknown else ""
            trials = f"{search.n_recorded}/{about}{search.n_recorded + search.n_likely}"
            table.add_row(search.cell.name, trials, str(len(search.suggestions)), shown, self._verdict(search))
        n_recorded, n_likely, _ = self._counts(session)
        bar = ProgressBar(total=max(n_recorded + n_likely, 1), completed=n_recorded, width=40)
        footer = Table.grid(padding=(0, 2))
        footer.add_row(bar, Text(self._line(session, len(session.search.running))))
        return Group(table, footer)

    @staticmethod
    def _verdict(search: CellSearch) -> str:
        if search.is_finished:
            if search.chosen is not None:
                return "measured on test"
            return "no suggestion meets the limits" if search.spec.limits else "no suggestion completed"
        if search.is_blocked:
            return "stopped by an error of the machine; run again"
        if not search.cell.is_searched:
            return "measuring"
        return "searching" if search.chosen is None else "confirming"

    @staticmethod
    def _counts(session: Session) -> tuple[int, int, bool]:
        """Return how many trials are recorded, about how many are still to run, and whether so many surely are."""
        cells = session.search.cells
        n_recorded, n_likely = sum(cell.n_recorded for cell in cells), sum(cell.n_likely for cell in cells)
        return n_recorded, n_likely, n_likely == sum(cell.n_unknown for cell in cells)


def _budget_left(left: Mapping[str, float]) -> str:
    """Return what is left of each budget as the end of a line, such as `; budget left: 12 min, 80 trials`."""
    shown = [duration(left["seconds"])] if "seconds" in left else []
    shown += [counted(int(left["trials"]), "trial")] if "trials" in left else []
    shown += [f"{money(left['cost'])} of the cost"] if "cost" in left else []
    return f"; budget left: {', '.join(shown)}" if shown else ""


def _time_left(seconds: float | None) -> str:
    return "time left not known yet" if seconds is None else f"about {duration(seconds)} left"
