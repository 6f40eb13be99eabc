"""What is searched for `agem`."""

from optuna.distributions import BaseDistribution, IntDistribution

SPACE: dict[str, BaseDistribution] = {
    "memory_batch_size": IntDistribution(8, 256, log=True),
    "buffer_size": IntDistribution(50, 5000, log=True),
}
