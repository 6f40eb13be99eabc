"""The tables' contract: exact schemas, durable writing, and reading that trusts nothing."""

from __future__ import annotations

import errno
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.core.errors import RunFolderError, StorageError
from orchestrator.core.metrics import METRICS
from orchestrator.results import schema, tables
from orchestrator.results.rows import accuracy_rows, load_json, matrix_of, trial_row
from orchestrator.results.run_tables import Tables
from orchestrator.results.schema import SCHEMA_VERSION, SCHEMAS, encode
from orchestrator.results.tables import Table
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import TABLES
from orchestrator.storage.opening import open_storage
from orchestrator.trial.result import TrialResult

MakeTrial = Callable[..., TrialSpec]
MakeResult = Callable[..., TrialResult]

TRIALS = {
    "key": "string",
    "scenario": "string",
    "stream": "string",
    "incremental_type": "string",
    "method": "string",
    "phase": "string",
    "suggestion": "int64",
    "seed": "int64",
    "hyperparameters": "string",
    "status": "string",
    "reason": "string",
    "stopped_after": "int64",
    "stop_rule": "string",
    "score": "string",
    "average_accuracy": "double",
    "learning_accuracy": "double",
    "average": "double",
    "learning_average": "double",
    "backward_transfer": "double",
    "forgetting": "double",
    "worst_forgetting": "double",
    "worst_forgetting_ever": "double",
    "worst_drop_since_learning": "double",
    "worst_score": "double",
    "forward_transfer": "double",
    "anytime_average": "double",
    "worst_case_average": "double",
    "intransigence": "double",
    "chance_accuracy": "double",
    "constant_score": "double",
    "untrained_score": "double",
    "seconds": "double",
    "train_seconds": "double",
    "evaluate_seconds": "double",
    "peak_memory_bytes": "double",
    "n_parameters": "double",
    "kept_bytes": "double",
    "n_attempts": "int64",
    "started_at": "timestamp[us, tz=UTC]",
    "device": "string",
    "device_name": "string",
    "threads": "int64",
    "host": "string",
    "node_id": "string",
    "process_id": "int64",
    "code_revision": "string",
    "package_version": "string",
    "python_version": "string",
    "torch_version": "string",
    "ray_version": "string",
    "optuna_version": "string",
    "spec_hash": "string",
    "data_hash": "string",
    "details": "string",
    "trial_spec": "string",
}
ACCURACY = {
    "key": "string",
    "scenario": "string",
    "method": "string",
    "phase": "string",
    "suggestion": "int64",
    "seed": "int64",
    "after_task": "int64",
    "task": "int64",
    "task_name": "string",
    "score": "double",
    "accuracy": "double",
    "balanced_accuracy": "double",
    "macro_f1": "double",
    "auroc": "double",
    "average_precision": "double",
    "n_correct": "int64",
    "n_examples": "int64",
    "classes": "list<item: string>",
    "n_true": "list<item: int64>",
    "n_predicted": "list<item: int64>",
    "n_right": "list<item: int64>",
}


EVALUATIONS = {
    name: kind
    for column, own in ACCURACY.items()
    for name, kind in ({"during_task": own, "n_given": own} if column == "after_task" else {column: own}).items()
}

OUTCOMES = {
    "key": "string",
    "scenario": "string",
    "method": "string",
    "phase": "string",
    "suggestion": "int64",
    "seed": "int64",
    "after_task": "int64",
    "task": "int64",
    "task_name": "string",
    "n_examples": "int64",
    "right": "binary",
    "examples": "string",
}

DIAGNOSTICS = {
    "key": "string",
    "scenario": "string",
    "method": "string",
    "phase": "string",
    "suggestion": "int64",
    "seed": "int64",
    "after_task": "int64",
    "name": "string",
    "part": "string",
    "value": "double",
}


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("trials", TRIALS),
        ("accuracy", ACCURACY),
        ("evaluations", EVALUATIONS),
        ("outcomes", OUTCOMES),
        ("diagnostics", DIAGNOSTICS),
    ],
)
def test_the_schema_is_a_contract(table: str, columns: dict[str, str]) -> None:
    """Whoever reads the tables relies on it: change it only with SCHEMA_VERSION."""
    assert {field.name: str(field.type) for field in SCHEMAS[table]} == columns
    assert list(SCHEMAS[table].names) == list(columns)


