"""The tables' contract: schemas, atomic writing, and reading that trusts nothing.

A run keeps two tables, each a folder of Parquet files: `trials` (a row a trial) and `accuracy` (a row a measured cell
of R). A trial's accuracy file is written first and its trials file last: that one is the commit. Files are named after
the trial's key, so writing a trial twice changes nothing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import RunFolderError, StorageError
from orchestrator.metrics import METRICS
from orchestrator.trial import TrialResult
from orchestrator.trialspec import TrialSpec, canonical_json

SCHEMA_VERSION = 1
_VERSION_FIELD = b"continual_sweep_schema"

_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int64()

TRIALS_SCHEMA = pa.schema(
    [
        pa.field("key", _TEXT, nullable=False),
        pa.field("scenario", _TEXT, nullable=False),
        pa.field("stream", _TEXT, nullable=False),
        pa.field("incremental_type", _TEXT, nullable=False),
        pa.field("method", _TEXT, nullable=False),
        pa.field("phase", _TEXT, nullable=False),
        pa.field("suggestion", _COUNT, nullable=False),
        pa.field("seed", _COUNT, nullable=False),
        pa.field("hyperparameters", _TEXT, nullable=False),
        pa.field("status", _TEXT, nullable=False),
        pa.field("reason", _TEXT, nullable=False),
        *(pa.field(metric, _REAL) for metric in METRICS),
        pa.field("intransigence", _REAL),
        pa.field("chance_accuracy", _REAL),
        pa.field("seconds", _REAL),
        pa.field("train_seconds", _REAL),
        pa.field("evaluate_seconds", _REAL),
        pa.field("peak_memory_bytes", _REAL),
        pa.field("n_parameters", _REAL),
        pa.field("kept_bytes", _REAL),
        pa.field("n_attempts", _COUNT),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("device", _TEXT),
        pa.field("device_name", _TEXT),
        pa.field("threads", _COUNT),
        pa.field("host", _TEXT),
        pa.field("node_id", _TEXT),
        pa.field("process_id", _COUNT),
        pa.field("code_revision", _TEXT),
        pa.field("package_version", _TEXT),
        pa.field("python_version", _TEXT),
        pa.field("torch_version", _TEXT),
        pa.field("ray_version", _TEXT),
        pa.field("optuna_version", _TEXT),
        pa.field("spec_hash", _TEXT),
        pa.field("data_hash", _TEXT),
        pa.field("details", _TEXT, nullable=False),
        pa.field("trial_spec", _TEXT, nullable=False),
    ],
    metadata={_VERSION_FIELD: str(SCHEMA_VERSION).encode()},
)
"""Metrics are NaN where the trial did not complete, `intransigence` also until `joint` has ended on the same seed and
phase; `hyperparameters`, `details` and `trial_spec` are JSON."""

ACCURACY_SCHEMA = pa.schema(
    [
        pa.field("key", _TEXT, nullable=False),
        pa.field("scenario", _TEXT, nullable=False),
        pa.field("method", _TEXT, nullable=False),
        pa.field("phase", _TEXT, nullable=False),
        pa.field("suggestion", _COUNT, nullable=False),
        pa.field("seed", _COUNT, nullable=False),
        pa.field("after_task", _COUNT, nullable=False),
        pa.field("task", _COUNT, nullable=False),
        pa.field("accuracy", _REAL, nullable=False),
        pa.field("n_correct", _COUNT, nullable=False),
        pa.field("n_examples", _COUNT, nullable=False),
    ],
    metadata={_VERSION_FIELD: str(SCHEMA_VERSION).encode()},
)
"""A row a measured cell of R; `after_task` -1 is before any training; a cell that is missing was not measured."""

SCHEMAS = {"trials": TRIALS_SCHEMA, "accuracy": ACCURACY_SCHEMA}


def trial_row(spec: TrialSpec, suggestion: int, result: TrialResult, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the trials table.

    Args:
        spec: what ran.
        suggestion: its number in its cell.
        result: how it ended.
        provenance: columns that the driver knows: revision, versions, spec hash, attempts.
    """
    own = dict(result.provenance)
    started = own.pop("started_at", None)
    return {
        **dict.fromkeys(TRIALS_SCHEMA.names),
        **provenance,
        **own,
        **result.costs,
        **result.metrics(),
        "key": spec.key,
        "intransigence": math.nan,
        "chance_accuracy": result.chance_accuracy,
        "scenario": spec.scenario,
        "stream": spec.stream,
        "incremental_type": spec.incremental_type,
        "method": spec.method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
        "hyperparameters": canonical_json(spec.hyperparameters),
        "status": result.status,
        "reason": result.reason,
        "started_at": pd.Timestamp(started).to_pydatetime() if started else None,
        "details": canonical_json(result.details),
        "trial_spec": canonical_json(spec.model_dump(mode="json")),
    }


