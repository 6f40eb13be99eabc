"""A table as one file, a list, a pattern, a folder of partitions or a URI, and one that memory cannot hold."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.core.errors import DataError, SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.storage.stores import open_store
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.loading import load_stream
from orchestrator.streams.sources.tables import files

FRAME = pd.DataFrame({"x": range(8), "y": ["no", "yes"] * 4})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, frame: pd.DataFrame = FRAME) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def load(table: Any, **fields: Any) -> Dataset:
    settings = StreamSettings.model_validate({"table": table, "label": "y"} | fields)
    return load_stream("own", settings, Path("nowhere"))


def faults(table: Any, **fields: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(table, **fields)
    assert all(fault.startswith("streams.own.") and "; " in fault for fault in caught.value.faults)
    return caught.value.faults


@pytest.mark.parametrize("table", ["c/*.csv", ["c/1.csv", "c/2.csv"], "c", "c/", "[a-c]/?.csv"])
def test_many_files_are_one_table(table: Any) -> None:
    for name in ("c/1.csv", "c/2.csv", "c/_3.csv", "c/.4.csv"):
        write(name)
    data = load(table)
    assert data.report is not None
    assert (data.report.n_files, data.report.n_rows, len(data.train_labels) + len(data.test_labels)) == (2, 16, 16)
    whole = load(["c/1.csv", "c/2.csv"])
    assert data.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("table", ["m", "m/*/*.parquet"])
def test_folders_of_partitions_are_columns(table: str) -> None:
    for name in ("m/quarter=2023Q2/part-0.parquet", "m/quarter=2023Q1/part-0.parquet", "m/_log/0.parquet"):
        write(name)
    Path("m/_SUCCESS").touch()
    data = load(table, task="quarter")
    assert data.facts.task_names == ("2023Q1", "2023Q2")
    assert data.report is not None
    assert "of 'm" in data.report.left_out[0]
    numbers = load("m", task="quarter", drop=[]).facts.shape
    assert numbers == (1,)


def test_partitions_that_are_numbers_are_numbers() -> None:
    for year in (9, 10):
        write(f"m/year={year}/a%20b=__HIVE_DEFAULT_PARTITION__/0.csv")
    assert load("m", task="year", drop=["a b"]).facts.task_names == ("9", "10")
    (fault,) = faults("m", task="year")
    assert "column 'a b' has no value in any row" in fault


def test_one_csv_file_has_the_columns_of_its_header() -> None:
    write("run=3/a.csv")
    assert load("run=3/a.csv").facts.shape == (1,)


def test_files_that_differ_are_named() -> None:
    write("1.csv")
    write("2.csv", FRAME.rename(columns={"x": "z"}))
    write("3.csv", FRAME.assign(x="t"))
    write("4.csv", FRAME.assign(x=None))
    assert [f.partition(" has the column ")[2] for f in faults(["1.csv", "2.csv"])] == [
        "'x' and '2.csv' has not; give both the same columns",
        "'z' and '1.csv' has not; give both the same columns",
    ]
    assert "the column 'x' holds numbers in '1.csv' and text in '3.csv'" in faults(["1.csv", "3.csv"])[0]
    assert load(["1.csv", "4.csv"], missing="median").facts.shape == (1,)


def test_places_without_a_table_are_named() -> None:
    Path("empty").mkdir()
    write("only/_a.csv")
    assert [f.partition("; ")[0] for f in faults(["a.csv", "b/*.csv", "empty", "only"])] == [
        "streams.own.table: there is no file 'a.csv'",
        "streams.own.table: there is nothing that matches 'b/*.csv'",
        "streams.own.table: there is no file 'empty' that ends in .parquet, .pq, .csv, .csv.gz, .tsv",
        "streams.own.table: there is no file 'only' that ends in .parquet, .pq, .csv, .csv.gz, .tsv",
    ]


def test_a_changed_file_is_read_again() -> None:
    write("c/1.csv")
    first = load("c")
    assert load("c") is first
    write("c/2.csv")
    assert len(load("c").train_labels) == 2 * len(first.train_labels)


def test_objects_are_read_like_files() -> None:
    store, _ = open_store("memory://data/x")
    packed = BytesIO()
    FRAME.to_parquet(packed)
    text = FRAME.to_csv(index=False).encode()
    for name, content in {
        "t/q=1/1.csv": text, "t/q=2/1.csv": text, "t/_x/1.csv": b"?", "p.parquet": packed.getvalue(),
        "z.csv.gz": gzip.compress(text),
    }.items():  # fmt: skip
        store.put(f"data/{name}", content)
    assert load("memory://data/t", task="q").facts.task_names == ("1", "2")
    assert load("memory://data/t/*/1.csv", task="q").facts.task_names == ("1", "2")
    write("p.parquet")
    write("1.csv")
    for uri, path in (("t/q=1/1.csv", "1.csv"), ("p.parquet", "p.parquet"), ("z.csv.gz", "1.csv")):
        assert load(f"memory://data/{uri}").fingerprint() == load(path).fingerprint()
    assert "there is no file 'memory://data/none.csv'" in faults("memory://data/none.csv")[0]
    assert "'ftp' is none of" in faults("ftp://host/a.csv")[0]


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """Serve the working directory over HTTP."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server_is_read(address: str) -> None:
    write("a.csv")
    assert load(f"{address}/a.csv").fingerprint() == load("a.csv").fingerprint()
    assert "there is no file" in faults(f"{address}/b.csv")[0]


