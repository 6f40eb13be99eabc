"""The time of table (a)'s trials on one thread, beside the matrix products of their training steps alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import torch

from orchestrator.spec.loading import load_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.streams.stream import Stream
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.setup import set_up, warm_up
from strategies import STRATEGIES, find_method

_NONE = float("inf")
LIMITS = {
    **dict.fromkeys(("ewc", "si", "mas", "lwf", "agem"), 1.6),
    "ewc-low-rank": 1.6,
    **dict.fromkeys(("replay", "er-ace", "der", "der++"), 2.3),  # at ratio 0.5: twice the examples
    "packnet": 1.2 * 8 / 5,  # 3 epochs of retraining after 5
    "gem": 4.0,
    "cls-er": 2.6,
    "mir": 5.5,  # a step on the new examples, and two more looks at five times the remembered ones
    "gdumb": 1.4,
    "l2": 1.6,
    "l2-init": 1.6,
    "shrink-and-perturb": 2.0,
    "redo": 1.2,
    "cbp": 1.5,
    **dict.fromkeys(("ridge", "slda", "ncm"), 1.0),  # one pass
}
"""How long a trial may take, in times of a naive one. Methods that are missing are measured without a limit."""

_NAIVE_LIMIT, _GROWTH_LIMIT = 1.7, 1.1


def matrix_product_seconds(spec: SweepSpec, dataset: Dataset) -> float:
    """Return the time of the matrix products of every step of a naive trial: weights, inputs and gradients."""
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


_LOW_RANK = {
    "name": "ewc-low-rank",
    "method": "ewc",
    "spaces": {"structure": "low_rank", "rank": 20, "eigenvectors_in": "int8"},
}


def task_spec() -> SweepSpec:
    """Return table (a)'s setting with every method that supports it, at default hyper-parameters, and a variant."""
    methods = [name for name in STRATEGIES.own if "task" not in find_method(name).unsupported]
    return load_spec(preset="split-mnist", overrides={"methods": [*methods, _LOW_RANK], "seeds.search": 1})


def growth_of_replay(spec: SweepSpec, dataset: Dataset) -> float:
    """Return the time of a replay step in the last task, in times of one in the second."""
    cell = next(cell for cell in spec.cells if cell.method == "replay")
    trial = spec.trial(cell, {}, 42, "confirm", dataset.fingerprint())
    data = dataset.phase("confirm", spec.validation_share)
    stream, learner = set_up(trial, data, torch.device("cpu"))
    seconds = []
    for index in range(stream.n_tasks):
        task = stream.train(index)
        clock = time.perf_counter()
        learner.learn(task)
        seconds.append((time.perf_counter() - clock) / len(task))
    return seconds[-1] / seconds[1]


def measure(
    data_dir: Path, rounds: int, middle: Callable[[Iterable[float]], float]
) -> list[tuple[str, float, float, str]]:
    """Return (what, ratio, limit, unit) for every method. Trials and products are timed in turn, once a round."""
    torch.set_num_threads(1)
    warm_up()
    spec = task_spec()
    dataset = load_dataset("mnist", data_dir.expanduser().absolute())
    data = dataset.phase("confirm", spec.validation_share)
    cells = {cell.method: cell for cell in spec.cells}
    seconds: dict[str, list[float]] = {name: [] for name in ("products", *cells)}
    growth = []
    for number in range(rounds):
        seconds["products"].append(matrix_product_seconds(spec, dataset))
        for method, cell in cells.items():
            trial = spec.trial(cell, {}, 42 + number, "confirm", dataset.fingerprint())
            clock = time.perf_counter()
            result = run_trial(trial, data)
            seconds[method].append(time.perf_counter() - clock)
            assert result.status == "completed", result.reason
        growth.append(growth_of_replay(spec, dataset))
        shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        print(f"round {number + 1} of {rounds}: {shown}", flush=True)

    def ratio(one: str, other: str) -> float:
        return middle(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    others = [method for method in cells if method != "naive"]
    return [
        ("naive trial / its matrix products alone", ratio("naive", "products"), _NAIVE_LIMIT, "x"),
        *(
            (f"{method} trial / naive trial", ratio(method, "naive"), LIMITS.get(method, _NONE), "x")
            for method in others
        ),
        ("replay: a step of the last task / of the second", middle(growth), _GROWTH_LIMIT, "x"),
    ]
