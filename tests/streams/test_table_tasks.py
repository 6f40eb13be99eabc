"""The order of tasks, and a second table for the test."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from orchestrator.core.errors import DataError
from tests.streams.conftest import Load, Refused, column

ALPHABETICAL = "the tasks are in alphabetical order, numbers in their names by size; set order to change it"


def tasks(values: list[Any]) -> pd.DataFrame:
    """Return 4 rows of each task, shuffled."""
    table = pd.DataFrame({"t": values * 4, "x": range(4 * len(values))}).sort_values("x")
    return table.assign(y=["no", "yes"] * (2 * len(values)))


@pytest.mark.parametrize(
    "names",
    [
        ["Q4 2022", "Q1 2023", "Q2 2023"],
        ["2022Q4", "2023Q1"],
        ["2022-Q4", "2023-Q1", "2023-Q2"],
        ["4Q22", "1Q23"],
        ["Q1", "Q2", "Q3", "Q4"],
        ["H2 2022", "H1 2023"],
        ["2023-W9", "2023-W10"],
        ["Jan", "Feb", "Mar", "Apr", "Dec"],
        ["January", "March", "April"],
        ["Feb 2022", "Jan 2023"],
        ["Dec-23", "Jan-24"],
        ["2022 Dec", "2023 Jan"],
        ["2022-10", "2023-01"],
        ["2022/12", "2023/01"],
        ["10/2022", "01/2023"],
        ["2023-01-02", "2024-01-01"],
        ["9", "10"],
        ["08:00", "10:00"],
    ],
)
def test_periods_are_in_the_order_of_time(load_table: Load, names: list[str]) -> None:
    data = load_table(tasks(names[::-1]), task="t")
    assert data.facts.task_names == tuple(names)
    assert data.report is not None
    assert not any("order" in note for note in data.report.notes)


def test_an_ordered_category_keeps_its_order(load_table: Load) -> None:
    names = ["low", "medium", "high"]
    for ordered, expected in ((True, names), (False, sorted(names))):
        table = tasks(names)
        table["t"] = pd.Categorical(table["t"], categories=names, ordered=ordered)
        assert load_table(table, suffix=".parquet", task="t").facts.task_names == tuple(expected)


def test_other_text_is_in_alphabetical_order_with_a_note(load_table: Load) -> None:
    for names in (["high", "low"], ["t9", "t10"], ["Feb 2023", "Jan"]):
        data = load_table(tasks(names[::-1]), task="t")
        assert data.facts.task_names == tuple(names)
        assert data.report is not None
        assert data.report.notes == (ALPHABETICAL,)


def test_a_given_order_is_kept(load_table: Load) -> None:
    assert load_table(tasks(["a", "b", "c"]), task="t", order=["b", "c", "a"]).facts.task_names == ("b", "c", "a")
    data = load_table(tasks([1, 2, 3]), tasks([1, 2, 3]), task="t", order=[3, 1, 2])
    assert data.facts.task_names == ("3", "1", "2")
    assert data.train_tasks is not None
    assert data.train_tasks[:3].tolist() == [1, 2, 0]


def test_a_given_order_must_list_exactly_the_values(load_table: Load) -> None:
    with pytest.raises(Exception, match="the data have 2 faults") as caught:
        load_table(tasks(["a", "b"]), task="t", order=["a", "c"])
    assert "holds 'b', which is not listed; add it" in str(caught.value)
    assert "does not hold 'c'; leave it out" in str(caught.value)


def test_dates_in_an_unknown_order_are_refused(refused: Refused) -> None:
    fault = refused(tasks(["31.12.2023", "01.01.2024"]), task="t")
    assert "holds dates such as" in fault
    assert "set dates: {t: '%d.%m.%Y'}, or order" in fault


def test_a_task_for_nearly_every_row_is_refused_with_the_way_out(refused: Refused) -> None:
    days = [f"2024-01-{day:02}" for day in range(1, 31)]
    assert "has 30 different values in" in refused(
        pd.DataFrame({"x": range(60), "y": [*"ab"] * 30, "t": days * 2}), task="t"
    )
    measured = pd.DataFrame({"x": range(60), "y": [n + 0.5 for n in range(60)]})
    assert "so they are no classes; name another column, or write ranges of it as classes" in refused(measured)


# A second table.


@pytest.mark.parametrize(
    ("table", "test", "said"),
    [
        ([1, 2], ["a", "b"], "holds text such as 'a', and that of '"),
        (["a", "b"], [1, 2], "holds numbers such as '1', and that of '"),
        (["2024-01-01"], [5], "holds numbers such as '5', and that of '"),
        ([1, 2], ["2024-01-01"], "holds dates such as '2024-01-01', and that of '"),
        ([1, 2], [None], "column 'c' has no value in any row"),
        ([1, 2], [1, None], "column 'c' has no value in row 2"),
        ([1, 2], [1, "NA"], "holds the text 'NA' among numbers in row 2"),
        ([1, 2], [1, float("inf")], "holds inf in row 2"),
    ],
)
def test_a_second_table_of_another_kind_is_refused(refused: Refused, table: Any, test: Any, said: str) -> None:
    fault = refused(column(table), column(test))
    assert fault.startswith("streams.own.test_table: column 'c'")
    assert said in fault


def test_a_second_table_of_another_format_is_read(load_table: Load) -> None:
    times = [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-03")]
    data = load_table(column(times), column(["2024-01-02"]), suffix=".parquet")
    assert {*data.test_inputs[:, 0].tolist()} == {0.5}
    flags = load_table(column([True, False]), column(["True", "False"]), suffix=".parquet")
    assert flags.test_inputs[:2, 1:].tolist() == [[0, 1], [1, 0]]
    labels = load_table(column([1.0, 2.0], "y2"), column([1, 2], "y2"), suffix=".parquet", label="y2")
    assert labels.test_labels[:2].tolist() == [0, 1]


@pytest.mark.parametrize("fields", [{}, {"n_tasks": 2}, {"order": ["2024-02", "2024-01"]}])
def test_text_of_parquet_is_read_as_that_of_csv(load_table: Load, fields: dict[str, Any]) -> None:
    """Parquet files tell how often each text occurs, and the text of each row is not made where that is enough."""
    table = tasks(["2024-02", "2024-01"])
    one, other = (load_table(table, suffix=suffix, task="t", **fields) for suffix in (".csv", ".parquet"))
    assert one.facts.task_names == other.facts.task_names
    assert one.facts.class_names == other.facts.class_names == ("no", "yes")
    assert one.fingerprint() == other.fingerprint()


def test_a_gap_among_the_classes_of_parquet_is_named(load_table: Load) -> None:
    table = column(["a"])
    table.loc[5, "y"] = None
    with pytest.raises(DataError, match=r"column 'y' of '.*' has no value in row 6 \(counted from 1\)"):
        load_table(table, suffix=".parquet", drop=["c"])