def accuracy_rows(spec: TrialSpec, suggestion: int, result: TrialResult) -> list[dict[str, Any]]:
    """Return the rows of the accuracy table, one a measured cell of R; none where the trial did not complete."""
    head = {
        "key": spec.key,
        "scenario": spec.scenario,
        "method": spec.method,
        "phase": spec.phase,
        "suggestion": suggestion,
        "seed": spec.seed,
    }
    return [
        {
            **head,
            "after_task": after,
            "task": task,
            "accuracy": n_correct / result.n_examples[task],
            "n_correct": n_correct,
            "n_examples": result.n_examples[task],
        }
        for after, row in enumerate(result.n_correct, start=-1)
        for task, n_correct in enumerate(row)
        if n_correct is not None
    ]


def write_rows(folder: Path, name: str, table: str, rows: list[dict[str, Any]]) -> None:
    """Write one Parquet file `name` of `table` under `folder`, durably and all at once.

    Raises:
        StorageError: where the system refuses (no space, no permission); nothing half-written is left in sight.
    """
    _replace_table(folder / f"{name}.parquet", pa.Table.from_pylist(rows, schema=SCHEMAS[table]))


def _replace_table(target: Path, content: pa.Table) -> None:
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, temporary, encode(content))
    except OSError as error:
        raise StorageError(
            f"{target}: expected to be writable, got '{error.strerror}'; free space or mend permissions and run the "
            "same command again: what is complete is kept"
        ) from error


def fill_values(folder: Path, table: str, column: str, values: Mapping[str, float]) -> None:
    """Set `column` of the rows with the given keys; every file is replaced at once and durably.

    Raises:
        StorageError: where the system refuses; files are as they were or complete.
    """
    for key, value in values.items():
        target = folder / f"{key}.parquet"
        content = read_file(target, table)
        index = content.schema.get_field_index(column)
        filled = content.set_column(index, content.schema.field(index), pa.array([value] * len(content), _REAL))
        _replace_table(target, filled)


def encode(content: pa.Table) -> bytes:
    """Return a table as a Parquet file: the metadata of its schema, and no stored Arrow schema (see `read_file`)."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, content.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(content)
        writer.add_key_value_metadata(content.schema.metadata or {})
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def replace_file(target: Path, temporary: Path, content: bytes) -> None:
    """Make `target` hold `content` through a crash at any moment: write beside it, sync, rename, sync the folder."""
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(folder: Path, table: str) -> pd.DataFrame:
    """Return a whole table as a data frame, empty where nothing is written yet.

    Raises:
        RunFolderError: where a file is damaged, foreign, or of a newer schema.
    """
    tables = [read_file(path, table) for path in sorted(folder.glob("[!.]*.parquet"))]
    if not tables:
        tables = [SCHEMAS[table].empty_table()]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def read_file(path: Path, table: str) -> pa.Table:
    """Return one file of `table` after checking that it is one.

    Raises:
        RunFolderError: as for `read_table`.
    """
    try:
        _refuse_arrow_schema(path)
        content = pq.ParquetFile(path)
        schema = content.schema_arrow
        version = int((content.metadata.metadata or {}).get(_VERSION_FIELD, b"0"))
        if version > SCHEMA_VERSION:
            raise RunFolderError(
                f"{path}: expected schema version <= {SCHEMA_VERSION}, got {version}; it was written by a newer "
                "version: upgrade this package to read it"
            )
        if version == 0 or not set(SCHEMAS[table].names) <= set(schema.names):
            raise RunFolderError(
                f"{path}: expected a file of the table '{table}', got other columns; move it out of the run folder"
            )
        return content.read(columns=SCHEMAS[table].names).cast(SCHEMAS[table])
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise RunFolderError(
            f"{path}: expected a Parquet file, got a damaged one ({reason}); delete it and run the sweep again: "
            "its trial is then repeated"
        ) from error


def _refuse_arrow_schema(path: Path) -> None:
    """Refuse a file with a stored Arrow schema, from its raw footer, before Arrow sees it.

    Merely opening a file makes Arrow hand the metadata of extension types to whichever library registered them, some of
    which unpickle it. Our files store no Arrow schema, so one that does is not ours.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        length = int.from_bytes(file.read(8)[:4], "little")
        file.seek(max(size - 8 - length, 0))
        footer = file.read(length)
    if b"ARROW:schema" in footer:
        raise RunFolderError(
            f"{path}: expected a file of this package, got one with a stored Arrow schema, which may hold code; "
            "move it out of the run folder"
        )


def matrix_of(accuracy: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return a trial's R as the articles print it: a row a task, a column an 'after', NaN where not measured."""
    cells = accuracy[accuracy["key"] == key]
    return cells.pivot(index="task", columns="after_task", values="accuracy")


def load_json(text: Any) -> dict[str, Any]:
    """Return the mapping in a JSON column."""
    value = json.loads(text) if isinstance(text, str) and text else {}
    return value if isinstance(value, dict) else {}