@pytest.fixture
def spec(make_trial: MakeTrial) -> TrialSpec:
    return make_trial(method="replay", hyperparameters={"buffer_size": 70})


@pytest.fixture
def row(spec: TrialSpec, make_result: MakeResult) -> dict[str, Any]:
    return trial_row(spec, 3, make_result(spec), {"n_attempts": 2, "spec_hash": "abc"})


def test_files_state_schema_and_version(tmp_path: Path, spec: TrialSpec, row: dict[str, Any]) -> None:
    Table(tmp_path, "trials").write(spec.key, [row])
    file = pq.ParquetFile(tmp_path / f"{spec.key}.parquet")
    schema = file.schema_arrow
    assert schema.equals(SCHEMAS["trials"])
    assert file.metadata.metadata[b"continual_sweep_schema"] == str(SCHEMA_VERSION).encode() == b"4"


def test_row_of_a_trial(tmp_path: Path, spec: TrialSpec, row: dict[str, Any]) -> None:
    Table(tmp_path, "trials").write(spec.key, [row])
    (read,) = Table(tmp_path, "trials").read().to_dict("records")
    assert read["key"] == spec.key
    assert (read["scenario"], read["stream"], read["incremental_type"]) == ("split-digits/task", "split-digits", "task")
    assert (read["method"], read["phase"], read["suggestion"], read["seed"]) == ("replay", "confirm", 3, 0)
    assert (read["status"], read["reason"]) == ("completed", "")
    assert read["average_accuracy"] == 0.75
    assert read["forgetting"] == pytest.approx(0.2)
    assert math.isnan(read["forward_transfer"])
    assert (read["kept_bytes"], read["n_attempts"], read["spec_hash"]) == (40.0, 2, "abc")
    assert read["started_at"] == pd.Timestamp("2026-01-02T03:04:05.678901+00:00")
    assert load_json(read["hyperparameters"])["buffer_size"] == 70
    assert load_json(read["details"]) == {"naive": {"share": 0.5}}
    assert TrialSpec.model_validate_json(read["trial_spec"]) == spec
    assert pd.isna(read["host"]), "what is not known is null"


def test_a_failed_trial_has_a_row_with_its_reason(tmp_path: Path, spec: TrialSpec, make_result: MakeResult) -> None:
    result = make_result(spec, "failed")
    Table(tmp_path, "trials").write(spec.key, [trial_row(spec, 0, result, {})])
    (read,) = Table(tmp_path, "trials").read().to_dict("records")
    assert (read["status"], read["reason"]) == ("failed", "diverged: loss is nan")
    assert all(math.isnan(read[metric]) for metric in METRICS)
    assert accuracy_rows(spec, 0, result) == []


def test_rows_of_the_accuracy_matrix(spec: TrialSpec, make_result: MakeResult) -> None:
    rows = accuracy_rows(spec, 3, make_result(spec))
    cells = [(r["after_task"], r["task"], r["n_correct"], r["n_examples"], r["accuracy"]) for r in rows]
    assert cells == [(0, 0, 9, 10, 0.9), (1, 0, 7, 10, 0.7), (1, 1, 8, 10, 0.8)], "what was not measured has no row"
    domain = accuracy_rows(spec, 3, make_result(spec, rows=((1, 0), (9, 2), (7, 8))))
    assert [(r["after_task"], r["task"], r["n_correct"]) for r in domain][:2] == [(-1, 0, 1), (-1, 1, 0)]
    assert all(set(r) <= set(ACCURACY) for r in rows)
    assert [r["score"] for r in rows] == [0.9, 0.7, 0.8]


