"""The groups of faults, each run in a process of its own."""

from __future__ import annotations

import multiprocessing
import traceback
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

from tests.faults.world import Tally

GROUPS = ("points", "disks", "trials", "drivers", "nodes", "networks")
"""Modules of this package, each with a function `run` of a folder, a seed and whether to do a cut of it only."""


def run_group(group: str, folder: Path, seed: int, quick: bool) -> Tally:
    """Run a group in a new process: groups fork, which a process that has once joined a cluster must not."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_run_here, group, folder, seed, quick).result()
        except Exception as error:
            traceback.print_exception(error)
            tally = Tally(group)
            tally.wrong(f"the group ended with {error!r}")
            return tally


def _run_here(group: str, folder: Path, seed: int, quick: bool) -> Tally:
    tally: Tally = import_module(f"tests.faults.{group}").run(folder, seed, quick)
    return tally
