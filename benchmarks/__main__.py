"""`python -m benchmarks`: prints every measurement beside its limit. Exits with 1 if one is above it."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks import diagnostics, evaluation, overhead, reading, small_networks, tables, training


def main() -> int:
    """Run the chosen benchmarks and return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST in torchvision's layout")
    choices = ("training", "small_networks", "diagnostics", "evaluation", "overhead", "tables", "reading")
    parser.add_argument("--only", choices=choices, help="run one of them")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of the training benchmark, whose medians are printed"
    )
    parser.add_argument("--trials", type=int, default=200, help="trials of the overhead benchmark")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the table that is read")
    parser.add_argument("--reading-trials", type=int, default=1_500, help="trials of the run that is read")
    parser.add_argument("--avalanche", type=Path, help="Python of an environment with Avalanche 0.6.0")
    options = parser.parse_args()
    rows: list[tuple[str, float, float, str]] = []
    if options.only in (None, "training"):
        rows += training.measure(options.data_dir, options.rounds, statistics.median)
    if options.only in (None, "small_networks"):
        rows += small_networks.measure(options.avalanche, options.rounds, statistics.median)
    if options.only in (None, "diagnostics"):
        rows += diagnostics.measure(options.data_dir, 3 * options.rounds)
    if options.only in (None, "evaluation"):
        rows += evaluation.measure(options.rounds, statistics.median)
    if options.only in (None, "overhead"):
        rows += overhead.measure(options.trials)
    if options.only in (None, "tables"):
        rows += tables.measure(options.rows)
    if options.only in (None, "reading"):
        rows += reading.measure(options.reading_trials)
    print(f"\n{'what':68} {'measured':>9} {'limit':>7}")
    for name, value, limit, unit in rows:
        bound = f"{limit:.2f}" if limit < float("inf") else "-"
        print(f"{name:68} {value:9.2f} {bound:>7} {unit} {'' if value <= limit else 'ABOVE THE LIMIT'}".rstrip())
    return int(any(value > limit for _, value, limit, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