def test_matrix_has_a_row_a_task_and_a_column_an_after(
    tmp_path: Path, spec: TrialSpec, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    other = make_trial(seed=1)
    Table(tmp_path, "accuracy").write("one", accuracy_rows(spec, 0, make_result(spec)))
    Table(tmp_path, "accuracy").write("two", accuracy_rows(other, 0, make_result(other, rows=((1, 0), (5, 2), (4, 8)))))
    matrix = matrix_of(Table(tmp_path, "accuracy").read(), spec.key)
    assert matrix.index.name == "task"
    assert matrix.columns.name == "after_task"
    assert list(matrix.columns) == [0, 1]
    assert matrix.loc[0, 0] == 0.9
    assert matrix.loc[0, 1] == 0.7, "task 0 after task 1"
    assert math.isnan(matrix.loc[1, 0]), "task 1 after task 0 was not measured"
    assert list(matrix_of(Table(tmp_path, "accuracy").read(), other.key).columns) == [-1, 0, 1]
    assert matrix_of(Table(tmp_path, "accuracy").read(), "unknown").empty


# Writing.


def test_other_tools_read_a_folder_at_any_moment(
    tmp_path: Path, make_trial: MakeTrial, make_result: MakeResult
) -> None:
    specs = [make_trial(seed=seed) for seed in range(3)]
    folder = tmp_path / "accuracy"
    for spec in specs:
        Table(folder, "accuracy").write(spec.key, accuracy_rows(spec, 0, make_result(spec)))
        Table(folder, "accuracy").write(spec.key, accuracy_rows(spec, 0, make_result(spec)))
    (folder / ".0123.99.tmp").write_bytes(b"PAR1 half of a file that a dead process")
    frame = pd.read_parquet(folder)
    assert len(frame) == 9
    assert not frame.duplicated(["key", "after_task", "task"]).any()
    pd.testing.assert_frame_equal(
        frame.sort_values(["key", "after_task", "task"], ignore_index=True),
        Table(folder, "accuracy").read(with_lists=True).sort_values(["key", "after_task", "task"], ignore_index=True),
    )


def test_writing_twice_changes_nothing(tmp_path: Path, spec: TrialSpec, row: dict[str, Any]) -> None:
    Table(tmp_path, "trials").write(spec.key, [row])
    before = (tmp_path / f"{spec.key}.parquet").read_bytes()
    Table(tmp_path, "trials").write(spec.key, [row])
    assert [p.name for p in tmp_path.iterdir()] == [f"{spec.key}.parquet"], "and no temporary file is left"
    assert (tmp_path / f"{spec.key}.parquet").read_bytes() == before


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, spec: TrialSpec, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    Table(tmp_path, "trials").write("t", [row])
    before = (tmp_path / "t.parquet").read_bytes()

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse)
        with pytest.raises(StorageError, match=r"Cannot write to .*t\.parquet: no space left on device\. Free space"):
            Table(tmp_path, "trials").write("t", [row | {"seed": 99}])
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert (tmp_path / "t.parquet").read_bytes() == before
    Table(tmp_path, "trials").write("t", [row | {"seed": 99}])
    assert Table(tmp_path, "trials").read()["seed"].tolist() == [99]


