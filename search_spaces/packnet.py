"""What is searched for `packnet`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

# p must be large where tasks are many: task k owns (1 - p) p^k of the weights.
SPACE: dict[str, BaseDistribution] = {
    "pruning_rate": FloatDistribution(0.4, 0.95),
    "post_prune_epochs": IntDistribution(1, 6),
}
