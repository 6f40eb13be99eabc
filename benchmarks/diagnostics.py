"""The time of naive trials with diagnostics, in times of the same without: what `diagnostics: true` costs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import torch

from orchestrator.spec.loading import load_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.setup import warm_up

LIMIT = 1.3
"""How long a trial may take, in times of one without."""


def _trials(data_dir: Path) -> Iterable[tuple[str, TrialSpec, Dataset, float]]:
    """Yield name, trial, data set and validation share: the quickstart's, and Split-MNIST on a 784-100-100 network."""
    quick = load_spec(preset="quickstart")
    digits, mnist = (load_dataset(name, data_dir) for name in ("digits", "mnist"))
    for cell in quick.cells:
        if cell.method == "naive":
            trial = quick.trial(cell, {}, 0, "confirm", digits.fingerprint())
            yield f"quickstart, {cell.scenario}", trial, digits, quick.validation_share
    fields = {"scenarios": ["split-mnist/class"], "methods": ["naive"], "model.hidden": [100, 100], "spaces": {}}
    more = {"search": "defaults", "limits": [], "training.epochs": 5, "training.batch_size": 64, "seeds": {}}
    spec = load_spec(preset="quickstart", overrides={**fields, **more, "validation_share": 0.1})
    yield "784-100-100, split-mnist/class", spec.trial(spec.cells[0], {}, 0, "confirm", mnist.fingerprint()), mnist, 0.1


def measure(data_dir: Path, rounds: int) -> list[tuple[str, float, float, str]]:
    """Return the ratio of each trial beside its limit: that of the fastest of several, which are run in turns.

    Args:
        data_dir: folder with MNIST.
        rounds: pairs of trials.
    """
    torch.set_num_threads(1)
    warm_up()
    rows = []
    for name, trial, dataset, share in _trials(data_dir):
        data = dataset.phase("confirm", share)
        pairs = [(_seconds(trial, data, True), _seconds(trial, data, False)) for _ in range(rounds)]
        with_, without = (min(times) for times in zip(*pairs, strict=True))
        rows.append((f"diagnostics: with / without, {name}", with_ / without, LIMIT, "times"))
        print(f"{name}: {with_:.2f} s with, {without:.2f} s without", flush=True)
    return rows


def _seconds(trial: TrialSpec, data: object, diagnostics: bool) -> float:
    """Return the processor time of a trial, which is less disturbed by others than wall time; on one thread."""
    clock = time.process_time()
    result = run_trial(trial, data, diagnostics=diagnostics)  # type: ignore[arg-type]
    assert result.status == "completed", result.reason
    assert bool(result.diagnostics) == diagnostics
    return time.process_time() - clock
