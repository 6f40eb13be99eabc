"""`python -m tests.faults`: faults of every kind, then one line with what they cost."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from tests.faults.groups import GROUPS, run_group
from tests.faults.world import Tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats the random moments of a run that printed it")
    parser.add_argument("--quick", action="store_true", help="a cut for CI")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    parser.add_argument("--soak", action="store_true", help="2,000 short trials instead")
    parser.add_argument("--keep", action="store_true", help="keep the run folders")
    arguments = parser.parse_args()
    groups = arguments.only.split(",")
    unknown = set(groups) - set(GROUPS)
    if unknown:
        parser.error(f"--only: expected some of {', '.join(GROUPS)}, got {', '.join(sorted(unknown))}")
    if arguments.soak:
        return int(import_module("tests.faults.soak").main())
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(3))
    print(f"seed {seed} (repeat with --seed {seed})", flush=True)
    folder, total = Path(tempfile.mkdtemp(prefix="faults-")), Tally("total")
    for group in groups:
        started = time.monotonic()
        tally = run_group(group, folder, seed, arguments.quick)
        notes = f" ({'; '.join(tally.notes)})" if tally.notes else ""
        print(f"{group}: {tally.line()}, {time.monotonic() - started:.0f} s{notes}", flush=True)
        for detail in tally.details:
            print(f"  {detail}", flush=True)
        total.add(tally)
    if arguments.keep or total.differences or total.duplicates:
        print(f"run folders: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(total.line())
    return 1 if total.duplicates or total.differences or not total.faults else 0


if __name__ == "__main__":
    sys.exit(main())
