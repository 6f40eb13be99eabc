"""Where a trial runs, how much memory it takes there, and with which versions."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.core.placement import Placement
from orchestrator.core.version import __version__
from strategies.lazy import torch

try:
    import resource
except ImportError:  # systems that are not POSIX
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[2]
"""The folder that our packages are in."""

_PROC = Path("/proc")


def _on_gpu(placement: Placement) -> bool:
    return placement.device == "cuda" and torch.cuda.is_available()


def reset_peak_memory(placement: Placement) -> None:
    """Reset the peak that earlier trials of this process left, if the system can: a GPU can, and Linux can.

    Elsewhere, as on macOS, the peak of a trial is that of the process so far: an upper bound.
    """
    if _on_gpu(placement):
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        (_PROC / "self/clear_refs").write_text("5")


def peak_memory_bytes(placement: Placement) -> float:
    """Return the peak memory of the trial in bytes: the device's on a GPU, else the process's; NaN if unknown."""
    if _on_gpu(placement):
        return float(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in (_PROC / "self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(int(line.split()[1]) * 1024)
    if resource is None:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)  # macOS counts bytes, Linux kibibytes


def provenance(placement: Placement) -> dict[str, Any]:
    """Return where a trial ran and with which versions."""
    return {
        "device": placement.device,
        "device_name": torch.cuda.get_device_name() if _on_gpu(placement) else _cpu_name(),
        "threads": placement.threads,
        "host": socket.gethostname(),
        "process_id": os.getpid(),
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
    }


@cache
def source_hash() -> str:
    """Return a hash of the source files of our packages, as they lie on this machine: 12 hexadecimal digits."""
    root, content = ROOT, hashlib.sha256()
    for package in ("orchestrator", "search_spaces", "strategies"):
        for path in sorted((root / package).rglob("*.py")):
            content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:12]


@cache
def _cpu_name() -> str:
    """Return the processor's name: from /proc on Linux, from sysctl on macOS, else what Python knows."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin" and (name := _output_of("sysctl", "-n", "machdep.cpu.brand_string")):
        return name
    return platform.processor() or platform.machine()


@cache
def software_versions() -> dict[str, Any]:
    """Return the columns of a trial's row that say which code ran."""
    return {
        "code_revision": code_revision(),
        "package_version": __version__,
        "ray_version": _version("ray"),
        "optuna_version": _version("optuna"),
    }


def software_now(are_workers_here: bool = True) -> dict[str, Any]:
    """Return what rows written now would say about software, to compare with the rows of a run.

    Args:
        are_workers_here: whether workers use this machine's libraries. If not, each worker's are compared as its trials
            end.
    """
    here = {"torch_version": torch.__version__, "python_version": platform.python_version()}
    return software_versions() | (here if are_workers_here else {})


@cache
def code_revision() -> str:
    """Return the git revision of this package's checkout, and a hash of its source; only the hash is compared.

    Examples: `76f22d1c09aa.5d0c1f0e9b3a`, `76f22d1c09aa+dirty.5d0c1f0e9b3a`, outside of a checkout `none.5d0c1f0e9b3a`.
    """
    return f"{_described_by_git(ROOT) or 'none'}.{source_hash()}"


def _described_by_git(root: Path) -> str:
    """Return git's name for the checkout at `root`, with '+dirty' if files differ; empty if there is none."""
    if not (root / ".git").exists():
        return ""
    return _output_of("git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+dirty", "--exclude=*")


def _output_of(*command: str) -> str:
    """Return what a command prints, empty if it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