def test_a_really_full_device_is_a_storage_error(
    tmp_path: Path, row: dict[str, Any], full_device: Callable[[str], None]
) -> None:
    full_device(".t.parquet")
    with pytest.raises(StorageError, match="no space left on device"):
        Table(tmp_path, "trials").write("t", [row])
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Table(tmp_path, "trials").write("t", [row])

    def crash(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            Table(tmp_path, "trials").write("t", [row | {"seed": 99}])
    assert Table(tmp_path, "trials").read()["seed"].tolist() == [row["seed"]]
    assert len(pd.read_parquet(tmp_path)) == 1


def test_content_is_synced_before_it_gets_its_name(
    tmp_path: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        order.append("sync " + re.sub(r"\.[0-9a-f]{8}\.tmp$", ".*.tmp", name))
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        order.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    Table(tmp_path, "trials").write("t", [row])
    assert order == ["sync .t.parquet.*.tmp", "replace", f"sync {tmp_path.name}"]


def test_a_file_in_a_tables_place_refuses_writes(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "trials").write_text("a file")
    with pytest.raises(RunFolderError, match="trials: expected a folder of Parquet files, got a file; move it out"):
        Table(tmp_path / "trials", "trials").write("t", [row])


# Reading.


@pytest.fixture
def n_checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose one number counts how many files are read."""
    counter, check = [0], tables.check_file

    def count(*arguments: Any) -> Any:
        counter[0] += 1
        return check(*arguments)

    monkeypatch.setattr(tables, "check_file", count)
    return counter


OTHER = "0123456789abcdef"


def test_the_holder_reads_a_table_once_until_it_writes(
    tmp_path: Path, spec: TrialSpec, row: dict[str, Any], n_checked: list[int]
) -> None:
    both = Tables(open_storage(tmp_path))
    both.trials.write(spec.key, [row])
    with both.held():
        first = both.trials.read()
        first["status"] = "changed by the reader"
        assert both.trials.read()["status"].tolist() == [row["status"]]
        assert n_checked == [1]
        assert len(both.accuracy.read()) == 0
        both.trials.write(OTHER, [row | {"key": OTHER}])
        assert len(both.trials.read()) == 2
        both.trials.fill("intransigence", {OTHER: 0.25})
        assert 0.25 in set(both.trials.read()["intransigence"])
    (tmp_path / "trials" / f"{OTHER}.parquet").unlink()  # another process may
    assert len(both.trials.read()) == 1
    (tmp_path / "trials" / f"{spec.key}.parquet").unlink()
    assert len(both.trials.read()) == 0


def test_only_the_holder_removes_copies(
    tmp_path: Path, spec: TrialSpec, row: dict[str, Any], n_checked: list[int]
) -> None:
    both = Tables(open_storage(tmp_path))
    for name in ("one", "two"):
        both.trials.write(name, [row])
    both.start_cache()
    for _ in range(2):
        assert len(both.trials.read()) == 1
    assert n_checked == [2]
    assert both.trials.files() == ["one.parquet", "two.parquet"]
    with both.held():
        assert len(both.trials.read()) == 1
    assert both.trials.files() == ["one.parquet"]


def test_a_cached_table_is_read_again_once_forgotten(tmp_path: Path, spec: TrialSpec, row: dict[str, Any]) -> None:
    both, another = (Tables(open_storage(tmp_path)) for _ in range(2))
    both.start_cache()
    assert len(both.trials.read()) == 0
    another.trials.write(spec.key, [row])
    assert len(both.trials.read()) == 0
    both.forget()
    assert len(both.trials.read()) == 1


def test_a_write_during_a_read_is_not_forgotten(
    tmp_path: Path, spec: TrialSpec, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may write."""
    check, both = tables.check_file, Tables(open_storage(tmp_path))

    def write_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(tables, "check_file", check)
        both.trials.write(OTHER, [row | {"key": OTHER}])
        return check(*arguments)

    both.trials.write(spec.key, [row])
    with both.held():
        monkeypatch.setattr(tables, "check_file", write_meanwhile)
        assert len(both.trials.read()) == 1
        assert len(both.trials.read()) == 2


@pytest.mark.parametrize("table", TABLES)
def test_an_absent_table_is_empty_with_all_columns(tmp_path: Path, table: str) -> None:
    frame = Table(tmp_path / "absent", table).read(with_lists=True)
    assert frame.empty
    assert list(frame.columns) == SCHEMAS[table].names


def test_a_newer_schema_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    newer = SCHEMAS["trials"].with_metadata({b"continual_sweep_schema": str(SCHEMA_VERSION + 1).encode()})
    (tmp_path / "new.parquet").write_bytes(encode(pa.Table.from_pylist([row], schema=newer)))
    with pytest.raises(RunFolderError, match=r"new\.parquet: expected schema version <= 4, got 5; .*upgrade"):
        Table(tmp_path, "trials").read()


def write_damaged(path: Path, row: dict[str, Any]) -> None:
    path.write_bytes(b"PAR1 no more than that")


def write_truncated(path: Path, row: dict[str, Any]) -> None:
    Table(path.parent, "trials").write(path.stem, [row])
    path.write_bytes(path.read_bytes()[:-300])


def write_empty(path: Path, row: dict[str, Any]) -> None:
    path.write_bytes(b"")


def write_flipped(path: Path, row: dict[str, Any]) -> None:
    """Damage the data pages and leave the footer whole."""
    Table(path.parent, "trials").write(path.stem, [row])
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 600 + content[604:])


def write_foreign(path: Path, row: dict[str, Any]) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(path)


def write_other_table(path: Path, row: dict[str, Any]) -> None:
    Table(path.parent, "accuracy").write(path.stem, [])


def write_without_version(path: Path, row: dict[str, Any]) -> None:
    path.write_bytes(encode(pa.Table.from_pylist([row], schema=SCHEMAS["trials"].remove_metadata())))


def write_other_types(path: Path, row: dict[str, Any]) -> None:
    schema = SCHEMAS["trials"].set(7, pa.field("seed", pa.string(), nullable=False))
    path.write_bytes(encode(pa.Table.from_pylist([row | {"seed": "zero"}], schema=schema)))


def write_bad_version(path: Path, row: dict[str, Any]) -> None:
    schema = SCHEMAS["trials"].with_metadata({b"continual_sweep_schema": b"newest"})
    path.write_bytes(encode(pa.Table.from_pylist([row], schema=schema)))


@pytest.mark.parametrize(
    "write",
    [
        write_damaged,
        write_truncated,
        write_empty,
        write_flipped,
        write_foreign,
        write_other_table,
        write_without_version,
        write_other_types,
        write_bad_version,
    ],
)
def test_foreign_files_are_refused_by_name(
    tmp_path: Path, row: dict[str, Any], write: Callable[[Path, dict[str, Any]], None]
) -> None:
    Table(tmp_path, "trials").write("good", [row])
    write(tmp_path / "odd.parquet", row)
    with pytest.raises(RunFolderError) as caught:
        Table(tmp_path, "trials").read()
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'odd.parquet'}: expected ")
    assert ", got " in message
    assert "; " in message


