"""What is searched for `ewc`."""

from optuna.distributions import BaseDistribution, FloatDistribution

# λ that works spans 0.4 (task) to 1e10 (class) in the literature.
SPACE: dict[str, BaseDistribution] = {"penalty_weight": FloatDistribution(0.1, 1e10, log=True)}
