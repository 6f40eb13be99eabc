"""What is searched for `gem`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {
    "margin": FloatDistribution(0.0, 1.0),
    "buffer_size": IntDistribution(50, 5000, log=True),
}
