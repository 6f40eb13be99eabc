"""`python -m benchmarks.published`: published numbers beside ours, from real data, as a Markdown table.

Every preset runs as an ordinary sweep in a run folder, so complete trials are not trained again.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator import load_spec, open_run, run_sweep
from orchestrator.report.console import make_console
from orchestrator.report.progress import ProgressDisplay


@dataclass(frozen=True)
class Published:
    """A printed number.

    Args:
        table: which table of which source.
        preset: the sweep that repeats it.
        scenario: as in a spec.
        method: as in a spec.
        metric: a column of the trials table.
        value: the printed mean, a share.
        tolerance: how far our mean may be from it, two-sided: twice the printed standard deviation over runs, within
            which a single run of theirs would be ordinary, or 0.010 if none is printed.
        spread: our standard deviation over the preset's seeds, as in docs/conformance.md.
    """

    table: str
    preset: str
    scenario: str
    method: str
    metric: str
    value: float
    tolerance: float
    spread: float


def _hsu(kind: str, method: str, mean: float, std: float, spread: float) -> Published:
    """Return a number of table (b), all in percent."""
    scenario, preset = f"split-mnist/{kind}", "split-mnist-hsu"
    return Published("b", preset, scenario, method, "average_accuracy", mean / 100, 2 * std / 100, spread / 100)


def _aljundi(method: str, mean: float, two_errors: float, spread: float) -> Published:
    """Return a number of table (e), all in percent. They print two standard errors of 20 runs."""
    std = two_errors / 2 * math.sqrt(20)
    row = ("split-mnist-aljundi", "split-mnist/class", method, "average_accuracy")
    return Published("e", *row, mean / 100, 2 * std / 100, spread / 100)


PUBLISHED: tuple[Published, ...] = (
    Published("a", "split-mnist", "split-mnist/task", "naive", "average_accuracy", 0.977, 0.010, 0.0072),
    Published("a", "split-mnist", "split-mnist/task", "naive", "backward_transfer", -0.024, 0.010, 0.0087),
    Published("a", "split-mnist", "split-mnist/task", "ewc", "average_accuracy", 0.974, 0.010, 0.0067),
    Published("a", "split-mnist", "split-mnist/task", "ewc", "backward_transfer", -0.029, 0.010, 0.0083),
    Published("a", "split-mnist", "split-mnist/task", "replay", "average_accuracy", 0.994, 0.010, 0.001),
    Published("a", "split-mnist", "split-mnist/task", "replay", "backward_transfer", -0.003, 0.010, 0.0012),
    Published("a", "split-mnist", "split-mnist/task", "packnet", "forgetting", 0.0, 0.0, 0.0),
    _hsu("task", "naive", 93.46, 2.01, 2.11),
    _hsu("task", "ewc", 97.70, 0.81, 1.07),
    _hsu("task", "lwf", 99.60, 0.03, 0.15),
    _hsu("task", "replay", 99.40, 0.08, 0.16),
    _hsu("task", "joint", 99.52, 0.16, 0.16),
    _hsu("task", "l2", 98.18, 0.96, 0.61),
    _hsu("domain", "naive", 55.16, 1.38, 1.1),
    _hsu("domain", "ewc", 58.85, 2.59, 1.95),
    _hsu("domain", "lwf", 71.02, 1.26, 1.61),
    _hsu("domain", "replay", 95.16, 0.49, 0.39),
    _hsu("domain", "joint", 98.59, 0.15, 0.14),
    _hsu("domain", "l2", 66.00, 3.73, 3.08),
    _hsu("class", "naive", 19.71, 0.08, 0.05),
    _hsu("class", "ewc", 19.80, 0.05, 0.09),
    _hsu("class", "l2", 22.52, 1.08, 0.82),
    _hsu("class", "lwf", 24.17, 0.33, 2.12),
    _hsu("class", "replay", 90.78, 0.85, 0.77),
    _hsu("class", "joint", 97.53, 0.30, 0.18),
    Published("c", "split-mnist-van-de-ven", "split-mnist/class", "naive", "average_accuracy", 0.1989, 0.0004, 0.0008),
    Published("d", "split-mnist-mammoth", "split-mnist/class", "cls-er", "average_accuracy", 0.9205, 0.0064, 0.0036),
    _aljundi("replay", 82.1, 1.5, 3.29),
    _aljundi("mir", 87.6, 0.7, 1.77),
)
"""Tables (a): a public article's single run; (b): Hsu et al. 2018, arXiv 1810.12488; (c): van de Ven et al. 2022,
Nature Machine Intelligence 4, 1185; (d): Arani et al. 2022, arXiv 2201.12604, the class row of their repository; (e):
Aljundi et al. 2019, arXiv 1908.04742."""

EXPLAINED = frozenset(
    {
        ("a", "split-mnist/task", "ewc", "backward_transfer"),
        ("b", "split-mnist/domain", "lwf", "average_accuracy"),
        ("b", "split-mnist/class", "lwf", "average_accuracy"),
    }
)
"""Rows outside of their tolerance. docs/conformance.md gives the reason and the evidence."""

HEADER = (
    "| table | scenario | method | metric | published | ours, mean ± std | seeds | difference | tolerance | verdict |"
)
RULE = "|" + "---|" * 10


def row_of(published: Published, trials: pd.DataFrame, n_seeds: int) -> str:
    """Return a row of the Markdown table: a printed number beside ours from the confirm phase of `trials`.

    With fewer seeds than the preset's `n_seeds` our mean scatters more, so three of its standard errors are added to
    the tolerance. One seed shows that nothing is broken. It does not show that the number is met.
    """
    here = (trials["scenario"] == published.scenario) & (trials["method"] == published.method)
    values = trials.loc[here & (trials["phase"] == "confirm"), published.metric].dropna().tolist()
    p = published
    if not values:
        return f"| {p.table} | {p.scenario} | {p.method} | {p.metric} | {p.value:.4f} | – | 0 | – | – | not run |"
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    difference = mean - p.value
    tolerance = p.tolerance + (3 * p.spread / math.sqrt(len(values)) if len(values) < n_seeds else 0.0)
    verdict = "within" if abs(difference) <= tolerance else "**outside**"
    if verdict != "within" and (p.table, p.scenario, p.method, p.metric) in EXPLAINED:
        verdict = "outside, explained"
    return (
        f"| {p.table} | {p.scenario} | {p.method} | {p.metric} | {p.value:.4f} | {mean:.4f} ± {spread:.4f} | "
        f"{len(values)} | {difference:+.4f} | {tolerance:.4f} | {verdict} |"
    )


def main() -> int:
    """Run what is missing and print the table. Return 1 if a row was not run or is outside without a reason."""
    parser = argparse.ArgumentParser(prog="benchmarks.published", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST in torchvision's layout")
    parser.add_argument("--runs", type=Path, default=Path("runs/conformance"), help="folder of the run folders")
    parser.add_argument("--seeds", type=int, help="fewer seeds than the presets have, with wider tolerances")
    parser.add_argument("--only", choices=sorted({p.preset for p in PUBLISHED}), help="run one preset")
    parser.add_argument("--num-cpus", type=int, help="number of CPUs to use (default: all)")
    options = parser.parse_args()
    overrides = {"seeds.confirm": options.seeds} if options.seeds else {}
    frames, n_seeds = {}, {}
    wanted = [published for published in PUBLISHED if options.only in (None, published.preset)]
    for preset in dict.fromkeys(published.preset for published in wanted):
        spec, folder = load_spec(preset=preset, overrides=overrides), options.runs / preset
        with ProgressDisplay(make_console()) as display:
            run_sweep(spec, folder, options.data_dir, num_cpus=options.num_cpus, display=display)
        frames[preset], n_seeds[preset] = open_run(folder).trials(), load_spec(preset=preset).seeds.confirm
    rows = [row_of(published, frames[published.preset], n_seeds[published.preset]) for published in wanted]
    print("\n".join([HEADER, RULE, *rows]))
    return int(any("not run" in row or "**outside**" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
