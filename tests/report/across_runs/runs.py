"""Run folders whose trials measure what they are told, for the tests of views of several runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.core.scores import ACCURACY
from orchestrator.execution.session import outcome_of
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.search.sweep_search import SweepSearch
from tests.search.test_answer import Rows, result

STARTED = "2026-01-02T03:04:05+00:00"


def written(path: Path, rows: Rows, fingerprint: str = "f00d", torch_version: str = "2.0", keep: bool = True) -> Run:
    """Write the trials of `rows` as a run, and its answer if `keep`."""
    run = Run.create(path, rows.spec)
    search = SweepSearch(rows.spec, {"digits": fingerprint}, {})
    while search.n_waiting:
        planned = search.hand_out(search.waiting_requests()[0])
        trial = planned.spec
        measured = rows.measured.get((trial.cell, trial.phase, planned.suggestion), ())
        seeds = [*rows.spec.seeds.of(trial.phase)]
        if seeds.index(trial.seed) >= len(measured):
            continue
        found = replace(
            result(trial, measured[seeds.index(trial.seed)]),
            provenance={"data_hash": fingerprint, "torch_version": torch_version, "started_at": STARTED},
        )
        row = trial_row(trial, planned.suggestion, found, {})
        run.tables.write_trial(trial.key, row, accuracy_rows(trial, planned.suggestion, found))
        search.record(trial.key, outcome_of(found, rows.spec, ACCURACY))
    if keep:
        run.keep(run.search(rows.spec))
    return run
