"""Tables whose tasks begin where a detector finds drift in their training rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from river import drift

from orchestrator.core.errors import DataError, MissingExtraError, SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.streams.datasets import Dataset, held_out_rows
from orchestrator.streams.sources.boundaries.cutting import cut
from orchestrator.trial.preflight import load_datasets
from orchestrator.trial.protocol import run_trial
from tests.streams.conftest import Load, Refused

N = 1000
TIMES = pd.date_range("2024-01-01", periods=N, freq="h")
ON_A: dict[str, Any] = {"detector": "adwin", "on": "feature", "column": "a", "delta": 0.002}


def table(jump: int = 500, n: int = N) -> pd.DataFrame:
    """Return rows in the order of time: at `jump` the mean of `a` changes, and what `x` says of the class."""
    draw = np.random.default_rng(3)
    x, count = draw.normal(size=n), np.arange(n)
    is_yes = (x > 0) ^ (count >= jump)
    a = draw.random(n) / 2 + (count >= jump) / 2
    frame = pd.DataFrame({"when": TIMES[:n], "a": a, "n": count, "x": x})
    return frame.assign(y=np.where(is_yes, "yes", "no"))


def rows_of(data: Dataset, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows of the table the training and the test rows are, by the feature that counts them."""
    place = [column.name for column in data.columns].index("n")
    low, high = data.columns[place].low, data.columns[place].high
    return tuple(  # type: ignore[return-value]
        np.rint(part[:, place] * (high - low) + low).astype(int) for part in (data.train_inputs, data.test_inputs)
    )


def test_training_rows_are_watched_and_test_rows_fall_into_a_range(load_table: Load) -> None:
    """The rows of the file are shuffled; the detector is run by hand on the training rows in the order of time."""
    frame = table().sample(frac=1, random_state=0).reset_index(drop=True)
    data = load_table(frame, order="when", boundaries=ON_A)
    held_out = held_out_rows((frame["y"] == "yes").to_numpy(dtype=np.int64), 0.2)
    trained = frame[~held_out].sort_values("when")
    scaled = (trained["a"] - trained["a"].min()) / (trained["a"].max() - trained["a"].min())
    detector, found = drift.ADWIN(), []
    for row, value in enumerate(scaled.astype(np.float32)):
        detector.update(float(value))
        if detector.drift_detected:
            found.append(row)
    (row,) = found
    first = trained.iloc[row]
    assert data.report is not None
    assert data.report.boundaries is not None
    begins = data.report.boundaries.tasks[1]
    assert (begins.row, begins.value, begins.n_rows, begins.why) == (row, str(first["when"]), 800 - row, "drift")
    assert data.facts.task_names == (f"from {trained['when'].iloc[0]}", f"from {first['when']}")
    train, test = rows_of(data)
    assert (len(train), len(test)) == (800, 200)
    np.testing.assert_array_equal(data.train_tasks, train >= first["n"])
    np.testing.assert_array_equal(data.test_tasks, test >= first["n"])
    assert {0, 1} == set(data.test_tasks.tolist())


def test_held_out_rows_are_not_watched(load_table: Load) -> None:
    frame = table()
    held_out = held_out_rows((frame["y"] == "yes").to_numpy(dtype=np.int64), 0.2)
    other = frame.assign(a=np.where(held_out, 0.25, frame["a"]))
    one, two = (load_table(each, order="when", boundaries=ON_A) for each in (frame, other))
    assert one.report.boundaries == two.report.boundaries
    assert one.fingerprint() != two.fingerprint()


@pytest.mark.parametrize("detector", ["adwin", "kswin", "page-hinkley"])
@pytest.mark.parametrize("on", ["error", "score"])
def test_the_learner_finds_a_changed_concept_again_and_again(load_table: Load, on: str, detector: str) -> None:
    asked = {"detector": detector, "on": on}
    if detector == "kswin":
        asked |= {"window_size": 100, "stat_size": 50}
    frame = table()
    data = load_table(frame, order="when", boundaries=asked)
    (train, _), again = rows_of(data), load_table(frame, suffix=".parquet", order="when", boundaries=asked)
    start = train[data.train_tasks == 1].min()
    assert 500 <= start < 600
    assert data.report.boundaries == again.report.boundaries
    assert data.fingerprint() == again.fingerprint()


def test_rows_stay_in_the_order_of_the_file_without_order(load_table: Load) -> None:
    data = load_table(table().drop(columns="when"), boundaries=ON_A)
    train, _ = rows_of(data)
    start = train[data.train_tasks == 1].min()
    assert 500 < start < 600
    assert data.facts.task_names[1] == f"from row {start + 1}"


