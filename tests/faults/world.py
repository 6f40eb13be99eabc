"""The small sweep that every fault hits, its undisturbed tables, and the comparison with them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from orchestrator.core.metrics import METRICS
from orchestrator.execution.session import Session
from orchestrator.report.page.writing import write_page
from orchestrator.results.compaction import compact
from orchestrator.results.run import Run
from orchestrator.results.schema import LISTS
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.base import is_temporary
from orchestrator.storage.opening import stored_file
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.provenance import software_versions
from orchestrator.trial.setup import warm_up

ROOT = Path(__file__).parents[2]

SMALL: dict[str, Any] = {
    "name": "faults",
    "scenarios": ["split-digits/task"],
    "methods": ["naive", "joint", "replay"],
    "limits": ["worst_forgetting <= 0.9"],
    "seeds": {"search": 1, "confirm": 1},
    "search": {"suggestions": 3, "batch": 2},
    "model": {"hidden": [8]},
    "training": {"epochs": 1, "batch_size": 64},
}
"""8 trials of some hundredths of a second; `joint` makes the end of a sweep rewrite rows."""

LONGER = SMALL | {
    "seeds": {"search": 2, "confirm": 2},
    "search": {"suggestions": 8, "batch": 4},
    "training": {"epochs": 12, "batch_size": 32},
}
"""26 trials of about half a second, so that a fault on a cluster finds trials in flight."""

IDENTITY = {
    "trials": ["key"],
    "accuracy": ["key", "after_task", "task"],
    "outcomes": ["key", "after_task", "task"],
}
SAME = ["key", "scenario", "method", "phase", "suggestion", "seed", "hyperparameters", "status", *METRICS]
"""Columns of the trials table that no fault may change; costs and times may."""


@dataclass
class Tally:
    """The counts of a group of faults.

    Args:
        group: its name.
        faults: those that really hit.
        expected: rows that should be there after each fault and the run that ended the sweep, added up.
        found: rows that were there.
        duplicates: rows that were there more than once, at the fault or at the end.
        differences: rows that were missing, extra, or different from the undisturbed ones, and trials trained twice.
        notes: what was skipped, or is to be printed.
        details: a line a difference: after which fault.
        n_resumed: trials that went on from the checkpoint of a dead worker, if the group counts them.
    """

    group: str
    faults: int = 0
    expected: int = 0
    found: int = 0
    duplicates: int = 0
    differences: int = 0
    notes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    n_resumed: int = 0

    def line(self) -> str:
        """Return the counts as they are printed."""
        return (
            f"faults tried {self.faults}, rows expected {self.expected}, rows found {self.found}, "
            f"duplicates {self.duplicates}, differences {self.differences}"
        )

    def wrong(self, what: str, n: int = 1) -> None:
        """Count `n` differences."""
        self.differences += n
        self.details.append(what)
        print(f"  {self.group}: {what}", file=sys.stderr, flush=True)

    def add(self, other: Tally) -> None:
        """Add the counts of another group."""
        for name in ("faults", "expected", "found", "duplicates", "differences"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class World:
    """A spec, a folder for its runs, and the tables of an undisturbed one.

    Args:
        folder: an empty folder.
        content: the spec.
        seed: of what is random.
    """

    def __init__(self, folder: Path, content: dict[str, Any], seed: int) -> None:
        self.folder = folder
        self.content = content
        self.spec = parse_spec(content)
        self.random = random.Random(seed)
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        warm_up()  # imports, once here and not in every fork
        software_versions()
        load_dataset("digits", Path("nowhere"))

    @cached_property
    def undisturbed(self) -> Path:
        """Return the run folder of a sweep in one process that nothing disturbed."""
        folder = self.folder / "undisturbed"
        status = forked(lambda: drive(folder, self.spec))
        assert status == 0, f"the undisturbed sweep ended with {status}"
        return folder

    def new(self, name: str) -> Path:
        """Return the path of a run folder that does not exist."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        return path

    def check_after_fault(self, tally: Tally, what: str, folder: Path) -> dict[str, Any]:
        """Count the errors that a reader sees right after a fault; return key -> start of each trial that is kept."""
        kept: dict[str, Any] = {}
        confirmed: set[str] = set()
        for table, identity in IDENTITY.items():
            frame = read(folder, table)
            duplicates = int(frame.duplicated(identity).sum()) if len(frame) else 0
            tally.duplicates += duplicates
            if duplicates:
                tally.details.append(f"{what}: {duplicates} rows of {table} twice after the fault")
            if table == "trials" and len(frame):
                whole = frame[frame["status"] != "error"]
                kept = dict(zip(whole["key"], whole["started_at"], strict=True))
                confirmed = set(whole.loc[(whole["phase"] == "confirm") & (whole["status"] == "completed"), "key"])
        for table, owners in (("accuracy", set(kept)), ("outcomes", confirmed)):
            rows = read(folder, table)
            bare = owners - set(rows["key"] if len(rows) else ())
            if bare:
                tally.wrong(f"{what}: {len(bare)} trials without their {table}", len(bare))
        return kept

    def check_end(self, tally: Tally, what: str, folder: Path, kept: dict[str, Any]) -> None:
        """Compare the tables of a run that was ended after faults with the undisturbed ones, and count."""
        for table, identity in IDENTITY.items():
            expected, found = read(self.undisturbed, table), read(folder, table)
            tally.expected += len(expected)
            tally.found += len(found)
            if not len(found):
                tally.wrong(f"{what}: {table} is empty", len(expected))
                continue
            duplicates = int(found.duplicated(identity).sum())
            tally.duplicates += duplicates
            columns = SAME if table == "trials" else list(expected.columns)
            n_other = n_differences(expected, found.drop_duplicates(identity), identity, columns)
            if n_other or duplicates:
                tally.wrong(f"{what}: {n_other} rows of {table} differ, {duplicates} twice", n_other)
        trials = read(folder, "trials")
        now = dict(zip(trials["key"], trials["started_at"], strict=True)) if len(trials) else {}
        again = [key for key, start in kept.items() if now.get(key) != start]
        if again:
            tally.wrong(f"{what}: {len(again)} complete trials were trained again", len(again))
        left = [p for p in folder.rglob("*") if is_temporary(p.name) or p.name.endswith(".compact")]
        left += list(folder.glob("checkpoints/*.pt"))
        if left:
            tally.wrong(f"{what}: left over: {left[0].name}", len(left))


