"""What measuring R costs beside measuring accuracy alone: 30,000 held-out rows of a table in six tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from orchestrator.spec.loading import parse_spec
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.facts import DatasetFacts
from orchestrator.trial.evaluation import Evaluator
from orchestrator.trial.setup import set_up

_N_TASKS, _N_ROWS, _N_FEATURES = 6, 5_000, 16
_LIMIT = 1.2
_ROWS_AT_ONCE = 1024


def measure(rounds: int, middle: Callable[[Sequence[float]], float]) -> list[tuple[str, float, float, str]]:
    """Return (what, ratio to accuracy alone, limit, unit), each the middle of some rounds, taken in turn."""
    torch.set_num_threads(1)
    evaluator, alone = _evaluators(())
    ranking, _ = _evaluators(("auroc",))
    ways = {
        "counts of every class": lambda: [evaluator.measure(task) for task in range(_N_TASKS)],
        "counts and AUROC": lambda: [ranking.measure(task) for task in range(_N_TASKS)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("alone", *ways)}
    for _ in range(3 * rounds):
        for name, way in {"alone": alone, **ways}.items():
            clock = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - clock)
    base = middle(seconds["alone"])
    print(f"evaluation: accuracy alone of {_N_TASKS * _N_ROWS:,} rows took {1000 * base:.1f} ms", flush=True)
    return [(f"evaluation: {name}, beside accuracy alone", middle(seconds[name]) / base, _LIMIT, "x") for name in ways]


def _evaluators(ranked: tuple[str, ...]) -> tuple[Evaluator, Callable[[], list[int]]]:
    """Return what measures R, and a loop that counts right answers only."""
    generator = np.random.default_rng(0)
    n = _N_TASKS * _N_ROWS
    labels = (generator.random(n) < 0.02).astype(np.int64)
    inputs = generator.normal(size=(n, _N_FEATURES)).astype(np.float32)
    tasks = np.repeat(np.arange(_N_TASKS), _N_ROWS)
    names = tuple(map(str, range(_N_TASKS)))
    facts = DatasetFacts(("legit", "fraud"), (_N_FEATURES,), 1, "", names, ((0, 1),) * _N_TASKS, _N_FEATURES)
    zeros, ones = np.zeros(_N_FEATURES, np.float32), np.ones(_N_FEATURES, np.float32)
    data = PhaseData(inputs, labels, inputs, labels, facts, zeros, ones, tasks, tasks)
    spec = parse_spec(
        {
            "scenarios": ["tx/domain"],
            "methods": ["naive"],
            "model": {"hidden": [64, 64]},
            "streams": {"tx": {"table": "tx.csv", "label": "outcome", "task": "quarter"}},
            "scores": list(ranked),
        }
    )
    stream, learner = set_up(spec.trial(spec.cells[0], {}, 0, "confirm", ""), data, torch.device("cpu"))
    evaluator = Evaluator(stream, learner, ranked)
    held_out = [stream.evaluation(task) for task in range(_N_TASKS)]
    evaluator.n_examples()  # makes its own copy of them

    def alone() -> list[int]:
        learner.network.eval()
        found = []
        for task, examples in enumerate(held_out):
            right = torch.zeros((), dtype=torch.int64)
            for batch in examples.batches(_ROWS_AT_ONCE):
                right += (learner.logits(batch.inputs, task).argmax(1) == batch.labels).sum()
            found.append(int(right))
        return found

    return evaluator, alone