def test_a_folder_named_as_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "odd.parquet").mkdir()
    with pytest.raises(RunFolderError, match=r"odd\.parquet: expected"):
        Table(tmp_path, "trials").read()


class Traced(pa.ExtensionType):
    """A type that counts how often Arrow passes its metadata to it."""

    n_made = 0

    def __init__(self) -> None:
        super().__init__(pa.int64(), "traced.by.a.test")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"code"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Traced:
        cls.n_made += 1
        return cls()


def test_extension_types_are_refused_unread(tmp_path: Path, row: dict[str, Any]) -> None:
    """Their metadata may be code to whoever loads them."""
    kind, odd = Traced(), tmp_path / "odd.parquet"
    content = pa.Table.from_pylist([row], schema=SCHEMAS["trials"])
    seeds = pa.ExtensionArray.from_storage(kind, pa.array([0]))
    pa.register_extension_type(kind)
    try:
        pq.write_table(content.set_column(7, pa.field("seed", kind, nullable=False), seeds), odd)
        Traced.n_made = 0
        with pytest.raises(RunFolderError, match=r"odd\.parquet: .* stored Arrow schema, which may hold code"):
            Table(tmp_path, "trials").read()
        assert Traced.n_made == 0
        pq.ParquetFile(odd)
        assert Traced.n_made > 0, "whoever opens it runs the type's code"
    finally:
        pa.unregister_extension_type("traced.by.a.test")


