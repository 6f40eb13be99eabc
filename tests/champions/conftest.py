"""Runs that models come out of, made without Ray, and the rows of a task that is to be learned next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.execution.session import Session
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.protocol import run_trial
from tests.conftest import without_finals

QUARTERS = ["2023Q1", "2023Q2", "2023Q3", "2023Q4"]

Rows = Callable[..., pd.DataFrame]
MakeRun = Callable[..., Run]


def rows(quarters: list[str] = QUARTERS, n: int = 120, kinds: str = "domain") -> pd.DataFrame:
    """Return n rows a quarter: of 2 classes, or of 2 further ones in each quarter where `kinds` is `class`."""
    generator, parts = np.random.default_rng(3), []
    for index, quarter in enumerate(QUARTERS):
        label = generator.integers(0, 2, n)
        place = generator.normal(size=(n, 3))
        place[:, 0] += 2.5 * label * np.cos(0.3 * index)
        place[:, 1] += 2.5 * label * np.sin(0.3 * index) + (3.0 * index if kinds == "class" else 0)
        name = label + 2 * index if kinds == "class" else label
        frame = pd.DataFrame({"quarter": quarter, "amount": place[:, 0], "pace": place[:, 1] * 40, "age": place[:, 2]})
        frame["shop"] = generator.choice(["food", "fuel", "online"], n)
        frame["present"] = generator.random(n) < 0.5
        frame["outcome"] = [f"c{c}" for c in name]
        parts.append(frame[frame["quarter"].isin(quarters)])
    return pd.concat(parts, ignore_index=True)


def fields(table: Path, kind: str, methods: list[str], **more: Any) -> dict[str, Any]:
    """Return the fields of a small sweep over a table."""
    stream = {"table": str(table), "label": "outcome", "task": "quarter", "encoding_from": "first_task"}
    base: dict[str, Any] = {
        "name": "tables",
        "scenarios": [f"tx/{kind}"],
        "methods": methods,
        "seeds": {"search": 1, "confirm": 2},
        "search": {"suggestions": 1, "batch": 1},
        "model": {"hidden": [12]},
        "training": {"epochs": 2, "batch_size": 16},
        "streams": {"tx": stream | more.pop("stream", {})},
    }
    return without_finals(base | more)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that runs a sweep over some quarters in this process and returns its run."""

    def make(
        quarters: list[str] = QUARTERS, kind: str = "domain", methods: tuple[str, ...] = ("replay",), **more: Any
    ) -> Run:
        folder = tmp_path / f"{len(quarters)}-{kind}-{'-'.join(methods)}"
        folder.mkdir(exist_ok=True)
        rows(quarters, kinds="class" if kind != "domain" else "domain").to_parquet(folder / "table.parquet")
        spec = parse_spec(fields(folder / "table.parquet", kind, list(methods), **more))
        return finished(spec, folder / "run")

    return make


def finished(spec: Any, place: Path) -> Run:
    """Return the run of a sweep whose trials were run one after the other."""
    run = Run.create(place, spec)
    session = Session(spec, run, place.parent)
    while not session.search.is_finished:
        trial = session.search.hand_out(session.search.waiting_requests()[0])
        session.finish(run_trial(trial.spec, session.arrays(trial.spec)))
    session.close()
    return Run.open(place)
