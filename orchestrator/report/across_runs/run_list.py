"""The runs below a folder, each in a line: when, how far, and the answer in a few words. Nothing is searched again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from orchestrator.core.errors import OrchestratorError, RunFolderError, system_message
from orchestrator.core.metrics import number, quantity
from orchestrator.core.text import visible_lines
from orchestrator.results.folder import read_file
from orchestrator.results.run import Run
from orchestrator.search.answers.full_answer import ANSWER_VERSION
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import ANSWER_FILE, SPEC_FILE, Place, Storage, is_bookkeeping
from orchestrator.storage.opening import open_storage

State = Literal["complete", "missing", "not summarised", "not a run", "unreadable"]

_DEEPEST = 4
"""How many folders below the first are looked into for runs."""

NOT_SUMMARISED = "show RUN tells"


@dataclass(frozen=True)
class ListedRun:
    """A folder in the list.

    Args:
        where: the folder, as it may be shown.
        name: of the sweep; empty if it is not known.
        date: when its newest trial started, in ISO 8601 and UTC; empty if it has none.
        state: `missing` if trials are; `not summarised` if only a search over the tables could tell.
        n_missing: how many trials are missing at most; None if it is not known.
        n_trials: rows of its trials table; None if they cannot be read.
        answers: scenario -> the answer in a few words; empty unless there is a summary.
        reason: why it cannot be read; else empty.
    """

    where: str
    name: str = ""
    date: str = ""
    state: State = "not a run"
    n_missing: int | None = None
    n_trials: int | None = None
    answers: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    @property
    def state_text(self) -> str:
        """Return the state in words."""
        if self.state == "missing":
            return f"{self.n_missing} missing"
        return f"unreadable: {self.reason}" if self.state == "unreadable" else self.state


def list_runs(folder: Place) -> list[ListedRun]:
    """Return the runs in a folder and below it, and the folders in which there is none.

    Args:
        folder: a folder of runs or a run, on a disk or in an object store.

    Raises:
        RunFolderError: if it is missing, or a file.
        StorageError: if it cannot be listed.
    """
    storage = open_storage(folder)
    try:
        names = storage.names()
    except NotADirectoryError as error:
        raise RunFolderError(f"ls: expected a folder, got the file '{storage.where}'") from error
    except OSError as error:
        raise RunFolderError(
            f"{system_message('list', storage.where, error)} Fix it, or name another folder."
        ) from error
    if not names and not (storage.path is not None and storage.path.is_dir()):
        raise RunFolderError(f"ls: expected a folder of runs, got '{storage.where}', which does not exist")
    if _is_run(names):
        return [_listed(storage)]
    return [run for name in names if not is_bookkeeping(name) for run in _below(storage.folder(name), 1)]


def _below(storage: Storage, depth: int) -> Iterator[ListedRun]:
    """Yield the runs in a folder; the folder itself if it cannot be read or holds none."""
    try:
        if storage.path is not None and (storage.path.is_file() or (depth > 1 and storage.path.is_symlink())):
            return
        names = storage.names()
    except NotADirectoryError:
        return
    except OSError as error:
        yield ListedRun(storage.where, state="unreadable", reason=_first(system_message("list", storage.where, error)))
        return
    if _is_run(names):
        yield _listed(storage)
        return
    if not names and storage.path is None:
        return  # an object, not a folder
    inner = [name for name in names if not name.startswith(".")] if depth < _DEEPEST else []
    found = [run for name in inner for run in _below(storage.folder(name), depth + 1) if run.state != "not a run"]
    yield from found or [ListedRun(storage.where)]


def _is_run(names: list[str]) -> bool:
    return SPEC_FILE in names or {"trials", "accuracy"} <= {*names}


def _listed(storage: Storage) -> ListedRun:
    """Return a run; whatever is wrong with it is its state, so that one damaged run does not hide the others."""
    try:
        return _summary(storage)
    except OrchestratorError as error:
        return ListedRun(storage.where, state="unreadable", reason=_first(str(error)))
    except Exception as error:
        return ListedRun(storage.where, state="unreadable", reason=_first(f"{type(error).__name__}: {error}"))


def _summary(storage: Storage) -> ListedRun:
    run = Run.open(storage)
    spec, trials = run.spec, run.tables.trials.read()
    date, n_trials = _newest(trials), len(trials)
    kept = _kept(storage, spec, int((trials["status"] != "error").sum()))
    if kept is None:
        return ListedRun(run.where, spec.name, date, "not summarised", None, n_trials)
    n_missing, answers = kept
    return ListedRun(run.where, spec.name, date, "missing" if n_missing else "complete", n_missing, n_trials, answers)


def _newest(trials: pd.DataFrame) -> str:
    newest = trials["started_at"].max() if len(trials) else None
    return "" if newest is None or pd.isna(newest) else newest.isoformat(timespec="seconds")


def _kept(storage: Storage, spec: SweepSpec, n_ended: int) -> tuple[int, tuple[tuple[str, str], ...]] | None:
    """Return what `answer.json` says is missing, and its answers, if it is of this spec and of these trials."""
    try:
        answer = json.loads(read_file(storage, ANSWER_FILE))
        fits = answer["version"] == ANSWER_VERSION and answer["spec_hash"] == spec.content_hash()
        if not fits or answer["n_ended"] != n_ended:
            return None
        answers = tuple((str(one["scenario"]), _in_words(spec.objective, one)) for one in answer["scenarios"])
        return int(answer["n_missing"]), answers
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, StopIteration):
        return None  # nothing depends on this file, so a damaged one is as good as none


def _in_words(objective: str, scenario: dict[str, Any]) -> str:
    """Return the answer for a scenario, such as `replay (average 0.953)` or `nothing meets the limits`."""
    recommended = scenario["recommended"]
    if recommended is None:
        return str(scenario["status"])
    method = next(one for one in scenario["methods"] if one["method"] == recommended)
    mean = method["test"]["numbers"][objective]["mean"]
    return f"{recommended} ({objective} {number(quantity(objective).metric, float(mean))})"


def _first(message: str) -> str:
    """Return the first line of a message."""
    return visible_lines(message).split("\n")[0]


def in_words(run: ListedRun) -> str:
    """Return the answer of a run in a few words a scenario."""
    if run.state == "not summarised":
        return NOT_SUMMARISED if run.n_trials else "no trials yet"
    return "; ".join(f"{scenario}: {text}" for scenario, text in run.answers)
