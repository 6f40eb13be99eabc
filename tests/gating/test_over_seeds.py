"""Runs compared by seed, against tables and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from orchestrator.gating.over_seeds import n_more_seeds, seed_limits, seed_p


def test_p_values_are_those_of_a_t_test() -> None:
    values = [-0.01, 0.02, 0.0, -0.03, 0.015]
    expected = [ttest_1samp(values, -0.02, alternative=side).pvalue for side in ("greater", "less")]
    assert seed_p(values, -0.02) == pytest.approx(expected)


def test_limits_by_hand() -> None:
    """Mean 0.02, deviation 0.01, t(0.95, 2) = 2.920: 2.920 x 0.01 / sqrt(3) = 0.01686."""
    assert seed_limits([0.01, 0.02, 0.03], 0.05) == pytest.approx((0.02 - 0.01686, 0.02 + 0.01686), abs=1e-5)


def test_one_seed_decides_nothing() -> None:
    assert seed_p([0.3], -0.02) == (1.0, 1.0)
    assert all(map(math.isnan, seed_limits([0.3], 0.05)))
    assert n_more_seeds([0.3], -0.02, 0.05) is None


def test_equal_differences_need_five_seeds() -> None:
    assert seed_p([0.0] * 4, -0.02) == (1 / 16, 1.0)
    assert seed_p([0.0] * 5, -0.02) == (1 / 32, 1.0)
    assert seed_p([-0.1] * 5, -0.02) == (1.0, 1 / 32)
    assert seed_p([0.0] * 9, 0.0) == (1.0, 1.0)
    assert n_more_seeds([0.0] * 2, -0.02, 0.05) == 3


def test_a_wrong_pass_over_seeds_is_rare() -> None:
    differences = np.random.default_rng(0).normal(-0.05, 0.02, size=(4_000, 3))
    wrong = np.mean([seed_p(row.tolist(), -0.05)[0] <= 0.05 for row in differences])
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4_000)


def test_as_many_more_seeds_decide_in_four_of_five_cases() -> None:
    seen = [-0.03, 0.01, 0.02]
    more = n_more_seeds(seen, -0.02, 0.05)
    assert more is not None
    drawn = np.random.default_rng(0).normal(np.mean(seen), np.std(seen, ddof=1), size=(2_000, 3 + more))
    assert np.mean([seed_p(row.tolist(), -0.02)[0] <= 0.05 for row in drawn]) == pytest.approx(0.8, abs=0.07)
    assert n_more_seeds([-0.03, -0.01], -0.02, 0.05) is None, "at the limit"
    assert n_more_seeds([-0.5, 0.4600001], -0.02, 0.05) is None, "too many"
