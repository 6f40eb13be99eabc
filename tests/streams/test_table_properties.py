"""Random tables: every one is read or refused in our words."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import DataError, SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.preflight import load_datasets

N_EXAMPLES = int(os.environ.get("TABLE_EXAMPLES", "150"))
"""`TABLE_EXAMPLES=5000 pytest tests/streams/test_table_properties.py` looks longer."""

WORDS = st.sampled_from(
    [
        *("a", "b ", " b", "A", "yes", "no", "01", "1", "2", "-3", "1.5", "1,5", "1.234,5", "1 234", "12 %", "$5"),
        *("7kg", "(1)", "1/2", "-", "", " ", "NA", "nan", "None", "inf", "1e400", "9" * 25, "True", "false", "0x1"),
        *("\u0661", "\u2212", '"', "'", "#", "2024-01-31", "2024-02-30", "31.12.2024", "03/04/2024", "2024-03"),
        *("08:15", "25:00", "Jan 24", "20240131", "2024-01-01T10:00Z", "2024-01-01 10:00+02:00", "2023Q1", "Q2 2023"),
        *("0001-01-01", "9999-12-31T23:59:59", "12/2024", "e\u0301", "\u00e9", "\ufeff", "\x00", "\x1b[0m"),
        *("\U0001f600", "a,b", "a;b", "a\nb", "\r", "\t", "\u2028"),
    ]
) | st.text(max_size=6)  # fmt: skip
VALUES = (
    st.none()
    | WORDS
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.booleans()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False, allow_infinity=False, places=2)
    | st.binary(max_size=3)
    | st.lists(st.integers(0, 3), max_size=2)
)
NAMES = st.sampled_from(
    ["x", "y", "z", "t", "c", "", " x", "y ", "Unnamed: 0", "#x", "e\u0301", "\u00e9", "all", "a=b"]
) | st.text(max_size=4)
WORD = st.sampled_from(["refuse", "median", "indicator", "drop"])


@st.composite
def columns(draw: st.DrawFn, n_rows: int) -> list[Any]:
    """Return a column: of few values, of one kind, or of anything."""
    one = draw(st.sampled_from([WORDS, st.integers(-3, 3), st.floats(width=32), st.just(1), VALUES]))
    pool = draw(st.lists(one, min_size=1, max_size=4))
    return draw(st.lists(st.sampled_from(pool), min_size=n_rows, max_size=n_rows))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    n_rows = draw(st.sampled_from([0, 1, 5, 12, 12, 12, 40]))
    names = draw(st.lists(NAMES, min_size=1, max_size=5))
    names += draw(st.sampled_from([["y"], ["y", "t"], ["y", "t", "x"]]))
    found = [pd.Series(draw(columns(n_rows)), dtype=object) for _ in names]
    if n_rows and draw(st.integers(0, 3)):
        found[-1] = pd.Series([index % 2 for index in range(n_rows)])
        found[names.index("y")] = pd.Series(["no", "yes"] * n_rows)[:n_rows]
    if draw(st.booleans()):
        found = [column.infer_objects() for column in found]
    frame = pd.concat(found, axis=1)
    frame.columns = pd.Index(names)
    return frame


def written(draw: st.DrawFn, frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or as CSV that may be broken."""
    if path.suffix == ".parquet":
        try:
            frame.to_parquet(path)
        except Exception:  # what pyarrow does not write: mixed types, a name twice
            frame.loc[:, ~frame.columns.duplicated()].map(repr).to_parquet(path)
        return
    mark = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    text = frame.to_csv(
        index=draw(st.integers(0, 4)) == 0, sep=mark, lineterminator=draw(st.sampled_from(["\n", "\r\n"]))
    )
    start = draw(st.sampled_from(["", "", "", "# made\n", "sep=;\n", "\ufeff", "\n", "Title\n"]))
    content = (start + text).encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-16-le"])), "surrogatepass")
    cut = draw(st.integers(0, 9))
    path.write_bytes(
        content[: len(content) // 2] if cut == 0 else draw(st.binary(max_size=30)) if cut == 1 else content
    )


@st.composite
def streams(draw: st.DrawFn, frame: pd.DataFrame) -> dict[str, Any]:
    """Return settings that name columns of a table, or others."""
    name = st.sampled_from([*map(str, frame.columns), "y", "t"])
    few = st.lists(name, max_size=2, unique=True)
    fields: dict[str, st.SearchStrategy[Any]] = {
        "task": name,
        "n_tasks": st.integers(1, 3),
        "categorical": few,
        "drop": few,
        "missing": WORD | st.dictionaries(name | st.just("all"), WORD, max_size=2),
        "hash": st.integers(2, 8) | st.dictionaries(name, st.integers(2, 8), max_size=1),
        "frequency": few,
        "dates": st.dictionaries(
            name, st.sampled_from(["iso", "%d.%m.%Y", "%H:%M", "%Y%m%d", "%b %y", "%z %Y"]), max_size=1
        ),
        "decimal": st.sampled_from([".", ","]),
        "thousands": st.sampled_from([".", " ", "'", ","]),
        "separator": st.sampled_from([";", "\t", "|"]),
        "order": st.lists(WORDS, max_size=3),
    }
    chosen = draw(st.lists(st.sampled_from(list(fields)), max_size=4, unique=True))
    return {"label": draw(st.sampled_from(["y", "y", "y", "x", " y"]))} | {key: draw(fields[key]) for key in chosen}


@settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_table_is_read_or_refused(data: st.DataObject) -> None:
    frame = data.draw(frames())
    fields = data.draw(streams(frame))
    with tempfile.TemporaryDirectory() as folder:
        places = {"table": frame}
        if data.draw(st.integers(0, 4)) == 0:
            places["test_table"] = data.draw(frames())
        for place, content in places.items():
            path = Path(folder, place + data.draw(st.sampled_from([".csv", ".csv", ".parquet", ".tsv"])))
            written(data.draw, content, path)
            fields[place] = str(path)
        try:
            spec = parse_spec({"streams": {"own": fields}, "scenarios": ["own/domain"], "methods": ["naive"]})
            own = load_datasets(spec, Path(folder))["own"]
        except (DataError, SpecError) as error:
            unclear = [fault for fault in error.faults if "; " not in fault and not fault.startswith("and ")]
            if unclear:
                raise AssertionError(unclear) from error
            return
    for inputs in (own.train_inputs, own.test_inputs):
        assert np.isfinite(inputs).all()
        assert inputs.shape[1:] == own.facts.shape
    assert own.report is not None
    assert own.report.n_rows >= len(own.train_labels) + len(own.test_labels)
