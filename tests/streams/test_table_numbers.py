"""Numbers in tables: read as the settings say, or refused if they are written otherwise."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.streams.datasets import Dataset
from tests.streams.conftest import Load, Refused, column


def feature(data: Dataset) -> list[float]:
    """Return the different values of the first feature, which is a number, ascending."""
    assert data.report is not None
    assert "c" in data.report.numbers
    return sorted({*np.concatenate([data.train_inputs, data.test_inputs])[:, 0].round(4).tolist()})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ["3,14", "2,5"],
            "'3,14' in row 1 (counted from 1), a number with a decimal mark of its own; set decimal: \",\"",
        ),
        (["1,234.5", "2,000.1"], 'set thousands: "," and decimal: "."'),
        (["1.234,5", "2.000,1"], 'set thousands: "." and decimal: ","'),
        (["1 234", "5 678"], 'set thousands: " "'),
        (["1\u202f234", "5\u00a0678"], 'set thousands: " "'),
        (["1'234", "2'345"], 'set thousands: "\'"'),
        (["1.234.567", "2.345.678"], 'set thousands: "."'),
        (["1,234", "2,345"], 'set thousands: "," if it stands between thousands, or decimal: ","'),
        (["1_234", "2_345"], "a number with _ between thousands"),
        (["12 %", "5 %"], "a number with a percent sign"),
        (["$1,200", "$900"], "a number with a currency"),
        (["12 EUR", "13 EUR"], "a number with a currency"),
        (["€ 5", "€ 6,50"], "a number with a currency"),
        (["$1.5M", "$2M"], "a number with a currency"),
        (["12kg", "13kg"], "a number with a unit"),
        (["12 km/h", "15.5 km/h"], "a number with a unit"),
        (["900 g", "1 kg", "2 kg"], "a number with a unit"),
        (["5k", "3M"], "a number with a unit"),
        (["(1,234)", "5"], "a number with an unusual sign"),
        (["\u22123", "4"], "a number with an unusual sign"),
        (["1/2", "3/4"], "a fraction"),
        (["7", "8", "12%"], "'12%' in row 3"),
        (
            ["1", "2", "NA", "4"],
            "the text 'NA' among numbers in row 3 (counted from 1); make such fields empty in the file and set missing",
        ),
        (["1", "nan", "3"], "the text 'nan' among numbers in row 2"),
        (["1", "N/A"], "the text 'N/A' among numbers in row 2"),
        (["1", "2", "oops", "4"], "the text 'oops' among numbers in row 3"),
        (["1", "2", "3", "4", "  "], "the text '  ' among numbers in row 5"),
        (["1.5", "inf"], "holds inf in row 2"),
        (["1.5", "1e400"], "holds inf in row 2"),
    ],
)
def test_numbers_written_otherwise_are_refused(refused: Refused, values: list[str], said: str) -> None:
    fault = refused(column(values))
    assert fault.startswith("streams.own.table: column 'c' holds")
    assert said in fault


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("values", "fields"),
    [
        (["1,5", "2,5", "3,5"], {"decimal": ","}),
        (["1.001,5", "1.002,5", "1.003,5"], {"decimal": ",", "thousands": "."}),
        (["1,001.5", "1,002.5", "1,003.5"], {"thousands": ","}),
        (["1 001", "1\u00a0002", "1\u202f003"], {"thousands": " "}),
        (["1'001", "1\u2019002", "1'003"], {"thousands": "'"}),
        (["1", "2", "3"], {"decimal": "."}),
        (["-1", "+0", "1e0"], {"decimal": "."}),
    ],
)
def test_marks_of_the_settings_are_read(
    load_table: Load, values: list[str], fields: dict[str, Any], suffix: str
) -> None:
    assert feature(load_table(column(values), suffix=suffix, **fields)) == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        (["3.14", "2,5"], {"decimal": ","}),
        (["3.14", "2.5"], {"decimal": ","}),
        (["1,5", "2,5"], {"thousands": ","}),
        (["1.5", "NA"], {"decimal": "."}),
    ],
)
def test_marks_elsewhere_are_refused(refused: Refused, values: list[str], fields: dict[str, Any]) -> None:
    assert "column 'c' holds" in refused(column(values), **fields)


@pytest.mark.parametrize(
    "values",
    [
        [decimal.Decimal("1.5"), decimal.Decimal("2.5"), decimal.Decimal("3.5")],
        [2**60, 2**60 + 2**40, 2**60 + 2**41],
        np.array([2**63, 2**63 + 2**50, 2**63 + 2**51], dtype=np.uint64),
        pd.array([1, 2, 3], dtype="Int64"),
        np.array([1, 2, 3], dtype=np.float32),
    ],
    ids=["decimals", "large", "unsigned", "nullable", "single precision"],
)
def test_numbers_of_parquet_are_read(load_table: Load, values: Any) -> None:
    assert feature(load_table(column(values), suffix=".parquet")) == [0, 0.5, 1]


def test_numbers_beyond_64_bits_are_read(load_table: Load) -> None:
    assert feature(load_table(column([str(k * 2**65) for k in (-1, 0, 1)]))) == [0, 0.5, 1]


def test_numbers_as_text_in_parquet_are_refused(refused: Refused) -> None:
    fault = refused(column(["1", "2", "3"]), suffix=".parquet")
    assert "column 'c' holds '1' in row 1 (counted from 1), a number as text; set decimal: '.'" in fault


@pytest.mark.parametrize(
    "values",
    [
        ["1A", "1B", "2A"],
        ["2WD", "4WD"],
        ["1st", "2nd", "3rd"],
        ["36", "M", "L"],
        ["10-20", "20-30"],
        ["p10", "p2"],
        ["<5", "5+"],
    ],
)
def test_kinds_with_digits_stay_kinds(load_table: Load, values: list[str]) -> None:
    data = load_table(column(values))
    assert data.report is not None
    assert data.report.kinds == {"c": len(values)}


def test_codes_with_a_leading_zero_are_noted(load_table: Load) -> None:
    data = load_table(column(["007", "012", "100"]))
    assert data.report is not None
    note = "column 'c' holds '007' and is read as numbers; list it in categorical if these are codes"
    assert note in data.report.notes
    listed = load_table(column(["007", "012", "100"]), categorical=["c"])
    assert listed.report is not None
    assert listed.report.kinds == {"c": 3}
    parquet = load_table(column(["007", "012", "100"]), suffix=".parquet").report
    assert parquet is not None
    assert parquet.kinds == {"c": 3}
    assert any("whose values are kinds" in note for note in parquet.notes)


def test_what_cannot_be_learned_from_is_refused(refused: Refused) -> None:
    assert "is of type object (bytes)" in refused(column([b"a", b"b"]), suffix=".parquet")
    assert "complex" not in refused(column([{"a": 1}, {"a": 2}]), suffix=".parquet")


def test_a_test_row_out_of_all_proportion_is_refused(refused: Refused) -> None:
    fault = refused(column([0.0, 1e-20]), column([0.0, 1e30]))
    assert "column 'c' holds a value that is too far from the training rows" in fault


@pytest.mark.parametrize("values", [["<5", "5-10", ">10"], ["1h30", "2h15"], ["0x1f", "0x2a"], ["~5", "~7"]])
def test_text_that_begins_as_numbers_do_is_noted(load_table: Load, values: list[str]) -> None:
    report = load_table(column(values)).report
    assert report is not None
    assert report.kinds == {"c": len(values)}
    assert f"column 'c' holds text such as '{values[0]}', whose values are kinds, no numbers" in report.notes


def test_codes_are_not_noted(load_table: Load) -> None:
    report = load_table(column(["A1", "B2"])).report
    assert report is not None
    assert not any("no numbers" in note for note in report.notes)
