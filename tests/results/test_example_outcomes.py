"""Which examples of the test split a trial answered rightly: measured, written, read, and what it takes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import api
from orchestrator.core.errors import RunFolderError, UsageError
from orchestrator.core.fault_points import POINTS
from orchestrator.execution.session import Session
from orchestrator.report.across_runs.run_list import list_runs
from orchestrator.results import compaction, run_tables
from orchestrator.results.rows import accuracy_rows, outcome_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.results.schema import OUTCOMES_SCHEMA, check_file, encode
from orchestrator.results.tables import Table
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import OUTCOMES
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.packed import as_text, pack, unpack
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult

MakeSpec = Callable[..., SweepSpec]
MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]


def record(run: Run, spec: TrialSpec, result: TrialResult) -> None:
    rows = accuracy_rows(spec, 0, result), outcome_rows(spec, 0, result)
    run.tables.write_trial(spec.key, trial_row(spec, 0, result, {}), *rows)


def of_large_tasks(result: TrialResult, n_examples: int, share: float = 0.9) -> TrialResult:
    """Return a result of the same trial on tasks of so many examples."""
    random = np.random.default_rng(0)
    right = [
        [None if text is None else as_text(pack(random.random(n_examples) < share)) for text in row]
        for row in result.right
    ]
    return dataclasses.replace(result, right=right, n_examples=[n_examples] * len(result.n_examples))


@pytest.fixture
def run(tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(compaction, "SECONDS_FOR_READERS", 0.0)
    return Run.create(tmp_path / "run", make_spec())


# What is kept.


def test_a_bit_an_example_and_one_line_of_numpy_unpacks_them() -> None:
    is_right = np.random.default_rng(1).random(10_001) < 0.7
    packed = pack(is_right)
    assert len(packed) == 1_251
    np.testing.assert_array_equal(unpack(packed, 10_001), is_right)
    line = np.unpackbits(np.frombuffer(packed, np.uint8), count=10_001).astype(bool)
    np.testing.assert_array_equal(line, is_right)
    assert pack(np.array([True, False, False, False, False, False, False, False, True])) == b"\x80\x80"


@pytest.mark.parametrize("scenario", ["split-digits/task", "split-digits/class", "permuted-digits/domain"])
def test_the_bits_agree_with_the_counts_of_each_cell(
    run: Run, make_trial: MakeTrial, digits: Dataset, scenario: str
) -> None:
    spec = make_trial(scenario, streams={"permuted-digits": {"n_tasks": 3}} if "permuted" in scenario else {})
    result = run_trial(spec, digits.phase("confirm", 0.1))
    record(run, spec, TrialResult.from_json(result.to_json()))
    found, n_tasks = run.example_outcomes(), len(result.n_examples)
    last = n_tasks - 1
    expected = [(task, task) for task in range(last)] + [(last, task) for task in range(n_tasks)]
    assert list(zip(found["after_task"], found["task"], strict=True)) == expected
    for row in found.itertuples():
        is_right = run.right_examples(spec.key, row.task, row.after_task)
        assert is_right.shape == (result.n_examples[row.task],) == (row.n_examples,)
        assert is_right.sum() == result.n_correct[row.after_task + 1][row.task]
        assert row.task_name == result.task_names[row.task]
    np.testing.assert_array_equal(run.right_examples(spec.key, 0), run.right_examples(spec.key, 0, last))


def test_only_completed_trials_on_the_test_split_have_any(
    make_trial: MakeTrial, make_result: MakeResult, digits: Dataset
) -> None:
    trial = make_trial(phase="search")
    result = run_trial(trial, digits.phase("search", 0.1, trial.validation_seed))
    assert (result.status, result.right, result.examples) == ("completed", [], [])
    assert outcome_rows(trial, 0, result) == []
    for status in ("failed", "error"):
        assert outcome_rows(make_trial(), 0, make_result(make_trial(), status)) == []


def test_a_resumed_trial_keeps_what_it_had_measured(
    make_trial: MakeTrial, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data = make_trial("split-digits/class"), digits.phase("confirm", 0.1)
    whole = run_trial(spec, data)
    monkeypatch.setattr("orchestrator.trial.protocol.SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def interrupt(after: int, *rest: object) -> None:
        if after == 3:
            raise OSError("the machine's")

    assert run_trial(spec, data, report=interrupt, checkpoint=tmp_path / "k.pt").status == "error"
    afters: list[int] = []
    again = run_trial(spec, data, report=lambda after, *rest: afters.append(after), checkpoint=tmp_path / "k.pt")
    assert afters == [3, 4]
    assert (again.right, again.examples) == (whole.right, whole.examples)


def test_results_of_earlier_workers_are_read(make_trial: MakeTrial, make_result: MakeResult) -> None:
    older = json.loads(make_result(make_trial()).to_json())
    del older["right"], older["examples"]
    result = TrialResult.from_json(json.dumps(older))
    assert outcome_rows(make_trial(), 0, result) == []
    assert accuracy_rows(make_trial(), 0, result)


# Which examples they are of.


def test_rows_are_paired_if_they_are_of_the_same_examples(make_trial: MakeTrial, digits: Dataset) -> None:
    def hashes(scenario: str = "split-digits/class", data: Dataset = digits, **fields: Any) -> list[str]:
        spec = make_trial(scenario, **fields)
        return run_trial(spec, data.phase("confirm", 0.1)).examples

    own = hashes()
    assert len({*own}) == 5
    assert hashes(method="replay", seed=1, model={"hidden": [8]}) == own, "another model"
    assert hashes("split-digits/task") == own, "other outputs"
    assert hashes(streams={"split-digits": {"normalisation": "unit", "padding": 2}}) == own
    more = dataclasses.replace(
        digits,
        train_inputs=np.concatenate([digits.train_inputs, digits.train_inputs[:5]]),
        train_labels=np.concatenate([digits.train_labels, digits.train_labels[:5]]),
    )
    assert hashes(data=more) == own, "more to learn from"
    swapped = np.arange(len(digits.test_labels))
    one, two = np.flatnonzero(digits.test_labels == 2)[:2]
    swapped[[one, two]] = two, one
    other = dataclasses.replace(
        digits, test_inputs=digits.test_inputs[swapped], test_labels=digits.test_labels[swapped]
    )
    assert [a == b for a, b in zip(hashes(data=other), own, strict=True)] == [True, False, True, True, True]
    wrong = digits.test_labels.copy()
    wrong[one] = 3
    assert hashes(data=dataclasses.replace(digits, test_labels=wrong))[1] != own[1]


def test_transforms_of_tasks_make_other_examples(make_trial: MakeTrial, digits: Dataset) -> None:
    def hashes(family: str, **settings: Any) -> list[str]:
        stream = f"{family}-digits"
        spec = make_trial(f"{stream}/domain", streams={stream: {"n_tasks": 3} | settings})
        return run_trial(spec, digits.phase("confirm", 0.1)).examples

    found = {family: hashes(family) for family in ("permuted", "rotated", "noisy")}
    assert len({of[0] for of in found.values()}) == 1, "the first task has none"
    assert len({one for of in found.values() for one in of}) == 7
    assert hashes("permuted") == found["permuted"]
    assert hashes("permuted", permutation_seed=7)[1:] != found["permuted"][1:]


def test_a_further_class_does_not_change_the_others(digits: Dataset) -> None:
    from orchestrator.streams.stream import _content_hash

    data = digits.phase("confirm", 0.1)
    rows = np.flatnonzero(data.evaluation_labels < 5)
    names = ("a new one", *data.facts.class_names)
    facts = dataclasses.replace(data.facts, class_names=names)
    shifted = dataclasses.replace(data, facts=facts, evaluation_labels=data.evaluation_labels + 1)
    assert _content_hash(shifted, rows) == _content_hash(data, rows)


# The table.


def test_a_missing_table_trains_nothing_again(tmp_path: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()

    def sweep() -> list[str]:
        session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)
        trained = []
        while not session.search.is_finished:
            trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
            session.finish(run_trial(trial, session.arrays(trial)))
            trained.append(trial.key)
        return trained

    assert len(sweep()) == 4
    run = Run.open(tmp_path / "run")
    trials, found = run.trials(), run.example_outcomes()
    assert set(found["key"]) == set(trials.loc[trials["phase"] == "confirm", "key"])
    assert len(found) == 2 * 9
    shutil.rmtree(tmp_path / "run" / OUTCOMES)
    assert sweep() == []
    assert run.example_outcomes().empty
    (tmp_path / "run" / "spec.yaml").unlink()
    assert [one.state for one in list_runs(tmp_path)] == ["unreadable"], "a run that lost its spec, of any version"


def test_outcomes_come_before_the_commit(
    run: Run, make_trial: MakeTrial, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(run_tables, "reached", order.append)
    real = Table.write

    def write(table: Table, key: str, rows: list[Any]) -> None:
        order.append(table.name)
        real(table, key, rows)

    monkeypatch.setattr(Table, "write", write)
    record(run, make_trial(), make_result(make_trial()))
    assert order == ["outcomes", "accuracy", "trial.measured", "trials", "trial.committed"]
    assert {"trial.measured", "trial.committed"} <= {*POINTS}


def test_writing_twice_changes_nothing(run: Run, make_trial: MakeTrial, make_result: MakeResult) -> None:
    spec = make_trial()
    record(run, spec, make_result(spec))
    (file,) = (run.path / OUTCOMES).iterdir()
    before = file.read_bytes()
    record(run, spec, make_result(spec))
    assert [path.name for path in (run.path / OUTCOMES).iterdir()] == [f"{spec.key}.parquet"]
    assert file.read_bytes() == before


def test_a_cell_that_was_not_kept_is_named(run: Run, make_trial: MakeTrial, make_result: MakeResult) -> None:
    spec = make_trial()
    record(run, spec, make_result(spec))
    assert run.right_examples(spec.key, 0, after_task=0).tolist() == [True] * 9 + [False]
    assert run.right_examples(spec.key, 0).tolist() == [True] * 7 + [False] * 3
    for key, task, after in ((spec.key, 1, 0), (spec.key, 2, None), ("0" * 16, 0, None)):
        with pytest.raises(UsageError, match=rf"outcomes: trial '{key}' has none of task {task}.*; they are kept of"):
            run.right_examples(key, task, after)


def test_a_damaged_file_is_named_and_costs_no_trial(
    run: Run, make_trial: MakeTrial, make_result: MakeResult, make_spec: MakeSpec
) -> None:
    spec = make_trial()
    record(run, spec, make_result(spec))
    file = run.path / OUTCOMES / f"{spec.key}.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(RunFolderError, match=r"outcomes/.*damaged.*; delete it: .* no trial is run again for them"):
        Run.create(run.path, make_spec())
    assert set(run.outcomes()) == {spec.key}, "an answer reads nothing of it"
    file.unlink()
    Run.create(run.path, make_spec())
    assert set(run.outcomes()) == {spec.key}


def test_two_files_that_disagree_are_named(run: Run, make_trial: MakeTrial, make_result: MakeResult) -> None:
    spec = make_trial()
    record(run, spec, make_result(spec))
    other = outcome_rows(spec, 0, make_result(spec, rows=((None, None), (9, None), (6, 8))))
    run.tables.outcomes.write_file("merged-0.parquet", pa.Table.from_pylist(other, OUTCOMES_SCHEMA))
    with pytest.raises(RunFolderError, match=r"expected each trial once.*; delete one of the two files$"):
        run.example_outcomes()


@pytest.mark.parametrize(("n_examples", "right"), [(10, b"\xff"), (8, b"\xff\xff"), (0, b""), (-7, b"")])
def test_bits_of_other_examples_than_counted_are_refused(
    make_trial: MakeTrial, make_result: MakeResult, n_examples: int, right: bytes
) -> None:
    rows = outcome_rows(make_trial(), 0, make_result(make_trial()))
    odd = [rows[0] | {"n_examples": n_examples, "right": right}, *rows[1:]]
    with pytest.raises(RunFolderError, match=r"expected in 'right' a bit for each of .* examples, got . bytes; delete"):
        check_file(encode(pa.Table.from_pylist(odd, OUTCOMES_SCHEMA)), "here", OUTCOMES)


def test_bits_that_repeat_beyond_memory_are_refused(make_trial: MakeTrial, make_result: MakeResult) -> None:
    """A file of some kilobytes: each row refers to the same bits."""
    large = outcome_rows(make_trial(), 0, of_large_tasks(make_result(make_trial()), 8_000_000))[0]
    file = encode(pa.Table.from_pylist([large | {"right": bytes(1_000_000)}] * 600, OUTCOMES_SCHEMA))
    assert len(file) < 100_000
    with pytest.raises(RunFolderError, match=r"expected rows of at most .* bytes, got 6"):
        check_file(file, "here", OUTCOMES)


# What it takes.


def test_ten_thousand_examples_are_1250_bytes(run: Run, make_trial: MakeTrial, make_result: MakeResult) -> None:
    spec = make_trial()
    record(run, spec, of_large_tasks(make_result(spec), 10_000))
    assert set(run.example_outcomes()["right"].map(len)) == {1_250}
    (file,) = (run.path / OUTCOMES).iterdir()
    column = pq.read_metadata(file).row_group(0).column(OUTCOMES_SCHEMA.names.index("right"))
    assert column.total_uncompressed_size < 3 * 1_250 + 100
    assert file.stat().st_size < 3 * 1_250 + 3_000


def test_a_run_of_digits_grows_by_little(tmp_path: Path, make_spec: MakeSpec) -> None:
    """The quickstart's data; its trials on the test split are few among those on validation splits."""
    spec = make_spec(methods=["naive", "replay"], seeds={"search": 3, "confirm": 2}, search={"suggestions": 6})
    session = Session(spec, Run.create(tmp_path / "run", spec), tmp_path)
    while not session.search.is_finished:
        trial = session.search.hand_out(session.search.waiting_requests()[0]).spec
        session.finish(run_trial(trial, session.arrays(trial)))
    sizes = {
        table.name: sum((tmp_path / "run" / table.name / name).stat().st_size for name in table.files())
        for table in session.run.tables
    }
    assert 0 < sizes[OUTCOMES] < 0.1 * (sizes["trials"] + sizes["accuracy"])


