"""Benchmarks. Each is timed against a peer or a limit in the same run."""
