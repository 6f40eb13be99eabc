"""The trials of table (a) on one thread, against the matrix products of their training steps alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import torch

from orchestrator.api import load_spec
from orchestrator.spec import SweepSpec
from orchestrator.streams import Dataset, Stream, load_dataset
from orchestrator.trial import run_trial, warm_up

_LIMITS = {"naive": 1.7, "ewc": 1.25, "replay": 2.3, "packnet": 1.2 * 8 / 5, "joint": float("inf")}


def matrix_product_seconds(spec: SweepSpec, dataset: Dataset) -> float:
    """Return the time of the products of weights, inputs and gradients of every step of a naive trial."""
    data = dataset.phase("confirm", spec.validation_share)
    settings = spec.stream_settings("split-mnist")
    stream = Stream("split-mnist", settings, "task", 0, data, torch.device("cpu"))
    batch, widths = spec.training.batch_size, (784, *spec.model.hidden, 2)
    weights = [torch.randn(out, fan_in) for fan_in, out in pairwise(widths)]
    seconds = 0.0
    for task in range(stream.n_tasks):
        n_examples = len(stream.train(task))
        sizes = [batch] * (n_examples // batch) + ([n_examples % batch] if n_examples % batch else [])
        operands = {size: [torch.randn(size, width) for width in widths] for size in set(sizes)}
        clock = time.perf_counter()
        for _ in range(spec.training.epochs):
            for size in sizes:
                _one_step(weights, operands[size])
        seconds += time.perf_counter() - clock
    return seconds


def _one_step(weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for layer, weight in enumerate(weights):
        values[layer] @ weight.T  # forward
        values[layer + 1].T @ values[layer]  # gradient of the weight
        if layer:
            values[layer + 1] @ weight  # gradient of the layer's input


def measure(
    data_dir: Path, rounds: int, middle: Callable[[Iterable[float]], float]
) -> list[tuple[str, float, float, str]]:
    """Return (what, ratio, limit, unit) for every method: trials and products taken in turn, medians compared."""
    torch.set_num_threads(1)
    warm_up()
    spec = load_spec(preset="split-mnist")
    dataset = load_dataset("mnist", data_dir.expanduser().absolute())
    data = dataset.phase("confirm", spec.validation_share)
    cells = {cell.method: cell for cell in spec.cells}
    seconds: dict[str, list[float]] = {name: [] for name in ("products", *cells)}
    for number in range(rounds):
        seconds["products"].append(matrix_product_seconds(spec, dataset))
        for method, cell in cells.items():
            trial = spec.trial(cell, {}, 42 + number, "confirm", dataset.fingerprint())
            clock = time.perf_counter()
            result = run_trial(trial, data)
            seconds[method].append(time.perf_counter() - clock)
            assert result.status == "completed", result.reason
        shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        print(f"round {number + 1} of {rounds}: {shown}", flush=True)

    def ratio(one: str, other: str) -> float:
        return middle(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    others = [method for method in cells if method != "naive"]
    return [
        ("naive trial / its matrix products alone", ratio("naive", "products"), _LIMITS["naive"], "x"),
        *((f"{method} trial / naive trial", ratio(method, "naive"), _LIMITS[method], "x") for method in others),
    ]
