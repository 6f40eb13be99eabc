"""How well a search decides, and what it spends: searches replayed over recorded trials, with nothing trained.

`python -m benchmarks.search` takes any table of the form of `benchmarks/recorded/README.md`. Each cell is searched many
times; a draw decides which recorded seeds stand for the seeds of the spec, and seeds the sampler. A suggestion is
answered by the recorded configuration that is nearest to it. What a configuration truly does is its mean over all test
seeds of the table.
"""

from __future__ import annotations

import argparse
import importlib.util
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.search.cells import read_table
from benchmarks.search.record import TABLE
from benchmarks.search.replay import SHARES, SMAC, WAYS, Ended, replay


def summary(found: list[Ended]) -> dict[str, float]:
    """Return rates over searches."""
    given = [one for one in found if one.recommended is not None]
    possible = [one for one in found if one.exists]
    return {
        "wrong": sum(one.is_wrong for one in given) / max(len(given), 1),
        "right": sum(one.recommended is not None and not one.is_wrong for one in possible) / max(len(possible), 1),
        "regret": float(np.nanmean([one.regret for one in found])),
        "spent": float(np.mean([one.n_full for one in found])),
        "stopped": sum(one.n_stopped for one in found) / sum(one.n_trials for one in found),
        "lost": sum(one.n_lost for one in found) / max(sum(one.n_feasible for one in found), 1),
        "reached": float(np.median([one.reached for one in found])),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("benchmarks.search", description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--suggestions", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", choices=("all", "even", "odd"), default="all")
    parser.add_argument("--ways", default="")
    options = parser.parse_args()
    cells = read_table(options.table)
    cells = {"all": cells, "even": cells[::2], "odd": cells[1::2]}[options.cells]
    ways = [way for way in WAYS if not options.ways or way.name in options.ways.split(";")]
    if importlib.util.find_spec("smac") is None:
        ways = [way for way in ways if way is not SMAC]
        print("SMAC3 is left out, since the package smac is not installed", flush=True)
    with ProcessPoolExecutor(options.processes) as pool:
        for way in ways:
            for hardness in SHARES:
                jobs = [
                    (cell, way, hardness, options.suggestions, draw) for cell in cells for draw in range(options.draws)
                ]
                row = summary(list(pool.map(replay, jobs, chunksize=8)))
                shown = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
                print(f"{way.name:22} {hardness:7} {shown}", flush=True)


if __name__ == "__main__":
    main()
