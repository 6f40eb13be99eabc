"""Gaps in tables, and kinds by the thousand."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.streams.datasets import Dataset
from tests.streams.conftest import Load, Refused, column


def rows(data: Dataset) -> np.ndarray[Any, Any]:
    return np.concatenate([data.train_inputs, data.test_inputs])


def test_a_gap_is_refused_with_its_ways_out(refused: Refused) -> None:
    assert "'c' has no value in row 2 (counted from 1); set missing: {c: median}" in refused(column([1.5, None, 3]))
    assert "set missing: {c: indicator}" in refused(column(["a", None]))
    assert "set missing: {c: median}" in refused(column(["2024-01-01", None]))
    assert "set missing: {c: median}" in refused(column([1.5, None]), missing={"x": "median"})


@pytest.mark.parametrize(
    "fields", [{"missing": "median"}, {"missing": {"c": "median"}}, {"missing": {"all": "median"}}]
)
def test_the_median_is_of_the_training_rows(load_table: Load, fields: dict[str, Any]) -> None:
    data = load_table(column([0.0, None, 1.0, 10.0]), column([5.0, None]), **fields)
    np.testing.assert_allclose(data.train_inputs[:4, 0], [0, 0.1, 0.1, 1], rtol=1e-6)
    np.testing.assert_allclose(data.test_inputs[:2, 0], [0.5, 0.1], rtol=1e-6)


def test_an_indicator_is_a_further_feature(load_table: Load) -> None:
    data = load_table(column([0.0, None, 1.0, 10.0]), column([5.0, None]), missing={"c": "indicator"})
    assert (data.facts.shape, data.facts.n_numbers) == ((3,), 2)
    assert data.train_inputs[:4, 2].tolist() == [0, 1, 0, 0]
    assert data.test_inputs[:2, 2].tolist() == [0, 1]
    assert data.report is not None
    assert data.report.indicators == ("c",)
    assert load_table(column([0.0, 1.0]), missing="indicator").facts.shape == (2,), "no gap, no indicator"


def test_rows_with_a_gap_are_left_out_and_counted(load_table: Load) -> None:
    table = column(["a", None, "b", "c", "a"]).assign(z=[None, *range(1, 24)])
    data = load_table(table, missing={"c": "drop", "z": "drop"})
    assert len(rows(data)) == 24 - 5 - 1
    assert data.report is not None
    assert data.report.n_rows == 24
    (said,) = data.report.left_out
    assert said.startswith("6 of 24 rows of '")
    assert said.endswith("are left out: they have no value in 'c' (5), 'z' (1)")


def test_missing_is_a_kind_of_its_own(load_table: Load) -> None:
    for fields in ({"missing": {"c": "indicator"}}, {"categorical": ["c"]}):
        data = load_table(column(["a", None, "b"]), **fields)
        assert data.facts.shape == (4,)
        assert rows(data)[:, 1:].sum(axis=0).tolist() == [8, 8, 8]


@pytest.mark.parametrize("values", [["a", None], [True, None]])
def test_text_has_no_median(refused: Refused, values: list[Any]) -> None:
    assert "text has no median; set missing: {c: indicator}" in refused(column(values), missing="median")


@pytest.mark.parametrize("missing", ["refuse", "median", "indicator", "drop"])
def test_a_column_without_any_value_is_refused(refused: Refused, missing: str) -> None:
    assert "column 'c' has no value in any row; list it in drop" in refused(column([None]), missing=missing)
    assert "test_table: column 'c' has no value in any row" in refused(column([1]), column([None]), missing=missing)


def test_no_row_left_is_refused(refused: Refused) -> None:
    table = column([1, None]).assign(z=[None, 1] * 12)
    assert "no row has a value in 'c' (12), 'z' (12)" in refused(table, missing="drop")


def test_listed_numbers_with_gaps_are_refused(load_table: Load, refused: Refused) -> None:
    many = [None, *range(1, 24)]
    for values in ([1.5, None, 3], many):
        assert "set missing: {c: median}" in refused(column(values), categorical=["c"])
        assert load_table(column(values), categorical=["c"], missing={"c": "indicator"}).facts.n_numbers == 1
    assert load_table(column([1.0, None, 3.0]), categorical=["c"]).facts.shape == (4,), "few whole numbers"
    assert "has no value in row 2" in refused(column([1, None]), categorical=["c"], missing={"c": "refuse"})


def test_a_hash_is_stable(load_table: Load) -> None:
    data = load_table(column(["a", "b"]), column(["a", "new"]), hash={"c": 8})
    assert data.facts.shape == (9,)
    for part, values in ((data.train_inputs, ["a", "b"]), (data.test_inputs, ["a", "new"])):
        buckets = [int.from_bytes(hashlib.blake2b(v.encode(), digest_size=8).digest(), "big") % 8 for v in values]
        assert part[:2, 1:].argmax(axis=1).tolist() == buckets
        assert part[:, 1:].sum(axis=1).tolist() == [1] * 24
    assert data.report is not None
    assert data.report.hashed == {"c": 8}


def test_a_frequency_is_of_the_training_rows(load_table: Load) -> None:
    data = load_table(column(["a", "a", "a", "b"]), column(["a", "b", "new"]), frequency=["c"])
    np.testing.assert_allclose(data.train_inputs[:4, 0], [0.75, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(data.test_inputs[:3, 0], [0.75, 0.25, 0])
    assert data.report is not None
    assert data.report.frequencies == ("c",)
    gaps = load_table(column(["a", None, None, None]), frequency=["c"], missing="indicator")
    assert {*rows(gaps)[:, 0].round(1).tolist()} <= {np.float32(value) for value in (0.2, 0.3, 0.7, 0.8)}


def test_kinds_by_the_thousand(load_table: Load, refused: Refused) -> None:
    n = 2400
    table = pd.DataFrame({"c": [f"v{i % 1200}" for i in range(n)], "k": "a", "y": ["no", "yes"] * (n // 2)})
    fault = refused(table)
    assert "has 1200 different values, more than the 1000 that can be one-hot encoded; set hash: {c: 64}" in fault
    assert "frequency: [c]" in fault
    assert load_table(table, hash=64).facts.shape == (64 + 1,)
    assert load_table(table, hash={"c": 16}).facts.shape == (16 + 1,)
    assert load_table(table, frequency=["c"]).facts.shape == (1 + 1,)
    codes = table.assign(c=[i % 1200 for i in range(n)])
    assert load_table(codes, categorical=["c"], hash=32).facts.shape == (32 + 1,)


def test_a_hash_without_effect_is_noted(load_table: Load) -> None:
    data = load_table(column(["a", "b"]), hash=64)
    assert data.report is not None
    assert data.report.kinds == {"c": 2}
    assert "hash has no effect: no column has more than 1000 kinds" in data.report.notes
