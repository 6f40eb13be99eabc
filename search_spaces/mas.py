"""What is searched for `mas`."""

from optuna.distributions import BaseDistribution, FloatDistribution

SPACE: dict[str, BaseDistribution] = {"penalty_weight": FloatDistribution(1e-3, 1e5, log=True)}
