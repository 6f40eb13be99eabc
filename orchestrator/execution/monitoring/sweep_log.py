"""`sweep.log` in the run folder: a line an event. Where it cannot be written, the sweep goes on without."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from orchestrator.core.errors import StorageError
from orchestrator.core.text import visible
from orchestrator.core.version import __version__
from orchestrator.execution.session import Session
from orchestrator.results.folder import read_file, write_file
from orchestrator.results.run import Run
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.storage.base import LOG_FILE
from orchestrator.trial.result import TrialResult

_MOST_BYTES = 2**24
"""Of the log of a run in an object store, which is written whole at the end of a sweep."""


class SweepLog:
    """Adds lines to the log of a run; with a disk below it at once, in an object store when it is closed.

    Args:
        run: which is locked, so that nobody else writes to it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = None if run.storage.path is None else run.storage.path / LOG_FILE
        self._lines: list[str] = []

    def say(self, text: str) -> None:
        """Add a line, with the time."""
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {visible(text)}\n"
        if self._path is None:
            self._lines.append(line)
            return
        with suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
            file.write(line)

    def begin(self, session: Session) -> None:
        """Say which sweep begins, and how much there is to do."""
        search = session.search
        self.say(
            f"begin: sweep {session.spec.name}, spec {session.spec.content_hash()[:16]}, "
            f"continual-sweep {__version__}, {search.n_cached} trials known, at most {search.n_unknown} to do"
        )

    def trial_ended(self, session: Session, planned: PlannedTrial, result: TrialResult) -> None:
        """Say how a trial ended: listens to the session."""
        where = result.provenance
        seconds = f" in {result.costs['seconds']:.1f} s" if "seconds" in result.costs else ""
        worker = (
            f" (process {where['process_id']} on {where['host']})" if {"process_id", "host"} <= where.keys() else ""
        )
        place = f"{planned.cell.name} #{planned.suggestion} seed {planned.spec.seed} {planned.spec.phase}"
        reason = f": {result.reason}" if result.reason else ""
        self.say(f"trial {result.key} {place}: {result.status}{seconds}{worker}{reason}")

    def end(self, session: Session, fault: BaseException | None = None) -> None:
        """Say how the sweep ended."""
        if fault is not None:
            first = (str(fault).splitlines() or [""])[0]
            self.say(f"end: {type(fault).__name__}{f': {first}' if first else ''}")
            return
        missing = session.search.n_unknown
        failed = f", {session.progress.n_failed} of them failed" if session.progress.n_failed else ""
        self.say(f"end: {session.progress.n_done} trials ended{failed}, at most {missing} missing")

    def close(self) -> None:
        """Write what waits."""
        if self._lines:
            before = read_file(self._run.storage, LOG_FILE)
            content = (before + "".join(self._lines).encode())[-_MOST_BYTES:]
            self._lines.clear()
            with suppress(StorageError):
                write_file(self._run.storage, LOG_FILE, content, "report")
