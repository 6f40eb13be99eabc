"""Whose fault an exception is, the trial's or the machine's, and how it is described in one line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch

from orchestrator.core.errors import ModelError
from orchestrator.trial.result import Status
from strategies import TrialDivergedError

_MACHINE_ERRORS = re.compile(r"DefaultCPUAllocator|CUDA (driver )?error|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_")
"""Texts of the plain RuntimeErrors that torch raises when memory runs out or a GPU fails."""


def judge(error: Exception) -> tuple[Status, str]:
    """Return the status of a trial that `error` ended, and the reason in one line.

    `failed` is the trial's own doing. `error` is the machine's, and the next run tries again: files, a model that this
    worker cannot import or build, memory, and GPUs.
    """
    if isinstance(error, TrialDivergedError):
        return "failed", f"diverged: {error}"
    is_machine = isinstance(error, OSError | ModelError) or is_shortage(error)
    return "error" if is_machine else "failed", _describe(error)


def is_shortage(error: Exception) -> bool:
    """Return whether memory was refused or a GPU failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and _MACHINE_ERRORS.search(str(error)) is not None


def _describe(error: BaseException) -> str:
    """Return the type, the first line of the message, and the place in the code."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}{place}"
