"""Reading a user's own table, beside pandas reading the same file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.table import load_table

_N_NUMBERS = 30
_LIMIT = 3.0


def measure(n_rows: int) -> list[tuple[str, float, float, str]]:
    """Return (what, ratio of times, limit, unit) for a table of 30 numbers, classes and tasks, as CSV and Parquet."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        csv, parquet = Path(folder, "table.csv"), Path(folder, "table.parquet")
        table = _table(n_rows)
        table.to_csv(csv, index=False)
        table.to_parquet(parquet)
        del table
        for path, read in (
            (csv, lambda: pd.read_csv(csv, low_memory=False)),
            (parquet, lambda: pd.read_parquet(parquet)),
        ):
            settings = StreamSettings(table=str(path), label="y", task="quarter")
            plain, ours = _seconds(read, lambda settings=settings: load_table("own", settings))
            name = f"table: {n_rows:,} rows from {path.suffix[1:]}"
            print(f"{name}: {ours:.1f} s, pandas alone {plain:.1f} s", flush=True)
            rows.append((f"{name}, pandas = 1", ours / plain, _LIMIT, "x"))
    return rows


def _table(n_rows: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    columns = {
        f"f{index}": draw.normal(size=n_rows).round(4) if index % 3 else draw.integers(0, 1000, n_rows)
        for index in range(_N_NUMBERS)
    }
    quarters = np.repeat(["2023Q1", "2023Q2", "2023Q3", "2023Q4"], -(-n_rows // 4))[:n_rows]
    return pd.DataFrame(columns | {"y": draw.choice(["no", "yes"], n_rows), "quarter": quarters})


def _seconds(*reads: Callable[[], object]) -> list[float]:
    """Return the shortest of five times of each; they take turns, so that other work on the machine meets all."""
    took: list[list[float]] = []
    for _ in range(5):
        took.append([])
        for read in reads:
            clock = time.perf_counter()
            read()
            took[-1].append(time.perf_counter() - clock)
    return [min(times) for times in zip(*took, strict=True)]
