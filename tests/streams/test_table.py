"""A user's own table: how columns become features, tasks and classes, and the faults that are reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.loading import load_stream
from tests.streams.conftest import Load

N = 12


def frame(**columns: Any) -> pd.DataFrame:
    """Return 12 rows: x counts from 0, y alternates, quarter is q1 for the first half and q2 for the second."""
    base = {"x": np.arange(N), "y": ["no", "yes"] * 6, "quarter": ["q1"] * 6 + ["q2"] * 6}
    return pd.DataFrame(base | columns)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Return a function from a table and settings to the data set."""

    def read(table: pd.DataFrame, test: pd.DataFrame | None = None, suffix: str = ".parquet", **fields: Any) -> Dataset:
        paths = {"table": tmp_path / f"table{suffix}"} | ({} if test is None else {"test_table": tmp_path / "test.csv"})
        for path, content in zip(paths.values(), (table, test), strict=False):
            assert content is not None
            if path.suffix == ".parquet":
                content.to_parquet(path)
            else:
                content.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        settings = {"label": "y", "task": "quarter"} | {name: str(path) for name, path in paths.items()} | fields
        return load_stream("churn", StreamSettings.model_validate(settings), Path("nowhere"))

    return read


def faults(load: Any, *tables: pd.DataFrame, **fields: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(*tables, **fields)
    assert all(f.startswith("streams.churn.") and "; " in f for f in caught.value.faults)
    return caught.value.faults


def whole(data: Dataset) -> np.ndarray[Any, Any]:
    """Return all inputs, sorted by row."""
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_labels_tasks_and_split(load: Any, suffix: str) -> None:
    data = load(frame(), suffix=suffix)
    assert (data.facts.class_names, data.facts.task_names) == (("no", "yes"), ("q1", "q2"))
    assert data.facts.task_classes == ((0, 1), (0, 1))
    assert (data.facts.shape, data.train_inputs.dtype) == ((1,), np.float32)
    assert len(data.test_labels) == 4  # a fifth of 3 is 1 in each of 4 strata
    assert sorted(zip(data.test_tasks.tolist(), data.test_labels.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip


def test_numbers_are_scaled_by_the_training_rows(load: Any) -> None:
    test = frame(x=np.full(N, 22.0))
    data = load(frame(constant=7), test.assign(constant=8), drop=())
    np.testing.assert_allclose(data.train_inputs[:, 0], np.arange(12) / 11, rtol=1e-6)
    assert not data.train_inputs[:, 1].any()
    np.testing.assert_allclose(data.test_inputs, [[2.0, 0.0]] * N)
    phase = data.phase("confirm", 0.1)
    np.testing.assert_allclose(phase.mean, [0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(phase.std, [np.sqrt((12**2 - 1) / 12) / 11, 1.0], rtol=1e-6)


def test_large_offsets_lose_no_digits(load: Any) -> None:
    data = load(frame(x=1_700_000_000_000 + np.arange(N)))
    assert len(np.unique(whole(data)[:, 0])) == N


def test_categories_become_one_hot_after_the_numbers(load: Any) -> None:
    table = frame(plan=["p10", "p2", "p2"] * 4, flag=[True, False] * 6, kind=pd.Categorical(["a", "b"] * 6))
    data = load(table[["plan", "flag", "kind", "x", "y", "quarter"]])
    assert data.facts.n_numbers == 1
    assert data.facts.shape == (1 + 2 + 2 + 2,)
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    assert np.isin(rows[:, 1:], (0, 1)).all()
    np.testing.assert_array_equal(rows[:, 1:].sum(axis=0), [8, 4, 6, 6, 6, 6])  # p2 before p10, False before True
    phase = data.phase("confirm", 0.1)
    np.testing.assert_array_equal(phase.mean[1:], 0)
    np.testing.assert_array_equal(phase.std[1:], 1)


def test_missing_is_a_category_of_a_listed_column(load: Any) -> None:
    data = load(frame(code=[1.0, 2.0, np.nan] * 4), categorical=("code",))
    assert data.facts.shape == (4,)
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    np.testing.assert_array_equal(rows[:, 1:].sum(axis=0), [4, 4, 4])


def test_categories_survive_a_column_turned_to_floats(load: Any) -> None:
    data = load(frame(code=[1.0, 2.0, np.nan] * 4), frame(code=[1, 2, 9] * 4), categorical=("code",))
    np.testing.assert_array_equal(data.test_inputs[:3, 1:], [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "values",
    [["36", "M", "L"] * 4, ["01", "02", "10"] * 4, ["2023Q1", "2023Q2"] * 6],
    ids=["few numbers", "numbers alone", "quarters"],
)
def test_plain_text_is_categorical(load: Any, values: list[str]) -> None:
    assert whole(load(frame(kind=values))).shape[1] == 1 + len(set(values))


@pytest.mark.parametrize("values", [["2024-01-01"] * N, [*map(str, range(11)), "?"]], ids=["days", "numbers"])
def test_doubtful_text_is_categorical_if_listed(load: Any, values: list[str]) -> None:
    assert load(frame(kind=values), categorical=["kind"]).facts.n_numbers == 1, "x alone"


def test_dropped_columns_are_no_features(load: Any) -> None:
    data = load(frame(customer=[f"c{n}" for n in range(N)]), drop=("customer",))
    assert data.facts.shape == (1,)


def test_tasks_in_natural_order_and_labels_by_size(load: Any) -> None:
    data = load(frame(quarter=["t10", "t9"] * 6, y=[10, 10, 9, 9] * 3))
    assert data.facts.task_names == ("t9", "t10")
    assert data.facts.class_names == ("9", "10")


def test_without_a_task_column_classes_are_cut(load: Any) -> None:
    data = load(frame(), task=None)
    assert data.facts.task_names == ()
    assert data.train_tasks is None


@pytest.mark.parametrize("kind", ["number", "time"])
def test_numbers_and_times_are_cut_into_stages(load: Any, kind: str) -> None:
    when = [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    column = when if kind == "number" else pd.Timestamp("2024-01-01") + pd.to_timedelta(when, unit="D")
    table = frame(quarter=column).sample(frac=1, random_state=0)
    data = load(table, frame(quarter=column), n_tasks=3)
    # Stages begin at rows 0, 4 and 8, whose values are 0, 2 and 3; the second table is CSV, where times are text.
    assert data.test_tasks.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert data.train_tasks.tolist() == data.test_tasks[table["x"]].tolist()
    first = ("0", "2", "3") if kind == "number" else [f"2024-01-0{day} 00:00:00" for day in (1, 3, 4)]
    assert data.facts.task_names == tuple(f"from {value}" for value in first)


def test_a_tie_across_a_cut_stays_in_one_stage(load: Any) -> None:
    values = [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]
    data = load(frame(quarter=values), frame(quarter=values), n_tasks=2)
    # The second of two stages begins at row 6, whose value is 1, so with row 3.
    assert data.test_tasks.tolist() == [0] * 3 + [1] * 9


def test_a_second_table_has_the_firsts_stages(load: Any) -> None:
    data = load(frame(quarter=np.arange(N)), frame(quarter=np.arange(N) - 4), n_tasks=2)
    assert data.test_tasks.tolist() == [0] * 10 + [1] * 2


def test_the_fingerprint_covers_the_tasks(load: Any) -> None:
    data = load(frame())
    for part in ("train_tasks", "test_tasks"):
        other = replace(data, **{part: 1 - getattr(data, part)})
        assert data.fingerprint() != other.fingerprint()


def test_search_holds_out_of_each_task_and_class(load: Any) -> None:
    table = pd.concat([frame()] * 10, ignore_index=True).assign(x=np.arange(120))
    data = load(table)
    phase = data.phase("search", 0.25)
    kinds = np.bincount(phase.evaluation_tasks * 2 + phase.evaluation_labels)
    assert kinds.tolist() == [6, 6, 6, 6]  # a quarter of 24 training rows
    assert len(phase.train_tasks) == len(phase.train_labels) == 96 - 24
    seen = {*phase.train_inputs[:, 0].tolist(), *phase.evaluation_inputs[:, 0].tolist()}
    assert not seen & set(data.test_inputs[:, 0].tolist())
    assert len(seen) == 96


# Faults.


def one_infinite() -> pd.DataFrame:
    return frame(x=[1.0, 2.0, 3.0, np.inf, *range(8)])


@pytest.mark.parametrize(
    ("table", "fields", "said"),
    [
        pytest.param(frame(), {"label": "yy"}, "label: '", id="label"),
        pytest.param(frame(), {"label": "yy"}, "has no column 'yy'; did you mean 'y'?", id="near name"),
        pytest.param(frame(), {"task": "quarte"}, "has no column 'quarte'; did you mean 'quarter'?", id="task"),
        pytest.param(frame(), {"drop": ("z",)}, "has no column 'z'; choose from: x, y, quarter", id="drop"),
        pytest.param(frame(), {"categorical": ("z",)}, "streams.churn.categorical: '", id="categorical"),
        pytest.param(frame(), {"drop": ("x",)}, "has no column left to learn from", id="nothing left"),
        pytest.param(one_infinite(), {}, "column 'x' holds inf in row 4 (counted from 1)", id="infinite"),
        pytest.param(frame(x=1e300), {}, "holds 1e+300 in row 1", id="too large"),
        pytest.param(
            frame(x=[*range(11), None]), {}, "column 'x' has no value in row 12 (counted from 1);", id="missing"
        ),
        pytest.param(frame(plan=["a", None] * 6), {}, "list the column in categorical", id="missing text"),
        pytest.param(frame(y=["a", None] * 6), {}, "streams.churn.label: column 'y' of", id="no label"),
        pytest.param(frame(quarter=[None, *"aabbaabbaab"]), {}, "task: column 'quarter' of", id="no task"),
        pytest.param(frame(y="a"), {}, "expected 2 classes or more, got 'a'", id="one class"),
        pytest.param(
            frame(y=["a"] + ["b"] * 11), {}, "got 1 of class 'a' in task 'q1'; add examples", id="one example"
        ),
        pytest.param(frame(m=[*map(str, range(11)), "?"]), {}, "'?' among numbers in row 12", id="text in numbers"),
        pytest.param(frame(l=[[1]] * N), {}, "column 'l' is of type object", id="lists"),
        pytest.param(frame(), {"n_tasks": 2}, "n_tasks: column 'quarter' holds text ('q1')", id="stages of text"),
        pytest.param(frame(quarter=[0] * 11 + [1]), {"n_tasks": 2}, "of 2 stages only 1 begin", id="ties"),
    ],
)  # fmt: skip
def test_each_fault_names_column_or_row(load: Any, table: pd.DataFrame, fields: dict[str, Any], said: str) -> None:
    (fault,) = faults(load, table, **fields)
    assert said in fault


def test_all_faults_are_reported_at_once(load: Any) -> None:
    found = faults(load, frame(x=[np.inf] * N, z=[np.nan] * N, y=["a", None] * 6))
    assert [next(name for name in ("'x'", "'z'", "'y'") if name in fault) for fault in found] == ["'x'", "'z'", "'y'"]


def test_too_many_categories_classes_and_tasks(load: Any) -> None:
    n = 1001
    many = pd.DataFrame({"x": range(n), "y": range(n), "quarter": range(n), "name": [f"n{i}" for i in range(n)]})
    found = faults(load, many)
    assert [f.partition(": ")[0] for f in found] == [
        "streams.churn.table", "streams.churn.label", "streams.churn.task",
    ]  # fmt: skip
    assert all("1001" in fault for fault in found)


def test_a_second_table_must_fit_the_first(load: Any) -> None:
    assert "lacks the column 'extra' of" in faults(load, frame(extra=1), frame())[0]
    assert "holds 'maybe', which" in faults(load, frame(), frame(y="maybe"))[0]
    assert "holds 'q3', which" in faults(load, frame(), frame(quarter="q3"))[0]
    assert "task 'q2' has no test examples; add some" in faults(load, frame(), frame(quarter="q1"))[0]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    def read(name: str) -> str:
        settings = StreamSettings(table=str(tmp_path / name), label="y")
        with pytest.raises(DataError) as caught:
            load_stream("churn", settings, Path("nowhere"))
        (fault,) = caught.value.faults
        assert name in fault
        return fault

    (tmp_path / "a.parquet").write_bytes(b"PAR1 not so")
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_text("x,y\n")
    assert "there is no file" in read("absent.csv")
    assert "cannot be read" in read("a.parquet")
    assert "cannot be read" in read("a.csv")
    assert "has no rows; add some" in read("b.csv")


def test_training_rows_span_0_to_1_wherever_the_ends_of_the_table_are(load_table: Load) -> None:
    """The ends of the whole table are known first, and are those of the training rows unless a test row holds one."""
    held_out = 0
    for place in range(N):
        values = np.ones(N)
        values[place], values[(place + 7) % N] = 5.0, -3.0
        data = load_table(frame(c=values).drop(columns=["quarter", "x"]))
        train, test = data.train_inputs[:, 0], data.test_inputs[:, 0]
        assert (train.min(), train.max()) == (0.0, 1.0) or len(set(train)) == 1
        held_out += bool(len(test) and (test.max() > 1 or test.min() < 0))
    assert 0 < held_out < N


@pytest.mark.parametrize("fixed", [True, False], ids=["of a fixed size", "lists"])
def test_a_column_of_vectors_is_as_many_columns_of_numbers(load: Any, fixed: bool) -> None:
    numbers = np.arange(2 * N, dtype=np.float32).reshape(N, 2) ** 2
    apart = load(frame(**{"v.0": numbers[:, 0], "v.1": numbers[:, 1]}))
    whole_column = frame(v=list(numbers if fixed else numbers.astype(float)))
    together = load(whole_column)
    assert [column.name for column in together.columns] == ["x", "v.0", "v.1"]
    np.testing.assert_array_equal(together.train_inputs, apart.train_inputs)
    np.testing.assert_array_equal(together.test_inputs, apart.test_inputs)
    assert [column.name for column in load(whole_column, drop=["v"]).columns] == ["x"]


def test_a_vector_that_is_missing_is_a_gap_in_each_of_its_numbers(load: Any) -> None:
    table = frame(v=[None, *([float(row), 1.0 - row] for row in range(1, N))])
    assert all("row 1 " in fault for fault in faults(load, table))
    filled = load(table, missing={"v.0": "median", "v.1": "median"})
    assert filled.facts.n_numbers == 3
    assert np.isfinite(filled.train_inputs).all()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0, 2.0]] * 5 + [[1.0]] + [[1.0, 2.0]] * 6, "holds vectors of 2 numbers, and of 1 in row 6; pad or cut"),
        ([["a", "b"]] * N, "holds lists of something else than numbers; write a vector of numbers, or list it in drop"),
        ([[[1.0], [2.0]]] * N, "holds lists of something else than numbers"),
        ([np.zeros(0)] * N, "holds lists of something else than numbers"),
    ],
)
def test_what_is_no_vector_of_numbers_is_refused(load: Any, column: list[Any], message: str) -> None:
    (fault,) = faults(load, frame(v=column))
    assert message in fault
    assert "column 'v' of" in fault


def test_a_vector_may_not_take_the_name_of_a_column(load: Any) -> None:
    assert "has two columns 'v.0'" in faults(load, frame(v=[[1.0, 2.0]] * N, **{"v.0": np.arange(N)}))[0]
