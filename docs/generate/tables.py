"""The tables of a run folder."""

from __future__ import annotations

import pyarrow as pa

from generate.markdown import code, prose, table
from orchestrator.core.metrics import DERIVED, METRICS_AND_COSTS
from orchestrator.core.scores import SCORES
from orchestrator.results.schema import SCHEMA_VERSION, SCHEMAS
from orchestrator.trial.diagnostics.quantities import QUANTITIES

COLUMNS = {
    "key": "hash of everything that the trial's result depends on, 16 hexadecimal digits; joins the tables",
    "scenario": "stream/incremental type",
    "stream": "the stream",
    "incremental_type": "task, domain or class",
    "method": "the method or combination",
    "phase": "search or finals (validation split), or confirm (test split)",
    "suggestion": "number of the suggestion in its cell, from 0",
    "seed": "the trial's seed",
    "hyperparameters": "JSON: every hyper-parameter of the method",
    "status": "completed; stopped by a rule before the last task, or failed by its own doing: both are results; "
    "error: the machine's, tried again by the next run",
    "stopped_after": "the task, from 0, after which a rule stopped it; empty if none did",
    "stop_rule": "JSON: the rule that travelled with it, by which it is stopped, or run on as a control",
    "reason": "why it did not complete; else empty",
    "n_attempts": "how often it was started",
    "started_at": "when it started",
    "device": "cpu or cuda",
    "device_name": "the processor or GPU",
    "threads": "CPU threads",
    "host": "name of the machine",
    "node_id": "Ray's id of the node",
    "process_id": "process of the worker",
    "code_revision": "git revision, or a hash of the code",
    "package_version": "version of this package",
    "python_version": "version of Python",
    "torch_version": "version of PyTorch",
    "ray_version": "version of Ray",
    "optuna_version": "version of Optuna",
    "spec_hash": "hash of the sweep's whole spec",
    "data_hash": "hash of the data set",
    "details": "JSON: what the method reports of itself",
    "trial_spec": "JSON: the resolved trial; `trial --from RUN KEY` repeats it",
    "after_task": "the matrix's row: measured after this task was learned; -1 is before any training",
    "during_task": "the task that was being trained; its last evaluation is that at its end",
    "n_given": "examples of tasks' training data that had been given since the trial began, each as often as it was "
    "given; icarl, joint and gdumb train on those that they keep in the same way, which then count too",
    "task": "the matrix's column: the task that was measured",
    "score": "accuracy table: what R holds, the scenario's score on the task; trials table: the score's name",
    "task_name": "the task by the name that you know it by",
    "classes": "the classes that compete for the task; the lists below have an entry for each",
    "n_true": "held-out examples of each class",
    "n_predicted": "answers that name each class",
    "n_right": "right answers of each class",
    **{name: f"{kind.meaning}, 0 to 1" for name, kind in SCORES.items() if not kind.of_class},
    "name": "the quantity that was measured, see below",
    "part": "the layer, task or class that it is of; empty for the whole",
    "value": "what was measured",
    "n_correct": "held-out examples that were right",
    "n_examples": "held-out examples of the task",
    "right": "a bit for each held-out example, in the order of the test split, 1 if it was answered rightly: as packed "
    "by `numpy.packbits`, so that the first example is the highest bit of the first byte",
    "examples": "hash of the held-out examples and the names of their classes, in order, 16 hexadecimal digits: rows "
    "are of the same examples if it is equal",
    **{name: metric.meaning for name, metric in METRICS_AND_COSTS.items()},
    **DERIVED,
}
"""Column of a table -> its meaning. A column that is missing here fails the build."""


def tables_page() -> str:
    """Return the columns of the tables, from their Parquet schemas."""
    sections = [
        f"# Tables\n\nA run folder holds tables of Parquet files, schema version {SCHEMA_VERSION}. Every older "
        "version stays readable. [How to read them](../how-to/tables.md).\n"
    ]
    heads = {
        "trials": "One row a trial. Metrics are missing if the trial did not complete.",
        "accuracy": "One row a measured cell of the accuracy matrix. A cell that is missing was not measured.",
        "outcomes": "One row for those cells of completed trials of the phase `confirm` that say which examples "
        "were right: each task right after it was learned, and all tasks after the last one. Runs of earlier versions "
        "have none.",
        "evaluations": "One row a task that was seen and an evaluation, of trials that ran with "
        "`training.evaluate_every`: within tasks, and at the end of each, where the rows are those of the accuracy "
        "matrix too. [What they tell](../how-to/single-pass.md).",
        "diagnostics": "One row a quantity, part and task, of trials that ran with `diagnostics: true`. "
        "[What they tell](../how-to/diagnostics.md).",
    }
    for name, schema in SCHEMAS.items():
        rows = [
            [code(field.name), _arrow(field.type), "no" if not field.nullable else "yes", prose(COLUMNS[field.name])]
            for field in schema
        ]
        sections.append(f"## {name}\n\n{heads[name]}\n\n{table(['column', 'type', 'may be missing', 'meaning'], rows)}")
    meanings = [[code(name), prose(meaning)] for name, meaning in QUANTITIES.items()]
    sections.append(f"### Quantities\n\n{table(['name', 'meaning'], meanings)}")
    unknown = COLUMNS.keys() - {field.name for schema in SCHEMAS.values() for field in schema}
    if unknown:
        raise ValueError(f"COLUMNS: these are in no table: {sorted(unknown)}")
    return "\n".join(sections)


def _arrow(kind: pa.DataType) -> str:
    return (
        "time, UTC"
        if pa.types.is_timestamp(kind)
        else {"string": "text", "double": "float64"}.get(str(kind), str(kind))
    )
