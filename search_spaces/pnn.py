"""What is searched for `pnn`: it has no hyper-parameters."""

from optuna.distributions import BaseDistribution

SPACE: dict[str, BaseDistribution] = {}
