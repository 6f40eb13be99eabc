"""Records what every configuration of some cells does on many seeds, as a table that searches are replayed on.

`python -m benchmarks.search.record` makes `benchmarks/recorded/digits.parquet` again: a row a trial, with its R. The
columns are described in `benchmarks/recorded/README.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset, PhaseData
from orchestrator.trial.preflight import load_datasets
from orchestrator.trial.protocol import run_trial
from search_spaces import to_optuna

TABLE = Path(__file__).parents[1] / "recorded" / "digits.parquet"
N_CONFIGURATIONS = 64
N_SEEDS = 16
VALIDATION, TEST = "validation", "test"
FIXED_VALIDATION, SHORT_TEST = "validation-fixed", "test-short"
"""The validation split that all seeds share; the test split after training without the validation examples."""

CELLS = (
    "split-digits/task ewc",
    "split-digits/task lwf",
    "split-digits/task replay",
    "split-digits/task gem",
    "split-digits/class replay",
    "split-digits/class der++",
    "split-digits/domain si",
    "split-digits/domain replay",
    "permuted-digits/domain ewc",
    "permuted-digits/domain der++",
)
COMPARED = ("split-digits/task ewc", "split-digits/task replay", "split-digits/class replay")
"""Cells whose first configurations are measured on the other splits too."""
N_COMPARED = 8

SCHEMA = pa.schema(
    {
        "scenario": pa.dictionary(pa.int8(), pa.string()),
        "method": pa.dictionary(pa.int8(), pa.string()),
        "configuration": pa.int16(),
        "hyperparameters": pa.dictionary(pa.int16(), pa.string()),
        "split": pa.dictionary(pa.int8(), pa.string()),
        "seed": pa.int16(),
        "n_tasks": pa.int8(),
        "scores": pa.list_(pa.float32()),
        "kept_bytes": pa.float64(),
        "seconds": pa.float32(),
    }
)


@dataclass(frozen=True)
class Recording:
    """One trial to record."""

    cell: str
    configuration: int
    hyperparameters: dict[str, Any]
    split: str
    seed: int


def spec_of(cell: str) -> SweepSpec:
    """Return the sweep of a recorded cell: small networks, a few epochs, the cell's default space."""
    scenario, method = cell.split()
    is_long = scenario.startswith("permuted")
    return parse_spec(
        {
            "scenarios": [scenario],
            "methods": [method],
            "validation_share": 0.2,
            "model": {"hidden": [64, 64]},
            "training": {"epochs": 3 if is_long else 5, "batch_size": 64 if is_long else 32, "learning_rate": 0.05},
            "spaces": {method: {"buffer_size": {"low": 20, "high": 1000, "log": True}}} if _has_buffer(method) else {},
        }
    )


def _has_buffer(method: str) -> bool:
    return method in ("replay", "der++", "gem", "agem")


def configurations(spec: SweepSpec, n: int = N_CONFIGURATIONS) -> list[dict[str, Any]]:
    """Return configurations that fill the space of a spec's one cell evenly (Sobol points)."""
    study = optuna.create_study(sampler=optuna.samplers.QMCSampler(seed=0, scramble=True))
    space = to_optuna(spec.cells[0].space.distributions)
    found = []
    for _ in range(n):
        trial = study.ask(space)
        study.tell(trial, 0.0)
        found.append(dict(trial.params))
    return found


def recordings(cells: tuple[str, ...]) -> Iterator[Recording]:
    """Yield all trials of the table."""
    for cell in cells:
        for number, values in enumerate(configurations(spec_of(cell))):
            for seed in range(N_SEEDS):
                yield Recording(cell, number, values, VALIDATION, seed)
                yield Recording(cell, number, values, TEST, seed)
                if cell in COMPARED and number < N_COMPARED:
                    yield Recording(cell, number, values, FIXED_VALIDATION, seed)
                    yield Recording(cell, number, values, SHORT_TEST, seed)


def _data(dataset: Dataset, share: float, split: str, seed: int) -> PhaseData:
    """Return the arrays of a trial: a split of its own for each seed, unless they share one."""
    if split == TEST:
        return dataset.phase("confirm", share)
    searched = dataset.phase("search", share, None if split == FIXED_VALIDATION else seed)
    if split != SHORT_TEST:
        return searched
    whole = dataset.phase("confirm", share)
    return replace(searched, evaluation_inputs=whole.evaluation_inputs, evaluation_labels=whole.evaluation_labels)


_LOADED: dict[str, tuple[SweepSpec, Dataset]] = {}


def record(todo: Recording) -> dict[str, Any]:
    """Run one trial and return its row."""
    torch.set_num_threads(1)
    if todo.cell not in _LOADED:
        spec = spec_of(todo.cell)
        _LOADED[todo.cell] = spec, load_datasets(spec, Path())[spec.data_of(spec.cells[0].stream)]
    spec, dataset = _LOADED[todo.cell]
    seed = todo.seed if todo.split != TEST else 1000 + todo.seed
    phase: Any = "confirm" if todo.split == TEST else "search"
    trial = spec.trial(spec.cells[0], todo.hyperparameters, seed, phase, "")
    result = run_trial(trial, _data(dataset, spec.validation_share, todo.split, todo.seed))
    has_ended = result.status == "completed"  # else it diverged, and R is unknown
    scores = result.matrix.accuracy if has_ended else np.full((1, 0), np.nan)
    scenario, method = todo.cell.split()
    return {
        "scenario": scenario,
        "method": method,
        "configuration": todo.configuration,
        "hyperparameters": json.dumps(todo.hyperparameters, sort_keys=True),
        "split": todo.split,
        "seed": seed,
        "n_tasks": scores.shape[1],
        "scores": scores.ravel().astype(np.float32),
        "kept_bytes": result.costs.get("kept_bytes"),
        "seconds": result.costs.get("seconds"),
    }


def main() -> None:
    """Record the table, cell by cell."""
    parser = argparse.ArgumentParser("benchmarks.search.record", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--to", type=Path, default=TABLE)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for cell in CELLS:
            clock = time.perf_counter()
            rows += pool.map(record, recordings((cell,)), chunksize=16)
            options.to.parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), options.to, compression="zstd")
            print(f"{cell}: {time.perf_counter() - clock:.0f} s, {len(rows)} rows", flush=True)


if __name__ == "__main__":
    main()
