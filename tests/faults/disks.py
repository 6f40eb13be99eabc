"""A disk that is full or refuses: the sweep ends with a message, and the same sweep again completes the tables."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.core.errors import StorageError
from orchestrator.results import compaction
from orchestrator.spec.loading import parse_spec
from tests.faults.world import ROOT, SMALL, Tally, World, drive, forked

SIZES = (8, 40, 64, 96, 120, 160)
"""Kibibytes of the small file system."""

REFUSALS = ("write:error=ENOSPC", "write:error=EIO", "fsync:error=EIO", "rename:error=ENOSPC", "rename:error=EIO")
TIMES = (1, 3, 8, 17)
"""At which call of its kind, in the run folder, the system refuses."""

STRACE = ("-f", "--seccomp-bpf", "-qq")

REFUSED = (errno.ENOSPC, errno.EIO, errno.EFBIG)
"""What the system refuses with; our message names it."""

ENDED_WITH_MESSAGE = 3
"""Exit code of a driver that ended with our message, and not with another exception."""


def run(folder: Path, seed: int, quick: bool) -> Tally:
    tally = Tally("disks")
    compaction.SECONDS_FOR_READERS = 0.0
    world = World(folder / "disks", SMALL, seed)
    for size in SIZES[2:3] if quick else SIZES:
        full(world, tally, size)
    if not can_trace(folder):
        tally.notes.append("refusals SKIPPED: strace is not there, or may not trace")
        return tally
    times = TIMES[:0] if quick else TIMES
    for refusal in REFUSALS:
        for when in times:
            refused(world, tally, refusal, when)
    if quick:
        refusal = world.random.choice(("fsync:error=EIO", "rename:error=ENOSPC"))
        refused(world, tally, refusal, world.random.randint(1, 12))
    return tally


def can_trace(folder: Path) -> bool:
    """Return whether strace is there and traces a process as it is asked to here."""
    trace = folder / "can-trace"
    command = ["strace", *STRACE, "-o", str(trace), "-e", "trace=execve", "true"]
    return shutil.which("strace") is not None and (
        subprocess.run(command, capture_output=True).returncode == 0 and trace.read_text() != ""
    )


def full(world: World, tally: Tally, size: int) -> None:
    """Run on a file system of `size` KiB, make it larger, run again."""
    mounted = world.new(f"small-{size}")
    mounted.mkdir()
    what = f"full disk of {size} KiB"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(mounted)]
    is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    run_folder = mounted / "run"
    try:
        if is_mounted:
            code = forked(lambda: expect_refusal(run_folder, world))
        else:
            note = "no small file system can be mounted: a limit on the size of a file instead"
            tally.notes += [note] if note not in tally.notes else []
            code = forked(lambda: limited(run_folder, world, size * 64))
        if code == 0:
            tally.wrong(f"{what}: nothing was refused")
            return
        tally.faults += 1
        if code != ENDED_WITH_MESSAGE:
            tally.wrong(f"{what}: another exception than our message")
        kept = world.check_after_fault(tally, what, run_folder)
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)
        again(world, tally, what, run_folder, kept)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(mounted)], check=True)


def again(world: World, tally: Tally, what: str, folder: Path, kept: dict[str, object]) -> None:
    """End the sweep and compare."""
    if forked(lambda: drive(folder, world.spec)) != 0:
        tally.wrong(f"{what}: the same sweep again failed")
    world.check_end(tally, what, folder, kept)


def expect_refusal(folder: Path, world: World) -> None:
    """Drive; exit with `ENDED_WITH_MESSAGE` if our message ends the sweep."""
    ends_with_message(lambda: drive(folder, world.spec))


def ends_with_message(action: Callable[[], None]) -> None:
    try:
        action()
    except StorageError as error:
        text = str(error).lower()
        os._exit(ENDED_WITH_MESSAGE if any(os.strerror(number).lower() in text for number in REFUSED) else 1)


def limited(folder: Path, world: World, n_bytes: int) -> None:
    """Drive with a limit on the size of files."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    expect_refusal(folder, world)


def refused(world: World, tally: Tally, refusal: str, when: int) -> None:
    """Let the system refuse one call, as strace can; the driver is a process that writes nothing but its run."""
    what = f"{refusal} at call {when}"
    folder = world.new(what.replace(":", "-").replace(" ", "-").replace("=", "-"))
    kind = refusal.partition(":")[0]
    calls = "rename,renameat,renameat2" if kind == "rename" else kind
    done = subprocess.run(
        [
            *("strace", *STRACE, "-o", str(folder) + ".trace", "-e", f"trace={calls}"),
            *("-e", f"inject={calls}:{refusal.partition(':')[2]}:when={when}"),
            *(sys.executable, "-m", "tests.faults.disks", str(folder)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    if "(INJECTED)" not in Path(str(folder) + ".trace").read_text():
        tally.notes.append(f"{what} was never reached" + (f": {done.stderr[-200:]}" if done.returncode else ""))
        return
    tally.faults += 1
    if done.returncode not in (0, ENDED_WITH_MESSAGE):  # 0: a checkpoint, which may be lost, or a file of Python's
        tally.wrong(f"{what}: exit code {done.returncode}: {done.stderr[-300:]}")
    again(world, tally, what, folder, world.check_after_fault(tally, what, folder))


if __name__ == "__main__":
    compaction.SECONDS_FOR_READERS = 0.0
    ends_with_message(lambda: drive(Path(sys.argv[1]), parse_spec(SMALL)))
