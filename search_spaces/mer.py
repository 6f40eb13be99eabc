"""What is searched for `mer`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {
    "reptile_rate": FloatDistribution(0.03, 1.0, log=True),
    "reptile_steps": IntDistribution(2, 20, log=True),
    "replay_ratio": FloatDistribution(0.1, 0.9),
    "buffer_size": IntDistribution(50, 5000, log=True),
}