def n_differences(expected: pd.DataFrame, found: pd.DataFrame, identity: list[str], columns: list[str]) -> int:
    """Return in how many rows two tables differ; NaN equals NaN."""
    one, other = (frame[columns].set_index(identity, drop=False) for frame in (expected, found))
    common = one.index.intersection(other.index)
    n_alone = len(one) + len(other) - 2 * len(common)
    left, right = one.loc[common], other.loc[common]
    same = (left == right) | (left.isna() & right.isna())
    return n_alone + int((~same.all(axis=1)).sum())


def read(folder: Path, table: str) -> pd.DataFrame:
    """Return a table as pandas reads it, lists as tuples, which can be compared; empty if there is none."""
    files = [p for p in (folder / table).glob("*.parquet") if not p.name.startswith(".")]
    frame = pd.read_parquet(folder / table) if files else pd.DataFrame()
    for name in frame.columns.intersection(LISTS):
        frame[name] = [None if value is None else tuple(value) for value in frame[name]]
    return frame


def drive(folder: Path, spec: SweepSpec, merge: bool = True) -> None:
    """Run, finish and compact a sweep in this process, and write its page: the driver without a cluster."""
    torch.set_num_threads(1)
    trial_module.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    run = Run(folder)
    run.check(spec)
    with run.locked():
        session = Session(spec, Run(folder), Path("nowhere"))
        Run.create(folder, spec)
        while not session.search.is_finished:
            planned = session.search.hand_out(session.search.waiting_requests()[0])
            data = session.arrays(planned.spec)
            place = session.run.checkpoint_path(planned.spec.key)
            session.finish(run_trial(planned.spec, data, checkpoint=stored_file(place)))
        session.close()
        if merge:
            compact(run.tables)
        write_page(run)


def forked(action: Callable[[], None], output: Path | None = None) -> int:
    """Run `action` in a fork of this process; return its exit status, negative for a signal.

    Args:
        action: what to do there; an exception makes the status 1.
        output: the file that its traceback goes to.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            action()
            code = 0
        except BaseException:
            text = traceback.format_exc()
            if output is None:
                print(text, flush=True)
            else:
                output.write_text(text)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
