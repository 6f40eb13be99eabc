"""The format of the tables' files: the schema of each table, and a reader for every version ever written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.core.errors import RunFolderError
from orchestrator.core.metrics import ACCURACY_METRICS, METRICS, OVER_TIME
from orchestrator.core.scores import SCORES
from orchestrator.results.diagnostics.columns import DIAGNOSTICS
from orchestrator.results.values import refuse_odd_values, remedy
from orchestrator.storage.base import OUTCOMES

SCHEMA_VERSION = 4
_VERSION_FIELD = b"continual_sweep_schema"
_DIGEST_MARK = b"continual_sweep_digest:"
_MOST_BYTES = 2**29
"""Most memory that the rows of a file may take; the largest files that a compaction writes take a tenth of it."""

_FEW_ROWS = 256
"""A file with at most so many rows is small: its footer is trusted on how long its texts are."""

_TEXT, _REAL, _COUNT, _COUNTS, _BITS = pa.string(), pa.float64(), pa.int64(), pa.list_(pa.int64()), pa.binary()

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
        pa.field("stopped_after", _COUNT),
        pa.field("stop_rule", _TEXT),
        pa.field("score", _TEXT, nullable=False),
        *(pa.field(metric, _REAL) for metric in METRICS),
        pa.field("intransigence", _REAL),
        pa.field("chance_accuracy", _REAL),
        pa.field("constant_score", _REAL),
        pa.field("untrained_score", _REAL),
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
"""Metrics are NaN if the trial did not complete; `intransigence` also until `joint` has ended on the same seed and
phase. `stopped_after` is the task, from 0, after which a rule stopped it. `stop_rule`, which travelled with it,
`hyperparameters`, `details` and `trial_spec` are JSON."""

_SCORE_COLUMNS = tuple(name for name, kind in SCORES.items() if not kind.of_class and name != "accuracy")

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
        pa.field("task_name", _TEXT),
        pa.field("score", _REAL),
        pa.field("accuracy", _REAL, nullable=False),
        *(pa.field(name, _REAL) for name in _SCORE_COLUMNS),
        pa.field("n_correct", _COUNT, nullable=False),
        pa.field("n_examples", _COUNT, nullable=False),
        pa.field("classes", pa.list_(_TEXT)),
        pa.field("n_true", _COUNTS),
        pa.field("n_predicted", _COUNTS),
        pa.field("n_right", _COUNTS),
    ],
    metadata={_VERSION_FIELD: str(SCHEMA_VERSION).encode()},
)
"""A row for each measured cell of R; `after_task` -1 is before any training; a missing cell was not measured.

`score` is what R holds; a score that the task cannot have, or that was not asked for, is missing. The lists have an
entry a class that competes for the task: true, answered and rightly answered examples. Rows of schema 1 have none."""

OUTCOMES_SCHEMA = pa.schema(
    [
        pa.field("key", _TEXT, nullable=False),
        pa.field("scenario", _TEXT, nullable=False),
        pa.field("method", _TEXT, nullable=False),
        pa.field("phase", _TEXT, nullable=False),
        pa.field("suggestion", _COUNT, nullable=False),
        pa.field("seed", _COUNT, nullable=False),
        pa.field("after_task", _COUNT, nullable=False),
        pa.field("task", _COUNT, nullable=False),
        pa.field("task_name", _TEXT, nullable=False),
        pa.field("n_examples", _COUNT, nullable=False),
        pa.field("right", _BITS, nullable=False),
        pa.field("examples", _TEXT, nullable=False),
    ],
    metadata={_VERSION_FIELD: str(SCHEMA_VERSION).encode()},
)
"""A row for the cells of R that say what a trial on the test split got right: each task right after it was learned, and
all tasks after the last one.

`right` has a bit for each held-out example, in the order of the test split: the first is the highest bit of the first
byte, as `numpy.packbits` puts it, and the last byte is filled up with zeros. Rows are of the same examples if
`examples` is equal, see `Stream.evaluation_hash`."""

EVALUATIONS_SCHEMA = pa.schema(
    [
        field
        for own in ACCURACY_SCHEMA
        for field in (
            [pa.field("during_task", _COUNT, nullable=False), pa.field("n_given", _COUNT, nullable=False)]
            if own.name == "after_task"
            else [own]
        )
    ],
    metadata=ACCURACY_SCHEMA.metadata,
)
"""A row for each task in each evaluation while a trial was trained, the tasks seen so far alone. Only trials with
`evaluate_every` have rows.

