"""What is searched for `supsup`."""

from optuna.distributions import BaseDistribution, FloatDistribution

SPACE: dict[str, BaseDistribution] = {"kept_share": FloatDistribution(0.1, 0.9)}