def test_merged_files_stay_small_enough_to_be_read(
    run: Run, make_trial: MakeTrial, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MOST_BYTES", 100_000)
    for seed in range(9):
        spec = make_trial(seed=seed)
        record(run, spec, of_large_tasks(make_result(spec), 80_000))
    before = run.example_outcomes().sort_values(["key", "after_task", "task"], ignore_index=True)
    api.compact(run.path)
    sizes = [run.tables.outcomes.read_file(name).nbytes for name in run.tables.outcomes.files()]
    assert len(sizes) == 3
    assert max(sizes) < 100_000
    names = run.tables.outcomes.files()
    after = run.example_outcomes().sort_values(["key", "after_task", "task"], ignore_index=True)
    pd.testing.assert_frame_equal(before, after)
    record(run, make_trial(seed=9), of_large_tasks(make_result(make_trial(seed=9)), 80_000))
    api.compact(run.path)
    assert {*names} <= {*run.tables.outcomes.files()}, "full files stay"


def test_many_rows_are_read_back(run: Run, make_trial: MakeTrial, make_result: MakeResult) -> None:
    """A file of more rows than a small one keeps each distinct value once while it is read."""
    for seed in range(100):
        spec = make_trial(seed=seed)
        record(run, spec, of_large_tasks(make_result(spec), 10_000))
    before = run.example_outcomes().sort_values(["key", "after_task", "task"], ignore_index=True)
    api.compact(run.path)
    assert len(run.tables.outcomes.files()) == 1
    after = run.example_outcomes().sort_values(["key", "after_task", "task"], ignore_index=True)
    pd.testing.assert_frame_equal(before, after)
    pd.testing.assert_frame_equal(
        pd.read_parquet(run.path / OUTCOMES).sort_values(["key", "after_task", "task"], ignore_index=True), after
    )
