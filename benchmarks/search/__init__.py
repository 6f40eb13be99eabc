"""The search, replayed on recorded trials: `python -m benchmarks.search`."""
