"""What is searched for `generative-replay`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {
    "replay_ratio": FloatDistribution(0.1, 0.9),
    "latent_size": IntDistribution(10, 200, log=True),
    "generator_learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
}
