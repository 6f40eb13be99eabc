"""Compaction: few files with the same rows, whatever happens on the way."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from orchestrator import api
from orchestrator.cli.main import app
from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.core.fault_points import POINTS, VARIABLE
from orchestrator.execution.session import Session
from orchestrator.report.page.writing import write_page
from orchestrator.results import compaction, parts, tables
from orchestrator.results.compaction import compact
from orchestrator.results.diagnostics.rows import diagnostic_rows
from orchestrator.results.parts import MERGED
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.results.tables import Table
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import ANSWER_FILE, REPORT_FILE, SUGGESTIONS_FILE
from orchestrator.storage.folder_swap import exchange
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]
Write = Callable[..., TrialSpec]
AsUser = Callable[[int, int], AbstractContextManager[None]]

TABLES = ("trials", "accuracy", "outcomes")
"""Those of which every trial here has rows; `diagnostics` has a test of its own."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.0)


@pytest.fixture
def run(tmp_path: Path, make_spec: MakeSpec) -> Run:
    return Run.create(tmp_path / "run", make_spec())


def record(run: Run, spec: TrialSpec, result: TrialResult) -> None:
    rows = accuracy_rows(spec, 0, result), outcome_rows(spec, 0, result)
    run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), *rows)


@pytest.fixture
def write(run: Run, make_trial: MakeTrial, make_result: MakeResult) -> Write:
    """Return a function that writes a trial's rows as if it had run."""

    def write(seed: int, status: str = "completed", method: str = "naive", last: int = 8) -> TrialSpec:
        spec = make_trial(seed=seed, method=method)
        result = make_result(spec, status, rows=((None, None), (9, None), (7, last)))
        record(run, spec, result)
        return spec

    return write


