"""Where a trial runs, what it takes there, and with which versions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import resource
import socket
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from orchestrator.core.placement import Placement

ROOT = Path(__file__).parents[2]
"""The folder that our packages are in."""


def _on_gpu(placement: Placement) -> bool:
    return placement.device == "cuda" and torch.cuda.is_available()


def reset_peak_memory(placement: Placement) -> None:
    """Forget the peak of earlier trials of this process, where the system can."""
    if _on_gpu(placement):
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak of the process so far is then an upper bound


def peak_memory_bytes(placement: Placement) -> int:
    """Return the peak memory of the trial: of the device on a GPU, else of the process."""
    if _on_gpu(placement):
        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.machine()
    return platform.machine()


@cache
def software_versions() -> dict[str, Any]:
    """Return the columns of a trial's row that say which code ran."""
    return {
        "code_revision": code_revision(),
        "package_version": _version("continual-sweep"),
        "ray_version": _version("ray"),
        "optuna_version": _version("optuna"),
    }


def software_now(are_workers_here: bool = True) -> dict[str, Any]:
    """Return what changes are told from, as rows that were written now would have it.

    Args:
        are_workers_here: whether workers have this machine's libraries; else each is looked at as its trials end.
    """
    here = {"torch_version": torch.__version__, "python_version": platform.python_version()}
    return software_versions() | (here if are_workers_here else {})


@cache
def code_revision() -> str:
    """Return the git revision of this package's checkout, and a hash of its source, which alone tells changes.

    Examples: `76f22d1c09aa.5d0c1f0e9b3a`, `76f22d1c09aa+dirty.5d0c1f0e9b3a`, outside of a checkout `none.5d0c1f0e9b3a`.
    """
    return f"{_described_by_git(ROOT) or 'none'}.{source_hash()}"


def _described_by_git(root: Path) -> str:
    """Return what git calls the checkout at `root`, with '+dirty' where it differs; empty where git says nothing."""
    import subprocess

    if not (root / ".git").exists():
        return ""
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
