"""Parts: a long sweep leaves few files, and readers see each row once while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.results import parts
from orchestrator.results.parts import MERGED
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.results.tables import Table
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]
Write = Callable[..., TrialSpec]
TABLES = ("trials", "accuracy", "outcomes")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_SINGLE_FILES", 2)
    monkeypatch.setattr(parts, "MOST_TRIALS", 3)


@pytest.fixture
def run(tmp_path: Path, make_spec: MakeSpec) -> Run:
    return Run.create(tmp_path / "run", make_spec())


@pytest.fixture
def write(make_trial: MakeTrial, make_result: MakeResult) -> Write:
    """Return a function that writes a trial's rows as if it had run."""

    def write(run: Run, seed: int, status: str = "completed", last: int = 8) -> TrialSpec:
        spec = make_trial(seed=seed)
        result = make_result(spec, status, rows=((None, None), (9, None), (7, last)))
        rows = accuracy_rows(spec, 0, result), outcome_rows(spec, 0, result)
        run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), *rows)
        return spec

    return write


def seeds(run: Run, table: str = "trials") -> dict[str, list[int]]:
    """Return file -> the seeds of its trials, as pandas reads them; no row is there twice."""
    found = {path.name: pd.read_parquet(path) for path in sorted((run.path / table).iterdir())}
    identity = ["key"] if table == "trials" else ["key", "after_task", "task"]
    assert not pd.concat(found.values()).duplicated(identity).any()
    return {name: sorted(set(rows["seed"])) for name, rows in found.items()}


def merged(run: Run, table: str = "trials") -> list[list[int]]:
    return sorted(own for name, own in seeds(run, table).items() if name.startswith(MERGED))


def test_the_first_trials_have_files_and_later_ones_share(run: Run, write: Write) -> None:
    for seed in range(9):
        write(run, seed)
    for table in TABLES:
        assert merged(run, table) == [[2, 3, 4], [5, 6, 7], [8]]
        assert len(seeds(run, table)) == 5
    assert sorted(run.trials()["seed"]) == list(range(9))
    assert len(run.accuracy()) == 27


def test_a_part_is_full_by_its_rows(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 6)
    for seed in range(8):
        write(run, seed)
    assert merged(run) == [[2, 3, 4], [5, 6, 7]]
    assert merged(run, "accuracy") == [[2, 3], [4, 5], [6, 7]]


def test_the_next_sweep_goes_on_with_the_part(run: Run, write: Write) -> None:
    for seed in range(4):
        write(run, seed)
    again = Run.open(run.path)
    with again.locked():
        assert len(again.trials()) == 4
        write(again, 4)
        write(again, 5)
    assert merged(run) == [[2, 3, 4], [5]]


def test_what_erred_is_replaced_where_it_is(run: Run, write: Write) -> None:
    erred = [write(run, seed, "error") for seed in range(5)]
    for seed in (0, 3, 4):
        write(run, seed)
    write(run, 3, last=5)
    status = run.trials().set_index("key")["status"]
    assert [status[spec.key] for spec in erred] == ["completed", "error", "error", "completed", "completed"]
    assert merged(run) == [[2, 3, 4]]
    assert f"{erred[0].key}.parquet" in seeds(run)
    cells = run.accuracy()
    assert cells.loc[(cells["seed"] == 3) & (cells["n_correct"] != 9), "n_correct"].tolist() == [7, 5]


def test_a_filled_column_stays_as_the_part_grows(run: Run, write: Write) -> None:
    specs = [write(run, seed) for seed in range(4)]
    run.tables.trials.fill("intransigence", {spec.key: 0.5 for spec in specs})
    write(run, 4)
    values = run.trials().set_index("seed")["intransigence"]
    assert merged(run) == [[2, 3, 4]]
    own = Table(run.path / "trials", "trials").read().set_index("seed")["intransigence"]
    assert own[[0, 1, 2, 3]].tolist() == [0.5] * 4
    assert values.isna().all(), "without joint there is none to show"


def test_a_part_that_someone_deleted_comes_back_whole(run: Run, write: Write) -> None:
    for seed in range(4):
        write(run, seed)
    next((run.path / "trials").glob(f"{MERGED}*")).unlink()
    write(run, 4)
    assert merged(run) == [[2, 3, 4]]


def test_an_object_store_keeps_a_file_a_trial(memory: str, make_spec: MakeSpec, write: Write) -> None:
    run = Run.create(memory, make_spec())
    for seed in range(5):
        write(run, seed)
    assert len(run.tables.trials.files()) == 5


def test_readers_see_each_row_once_while_parts_grow(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_TRIALS", 50)
    write(run, 0)
    stop = threading.Event()

    def write_on() -> None:
        for seed in range(1, 60):
            write(run, seed)
        stop.set()

    writer = threading.Thread(target=write_on)
    writer.start()
    before = 0
    while not stop.is_set():
        frame, other = pd.read_parquet(run.path / "trials"), Run.open(run.path)
        cells = other.accuracy()
        assert frame["key"].is_unique
        assert len(frame) >= before, "a row was missing"
        assert set(frame["key"]) <= set(cells["key"])
        before = len(frame)
    writer.join()
    assert sorted(run.trials()["seed"]) == list(range(60))
