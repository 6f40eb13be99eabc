"""What is searched for `replay`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {
    "replay_ratio": FloatDistribution(0.1, 0.9),
    "buffer_size": IntDistribution(50, 5000, log=True),
}
