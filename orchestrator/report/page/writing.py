"""The page of a run as a file: written anew only where the run, its spec or this code changed."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import MissingExtraError
from orchestrator.core.version import __version__
from orchestrator.report.exports.writing import write_export
from orchestrator.report.page.boundaries import FOUND
from orchestrator.results.folder import read_file, write_file
from orchestrator.storage.base import BOUNDARIES_FILE, DATA_FILE, REPORT_FILE

if TYPE_CHECKING:
    from orchestrator.execution.session import Session
    from orchestrator.results.run import Run

_MARK = re.compile(rb'<meta name="continual-sweep-state" content="([0-9a-f]{32})">')
_FORM = 1
"""Raised whenever the same run gives another page."""


def state_of(run: Run) -> str:
    """Return a hash of everything that a page depends on: the spec, the trials, and the code that writes it."""
    trials = run.tables.trials.read()
    digest = hashlib.sha256(f"{__version__} {_FORM} {run.where} {run.spec.to_yaml()}".encode())
    for key, status in sorted(zip(trials["key"], trials["status"], strict=True)):
        digest.update(f"{key} {status};".encode())
    return digest.hexdigest()[:32]


def has_page(run: Run) -> bool:
    """Return whether a run folder has a page."""
    try:
        return REPORT_FILE in run.storage.names()
    except OSError:
        return False


def keep_what_was_read(session: Session) -> None:
    """Keep what `plan` shows of a user's own data, and the boundaries that were found in them, for the page.

    Raises:
        StorageError: if it cannot be written.
    """
    from orchestrator.report.data_view import data_text
    from orchestrator.trial.data_summary import summaries

    read = summaries(session.spec, session.datasets)
    if text := data_text(session.spec, read):
        write_file(session.run.storage, DATA_FILE, text.encode(), "report")
    if found := {one.stream: one.report.boundaries for one in read if one.report and one.report.boundaries}:
        write_file(session.run.storage, BOUNDARIES_FILE, FOUND.dump_json(found), "report")


def write_page(run: Run, file: Path | None = None) -> str:
    """Write the page of a run and return where it is; one in the run folder that is up to date stays.

    Args:
        run: the run.
        file: where to; `report.html` in the run folder by default.

    Raises:
        MissingExtraError: if the extra `report` is not installed.
        StorageError: if it cannot be written; a page that is there stays as it is.
    """
    if not importlib.util.find_spec("vl_convert") or not importlib.util.find_spec("jinja2"):
        raise MissingExtraError("the page (report.html)", "report")
    state = state_of(run)
    if file is None:
        there = _MARK.search(read_file(run.storage, REPORT_FILE)[:8192])
        if there is None or there[1].decode() != state:
            write_file(run.storage, REPORT_FILE, _rendered(run, state))
        return run.storage.describe(REPORT_FILE)
    write_export(str(file), _rendered(run, state))
    return str(file)


def _rendered(run: Run, state: str) -> bytes:
    from orchestrator.report.page.render import content_of, render_page

    return render_page(content_of(run), state).encode()
