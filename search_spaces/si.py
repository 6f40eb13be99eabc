"""What is searched for `si`."""

from optuna.distributions import BaseDistribution, FloatDistribution

SPACE: dict[str, BaseDistribution] = {
    "penalty_weight": FloatDistribution(1e-2, 1e6, log=True),
    "damping": FloatDistribution(1e-3, 1.0, log=True),
}