def test_the_order_column_may_be_dates_of_a_format(load_table: Load) -> None:
    plain, form = table(), "%d.%m.%Y %H:%M"
    data = load_table(plain, order="when", boundaries=ON_A)
    written = plain.assign(when=plain["when"].dt.strftime(form)).sort_values("when").reset_index(drop=True)
    again = load_table(written, order="when", boundaries={**ON_A, "minimal_length": 20}, dates={"when": form})
    assert again.facts.task_names[0] == "from 2024-01-01 00:00:00"
    train, test = rows_of(again)
    start = train[again.train_tasks == 1].min()
    assert 500 < start < 600
    np.testing.assert_array_equal(again.test_tasks, test >= start)
    assert [column.name for column in again.columns] == [column.name for column in data.columns] == ["a", "n", "x"]


def test_tasks_that_begin_on_one_day_are_told_apart(load_table: Load) -> None:
    frame = table().assign(when="2024-01-01")
    names = load_table(frame, order="when", boundaries=ON_A).facts.task_names
    assert len(set(names)) == 2
    assert names[1].startswith("from 2024-01-01 00:00:00 (row 5")


def test_rows_of_a_test_table_belong_to_a_task_by_their_time(load_table: Load) -> None:
    frame = table()
    test = frame.iloc[[3, 100, 900, 901]].assign(y=["no", "yes", "no", "yes"])
    early = test.iloc[[0]].assign(when=pd.Timestamp("2020-01-01"))
    data = load_table(frame, pd.concat([test, early]), order="when", boundaries=ON_A)
    assert len(data.train_labels) == N
    assert data.test_tasks.tolist() == [0, 0, 1, 1, 0]


def test_a_class_is_not_asked_for_where_it_is_not_learned(load_table: Load) -> None:
    frame = table()
    held_out = held_out_rows(np.array([0] * (N - 2) + [1, 1]), 0.2)
    rare = frame.assign(y=["common"] * (N - 2) + ["rare"] * 2)
    swapped = rare.copy()  # the rare row that is held out is the only one of its class in the first task
    out = int(np.flatnonzero(held_out[-2:])[0]) + N - 2
    swapped.loc[[out, 0], ["a", "x", "n", "when"]] = rare.loc[[0, out], ["a", "x", "n", "when"]].to_numpy()
    data = load_table(swapped, order="when", boundaries=ON_A)
    assert data.report.notes[0] == ("1 held-out row is trained on, because no training row of the task is of the class")
    assert data.facts.task_classes == ((0, 1), (0, 1))
    assert data.test_labels.tolist() == [0] * len(data.test_labels)