def test_arrows_own_extension_types_are_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    """No stored schema is needed for those of Arrow's own."""
    content = pa.Table.from_pylist([row], schema=SCHEMAS["trials"])
    texts = pa.ExtensionArray.from_storage(pa.json_(), content["details"].combine_chunks())
    index = content.schema.get_field_index("details")
    odd = content.set_column(index, pa.field("details", pa.json_(), nullable=False), texts)
    (tmp_path / "odd.parquet").write_bytes(encode(odd))
    with pytest.raises(RunFolderError, match=r"odd\.parquet: expected numbers, texts and times, got 'extension<"):
        Table(tmp_path, "trials").read()


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("phase", "weird", "one of search, finals, confirm, got 'weird'"),
        ("status", "weird", "one of completed, stopped, failed, error, got 'weird'"),
        ("hyperparameters", "not json {", "the JSON of a mapping, got 'not json {'"),
        ("hyperparameters", "[" * 100_000, r"the JSON of a mapping, got '\[\["),
        ("hyperparameters", '{"buffer_size": [1]}', "the JSON of a mapping, got "),
        ("hyperparameters", '{"buffer_size": "\\ud800"}', "the JSON of a mapping, got "),
        ("details", "7", "the JSON of a mapping, got '7'"),
        ("trial_spec", "[]", r"the JSON of a mapping, got '\[\]'"),
    ],
)
def test_values_that_we_never_write_are_refused(
    tmp_path: Path, row: dict[str, Any], column: str, value: str, rule: str
) -> None:
    Table(tmp_path, "trials").write("good", [row | {"key": "0" * 16}])
    Table(tmp_path, "trials").write("odd", [row | {column: value}])
    with pytest.raises(RunFolderError, match=rf"odd\.parquet: expected in '{column}' {rule}.*; delete it and run"):
        Table(tmp_path, "trials").read()


def test_values_that_users_may_have_are_not_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    values = {"details": '{"mine":{"capacity":7,"name":"\\ud83d\\ude00"}}', "hyperparameters": '{"a":null,"b":true}'}
    Table(tmp_path, "trials").write("t", [row | values])
    assert len(Table(tmp_path, "trials").read()) == 1


# Resources.


READ_ONCE = """
import sys
from pathlib import Path
import pyarrow as pa
from orchestrator.core.errors import RunFolderError
from orchestrator.results.tables import Table
try:
    Table(Path(sys.argv[1]), "trials").read()
except RunFolderError as error:
    print(error)
print(pa.default_memory_pool().max_memory())
"""


def test_a_text_shared_by_many_rows_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    n_rows, text = 600, "x" * 1_000_000
    content = pa.Table.from_pylist([row] * n_rows, schema=SCHEMAS["trials"])
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), pa.array([text]))
    index = content.schema.get_field_index("reason")
    content = content.set_column(index, pa.field("reason", texts.type, nullable=False), texts)
    (tmp_path / "odd.parquet").write_bytes(encode(content))
    assert (tmp_path / "odd.parquet").stat().st_size < 100_000
    # In a process of its own: swapping the memory pool in this one crashes it now and then.
    command = [sys.executable, "-c", READ_ONCE, str(tmp_path)]
    message, most = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "odd.parquet: expected rows of at most 536,870,912 bytes, got 60" in message
    assert 0 < int(most) < 100_000_000


def test_too_many_rows_are_refused_from_the_footer(
    tmp_path: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pa.Table.from_pylist([row], schema=SCHEMAS["trials"])
    (tmp_path / "odd.parquet").write_bytes(encode(pa.concat_tables([one] * 20).combine_chunks()))
    monkeypatch.setattr(schema, "_MOST_BYTES", 20 * 8 * len(TRIALS) - 1)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    with pytest.raises(RunFolderError, match=r"odd\.parquet: expected rows of at most 8,799 bytes, got .*; move it"):
        Table(tmp_path, "trials").read()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_link_to_zeros])
def test_endless_files_are_refused_unread(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd.parquet")
    with pytest.raises(RunFolderError, match=r"odd\.parquet: expected a Parquet file, got a pipe or a device; move it"):
        Table(tmp_path, "trials").read()


def test_a_file_in_a_tables_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "accuracy").write_text("mine")
    with pytest.raises(RunFolderError, match="accuracy: expected a folder of Parquet files, got a file; move it out"):
        Table(tmp_path / "accuracy", "accuracy").read()


# The same trial in two files.


