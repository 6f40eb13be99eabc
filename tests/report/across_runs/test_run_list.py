"""The list of runs: cheap, and never stopped by what is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.core.errors import RunFolderError
from orchestrator.report.across_runs import run_list
from orchestrator.report.across_runs.run_list import ListedRun, list_runs
from orchestrator.report.across_runs.run_list_view import render_runs
from orchestrator.report.console import PlainConsole
from orchestrator.results.run import Run
from orchestrator.results.schema import TRIALS_SCHEMA
from orchestrator.search.sweep_search import SweepSearch
from tests.report.across_runs.runs import STARTED, written
from tests.search.test_answer import Rows, plain

COMPLETE = {"methods": ["naive", "joint", "ewc"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a complete run."""
    folder = tmp_path_factory.mktemp("list")
    written(folder / "good", plain(**COMPLETE))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "runs")


def only(folder: Path) -> ListedRun:
    (run,) = list_runs(folder)
    return run


def test_a_complete_run_from_what_it_has_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("a list must not search")

    monkeypatch.setattr(SweepSearch, "__init__", fail)
    run = only(folder)
    assert (run.state_text, run.n_missing, run.name, run.date) == ("complete", 0, "sweep", STARTED)
    assert run.answers == (("split-digits/task", "ewc (average 0.790)"),)
    assert run.n_trials == len(list((folder / "good" / "trials").iterdir()))
    assert only(folder / "good") == run, "a run itself is a list of one"


def test_a_run_that_misses_trials(folder: Path) -> None:
    written(folder / "part", plain())
    part = next(run for run in list_runs(folder) if run.where.endswith("part"))
    assert part.n_missing is not None
    assert part.state_text == f"{part.n_missing} missing"
    assert part.n_missing > 0


def test_what_was_kept_for_other_trials_or_another_spec_does_not_count(folder: Path) -> None:
    answer = folder / "good" / "answer.json"
    kept = json.loads(answer.read_text())
    for change in ({"n_ended": kept["n_ended"] - 1}, {"spec_hash": "0"}, {"version": 0}, {"scenarios": [{}]}):
        answer.write_text(json.dumps(kept | change))
        assert only(folder).state == "not summarised", change
    for text in ("", "[]", "{", "\x00", "[" * 100_000, '{"version": 1}'):
        answer.write_text(text)
        assert (only(folder).state, only(folder).answers) == ("not summarised", ())
    answer.unlink()
    assert run_list.in_words(only(folder)) == "show RUN tells"


@pytest.mark.parametrize(("status", "state"), [("error", "complete"), ("failed", "not summarised")])
def test_a_trial_that_the_next_run_tries_again_is_no_result(folder: Path, status: str, state: str) -> None:
    run = Run(folder / "good")
    row = run.tables.trials.read().astype(object).iloc[0].to_dict()
    more = {name: row[name] for name in TRIALS_SCHEMA.names if not isinstance(row[name], float)}
    run.tables.write_trial("0" * 16, more | {"key": "0" * 16, "status": status, "started_at": None}, [])
    assert only(folder).state == state


def test_what_is_not_a_run_or_damaged_is_a_line(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "empty").mkdir()
    (folder / "other").mkdir()
    (folder / "other" / "data.csv").write_text("1")
    for name, damage in (("spec", "spec.yaml"), ("table", "trials")):
        copy = shutil.copytree(folder / "good", folder / f"bad-{name}")
        files = [copy / damage] if (copy / damage).is_file() else [*(copy / damage).iterdir()]
        files[0].write_bytes(b"\x00damaged")
    shutil.copytree(folder / "good", folder / "no-spec")
    (folder / "no-spec" / "spec.yaml").unlink()
    (folder / "spec-is-a-folder" / "spec.yaml").mkdir(parents=True)
    found = {Path(run.where).name: run.state_text for run in list_runs(folder)}
    assert found.pop("good") == "complete"
    assert (found.pop("empty"), found.pop("other")) == ("not a run", "not a run")
    assert found.keys() == {"bad-spec", "bad-table", "no-spec", "spec-is-a-folder"}
    assert all(text.startswith("unreadable: ") and "\n" not in text for text in found.values())
    assert "expected a Parquet file, got a damaged one" in found["bad-table"]
    assert "lost it" in found["no-spec"]


def test_folders_below_are_looked_into_but_no_circle_is(folder: Path) -> None:
    shutil.move(folder / "good", folder / "2026" / "may" / "good")
    (folder / "2026" / "again").symlink_to(folder)
    (folder / "2026" / "twice").symlink_to(folder / "2026" / "may")
    assert [Path(run.where).name for run in list_runs(folder)] == ["good"]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="which does not exist"):
        list_runs(tmp_path / "nope")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="got the file"):
        list_runs(tmp_path / "file")
    assert list_runs(tmp_path) == []


def test_in_an_object_store(memory: str) -> None:
    from orchestrator.storage.uris import join

    written(join(memory, "good"), plain(**COMPLETE))  # type: ignore[arg-type]
    written(join(memory, "new"), Rows(**COMPLETE), keep=False)  # type: ignore[arg-type]
    found = {run.where.rpartition("/")[2]: run for run in list_runs(memory)}
    assert {name: run.state for name, run in found.items()} == {"good": "complete", "new": "not summarised"}
    assert run_list.in_words(found["new"]) == "no trials yet"


def test_the_newest_is_first_and_names_are_cleaned() -> None:
    runs = [
        ListedRun("none", state="not a run"),
        ListedRun("old\x1b[2J", "a", "2026-01-01T00:00:00+00:00", "missing", 3, 5, (("s/task", "incomplete"),)),
        ListedRun("new", "b", "2026-02-01T10:20:30+00:00", "complete", 0, 7, (("s/task", "[red]x"),)),
    ]
    console = PlainConsole(width=150, no_color=True)
    with console.capture() as capture:
        console.print(render_runs(runs))
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert [line[0] for line in lines[2:]] == ["new", "old\\x1b[2J", "none"]
    assert lines[2][1:] == ["2026-02-01", "10:20", "7", "complete", "s/task:", "[red]x"]
    assert lines[3][3:6] == ["5", "3", "missing"]