def by_pandas(run: Run) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tables as anyone reads them, after checking that each row is there once, and that we see the same."""
    frames = []
    for table in TABLES:
        key = ["key"] if table == "trials" else ["key", "after_task", "task"]
        frame = pd.read_parquet(run.path / table).sort_values(key, ignore_index=True)
        assert not frame.duplicated(key).any()
        ours = Table(run.path / table, table).read(with_lists=True).sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(frame, ours)
        frames.append(frame)
    return frames[0], frames[1], frames[2]


def files(run: Run, table: str) -> list[str]:
    return sorted(p.name for p in (run.path / table).iterdir())


def test_many_files_become_few_with_the_same_rows(run: Run, write: Write) -> None:
    for seed in range(7):
        write(seed)
    before = by_pandas(run)
    done = api.compact(run.path)
    assert [(d.table, d.n_before, d.n_after) for d in done] == [(table, 7, 1) for table in TABLES]
    for table in TABLES:
        assert [name.startswith(MERGED) for name in files(run, table)] == [True]
    for one, other in zip(before, by_pandas(run), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert sorted(p.name for p in run.path.iterdir()) == [".lock", "accuracy", "outcomes", "spec.yaml", "trials"]
    assert [d.n_after for d in api.compact(run.path)] == [1, 1, 1], "again changes nothing"


def test_diagnostics_are_merged_too_and_need_no_file_of_every_trial(
    run: Run, write: Write, make_result: MakeResult
) -> None:
    for seed in range(4):
        spec = write(seed)
        if seed % 2:
            result = replace(make_result(spec), diagnostics=[[0, "weight_norm", p, 1.0 + seed] for p in "ba"])
            run.tables.diagnostics.write(spec.key, diagnostic_rows(spec, 0, result))
    before = run.diagnostics()
    done = api.compact(run.path)
    assert [(d.table, d.n_before, d.n_after) for d in done][3] == ("diagnostics", 2, 1)
    place = ["key", "after_task", "name", "part"]
    after = pd.read_parquet(run.path / "diagnostics")
    assert after[place].equals(after[place].sort_values(place, ignore_index=True)), "in an order of its own"
    pd.testing.assert_frame_equal(after, before.sort_values(place, ignore_index=True))
    spec = write(1)
    again = replace(make_result(spec), diagnostics=[[0, "weight_norm", p, 2.0] for p in "ba"])
    run.tables.diagnostics.write(spec.key, diagnostic_rows(spec, 0, again))
    assert len(run.diagnostics()) == 4, "a trial that is written again replaces its rows"


def test_later_trials_join_and_full_files_stay(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", {"trials": 4, "accuracy": 7, "outcomes": 6, "diagnostics": 6})
    for seed in range(9):
        write(seed)
    compact(run.tables)
    assert len(files(run, "trials")) == 3
    sizes = [len(Table(run.path / "accuracy", "accuracy").read_file(name)) for name in files(run, "accuracy")]
    assert sorted(sizes) == [3, 6, 6, 6, 6], "no trial's rows are divided"
    full = {n for n in files(run, "trials") if len(Table(run.path / "trials", "trials").read_file(n)) == 4}
    write(9)
    compact(run.tables)
    assert full <= set(files(run, "trials"))
    trials, accuracy, _ = by_pandas(run)
    assert (len(trials), len(accuracy)) == (10, 30)


def test_machine_errors_stay_apart_and_are_replaced(run: Run, write: Write) -> None:
    for seed in range(3):
        write(seed)
    erred = write(3, "error")
    failed = write(4, "failed")
    compact(run.tables)
    assert [name for name in files(run, "trials") if not name.startswith(MERGED)] == [f"{erred.key}.parquet"]
    write(3)
    trials, accuracy, _ = by_pandas(run)
    assert len(trials) == 5
    assert set(trials["status"]) == {"completed", "failed"}
    assert trials.set_index("key")["status"][failed.key] == "failed"
    assert len(accuracy) == 12


def test_a_row_in_a_merged_file_is_replaced_there(run: Run, write: Write) -> None:
    specs = [write(seed) for seed in range(4)]
    compact(run.tables)
    names = files(run, "trials")
    write(2, last=5)
    assert files(run, "trials") == names
    trials, accuracy, _ = by_pandas(run)
    assert len(trials) == 4
    changed = accuracy[(accuracy["key"] == specs[2].key) & (accuracy["after_task"] == 1) & (accuracy["task"] == 1)]
    assert changed["n_correct"].tolist() == [5]
    assert trials.set_index("key")["average_accuracy"][specs[2].key] == pytest.approx(0.6)


def test_intransigence_is_filled_in_merged_files(run: Run, write: Write) -> None:
    naive = [write(seed) for seed in range(3)]
    compact(run.tables)
    joint = write(1, method="joint", last=9)
    run.fill_intransigence()
    values = pd.read_parquet(run.path / "trials").set_index("key")["intransigence"]
    assert values[naive[1].key] == pytest.approx(0.05)
    assert values[joint.key] == 0.0
    assert values[[naive[0].key, naive[2].key]].isna().all()
    by_pandas(run)


def test_deleting_a_merged_file_costs_only_its_trials(run: Run, write: Write) -> None:
    specs = [write(seed) for seed in range(3)]
    compact(run.tables)
    (run.path / "accuracy" / files(run, "accuracy")[0]).write_bytes(b"PAR1")
    with pytest.raises(
        RunFolderError, match=r"merged-.*delete it and run the sweep again: it repeats the trials of that file"
    ):
        run.outcomes()
    (run.path / "accuracy" / files(run, "accuracy")[0]).unlink()
    again = Run.open(run.path)
    assert again.outcomes() == {}, "what has no accuracy rows is run again"
    write(0)
    assert again.outcomes().keys() == {specs[0].key}
    trials, accuracy, _ = by_pandas(run)
    assert (len(trials), len(accuracy)) == (3, 3)


# A backup of before, restored over a run.


def void(made: Any) -> None:
    """Return nothing."""


def restored(run: Run, write: Write, more: Callable[[], None]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compact a run after `more`, lay a copy of before over it, and return its tables without that copy."""
    for seed in range(4):
        write(seed)
    write(1, method="joint", last=9)
    backup = shutil.copytree(run.path, run.path.parent / "backup")
    more()
    compact(run.tables)
    tables = by_pandas(run)
    shutil.copytree(backup, run.path, dirs_exist_ok=True)
    return tables


