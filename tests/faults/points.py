"""A kill at every point between two writes, in a driver that trains in its own process: no luck in it."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from orchestrator.core import fault_points as faultpoints
from orchestrator.core.fault_points import POINTS, VARIABLE
from orchestrator.report.page.render import chart_library
from orchestrator.results import compaction
from tests.faults.world import SMALL, Tally, World, drive, forked

N_MORE = 20
"""Kills beside the first and the last at every point, at passes drawn by the seed."""

N_QUICK = 6
"""Kills of the quick cut, drawn from the first and the last at every point; `test_compaction.py` has each point too."""


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("points")
    compaction.SECONDS_FOR_READERS = 0.0
    chart_library()  # once, for all forks
    world = World(folder / "points", SMALL, seed)
    passes = count_passes(world)
    for point in sorted(set(POINTS) - set(passes)):
        tally.wrong(f"{point}: the sweep never comes there")
    cases = {(point, number) for point, n in passes.items() for number in (1, n)}
    if quick:
        cases = set(world.random.sample(sorted(cases), N_QUICK))
    else:
        more = [(point, number) for point, n in sorted(passes.items()) for number in range(2, n)]
        cases |= set(world.random.sample(more, min(N_MORE, len(more))))
    for point, number in sorted(cases):
        kill(world, tally, point, number)
    tally.notes.append(f"{len(passes)} of {len(POINTS)} points")
    return tally


def count_passes(world: World) -> Counter[str]:
    """Return how often an undisturbed sweep, begun over a dead one's remains, comes to each point."""
    folder, counts = prepared(world, "count"), world.folder / "counts"

    def counting() -> None:
        passed: Counter[str] = Counter()
        for module in faultpoints_users():
            module.reached = lambda point: passed.update([point])  # type: ignore[attr-defined]
        drive(folder, world.spec)
        counts.write_text("\n".join(f"{point} {n}" for point, n in passed.items()))

    assert forked(counting) == 0
    return Counter({line.split()[0]: int(line.split()[1]) for line in counts.read_text().splitlines()})


def faultpoints_users() -> list[object]:
    """Return the modules of this package that hold the function that notes points."""
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("orchestrator.")
        and module is not faultpoints
        and getattr(module, "reached", None) is faultpoints.reached
    ]


def prepared(world: World, name: str) -> Path:
    """Return a run folder in which a process has died before, so that there is something to tidy up."""
    remains, folder = world.folder / "remains", world.new(name)
    if not remains.is_dir():
        assert forked(lambda: die_at("row.written", 2, remains, world)) == -9
    shutil.copytree(remains, folder)
    return folder


def kill(world: World, tally: Tally, point: str, number: int) -> None:
    """Kill the driver at a point, look, end the sweep, and compare."""
    what = f"{point}#{number}"
    folder = prepared(world, what.replace("#", "."))
    if forked(lambda: die_at(point, number, folder, world)) != -9:
        tally.wrong(f"{what}: the driver was not killed")
        return
    tally.faults += 1
    kept = world.check_after_fault(tally, what, folder)
    if forked(lambda: drive(folder, world.spec)) != 0:
        tally.wrong(f"{what}: the same sweep again failed")
    world.check_end(tally, what, folder, kept)
    shutil.rmtree(folder)


def die_at(point: str, number: int, folder: Path, world: World) -> None:
    """Drive with the variable that a user's process would have in its environment."""
    os.environ[VARIABLE] = f"{point}#{number}"
    faultpoints._KILL_AT = faultpoints._wanted()
    drive(folder, world.spec)
