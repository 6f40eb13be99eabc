"""Dates and times in tables: read as seconds, or refused with the format that reads them."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.streams.sources.tables import dates
from tests.streams.conftest import Load, Refused, column

DAY = 86400.0


def scaled(load_table: Load, values: list[Any], suffix: str = ".csv", **fields: Any) -> list[float]:
    """Return the feature of each value, by the value's first row."""
    data = load_table(column(values), column(values), suffix=suffix, **fields)
    assert data.report is not None
    assert data.report.dates == ("c",)
    assert data.facts.n_numbers == 2
    found: list[float] = data.train_inputs[: len(values), 0].round(6).astype(np.float64).round(5).tolist()
    return found


@pytest.mark.parametrize(
    "values",
    [
        ["2024-01-01", "2024-01-03", "2024-01-02"],
        ["2024-01-01T00:00:00", "2024-01-03T00:00:00Z".removesuffix("Z"), "2024-01-02T00:00:00.000"],
        ["2024-01-01 02:00+02:00", "2024-01-02T22:00:00-0200", "2024-01-02T00:00Z"],
        ["2024-01-01 00:00:00 +0000", "2024-01-03 00:00:00 +0000", "2024-01-02 00:00:00 +0000"],
        ["20240101T000000", "20240103T000000", "20240102T000000"],
    ],
    ids=["days", "moments", "offsets", "offset after a space", "basic form"],
)
def test_iso_dates_are_read_by_themselves(load_table: Load, values: list[str]) -> None:
    assert scaled(load_table, values) == [0, 1, 0.5]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["01.01.2024", "03.01.2024", "02.01.2024"], "%d.%m.%Y"),
        (["01/01/2024", "01/03/2024", "01/02/2024"], "%m/%d/%Y"),
        (["2024/01/01", "2024/01/03", "2024/01/02"], "%Y/%m/%d"),
        (["01-Jan-24", "03-Jan-24", "02-Jan-24"], "%d-%b-%y"),
        (["20240101", "20240103", "20240102"], "%Y%m%d"),
        (["Jan 1, 2024", "Jan 3, 2024", "Jan 2, 2024"], "%b %d, %Y"),
        (["2024-01-01 00:00 +0200", "2024-01-03 00:00 +0200", "2024-01-02 00:00 +0200"], "%Y-%m-%d %H:%M %z"),
        (["00:00", "12:00", "06:00"], "%H:%M"),
        (["12:00 AM", "12:00 PM", "06:00 AM"], "%I:%M %p"),
        (["00:00:00", "12:00:00", "06:00:00"], "iso"),
        (["2024-01", "2024-03-01", "2024-01-31"], "iso"),
    ],
)
def test_a_named_format_is_read(load_table: Load, values: list[str], form: str) -> None:
    assert scaled(load_table, values, dates={"c": form}) == [0, 1, 0.5]


def test_months_and_times_of_day(load_table: Load) -> None:
    assert scaled(load_table, ["2024-01", "2024-03", "2024-02"]) == [0, 1, round(31 / 60, 5)]
    assert scaled(load_table, ["00:00:00", "12:00:00", "03:00:00.0"]) == [0, 1, 0.25]
    assert scaled(load_table, ["8:00", "12:00", "9:00"]) == [0, 1, 0.25]


