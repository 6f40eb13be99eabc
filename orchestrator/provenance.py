"""Where a trial runs, what it takes there, and with which versions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import resource
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Placement:
    """Where a trial runs; no part of its identity, recorded in its row.

    Args:
        device: `cpu` or `cuda`.
        threads: CPU threads.
    """

    device: str = "cpu"
    threads: int = 1


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
    root, content = Path(__file__).parent.parent, hashlib.sha256()
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