def test_a_local_uri_is_a_path(folder: Path) -> None:
    write("a.csv")
    assert load((folder / "a.csv").as_uri()).fingerprint() == load("a.csv").fingerprint()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_more_than_memory_is_refused_unread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(name, pd.concat([FRAME] * 1000))
    monkeypatch.setattr(files, "available_bytes", lambda: 10_000)
    monkeypatch.setattr(files.TableFile, "content", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(pd, "read_parquet", lambda *_, **__: pytest.fail("it was read"))
    (fault,) = faults([name, name])
    assert f"reading '{name}' and 1 more needs about" in fault
    assert "GiB are available; take fewer rows or columns, or a larger machine" in fault


def test_a_packed_file_is_not_unpacked_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.csv.gz").write_bytes(gzip.compress(b"x,y\n" + b"1,no\n" * 1_000_000))
    monkeypatch.setattr(files, "available_bytes", lambda: 1_000_000)
    assert "needs more memory than is available once unpacked" in faults("a.csv.gz")[0]


def test_paths_are_no_part_of_the_identity() -> None:
    settings = StreamSettings(table=("a.csv", "b.csv"), test_table="s3://bucket/c.csv", label="y")
    assert settings.without_paths() == StreamSettings(table="", test_table="", label="y")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"table": []}, "table: expected a file ending in .parquet, .pq, .csv, .csv.gz, .tsv, got none; name one"),
        (
            {"table": ["a.csv", "b.xlsx"]},
            "table: expected a file ending in .parquet, .pq, .csv, .csv.gz, .tsv, got 'b.xlsx'",
        ),
        ({"table": "s3://bucket/a.xlsx"}, "table: expected a file ending in"),
        ({"table": "s3://me:word@bucket/a.csv"}, "table: 's3://bucket/a.csv' holds credentials"),
        ({"missing": "mean"}, "missing: expected 'refuse', 'median', 'indicator' or 'drop' or a mapping, got 'mean'"),
        ({"missing": {"y": "drop"}}, "missing.y: has no effect on a column named in label; drop it"),
        ({"missing": {"z": "drop"}, "drop": ["z"]}, "missing.z: has no effect on a column named in drop; drop it"),
        ({"hash": 1}, "hash: expected 2 to 4096 buckets, got 1; such as 64"),
        ({"hash": {"c": 5000}}, "hash.c: expected 2 to 4096 buckets, got 5000"),
        ({"hash": {"c": 8}, "frequency": ["c"]}, "hash and frequency: column 'c' is named 2 times; keep one"),
        (
            {"dates": {"c": "dd.mm.yyyy"}},
            "dates.c: expected iso or a format of strptime such as '%d.%m.%Y', got 'dd.mm",
        ),
        ({"dates": {"c": "%d.%q"}}, "dates.c: expected iso or a format of strptime"),
        ({"dates": {"y": "iso"}}, "label and dates: column 'y' is named 2 times"),
        ({"decimal": ";"}, "decimal: expected '.' or ',', got ';'"),
        ({"decimal": ",", "thousands": ","}, "thousands: ',' is the decimal mark too; set decimal"),
        ({"thousands": "."}, "thousands: '.' is the decimal mark too; set decimal to the other one"),
        ({"separator": ";;"}, "separator: expected one character that is no letter, digit or quote, got ';;'"),
        ({"separator": "a"}, "separator: expected one character"),
        ({"order": ["a", "b"]}, "order: has no effect without task; drop it"),
        ({"order": ["a"], "task": "t", "n_tasks": 2}, "order: has no effect beside n_tasks"),
        ({"order": ["a", "b", "a"], "task": "t"}, "order: lists 'a' 2 times; keep one"),
    ],
)
def test_settings_are_checked_without_data(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"streams": {"own": {"table": "a.csv", "label": "y"} | fields}})
    assert any(fault.startswith(f"streams.own.{said}") for fault in caught.value.faults), caught.value.faults


def test_the_settings_of_tables_are_refused_elsewhere() -> None:
    fields = {"missing": "drop", "hash": 8, "frequency": ["c"], "dates": {"c": "iso"}, "decimal": ",", "separator": ";"}
    with pytest.raises(SpecError) as caught:
        parse_spec({"streams": {"split-digits": fields}})
    assert [fault.split(": ")[0].rpartition(".")[2] for fault in caught.value.faults] == [*fields]
