"""The time of trials with small networks, beside a plain PyTorch loop and Avalanche 0.6.0 on the same tensors.

Five tasks of random examples of 10 classes, one pass, SGD with momentum, one output layer, one thread.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.models.backbones import build_mlp
from strategies import STRATEGIES, Generators, Learner, Network, OutputLayout, TaskData, TrainingSettings

_N_TASKS, _N_EXAMPLES, _N_CLASSES = 5, 6400, 10
_SHAPES = (
    ((64, 128, 128), 16, 0.9),
    ((30, 64, 64), 64, 0.9),
    ((784, 100, 100), 10, 0.9),
    ((784, 100, 100), 64, 0.9),
    ((784, 400, 400), 128, 1.1),
)
"""Widths of inputs and hidden layers, batch size, and most times of a plain loop: as in the quickstart, the
transactions and Split-MNIST."""

_BESIDE_AVALANCHE = ("naive", "ewc", "replay")
_LIMIT_OF_AVALANCHE = 0.4

Tasks = list[tuple[Tensor, Tensor]]


def tasks_of(n_inputs: int) -> Tasks:
    """Return inputs (N, n_inputs) float32 and labels (N,) int64 of every task."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(_N_EXAMPLES, n_inputs, generator=generator),
            torch.randint(_N_CLASSES, (_N_EXAMPLES,), generator=generator),
        )
        for _ in range(_N_TASKS)
    ]


def our_seconds(method: str, widths: tuple[int, ...], batch_size: int, tasks: Tasks) -> float:
    """Return the time in which the learner trains on every task, consolidation included."""
    generators = Generators(0)
    strategy = STRATEGIES[method]
    layout = OutputLayout("domain", ((0, _N_CLASSES),) * _N_TASKS)

    def build() -> Network:
        return Network(*build_mlp(widths[:1], widths[1:], generators.fresh("init/backbone")), layout)

    data = [TaskData(index, inputs, labels, index) for index, (inputs, labels) in enumerate(tasks)]
    learner = Learner(
        build=build,
        past_task=lambda index: data[index],
        methods=[(strategy, strategy.hyperparameter_class())],
        settings=TrainingSettings(epochs=1, batch_size=batch_size),
        generators=generators,
        device=torch.device("cpu"),
    )
    clock = time.perf_counter()
    for task in data:
        learner.learn(task)
    return time.perf_counter() - clock


def plain_loop_seconds(widths: tuple[int, ...], batch_size: int, tasks: Tasks) -> float:
    """Return the time of the shortest loop that one would write: PyTorch's modules, autograd and SGD."""
    layers = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(widths[-1], _N_CLASSES))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    clock = time.perf_counter()
    for inputs, labels in tasks:
        for rows in torch.split(torch.randperm(len(labels)), batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return time.perf_counter() - clock


def avalanche_seconds(python: Path, method: str, batch_size: int, file: Path) -> float:
    """Return the time in which Avalanche trains on the tasks in `file`."""
    script = Path(__file__).with_name("avalanche_trial.py")
    command = [str(python), "-W", "ignore", str(script), method, str(batch_size), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def measure(
    avalanche: Path | None, rounds: int, middle: Callable[[Iterable[float]], float]
) -> list[tuple[str, float, float, str]]:
    """Return (what, ratio, limit, unit). What is compared is timed in turn, once a round."""
    torch.set_num_threads(1)
    rows = []
    for widths, batch_size, limit in _SHAPES:
        tasks = tasks_of(widths[0])
        ratios = [
            our_seconds("naive", widths, batch_size, tasks) / plain_loop_seconds(widths, batch_size, tasks)
            for _ in range(rounds)
        ]
        name = f"naive / a plain PyTorch loop, {'-'.join(map(str, widths))}, batch {batch_size}"
        rows.append((name, middle(ratios), limit, "x"))
    if avalanche is None or not avalanche.exists():
        print("nothing is timed beside Avalanche: make bench installs it, or name its Python with --avalanche")
        return rows
    widths = (784, 100, 100)
    tasks = tasks_of(widths[0])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tasks.pt"
        torch.save(tasks, file)
        for batch_size in (64, 10):
            for method in _BESIDE_AVALANCHE:
                ratios = [
                    our_seconds(method, widths, batch_size, tasks)
                    / avalanche_seconds(avalanche, method, batch_size, file)
                    for _ in range(rounds)
                ]
                name = f"{method} / Avalanche 0.6.0, 784-100-100, batch {batch_size}"
                rows.append((name, middle(ratios), _LIMIT_OF_AVALANCHE, "x"))
    return rows
