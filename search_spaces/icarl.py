"""What is searched for `icarl`."""

from optuna.distributions import BaseDistribution, IntDistribution

# At least one exemplar a class is asked for.
SPACE: dict[str, BaseDistribution] = {"buffer_size": IntDistribution(200, 5000, log=True)}
