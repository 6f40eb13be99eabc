"""An exact solver for the quadratic program of GEM's projection.

Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840, Eq. 11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular
from scipy.optimize import nnls

_FLAT = 1e-12
"""Eigenvalues of a matrix of cosines, and squares of pivots, count as 0 below this."""


def dual_weights(gram: NDArray[np.float64], linear: NDArray[np.float64], margin: float) -> NDArray[np.float64] | None:
    """Return argmin over v ≥ γ of ½ vᵀKv + cᵀv, (k,), exactly, or None if no solver succeeds.

    Args:
        gram: K = GGᵀ, (k, k), positive semi-definite.
        linear: c = Gg, (k,).
        margin: γ ≥ 0.

    With each row of G scaled to norm 1, v = γ + u and K = AᵀA, this is the non-negative least squares problem
    min over u ≥ 0 of |Au - b|² with Aᵀb = -(c + Kγ). A is the transposed Cholesky factor of K, or a factor from its
    eigenvectors if K is singular (two tasks' gradients are parallel, or there are more tasks than directions). Rows of
    zero are left out.
    """
    weights = np.full(len(linear), margin)
    norms = np.sqrt(np.diag(gram))
    used = np.flatnonzero(norms > 0)
    norms = norms[used]
    cosines = gram[np.ix_(used, used)] / np.outer(norms, norms)
    target = -(linear[used] / norms + cosines @ (margin * norms))
    try:
        scale = float(np.abs(target).max()) or 1.0
        solution, _ = nnls(*_least_squares(cosines, target / scale))
    except (LinAlgError, RuntimeError, ValueError):
        return None
    weights[used] += solution * scale / norms
    return weights


def _least_squares(
    matrix: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A and b with AᵀA = `matrix` and Aᵀb = `target`."""
    try:
        lower = cholesky(matrix, lower=True)
        if np.diag(lower).min() ** 2 > _FLAT:
            return lower.T, solve_triangular(lower, target, lower=True)
    except LinAlgError:
        pass
    values, vectors = eigh(matrix)
    kept = values > _FLAT * values.max()
    roots = np.sqrt(values[kept])
    return roots[:, None] * vectors[:, kept].T, vectors[:, kept].T @ target / roots
