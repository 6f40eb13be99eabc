"""Paired proportions, against published numbers, other methods of computing them, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, xlogy
from scipy.stats import binomtest

from orchestrator.gating.proportions import (
    exact_p,
    mcnemar_p,
    mean_limits,
    mean_z,
    n_more_of,
    n_more_pairs,
    p_values,
    score_limits,
    score_z,
)

Z95, Z90 = 1.959964, 1.644854


def drawn(p_gain: float, p_loss: float, n: int, repeats: int, seed: int = 0) -> tuple[NDArray[np.int64], ...]:
    """Return simulated gains and losses, (repeats,) each."""
    counts = np.random.default_rng(seed).multinomial(n, [p_gain, p_loss, 1 - p_gain - p_loss], size=repeats)
    return counts[:, 0], counts[:, 1]


def share_not_worse(gains: NDArray[np.int64], losses: NDArray[np.int64], n: int, delta: float) -> float:
    """Return how often the exact test at 5 % shows no drop to `delta`; what is clear from the score is not computed."""
    tables, counts = np.unique(np.stack([gains, losses]), axis=1, return_counts=True)
    z = score_z(*tables, n, delta)
    near = [i for i in range(len(counts)) if 1.6 < z[i] < 2.1]
    exact = sum(counts[i] for i in near if exact_p(int(tables[0, i]), int(tables[1, i]), n, delta)[0] <= 0.05)
    return float((exact + counts[z >= 2.1].sum()) / counts.sum())


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (5, 0), (9, 3), (40, 41), (7, 7), (0, 300)])
def test_mcnemar_is_the_sign_test(gains: int, losses: int) -> None:
    expected = binomtest(gains, gains + losses, 0.5).pvalue if gains + losses else 1.0
    assert mcnemar_p(gains, losses) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_by_hand() -> None:
    """One of six against: 2 (1 + 6) / 2^6 = 0.21875."""
    assert mcnemar_p(1, 5) == pytest.approx(0.21875)


@pytest.mark.parametrize(
    ("gains", "losses", "n", "low", "high"),
    [
        (9, 3, 32, -0.027, 0.390),  # Tango 1998: sleeping difficulties
        (6, 16, 161, -0.1240, -0.0054),  # Cavo et al. 2012, as in the R package contingencytables
    ],
)
def test_published_score_intervals(gains: int, losses: int, n: int, low: float, high: float) -> None:
    found = score_limits(gains, losses, n, Z95)
    assert [float(limit) for limit in found] == pytest.approx([low, high], abs=6e-4 if n == 32 else 6e-5)


@pytest.mark.parametrize("delta", [-0.3, -0.05, 0.0, 0.2])
@pytest.mark.parametrize(("gains", "losses", "n"), [(9, 3, 32), (0, 4, 50), (4, 0, 50), (30, 10, 40), (1, 1, 9)])
def test_the_constrained_estimate_maximises_the_likelihood(gains: int, losses: int, n: int, delta: float) -> None:
    """The statistic from a numeric maximum over the share of losses q, with gains q + delta."""

    def cost(q: float) -> float:
        shares = [q + delta, q, 1 - 2 * q - delta]
        return -sum(
            float(xlogy(k, max(p, 0.0))) for k, p in zip((gains, losses, n - gains - losses), shares, strict=True)
        )

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
    expected = (gains - losses - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))
    assert float(score_z(gains, losses, n, delta)) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_score_at_no_difference_is_mcnemar_without_correction() -> None:
    assert float(score_z(12, 5, 100, 0.0)) == pytest.approx((12 - 5) / math.sqrt(17))


@pytest.mark.parametrize(("gains", "losses", "n"), [(0, 0, 1), (0, 0, 40), (5, 0, 5), (0, 5, 5), (1, 0, 1)])
def test_the_edges_have_finite_limits_in_order(gains: int, losses: int, n: int) -> None:
    low, high = (float(limit) for limit in score_limits(gains, losses, n, Z95))
    assert -1 <= low <= (gains - losses) / n <= high <= 1
    for delta in (-1.0, -0.02, 0.0, 0.5, 1.0):
        p_above, p_below = exact_p(gains, losses, n, delta)
        assert 0 <= p_above <= 1
        assert 0 <= p_below <= 1


def test_limits_without_a_discordant_example_by_hand() -> None:
    """Then z^2 = n m / (1 - m) at the limit -m, so m = z^2 / (n + z^2)."""
    low, high = score_limits(0, 0, 100, Z90)
    assert (float(low), float(high)) == pytest.approx((-(Z90**2) / (100 + Z90**2), Z90**2 / (100 + Z90**2)), abs=1e-9)


@pytest.mark.parametrize(
    ("gains", "losses", "n", "delta"), [(0, 1, 30, -0.1), (6, 1, 25, 0.1), (1, 6, 25, -0.1), (3, 9, 40, -0.05)]
)
def test_the_exact_test_against_enumeration(gains: int, losses: int, n: int, delta: float) -> None:
    """Add up every table that is as extreme, on a fine grid of the shares that the data allow (Clopper & Pearson)."""
    x, y = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    x, y = x[x + y <= n], y[x + y <= n]
    z, observed = score_z(x, y, n, delta), float(score_z(gains, losses, n, delta))
    log_ways = gammaln(n + 1) - gammaln(x + 1) - gammaln(y + 1) - gammaln(n - x - y + 1)
    largest = [0.0, 0.0]
    possible = binomtest(gains + losses, n).proportion_ci(1 - 1e-6)
    for share in np.linspace(max(abs(delta), possible.low), min(possible.high, 1 - 1e-9), 500):
        logs = log_ways + xlogy(x, (share + delta) / 2) + xlogy(y, (share - delta) / 2) + xlogy(n - x - y, 1 - share)
        chance = np.exp(logs)
        largest[0] = max(largest[0], float(chance[z >= observed - 1e-9].sum()))
        largest[1] = max(largest[1], float(chance[z <= observed + 1e-9].sum()))
    found = exact_p(gains, losses, n, delta)
    assert found == pytest.approx([min(1.0, p) for p in largest], abs=2e-3)


def test_the_exact_test_is_the_rule_of_three_without_a_discordant_example() -> None:
    """At the limit all 50 examples are free of losses with chance 0.95^50 = 0.0769; the normal tail says 0.052."""
    assert exact_p(0, 0, 50, -0.05)[0] == pytest.approx(0.95**50, abs=1e-5)
    assert p_values(float(score_z(0, 0, 50, -0.05)))[0] == pytest.approx(0.0524, abs=1e-3)
    assert exact_p(0, 0, 149, -0.02)[0] < 0.05 < exact_p(0, 0, 148, -0.02)[0]


def test_exact_and_score_agree_with_many_examples() -> None:
    for gains, losses, n, delta in [(50, 50, 1000, -0.02), (300, 420, 10_000, -0.01)]:
        expected = p_values(float(score_z(gains, losses, n, delta)))
        assert exact_p(gains, losses, n, delta) == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize(
    ("p_gain", "p_loss", "n"), [(0.05, 0.08, 100), (0.1, 0.1, 50), (0.02, 0.05, 400), (0.2, 0.1, 200)]
)
def test_the_interval_covers(p_gain: float, p_loss: float, n: int) -> None:
    low, high = score_limits(*drawn(p_gain, p_loss, n, 20_000), n, Z95)
    covered = float(((low <= p_gain - p_loss) & (p_gain - p_loss <= high)).mean())
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("p_gain", "p_loss", "n"), [(0.0, 0.05, 52), (0.0, 0.05, 200), (0.03, 0.08, 120), (0.1, 0.15, 300)]
)
def test_a_wrong_pass_is_rare_at_the_limit(p_gain: float, p_loss: float, n: int) -> None:
    wrong = share_not_worse(*drawn(p_gain, p_loss, n, 4_000), n, -0.05)
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 4_000)


def test_the_score_alone_would_pass_wrongly_too_often() -> None:
    gains, losses = drawn(0.0, 0.05, 52, 20_000)
    assert float((score_z(gains, losses, 52, -0.05) >= Z90).mean()) > 0.06


@pytest.mark.parametrize("p_gain", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("n", [[100] * 5, [50, 500, 2000], [300, 300]])
def test_the_limits_of_a_mean_cover(p_gain: float, n: list[int]) -> None:
    columns = [drawn(p_gain, p_gain + 0.03, size, 4_000, seed) for seed, size in enumerate(n)]
    gains, losses = (np.stack([column[side] for column in columns], 1) for side in (0, 1))
    weights = [1 / len(n)] * len(n)
    error = 3 * math.sqrt(0.05 * 0.95 / 4_000)
    assert float((mean_limits(gains, losses, n, weights, Z90)[1] > -0.03).mean()) <= 0.05 + error, "a wrong PASS"
    assert float((mean_limits(gains, losses, n, weights, Z90)[2] < -0.03).mean()) <= 0.08 + error, "a wrong FAIL"
    _, low, high = mean_limits(gains, losses, n, weights, Z95)
    assert float(((low <= -0.03) & (high >= -0.03)).mean()) >= 0.93


def test_a_mean_of_one_is_the_score_interval() -> None:
    mean, low, high = mean_limits([9], [3], [32], [1.0], Z95)
    assert float(mean) == pytest.approx(6 / 32)
    assert (float(low), float(high)) == pytest.approx([float(v) for v in score_limits(9, 3, 32, Z95)])
    assert mean_z([9], [3], [32], [1.0], -0.05) == pytest.approx(float(score_z(9, 3, 32, -0.05)), abs=1e-4)


def test_z_of_a_mean_is_where_its_limit_lies() -> None:
    counts = ([10, 5, 0], [14, 9, 0], [200, 100, 50], [1 / 3] * 3)
    for delta in (-0.1, -0.03, 0.01):
        z = mean_z(*counts, delta)
        limit = mean_limits(*counts, abs(z))[1 if z > 0 else 2]
        assert float(limit) == pytest.approx(delta, abs=1e-5)


@pytest.mark.parametrize(("p_gain", "p_loss", "n"), [(0.05, 0.055, 200), (0.02, 0.03, 300), (0.0, 0.0, 50)])
def test_as_many_more_decide_in_four_of_five_cases(p_gain: float, p_loss: float, n: int) -> None:
    more = n_more_pairs(round(p_gain * n), round(p_loss * n), n, -0.03, 0.05)
    assert more is not None
    decided = share_not_worse(*drawn(p_gain, p_loss, n + more, 500), n + more, -0.03)
    assert 0.74 <= decided <= (0.9 if p_loss else 1.0)


def test_no_number_decides_at_the_limit() -> None:
    assert n_more_pairs(0, 5, 100, -0.05, 0.05) is None
    assert n_more_of(0.0, 100, 0.05) is None
    assert n_more_pairs(0, 500_001, 10_000_000, -0.05, 0.05) is None, "too many"
    assert n_more_of(1.3, 100, 0.05) == 266, "100 (2.4865 / 1.3)^2 = 365.8 in all"
