"""What the tests of tables share: a table from text, bytes or columns, read as a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.loading import load_stream

N = 24
Content = str | bytes | pd.DataFrame
Load = Callable[..., Dataset]
Refused = Callable[..., str]


def column(values: Sequence[Any], name: str = "c") -> pd.DataFrame:
    """Return 24 rows: `values` again and again, x counts from 0, y alternates."""
    repeated = [values[index % len(values)] for index in range(N)]
    return pd.DataFrame({name: repeated, "x": range(N), "y": ["no", "yes"] * (N // 2)})


def write(path: Path, content: Content) -> None:
    if isinstance(content, pd.DataFrame):
        content.to_parquet(path) if path.suffix == ".parquet" else content.to_csv(path, index=False)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def load_table(tmp_path: Path) -> Load:
    """Return a function from the contents of a table, and of a second one, and settings to the data set."""

    def load(content: Content, test: Content | None = None, suffix: str = ".csv", **fields: Any) -> Dataset:
        write(tmp_path / f"table{suffix}", content)
        settings: dict[str, Any] = {"table": str(tmp_path / f"table{suffix}"), "label": "y"}
        if test is not None:
            write(tmp_path / "test.csv", test)
            settings["test_table"] = str(tmp_path / "test.csv")
        return load_stream("own", StreamSettings.model_validate(settings | fields), Path("nowhere"))

    return load


@pytest.fixture
def refused(load_table: Load) -> Refused:
    """Return a function like `load_table` that returns the one fault."""

    def fault(*contents: Content, **fields: Any) -> str:
        with pytest.raises(DataError) as caught:
            load_table(*contents, **fields)
        assert all(one.startswith("streams.own.") and "; " in one for one in caught.value.faults)
        (one,) = caught.value.faults
        return str(one)

    return fault