def test_a_backup_over_a_compacted_run_changes_nothing(run: Run, write: Write) -> None:
    trials, accuracy, outcomes = restored(run, write, run.fill_intransigence)
    assert len(pd.read_parquet(run.path / "trials")) == 10, "pandas sees both until the next sweep or compaction"
    again = Run.open(run.path)
    pd.testing.assert_frame_equal(again.tables.trials.read().sort_values("key", ignore_index=True), trials)
    assert len(again.accuracy()) == len(accuracy)
    with run.locked():
        assert len(run.outcomes()) == 5
        run.check(run.spec)  # reads every table, as each sweep does
    for one, other in zip((trials, accuracy, outcomes), by_pandas(run), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert [len(files(run, table)) for table in TABLES] == [1, 1, 1]


def test_compaction_writes_each_row_once(run: Run, write: Write) -> None:
    tables = restored(run, write, run.fill_intransigence)
    done = api.compact(run.path)
    assert [(d.table, d.n_before, d.n_after) for d in done] == [(table, 6, 1) for table in TABLES]
    for one, other in zip(tables, by_pandas(run), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_an_error_of_before_gives_way_to_the_result(run: Run, write: Write) -> None:
    write(9, "error")
    trials, _, _ = restored(run, write, lambda: void(write(9)))
    assert set(trials["status"]) == {"completed"}
    api.compact(run.path)
    pd.testing.assert_frame_equal(by_pandas(run)[0], trials)


def test_rows_filled_in_since_stay_in_their_files(run: Run, write: Write) -> None:
    """A merged file of before beside the files of now: its rows are the ones to go."""
    specs = [write(seed) for seed in range(3)]
    single = shutil.copytree(run.path / "trials", run.path.parent / "single")
    compact(run.tables)
    (single / f"{specs[0].key}.parquet").unlink()
    Table(single, "trials").fill("intransigence", {spec.key: 0.5 for spec in specs[1:]})
    shutil.copytree(single, run.path / "trials", dirs_exist_ok=True)
    with run.locked():
        run.trials()
        assert by_pandas(run)[0].set_index("key")["intransigence"][[s.key for s in specs[1:]]].tolist() == [0.5, 0.5]
        write(1)  # into the file that has it now
    assert len(by_pandas(run)[0]) == 3
    assert len(files(run, "trials")) == 3


def test_a_restored_trial_that_differs_is_refused(run: Run, write: Write) -> None:
    restored(run, write, lambda: void(write(2, last=3)))
    before = files(run, "trials")
    message = (
        r"(?s)trials/[0-9a-f]+\.parquet: expected each trial once, got .* than in '.*merged-.*'; delete one of the two"
    )
    with pytest.raises(RunFolderError, match=message):
        run.outcomes()
    with pytest.raises(RunFolderError, match=message) as caught:
        api.compact(run.path)
    assert files(run, "trials") == before
    Path(str(caught.value).partition(": ")[0]).unlink()
    for table in ("accuracy", "outcomes"):
        with pytest.raises(RunFolderError, match=message.replace("trials/", f"{table}/")) as caught:
            api.compact(run.path)
        Path(str(caught.value).partition(": ")[0]).unlink()
    api.compact(run.path)
    assert len(by_pandas(run)[0]) == 5


def test_a_matrix_smaller_than_that_of_joint_is_no_bug(run: Run, write: Write) -> None:
    naive, joint = write(1), write(1, method="joint", last=9)
    rows = run.tables.accuracy.read_file(f"{naive.key}.parquet")
    run.tables.accuracy.write_file(f"{naive.key}.parquet", rows.slice(0, 1))
    values = run.trials().set_index("key")["intransigence"]
    assert values[joint.key] == 0
    assert pd.isna(values[naive.key])


def test_foreign_files_survive_and_folders_are_refused(run: Run, write: Write) -> None:
    for seed in range(3):
        write(seed)
    (run.path / "trials" / "notes.txt").write_text("mine")
    compact(run.tables)
    assert (run.path / "trials" / "notes.txt").read_text() == "mine"
    for seed in range(3, 6):
        write(seed)
    (run.path / "trials" / "old").mkdir()
    with pytest.raises(StorageError, match=r"compact: '.*old' is a link or a folder, where only files are expected"):
        compact(run.tables)


def test_a_second_holder_is_refused(run: Run, write: Write) -> None:
    with run.locked(), pytest.raises(RunFolderError, match="another sweep uses"):
        api.compact(run.path)


class Linux:
    """A system whose file system refuses to swap folders."""

    def __init__(self, number: int) -> None:
        self.number = number

    def renameat2(self, *args: Any) -> int:
        ctypes.set_errno(self.number)
        return -1


@pytest.mark.parametrize("system", [Linux(errno.EINVAL), Linux(errno.ENOSYS), object()])
def test_without_a_swap_of_folders_nothing_changes(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch, system: object
) -> None:
    for seed in range(3):
        write(seed)
    before = files(run, "trials")
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: system)
    with pytest.raises(StorageError, match=r"compact: the file system of .* cannot swap two folders in one step"):
        compact(run.tables)
    assert files(run, "trials") == before
    assert not list(run.path.glob(".*.compact"))


def test_another_refusal_of_the_swap_says_why(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(seed)
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: Linux(errno.EACCES))
    with pytest.raises(StorageError, match=r"Cannot write to .*: permission denied"):
        compact(run.tables)


def test_macos_swaps_by_a_call_of_its_own(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    class MacOS:
        @staticmethod
        def renamex_np(one: bytes, other: bytes, flags: int) -> int:
            assert flags == 2  # RENAME_SWAP
            os.rename(other, other + b".old")
            os.rename(one, other)
            os.rename(other + b".old", one)
            return 0

    for seed in range(3):
        write(seed)
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: MacOS)
    assert [done.n_after for done in compact(run.tables)] == [1, 1, 1]
    assert len(by_pandas(run)[0]) == 3


def test_a_full_disk_leaves_every_file(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(seed)
    before = files(run, "trials")

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for function in ("fsync", "mkdir"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(StorageError, match="no space left on device"):
                compact(run.tables)
        assert files(run, "trials") == before
        assert not list(run.path.glob(".*.compact"))
    by_pandas(run)


def test_a_large_sweep_compacts_itself(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(seed)
    assert not compaction.is_worth_it(run.tables)
    monkeypatch.setattr(compaction, "MANY_FILES", 2)
    assert compaction.is_worth_it(run.tables)


def test_a_large_sweep_compacts_at_its_end(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    done = Run.create(tmp_path / "run", spec)
    session = Session(spec, done, tmp_path)
    while not session.search.is_finished:
        trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
        session.finish(run_trial(trial, session.arrays(trial)))
    n_files = len(files(done, "trials"))
    api.run_sweep(spec, done.path, tmp_path)
    assert len(files(done, "trials")) == n_files == 4
    monkeypatch.setattr(compaction, "MANY_FILES", 3)
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", lambda *args, **options: object())
        assert api.run_sweep(spec, done.path, tmp_path).n_missing(spec) == 0
    assert len(files(done, "trials")) == 4
    assert api.run_sweep(spec, done.path, tmp_path).n_missing(spec) == 0
    assert len(files(done, "trials")) == 1
    assert len(by_pandas(done)[0]) == 4


def test_the_command_says_what_it_did(run: Run, write: Write) -> None:
    for seed in range(3):
        write(seed)
    done = CliRunner().invoke(app, ["compact", str(run.path)])
    assert done.output == "".join(f"{table}: 3 files before, 1 now\n" for table in TABLES)


def test_a_reader_reads_again_after_a_compaction(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        write(seed)
    real, n_reads = tables.check_file, 0

    def check(*args: Any) -> Any:
        nonlocal n_reads
        n_reads += 1
        if n_reads == 2:
            monkeypatch.setattr(tables, "check_file", real)
            compact(run.tables)
        return real(*args)

    monkeypatch.setattr(tables, "check_file", check)
    assert run.accuracy()["key"].nunique() == 4
    assert n_reads == 2


# Killed.

WORK = """
import json, os, shutil, sys
from collections import Counter
from pathlib import Path
from orchestrator.core import fault_points as faultpoints
from orchestrator.report.page.render import chart_library
from orchestrator.report.page.writing import write_page
from orchestrator.results import compaction, parts, run_tables
from orchestrator.storage import folders, local as storage
from orchestrator.results.run import Run
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.trial.result import TrialResult
from orchestrator.spec.trial_spec import TrialSpec

compaction.SECONDS_FOR_READERS = 0.0
compaction.MOST_ROWS = {"trials": 4, "accuracy": 12, "outcomes": 12, "diagnostics": 12}

def work(folder, what, trials):
    run = Run(folder)
    parts.MOST_SINGLE_FILES = 0 if what == "parts" else 100
    with run.locked():
        if what == "compact":
            compaction.compact(run.tables)
        elif what == "fill":
            run.fill_intransigence()
        elif what == "spec":
            Run.create(folder, run.spec)
        elif what == "keep":
            run.keep(run.search(run.spec))
        elif what == "page":
            write_page(run)
        else:
            for spec, result in trials:
                spec, result = TrialSpec.model_validate(spec), TrialResult.from_json(result)
                rows = accuracy_rows(spec, 0, result), outcome_rows(spec, 0, result)
                run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), *rows)

def forked(action):
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]

def counted(folder, what, trials):
    n, real = Counter(), faultpoints.reached
    for module in (compaction, folders, storage, run_tables):
        module.reached = lambda point: n.update([point])
    work(folder, what, trials)
    (folder.parent / f"{what}.counts").write_text(json.dumps(n))

def killed(folder, what, trials, point, number):
    faultpoints._KILL_AT = (point, number)
    work(folder, what, trials)

base, trials = Path(sys.argv[1]), json.load(sys.stdin)
chart_library()  # once, for all forks
cases = []
for what in ("trials", "parts", "fill", "compact", "spec", "keep", "page"):
    whole = base.parent / f"{what}.whole"
    shutil.copytree(base, whole)
    assert forked(lambda: counted(whole, what, trials)) == 0
    counts = json.loads((base.parent / f"{what}.counts").read_text())
    for point, number in counts.items() if what != "fill" else [(p, 1) for p in counts]:
        folder = base.parent / f"{what}.{point}.{number}"
        shutil.copytree(base, folder)
        status = forked(lambda: killed(folder, what, trials, point, number))
        assert status == 9, (what, point, number, status)
        cases.append([what, point, number, str(folder)])
print(json.dumps(cases))
"""
"""Does each kind of work once undisturbed, then on copies on which it dies: at every point, the last time that it gets
there (the first time for `fill`). `make faults` has the other times."""


def work_again(folder: Path, what: str, trials: list[Any]) -> None:
    """Do the same work as the process that died, to its end."""
    run = Run(folder)
    with run.locked(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "MOST_SINGLE_FILES", 0 if what == "parts" else 100)
        if what == "compact":
            compact(run.tables)
        elif what == "fill":
            run.fill_intransigence()
        elif what == "spec":
            Run.create(folder, run.spec)
        elif what == "keep":
            run.keep(run.search(run.spec))
        elif what == "page":
            write_page(run)
        else:
            for spec, result in trials:
                record(run, spec, result)


def test_killed_anywhere_the_next_run_finishes(
    run: Run, write: Write, make_trial: MakeTrial, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", {"trials": 4, "accuracy": 12, "outcomes": 12, "diagnostics": 12})
    for seed in range(6):
        write(seed)
    compact(run.tables)
    for seed in range(6, 9):
        write(seed)
    erred, joint = write(9, "error"), write(2, method="joint", last=9)
    (run.path / "trials" / ".stale.parquet.1.tmp").write_bytes(b"PAR1")
    rows = ((None, None), (9, None), (7, 5))
    # A trial that is new, one that erred, and one that is in a merged file.
    trials = [(s, make_result(s, rows=rows)) for s in (make_trial(seed=10), erred, make_trial(seed=1))]
    sent = json.dumps([[spec.model_dump(mode="json"), result.to_json()] for spec, result in trials])
    child = subprocess.run(
        [sys.executable, "-c", WORK, str(run.path)], input=sent, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr
    cases = json.loads(child.stdout)
    assert {point for _, point, _, _ in cases} == {p for p in POINTS if not p.startswith("checkpoint.")}
    before, rewritten = by_pandas(run), {spec.key for spec, _ in trials}
    wholes = {what: Run(run.path.parent / f"{what}.whole") for what in dict.fromkeys(case[0] for case in cases)}
    expected = {what: by_pandas(whole) for what, whole in wholes.items()}
    for what, point, number, folder in cases:
        died = Run(Path(folder))
        now = by_pandas(died)
        for old, new in zip(before, now, strict=True):
            kept = old[~old["key"].isin(rewritten)]
            columns = [c for c in kept.columns if c != "intransigence"]
            same = new[new["key"].isin(kept["key"])].reset_index(drop=True)
            pd.testing.assert_frame_equal(kept[columns].reset_index(drop=True), same[columns], obj=f"{what} {point}")
        completed = now[0].loc[now[0]["status"] == "completed", "key"]
        for frame in now[1:]:
            assert set(completed) <= set(frame["key"]), f"{what} {point}#{number}: a completed trial lost rows"
        assert set(before[0]["key"]) <= set(now[0]["key"])
        work_again(died.path, what, trials)
        for one, other in zip(expected[what], by_pandas(died), strict=True):
            pd.testing.assert_frame_equal(one, other, obj=f"{what} {point}#{number}")
        for table in TABLES:
            assert files(died, table) == files(wholes[what], table), f"{what} {point}#{number}"
        if what == "keep":
            for name in (SUGGESTIONS_FILE, ANSWER_FILE):
                assert (died.path / name).read_bytes() == (wholes[what].path / name).read_bytes(), f"{point} {name}"
        if what == "page":
            assert (died.path / REPORT_FILE).read_text(encoding="utf-8").rstrip().endswith("</html>"), point
        assert not list(died.path.glob(".*.compact"))
        assert not list(died.path.rglob("*.tmp"))
    assert joint.key in set(before[0]["key"])


def test_points_are_of_one_list() -> None:
    assert len(set(POINTS)) == len(POINTS)
    for text in ("compact.nothing", "row.opened#x"):
        child = subprocess.run(
            [sys.executable, "-c", "import orchestrator.core.fault_points"],
            env={**os.environ, VARIABLE: text}, capture_output=True, text=True,
        )  # fmt: skip
        assert child.returncode == 1
        assert "expected POINT#N with a point of spec.opened" in child.stderr


def test_a_process_dies_where_the_environment_says(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom orchestrator.storage.local import LocalStorage\n"
        "for n in range(3):\n    LocalStorage(Path(sys.argv[1])).write(f'{n}', b'x', 'checkpoint', durable=False)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, VARIABLE: "checkpoint.written#2"}
    )
    assert child.returncode == -9
    assert [p.name[:2] for p in sorted(tmp_path.iterdir())] == [".1", "0"]


READER = """
import sys
import time
import pandas as pd
n_whole = n_short = 0
print("reading", flush=True)
while n_whole < 60:
    try:
        frame = pd.read_parquet(sys.argv[1])
    except FileNotFoundError:
        continue
    seeds = sorted(frame["seed"]) if len(frame) else []
    assert len(seeds) == len(set(seeds)), "a row twice"
    n_short += len(seeds) < 40  # listed just before a swap, see compaction
    n_whole += 1
print(n_short)
"""


def test_pandas_reads_each_row_once_during_merges(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.5)
    for seed in range(40):
        write(seed)
    whole, n_swaps = run.path.parent / "whole", 0
    shutil.copytree(run.path, whole)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(run.path / "trials")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        while reader.poll() is None:
            compact(run.tables)
            # Many files again, in the same one step.
            again = run.path.parent / "again"
            shutil.copytree(whole / "trials", again)
            exchange(run.path / "trials", again)
            n_swaps += 2
            time.sleep(0.2)
            shutil.rmtree(again)
        n_short = reader.stdout.read()
        assert n_short, reader.stderr.read() if reader.stderr else ""
        assert int(n_short) <= n_swaps, "a swap costs a reader more than the one read that had listed the files before"


# What is swapped in, and whose it is.


def test_rows_that_changed_in_the_merge_are_refused(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(seed)
    before, real = files(run, "trials"), Table.write_file

    def corrupt(table: Table, name: str, content: Any, purpose: str) -> None:
        real(table, name, content.slice(1), purpose)

    monkeypatch.setattr(Table, "write_file", corrupt)
    with pytest.raises(StorageError, match=r"compact: '.*' does not hold the rows of 'trials' .*: check the disk"):
        compact(run.tables)
    assert files(run, "trials") == before
    assert not list(run.path.glob(".*.compact"))
    assert len(by_pandas(run)[0]) == 3


def test_content_then_names_then_swap_are_synced(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(seed)
    write(3, "error")
    order: list[str] = []

    def noted(module: Any, name: str, where: Callable[..., Path]) -> None:
        real = getattr(module, name)

        def note(*args: Any, **options: Any) -> Any:
            order.append(f"{name} {where(*args).relative_to(run.path)}")
            return real(*args, **options)

        monkeypatch.setattr(module, name, note)

    noted(os, "link", lambda source, target: Path(target).parent)
    noted(os, "replace", lambda source, target: Path(target).parent)
    noted(os, "fsync", lambda descriptor: Path(os.readlink(f"/proc/self/fd/{descriptor}")))
    noted(compaction, "exchange", lambda old, new: old)
    noted(os, "rmdir", lambda path: Path(path))
    compact(run.tables)
    for table in TABLES:
        new, swap = f".{table}.compact", order.index(f"exchange {table}")
        named = [i for i, event in enumerate(order[:swap]) if event in (f"link {new}", f"replace {new}")]
        assert f"fsync {new}" in order[max(named) : swap], "the names"
        assert any(e.startswith(f"fsync {new}/.merged-") for e in order[: max(named)]), "the content"
        assert "fsync ." in order[swap : order.index(f"rmdir {new}", swap)], "the swap"


def owners(folder: Path) -> set[tuple[int, int]]:
    """Return the owners and groups of a run's tables and all that is in them."""
    paths = [p for table in TABLES for p in (folder / table, *(folder / table).iterdir())]
    return {(p.stat().st_uid, p.stat().st_gid) for p in paths}


def give(folder: Path, user: int, group: int, mode: int) -> None:
    """Make everything in a run another user's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, group)
        path.chmod(mode if path.is_dir() else mode & 0o666)


@needs_root
def test_what_root_compacts_stays_its_owners(run: Run, write: Write, as_user: AsUser) -> None:
    for seed in range(3):
        write(seed)
    give(run.path, 1234, 1235, 0o750)
    old_mask = os.umask(0o077)
    try:
        assert [done.n_after for done in api.compact(run.path)] == [1, 1, 1]
    finally:
        os.umask(old_mask)
    assert owners(run.path) == {(1234, 1235)}
    assert {p.stat().st_mode & 0o777 for p in run.path.rglob("*.parquet")} == {0o640}
    assert (run.path / "trials").stat().st_mode & 0o777 == 0o750
    with as_user(1234, 1235), Run(Path("run")).locked():
        Run(Path("run")).storage.folder("trials").write("new", b"x")


@needs_root
def test_a_colleague_compacts_what_the_group_may_write(run: Run, write: Write, as_user: AsUser) -> None:
    for seed in range(3):
        write(seed)
    give(run.path, 1234, 1235, 0o775)
    with as_user(4321, 1235):
        compact(Run(Path("run")).tables)
    assert owners(run.path) == {(4321, 1235)}
    assert {p.stat().st_mode & 0o777 for p in run.path.rglob("*.parquet")} == {0o664}
    with as_user(1234, 1235), Run(Path("run")).locked():
        Run(Path("run")).storage.folder("trials").write("new", b"x")


def test_access_control_lists_are_kept(run: Run, write: Write) -> None:
    for seed in range(3):
        write(seed)
    entries = ((0x01, 7, -1), (0x02, 7, 4321), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1))
    rights = b"\x02\0\0\0" + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(run.path / "trials", "system.posix_acl_access", rights)
    except OSError:
        pytest.skip("a file system without access control lists")
    compact(run.tables)
    assert len(files(run, "trials")) == 1
    assert os.getxattr(run.path / "trials", "system.posix_acl_access") == rights


@needs_root
@pytest.mark.parametrize(("user", "group", "mode"), [(1234, 0, 0o755), (0, 1235, 0o770), (1234, 1235, 0o770)])
def test_nobody_loses_access_by_a_compaction(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch, user: int, group: int, mode: int
) -> None:
    """Root on a file system of another machine, which takes it for nobody."""
    for seed in range(3):
        write(seed)
    give(run.path, user, group, mode)
    before = [files(run, table) for table in TABLES]

    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(StorageError, match=rf"compact it as its owner \(user {user}, group {group}\)"):
        compact(run.tables)
    assert [files(run, table) for table in TABLES] == before
    assert owners(run.path) == {(user, group)}
    assert not list(run.path.glob(".*.compact"))


@pytest.mark.parametrize("point", ["", "compact.kept", "compact.checked"])
def test_without_the_lock_nothing_is_swapped(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    for seed in range(3):
        write(seed)
    before = files(run, "trials")

    def lose(now: str) -> None:
        if now == point:
            (run.path / ".lock").unlink()
            (run.path / ".trials.compact").mkdir(exist_ok=True)
            (run.path / ".trials.compact" / "x.tmp").touch()

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "reached", lose)
        with run.locked():
            lose("")
            with pytest.raises(StorageError, match="its lock was deleted"):
                compact(run.tables)
    assert files(run, "trials") == before
    assert list((run.path / ".trials.compact").iterdir()), "what another may be building"
    assert [done.n_after for done in api.compact(run.path)] == [1, 1, 1]
