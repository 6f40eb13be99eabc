"""What is searched for `freeze`."""

from optuna.distributions import BaseDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {"frozen_layers": IntDistribution(1, 4)}