def test_contradictions_are_refused_all_at_once() -> None:
    settings = {
        "table": "a.csv", "label": "y", "task": "t", "n_tasks": 5, "classes_per_task": 3, "order": ["a"],
        "test_table": "b.csv", "boundaries": {"on": "feature", "column": "y", "clock": 8, "threshold": 3},
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        parse_spec({"streams": {"tx": settings}, "scenarios": ["tx/domain"], "methods": ["naive"]})
    assert [fault.removeprefix("streams.tx.") for fault in caught.value.faults] == [
        "classes_per_task: has no effect beside task; drop one of the two",
        "task: cuts tasks, and so does boundaries; drop one of the two",
        "n_tasks: cuts tasks, and so does boundaries; drop one of the two",
        "classes_per_task: cuts tasks, and so does boundaries; drop one of the two",
        "order: lists the values of a task column, which boundaries do without; name the column to sort rows by",
        "boundaries.column: 'y' is not learned from, being named elsewhere; name another column",
        "boundaries.threshold: only page-hinkley has it, and the detector is adwin; drop it",
    ]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"order": "when"},
            "order: expected the values of the task column as a list, got 'when'; only with boundaries it names the "
            "column that the rows are sorted by",
        ),
        (
            {"boundaries": {}, "test_table": "b.csv"},
            "order: boundaries need it beside test_table; name the column that says when a row was",
        ),
        (
            {"boundaries": {}, "order": "when", "drop": ["when"]},
            "order and drop: column 'when' is named 2 times; keep one",
        ),
        (
            {"boundaries": {"minimal_length": 300, "maximal_length": 200}},
            "boundaries.maximal_length: 200 is less than minimal_length (300); raise it, or lower minimal_length",
        ),
        ({"boundaries": {"detector": "ddm"}}, None),
    ],
)
def test_what_a_spec_refuses(fields: dict[str, Any], fault: str | None) -> None:
    settings = {"table": "a.csv", "label": "y"} | fields
    with pytest.raises(SpecError) as caught:
        parse_spec({"streams": {"tx": settings}, "scenarios": ["tx/domain"], "methods": ["naive"]})
    (found,) = caught.value.faults
    if fault is None:
        assert "streams.tx.boundaries.detector: expected" in found
        assert "page-hinkley" in found
    else:
        assert found == f"streams.tx.{fault}"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"boundaries": {**ON_A, "column": "x"}},
            ".boundaries: adwin on the column 'x' found no drift in 800 training rows, so there is one task; raise "
            "delta, lower minimal_length, watch something else (on), or set maximal_length",
        ),
        (
            {"boundaries": {**ON_A, "minimal_length": 399}},
            ".boundaries: adwin on the column 'a' found 1 drift, but none 399 rows (minimal_length) or more from "
            "the start and the end in 800 training rows, so there is one task; raise delta, lower minimal_length, "
            "watch something else (on), or set maximal_length",
        ),
        (
            {"boundaries": {**ON_A, "minimal_length": 401}},
            ".boundaries.minimal_length: 800 training rows make no two tasks of 401 rows; lower it or add rows",
        ),
        (
            {"boundaries": {**ON_A, "column": "kind"}},
            ".boundaries.column: column 'kind' holds neither numbers nor dates or times; name one that does, or set "
            "on: error",
        ),
        (
            {"boundaries": {**ON_A, "column": "b"}},
            ".boundaries.column: 'DATA' has no column 'b'; choose from: when, a, n, x, y, kind",
        ),
        (
            {"boundaries": ON_A, "order": "kind", "drop": ["when"]},
            ".order: column 'kind' holds text ('p'), which has no order in time; set dates: {kind: FORMAT}, or save "
            "the column as numbers or ISO 8601 times",
        ),
        ({"boundaries": ON_A, "order": "whn"}, ".order: 'DATA' has no column 'whn'; did you mean 'when'?"),
    ],
)
def test_what_the_data_refuse(refused: Refused, tmp_path: Path, fields: dict[str, Any], fault: str) -> None:
    frame = table().assign(kind=["p", "q"] * (N // 2))
    found = refused(frame, **({"order": "when"} | fields)).replace(str(tmp_path / "table.csv"), "DATA")
    assert found == f"streams.own{fault}"


def test_too_many_tasks_are_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.streams.sources.boundaries import stages

    monkeypatch.setattr(stages, "MOST_TASKS", 3)
    asked = {**ON_A, "minimal_length": 20, "maximal_length": 100}
    assert refused(table(), order="when", boundaries=asked).endswith(
        "tasks, and a stream has 3 at most; raise minimal_length or lower delta"
    )


def test_a_missing_extra_names_its_command(load_table: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'continual-sweep\[drift\]'"):
        load_table(table(), order="when", boundaries=ON_A)


def test_a_trial_learns_the_tasks_that_were_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector runs once for all trials of a sweep, and the settings are part of a trial's key."""
    table().to_csv(tmp_path / "tx.csv", index=False)
    n_cuts = 0

    def counted(*arguments: Any) -> Any:
        nonlocal n_cuts
        n_cuts += 1
        return cut(*arguments)

    monkeypatch.setattr("orchestrator.streams.sources.boundaries.stages.cut", counted)
    keys = []
    for more in ({}, {"delta": 0.01}):
        stream = {"table": str(tmp_path / "tx.csv"), "label": "y", "order": "when", "boundaries": {**ON_A, **more}}
        spec = parse_spec(
            {
                "streams": {"tx": stream}, "scenarios": ["tx/domain", "tx/task"], "methods": ["naive", "replay"],
                "model": {"hidden": [8]}, "training": {"epochs": 1}, "seeds": {"search": 1, "confirm": 1},
            }
        )  # fmt: skip
        data = load_datasets(spec, tmp_path)["tx"]
        trial = spec.trial(spec.cells[0], {}, 0, "confirm", data.fingerprint())
        keys.append(trial.key)
    assert n_cuts == 2, "once for each settings"
    assert len(set(keys)) == 2
    result = run_trial(trial, data.phase("confirm", 0.1))
    assert (result.status, result.reason) == ("completed", "")
    assert result.task_names == list(data.facts.task_names)
    assert result.n_examples == np.bincount(data.test_tasks).tolist()


def test_the_class_type_is_refused_because_tasks_share_classes(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "tx.csv", index=False)
    stream = {"table": str(tmp_path / "tx.csv"), "label": "y", "order": "when", "boundaries": ON_A}
    spec = parse_spec({"streams": {"tx": stream}, "scenarios": ["tx/class"], "methods": ["naive"]})
    with pytest.raises((SpecError, DataError), match="both have class 'no', so not every task brings new classes"):
        load_datasets(spec, tmp_path)