def test_equal_rows_in_two_files_are_read_once(tmp_path: Path, spec: TrialSpec, make_result: MakeResult) -> None:
    for table, rows in (
        ("trials", [trial_row(spec, 0, make_result(spec), {})]),
        ("accuracy", accuracy_rows(spec, 0, make_result(spec))),
    ):
        Table(tmp_path / table, table).write("one", rows)
        once = Table(tmp_path / table, table).read()
        Table(tmp_path / table, table).write("two", rows)
        pd.testing.assert_frame_equal(Table(tmp_path / table, table).read(), once)
        Table(tmp_path / table, table).write_file("two.parquet", pa.Table.from_pylist(rows * 2, SCHEMAS[table]))
        pd.testing.assert_frame_equal(Table(tmp_path / table, table).read(), once)


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_filled_in_row_replaces_an_unfilled_one(tmp_path: Path, row: dict[str, Any], names: tuple[str, str]) -> None:
    for name, value in zip(names, (math.nan, 0.25), strict=True):
        Table(tmp_path, "trials").write(name, [row | {"intransigence": value}])
    assert Table(tmp_path, "trials").read()["intransigence"].tolist() == [0.25]
    Table(tmp_path, "trials").write("three", [row | {"intransigence": 0.5}])
    with pytest.raises(RunFolderError, match="expected each trial once"):
        Table(tmp_path, "trials").read()


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_result_replaces_an_earlier_error(tmp_path: Path, row: dict[str, Any], names: tuple[str, str]) -> None:
    Table(tmp_path, "trials").write(names[0], [row | {"status": "error", "reason": "a worker died", "seconds": None}])
    Table(tmp_path, "trials").write(names[1], [row])
    assert Table(tmp_path, "trials").read()["status"].tolist() == ["completed"]


def test_conflicting_rows_are_refused_with_both_files(tmp_path: Path, row: dict[str, Any]) -> None:
    Table(tmp_path, "trials").write("good", [row | {"key": "0" * 16}])
    Table(tmp_path, "trials").write("one", [row])
    Table(tmp_path, "trials").write("two", [row | {"seconds": 7.0}])
    with pytest.raises(
        RunFolderError,
        match=rf"two\.parquet: expected each trial once, got other values of trial '{row['key']}' than in "
        r"'.*one\.parquet'; delete one of the two files and run",
    ):
        Table(tmp_path, "trials").read()
    (tmp_path / "two.parquet").unlink()
    assert len(Table(tmp_path, "trials").read()) == 2
    twice = pa.Table.from_pylist([row, row | {"seconds": 7.0}], SCHEMAS["trials"])
    Table(tmp_path, "trials").write_file("one.parquet", twice)
    with pytest.raises(RunFolderError, match=r"one\.parquet: expected each trial once, .* further on in it; delete it"):
        Table(tmp_path, "trials").read()


def test_a_folder_replaced_during_a_read_is_read_again(
    tmp_path: Path, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file that was listed may have been there, and others too."""
    folder, check = tmp_path / "trials", tables.check_file
    Table(folder, "trials").write("one", [row])
    Table(tmp_path / "next", "trials").write("one", [row])
    Table(tmp_path / "next", "trials").write("two", [row | {"key": "0" * 16}])

    def replace_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(tables, "check_file", check)
        folder.rename(tmp_path / "old")
        (tmp_path / "next").rename(folder)
        return check(*arguments)

    monkeypatch.setattr(tables, "check_file", replace_meanwhile)
    assert len(Table(folder, "trials").read()) == 2


def test_columns_of_others_are_left_out(tmp_path: Path, row: dict[str, Any]) -> None:
    """A file of this version with a column more, as a user might add."""
    schema = SCHEMAS["trials"].append(pa.field("note", pa.string()))
    (tmp_path / "more.parquet").write_bytes(encode(pa.Table.from_pylist([row | {"note": "x"}], schema=schema)))
    assert list(Table(tmp_path, "trials").read().columns) == list(TRIALS)


@pytest.mark.parametrize(("text", "value"), [('{"a": 1}', {"a": 1}), ("", {}), (None, {}), (math.nan, {}), ("[1]", {})])
def test_load_json(text: Any, value: dict[str, Any]) -> None:
    assert load_json(text) == value
