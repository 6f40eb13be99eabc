"""Statistics of the answer, against numbers computed by hand or by other software."""

from __future__ import annotations

import math

import pytest

from orchestrator.gating.multiple_tests import holm
from orchestrator.search.answers.certainty import Spread, assurance, compare, n_more_seeds


def test_interval_of_a_mean() -> None:
    """Mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776: half width 2.776 * 1.5811 / sqrt(5) = 1.963."""
    low, high = Spread((1.0, 2.0, 3.0, 4.0, 5.0)).interval
    assert (low, high) == pytest.approx((3 - 1.963, 3 + 1.963), abs=1e-3)
    assert all(map(math.isnan, Spread((1.0,)).interval))


def test_five_of_five_seeds_show_no_more_than_0_55() -> None:
    found = assurance([0.01, 0.02, 0.03, 0.02, 0.01])
    assert (found.n_met, found.n_seeds) == (5, 5)
    assert found.at_least == pytest.approx(0.05 ** (1 / 5))
    assert found.at_least == pytest.approx(0.549, abs=1e-3)


def test_probability_of_a_new_run() -> None:
    """Mean 1, standard deviation 1, n = 4: t = 1 / sqrt(1.25) = 0.8944 with 3 degrees of freedom: 0.7815."""
    margins = [1 - math.sqrt(1.5), 1.0, 1.0, 1 + math.sqrt(1.5)]
    found = assurance(margins)
    assert found.probability == pytest.approx(0.7815, abs=2e-4)
    assert found.n_met == 3
    assert assurance([0.1]).probability != assurance([0.1]).probability, "one seed tells no spread"
    assert assurance([0.1, 0.1]).probability == 1.0
    assert assurance([-0.1, -0.1]).probability == 0.0
    assert assurance([-0.1, -0.2]).at_least == 0.0


def test_seeds_that_are_not_normal_are_said() -> None:
    assert assurance([0.01, 0.011, 0.009, 0.0105, 0.0095, 0.01, 0.9]).looks_normal is False
    assert assurance([0.01, 0.02, 0.03, 0.02, 0.015]).looks_normal is True
    assert assurance([0.01, 0.01, 0.01]).looks_normal is None


def test_holm() -> None:
    """The example of Holm's procedure: 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    found = holm({"a": 0.02, "b": math.nan})
    assert found["a"] == 0.02
    assert math.isnan(found["b"])


def test_methods_are_compared_by_seed() -> None:
    """Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 with 2 degrees of freedom, p = 0.0742."""
    first = {0: 2.0, 1: 4.0, 2: 6.0, 9: 100.0}
    found = compare(first, {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 2.0, 1: 4.0, 2: 6.0}})
    assert (found["a"].difference, found["a"].n_seeds) == (2.0, 3)
    assert found["a"].p_value == pytest.approx(0.0742, abs=1e-4)
    assert found["a"].p_holm == pytest.approx(0.1484, abs=1e-4)
    assert not found["a"].is_told_apart
    assert (found["b"].difference, found["b"].p_value, found["b"].n_more_seeds) == (0.0, 1.0, None)


def test_how_many_more_seeds() -> None:
    """An effect of half a standard deviation needs 34 seeds for 80 % power at 5 % (Cohen 1988, paired)."""
    half = [0.5 - math.sqrt(0.5), 0.5 + math.sqrt(0.5)]
    assert n_more_seeds(half) == 34 - 2
    assert n_more_seeds([1.0, 1.0]) is None