@pytest.mark.parametrize(
    "values",
    [
        [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-03"), pd.Timestamp("2024-01-02")],
        [pd.Timestamp(f"2024-01-0{day}", tz="Europe/Berlin") for day in (1, 3, 2)],
        [datetime.date(2024, 1, 1), datetime.date(2024, 1, 3), datetime.date(2024, 1, 2)],
        [datetime.time(0), datetime.time(12), datetime.time(6)],
        [pd.Timedelta(hours=1), pd.Timedelta(hours=3), pd.Timedelta(hours=2)],
        [pd.Period("2024-01-01", "D"), pd.Period("2024-01-03", "D"), pd.Period("2024-01-02", "D")],
    ],
    ids=["times", "times with a zone", "days", "times of day", "durations", "periods"],
)
def test_times_of_parquet_are_read(load_table: Load, values: list[Any]) -> None:
    data = load_table(column(values), suffix=".parquet")
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    assert sorted({*rows[:, 0].round(6).tolist()}) == [0, 0.5, 1]
    assert data.report is not None
    assert data.report.dates == ("c",)


def test_seconds_are_counted_in_utc() -> None:
    texts = ["1970-01-02", "1970-01-01T01:00+01:00", "1969-12-31T23:59:59.5"]
    assert dates.seconds(dates.parsed(texts, "iso")).tolist() == [DAY, 0, -0.5]
    assert dates.clock_seconds(["08:15:00", "8:15", "x"])[:2].tolist() == [29700, 29700]
    assert dates.of_object(datetime.time(8, 15)) == 29700
    assert dates.of_object(datetime.date(1970, 1, 2)) == DAY


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["31.12.2024", "01.02.2024"], "such as '31.12.2024', which need a format; set dates: {c: '%d.%m.%Y'}"),
        (["12/31/2024", "01/02/2024"], "set dates: {c: '%m/%d/%Y'}"),
        (["2024/12/31", "2024/01/02"], "set dates: {c: '%Y/%m/%d'}"),
        (["31-Jan-24", "01-Feb-24"], "set dates: {c: '%d-%b-%y'}"),
        (["31. December 2024", "1. May 2024"], "set dates: {c: '%d. %B %Y'}"),
        (["31.12.2024 08:15", "01.02.2024 09:15"], "set dates: {c: '%d.%m.%Y %H:%M'}"),
        (["8:15 AM", "9:30 PM"], "set dates: {c: '%I:%M %p'}"),
        (["2024-1-5", "2024-12-31"], "set dates: {c: '%Y-%m-%d'}"),
        (["Jan 2024", "Mar 2024"], "set dates: {c: '%b %Y'}"),
        (["03.2024", "12.2024"], "set dates: {c: '%m.%Y'}"),
        (["20240131", "20240228"], "set dates: {c: '%Y%m%d'}"),
        (["24-Jan", "25-Feb"], "need a format; set dates: {c: FORMAT}"),
        (["2024-W05", "2024-W06"], "need a format; set dates: {c: FORMAT}"),
        (["5. März 2024", "6. Mai 2024"], "need a format; set dates: {c: FORMAT}"),
        (["03/04/2024", "05/06/2024"], "can be read as '%d/%m/%Y' or '%m/%d/%Y'; set dates: {c: FORMAT} to one"),
        (["03.04.24", "05.06.24"], "can be read as '%d.%m.%y' or"),
        (["2024-01-01", "2024-01-02", "unknown"], "the text 'unknown' among ISO 8601 dates in row 3"),
        (["2024-01-01", "2024-01-02", "soon"], "the text 'soon' among ISO 8601 dates in row 3"),
        (["2024-01-01", "2024-02-30"], "'2024-02-30' in row 2 (counted from 1), which is no ISO 8601 date"),
        (["2024-01-01T10:00Z", "2024-01-01T10:00"], "with an offset from UTC and others without"),
        (["08:15", "09:30", "25:00"], "the text '25:00' among times of day in row 3"),
        (["31.12.2024", "01.02.2024", "n/a"], "the text 'n/a' among dates in row 3"),
    ],
)
def test_other_forms_are_refused_with_a_way_out(refused: Refused, values: list[str], said: str) -> None:
    fault = refused(column(values))
    assert fault.startswith("streams.own.table: column 'c' holds")
    assert said in fault


@pytest.mark.parametrize("values", [["31.12.2024", "1.2.24"], ["2024-12-31", "32.01.2024"]])
def test_a_value_of_another_form_is_named(refused: Refused, values: list[str]) -> None:
    assert f"holds '{values[1]}' in row 2" in refused(
        column(values), dates={"c": "%d.%m.%Y"} if values[0][0] == "3" else {"c": "iso"}
    )


@pytest.mark.parametrize("use", [{"categorical": ["c"]}, {"drop": ["c"]}, {"task": "c"}])
def test_a_date_that_is_no_feature_is_left_as_it_is(load_table: Load, use: dict[str, Any]) -> None:
    data = load_table(
        column(["2024/12/31", "2024/12/31", "2025/01/01", "2025/01/01"]),
        **use | ({"dates": {"c": "%Y/%m/%d"}} if "task" in use else {}),
    )
    assert data.facts.n_numbers == 1
    assert data.report is not None
    assert data.report.dates == ()


def test_kinds_that_are_no_dates_stay_kinds(load_table: Load) -> None:
    for values in (
        ["2023Q1", "2023Q2"],
        ["Mon", "Tue"],
        ["10-20", "20-30"],
        ["v1.2", "v1.3"],
        ["Corolla 2019", "Golf 2020"],
    ):
        data = load_table(column(values))
        assert data.report is not None
        assert data.report.kinds == {"c": 2}, values


def test_a_task_of_dates_is_cut_and_ordered(load_table: Load) -> None:
    values = [f"{day:02}.{month:02}.2024" for month in (1, 2) for day in (5, 5, 17, 17)]
    form = {"c": "%d.%m.%Y"}
    assert load_table(column(values), task="c", dates=form).facts.task_names == (
        "05.01.2024", "17.01.2024", "05.02.2024", "17.02.2024",
    )  # fmt: skip
    cut = load_table(column(values), task="c", dates=form, n_tasks=2)
    assert cut.facts.task_names == ("from 2024-01-05 00:00:00", "from 2024-02-05 00:00:00")


def test_gaps_of_dates_are_filled(load_table: Load) -> None:
    data = load_table(
        column(["2024-01-01", None, "2024-01-03", "2024-01-03"]), missing={"c": "indicator"}, test_share=0.1
    )
    rows = np.concatenate([data.train_inputs, data.test_inputs])
    assert {*map(tuple, rows[:, [0, 2]].round(3).tolist())} == {(0, 0), (1, 1), (1, 0)}
