"""What is searched for `lwf`."""

from optuna.distributions import BaseDistribution, FloatDistribution

SPACE: dict[str, BaseDistribution] = {
    "distillation_weight": FloatDistribution(0.1, 30.0, log=True),
    "temperature": FloatDistribution(1.0, 8.0),
}