`during_task` is the task that was being trained, from 0, and `n_given` the new examples that training had been given
since the trial began, each counted as often as it was given; what a method adds to a task's training data counts too
(iCaRL's exemplars, all of joint's and GDumb's). The last evaluation of a task is that at its end, whose rows are those
of R too. The other columns are those of `accuracy`."""

LISTS = tuple(field.name for field in ACCURACY_SCHEMA if pa.types.is_list(field.type))

DIAGNOSTICS_SCHEMA = DIAGNOSTICS.with_metadata(TRIALS_SCHEMA.metadata)
SCHEMAS = {
    "trials": TRIALS_SCHEMA,
    "accuracy": ACCURACY_SCHEMA,
    OUTCOMES: OUTCOMES_SCHEMA,
    "evaluations": EVALUATIONS_SCHEMA,
    "diagnostics": DIAGNOSTICS_SCHEMA,
}

_TEXTS = {field.name for schema in SCHEMAS.values() for field in schema if field.type in (_TEXT, _BITS)}


def encode(content: pa.Table) -> bytes:
    """Return a table as a Parquet file: the metadata of its schema, and no stored Arrow schema (see `check_file`).

    Its pages have Parquet's own checksums, for every reader. These do not cover the footer and the pages' headers,
    where a flipped bit can drop rows or swap columns. So a digest of the whole file is put in front of the footer: no
    reader looks there, and a tool that rewrites the file drops it.
    """
    sink, options = pa.BufferOutputStream(), {}
    if "right" in content.schema.names:  # no value repeats, and each statistic would be a whole value
        others = [name for name in content.schema.names if name != "right"]
        options = {"use_dictionary": others, "write_statistics": others}
    with pq.ParquetWriter(
        sink, content.schema, compression="zstd", store_schema=False, write_page_checksum=True, **options
    ) as writer:
        writer.write_table(content)
        writer.add_key_value_metadata(content.schema.metadata or {})
    file: bytes = sink.getvalue().to_pybytes()
    footer = _footer_start(file)
    return file[:footer] + _DIGEST_MARK + hashlib.sha256(file).digest() + file[footer:]


def check_file(content: bytes, where: str, table: str) -> pa.Table:
    """Return a Parquet file's rows in today's schema.

    Args:
        content: the file.
        where: its path, as it is shown.
        table: the table that it must belong to.

    Raises:
        RunFolderError: if it is damaged, foreign, of a newer schema, too large, or has values that we never write.
    """
    try:
        _refuse_changed(content)
        _refuse_arrow_schema(content, where)
        file = _open(content, where)
        version = int((file.metadata.metadata or {}).get(_VERSION_FIELD, b"0"))
        if version > SCHEMA_VERSION:
            raise RunFolderError(
                f"{where}: expected schema version <= {SCHEMA_VERSION}, got {version}; it was written by a newer "
                "version: upgrade this package to read it"
            )
        reader = READERS.get(version)
        found = reader(file, table, where) if reader else None
        if found is not None:
            found.validate(full=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise RunFolderError(
            f"{where}: expected a Parquet file, got a damaged one ({reason}); {remedy(table)}"
        ) from error
    if found is None:
        raise RunFolderError(
            f"{where}: expected a file of the table '{table}', got other columns; move it out of the run folder"
        )
    refuse_odd_values(found, where, table)
    return found


def _open(content: bytes, where: str) -> pq.ParquetFile:
    """Open a file that fits into memory and has plain types; a large one keeps each distinct text once."""
    source = pa.BufferReader(content)
    metadata = pq.read_metadata(source)
    n_bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    n_values = sum(group.column(j).num_values for group in groups for j in range(metadata.num_columns))
    _refuse_large(max(n_bytes, 8 * metadata.num_rows * metadata.num_columns, 8 * n_values), where)
    is_large = metadata.num_rows > _FEW_ROWS or metadata.num_rows * n_bytes > _MOST_BYTES
    texts = sorted(_TEXTS.intersection(metadata.schema.to_arrow_schema().names)) if is_large else []
    texts += ["classes.list.element"] if is_large and "classes" in metadata.schema.to_arrow_schema().names else []
    file = pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True, read_dictionary=texts)
    odd = [str(kind)[:40] for kind in file.schema_arrow.types if isinstance(kind, pa.BaseExtensionType)]
    if odd:
        raise RunFolderError(
            f"{where}: expected numbers, texts and times, got '{odd[0]}'; move it out of the run folder"
        )
    return file


_NEW_IN: dict[int, dict[str, set[str]]] = {
    2: {
        "trials": {"score", "average", "learning_average", "worst_forgetting_ever", "worst_score"}
        | {"constant_score", "untrained_score"},
        "accuracy": {"task_name", "score", *_SCORE_COLUMNS, *LISTS},
    },
    3: {"trials": {"stopped_after", "stop_rule"}},
    4: {"trials": set(OVER_TIME)},
}
"""Schema version -> the columns that it added to each table. A new table needs no new version: whoever does not know it
reads the others as before."""


def _reader(version: int) -> Callable[[pq.ParquetFile, str, str], pa.Table | None]:
    """Return a function that reads a table's file of a version, empty where columns came later; None if others miss."""

    def read(file: pq.ParquetFile, table: str, where: str) -> pa.Table | None:
        schema = SCHEMAS[table]
        later = {name for since, new in _NEW_IN.items() if since > version for name in new.get(table, ())}
        found = _read_columns(file, [name for name in schema.names if name not in later], where)
        if found is None:
            return None
        columns = {name: pa.nulls(found.num_rows, schema.field(name).type) for name in later}
        columns |= _of_accuracy(found, table) if version == 1 else {}
        return pa.table([columns[n] if n in columns else found[n] for n in schema.names], schema.names).cast(schema)

    return read


def _of_accuracy(found: pa.Table, table: str) -> dict[str, Any]:
    """Return what columns of a file of schema version 1 hold, when the score was accuracy."""
    if table == "accuracy":
        return {"score": found["accuracy"]}
    general = {general: found[own] for own, general in ACCURACY_METRICS.items()}
    return {"score": pa.repeat("accuracy", found.num_rows)} | general


def _read_columns(file: pq.ParquetFile, names: list[str], where: str) -> pa.Table | None:
    if not set(names) <= set(file.schema_arrow.names):
        return None
    # To hand the columns of a small file to threads takes longer than to read them.
    found = file.read(columns=names, use_threads=file.metadata.num_rows > _FEW_ROWS)
    _refuse_large_texts(found, where)
    return found


READERS = {version: _reader(version) for version in range(1, SCHEMA_VERSION + 1)}
"""Schema version -> a function that returns such a file's rows in today's schema.

Every version that was ever written stays here, with a run folder of it under tests/fixtures. A new version adds a
reader and changes the older ones to fill the new columns."""


def _refuse_arrow_schema(content: bytes, where: str) -> None:
    """Refuse a file with a stored Arrow schema, from its raw footer, before Arrow sees it.

    When Arrow opens a file, it passes the metadata of extension types to the libraries that registered them, and some
    of these unpickle it. Our files store no Arrow schema, so a file that does is not ours.
    """
    if b"ARROW:schema" in content[_footer_start(content) : -8]:
        raise RunFolderError(
            f"{where}: expected a file of this package, got one with a stored Arrow schema, which may hold code; move "
            "it out of the run folder"
        )


def _refuse_large_texts(rows: pa.Table, where: str) -> None:
    """Refuse a file whose texts, which are read once each, would not fit into memory once every row has its own."""
    chunks = [chunk for column in rows.itercolumns() for chunk in column.chunks]
    chunks = [chunk.flatten() if pa.types.is_list(chunk.type) else chunk for chunk in chunks]
    chunks = [chunk for chunk in chunks if pa.types.is_dictionary(chunk.type)]
    lengths = [pc.sum(pc.take(pc.cast(pc.binary_length(c.dictionary), _COUNT), c.indices)).as_py() for c in chunks]
    _refuse_large(sum(filter(None, lengths)), where)


def _refuse_large(n_bytes: int, where: str) -> None:
    if n_bytes > _MOST_BYTES:
        raise RunFolderError(
            f"{where}: expected rows of at most {_MOST_BYTES:,} bytes, got {n_bytes:,}; move it out of the run folder"
        )


def _refuse_changed(content: bytes) -> None:
    """Refuse a file that differs from its digest; older files have none.

    Raises:
        ValueError: if it differs.
    """
    footer = _footer_start(content)
    start = max(footer - len(_DIGEST_MARK) - hashlib.sha256().digest_size, 0)
    mark, digest = content[start : start + len(_DIGEST_MARK)], content[start + len(_DIGEST_MARK) : footer]
    if mark == _DIGEST_MARK and hashlib.sha256(content[:start] + content[footer:]).digest() != digest:
        raise ValueError("its content differs from its digest")


def _footer_start(content: bytes) -> int:
    """Return the offset of a Parquet file's footer: its length is in front of the last four bytes."""
    return max(len(content) - 8 - int.from_bytes(content[-8:-4], "little"), 0)
