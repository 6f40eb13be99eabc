"""What is searched for `icarl`."""

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

# At least one exemplar a class is asked for.
SPACE: dict[str, BaseDistribution] = {
    "buffer_size": IntDistribution(200, 5000, log=True),
    "temperature": FloatDistribution(1.0, 4.0),
}
