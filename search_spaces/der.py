"""What is searched for `der` and `der++`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {
    "logit_weight": FloatDistribution(0.05, 2.0, log=True),
    "replay_ratio": FloatDistribution(0.1, 0.9),
    "buffer_size": IntDistribution(50, 5000, log=True),
}
PLUS_PLUS_SPACE: dict[str, BaseDistribution] = {
    "logit_weight": FloatDistribution(0.05, 2.0, log=True),
    "label_weight": FloatDistribution(0.05, 2.0, log=True),
    "replay_ratio": FloatDistribution(0.1, 0.9),
    "buffer_size": IntDistribution(50, 5000, log=True),
}
