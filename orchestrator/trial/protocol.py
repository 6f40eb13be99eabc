"""One trial: the full sequential protocol, in pure PyTorch, with no cluster and no tables."""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from orchestrator.core.errors import ModelError
from orchestrator.core.placement import Placement
from orchestrator.models.building import build_network
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.stream import Stream
from orchestrator.trial.checkpoint import Identity, delete_checkpoint, identity_of, load_checkpoint, save_checkpoint
from orchestrator.trial.provenance import peak_memory_bytes, provenance, reset_peak_memory, source_hash
from orchestrator.trial.result import Status, TrialResult
from strategies import Generators, Learner, TaskData, TrialDivergedError
from strategies.optimizers import SGD

Report = Callable[[int, list[float]], None]
"""Is told, after each task, its index and the accuracies measured then (NaN where not measured)."""

SECONDS_BETWEEN_CHECKPOINTS = 10.0
_EVALUATION_ROWS = 1024
_EVALUATION_CACHE_BYTES = 256 * 2**20
_MACHINES = re.compile(r"DefaultCPUAllocator|CUDA (driver )?error|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_")
"""What torch says, in a plain RuntimeError, where memory or a GPU fails it."""


def run_trial(
    spec: TrialSpec,
    data: PhaseData,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    report: Report | None = None,
    checkpoint: Path | StoredFile | None = None,
) -> TrialResult:
    """Run the protocol of `spec` and return its result; never raises for a fault of the trial.

    Args:
        spec: what to run.
        data: the arrays of the spec's phase.
        placement: where to run.
        report: is told each row of the accuracy matrix as it is measured.
        checkpoint: file that a stopped trial continues from; deleted at the end.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    status: Status = "completed"
    reason, run = "", None
    costs, details, chance_accuracy = dict[str, float](), dict[str, Any](), None
    try:
        if placement.device == "cuda" and not torch.cuda.is_available():
            raise OSError("the trial asks for CUDA, and this worker has no GPU that torch can use")
        reset_peak_memory(placement)
        run = _begin(spec, data, placement, checkpoint)
        run.execute(report, checkpoint)
        costs = run.costs(time.perf_counter() - clock)
        details, chance_accuracy = run.details(), run.chance_accuracy()
    except TrialDivergedError as error:
        status, reason = "failed", f"diverged: {error}"
    except (OSError, ModelError) as error:
        status, reason = "error", _describe(error)
    except Exception as error:
        status, reason = "error" if _is_shortage(error) else "failed", _describe(error)
    if checkpoint is not None and status != "error":
        delete_checkpoint(checkpoint)
    if run is not None and not costs:
        with suppress(Exception):  # a method in the middle of something may not know what it keeps
            costs = run.costs(time.perf_counter() - clock)
    complete = status == "completed" and run is not None
    return TrialResult(
        spec.key,
        status,
        reason,
        run.n_correct if complete and run else [],
        run.n_examples if complete and run else [],
        costs | {"peak_memory_bytes": float(peak_memory_bytes(placement))},
        provenance(placement) | {"started_at": started.isoformat(), "data_hash": spec.data_fingerprint},
        details,
        chance_accuracy,
    )


class _Protocol:
    """The state of one run of the protocol."""

    def __init__(self, spec: TrialSpec, data: PhaseData, placement: Placement) -> None:
        device = torch.device(placement.device)
        if device.type == "cuda":
            torch.use_deterministic_algorithms(True)
        generators = Generators(spec.seed)
        torch.manual_seed(generators.fresh("global").initial_seed())
        self.spec = spec
        self.device = device
        self.stream = Stream(spec.stream, spec.stream_settings, spec.incremental_type, spec.seed, data, device)
        shape, layout = self.stream.input_shape, self.stream.layout
        self.learner = Learner(
            build=lambda: build_network(spec.model, shape, layout, generators.fresh("init/backbone")),
            past_task=self.stream.train,
            methods=spec.methods(),
            settings=spec.resolved_training(),
            generators=generators,
            device=device,
        )
        self.next_task = 0
        self.n_correct: list[list[int | None]] = []
        self.n_examples: list[int] = []
        self.seconds = {"train_seconds": 0.0, "evaluate_seconds": 0.0, "resumed_seconds": 0.0}
        self._cache: dict[int, TaskData] = {}
        self._cached_bytes = 0
        self._checkpoint: Path | StoredFile | None = None
        self._saved = self._trained = 0.0

    def execute(self, report: Report | None, checkpoint: Path | StoredFile | None) -> None:
        """Train task by task and measure R, from where it is."""
        self._checkpoint, self._saved = checkpoint, time.perf_counter()
        if not self.n_correct:
            self.n_examples = [len(self._evaluation(task)) for task in range(self.stream.n_tasks)]
            if 0 in self.n_examples:
                raise ValueError(
                    f"data: expected held-out examples of every task, got {self.n_examples}; raise validation_share"
                )
            self._measure(-1, report)
        for index in range(self.next_task, self.stream.n_tasks):
            self._trained = time.perf_counter()
            self.learner.learn(self.stream.train(index), self._save_when_due)
            self._count_training()
            self._measure(index, report)
            self.next_task = index + 1
            if self.next_task < self.stream.n_tasks:
                self._save_when_due()

    def _count_training(self) -> None:
        now = time.perf_counter()
        self.seconds["train_seconds"] += now - self._trained
        self._trained = now

    def _save_when_due(self) -> None:
        """Write the checkpoint where the last one is old enough; called between two steps and between two tasks.

        One that the system refuses is left out: it saves time and nothing else, and the rows are yet to be written.
        """
        if self._checkpoint is None or time.perf_counter() - self._saved < SECONDS_BETWEEN_CHECKPOINTS:
            return
        if self.learner.inside_task:
            self._count_training()
        with suppress(OSError):
            self._save(self._checkpoint)
        self._saved = time.perf_counter()

    def costs(self, seconds: float) -> dict[str, float]:
        """Return the cost columns."""
        network = self.learner.network
        return {
            "seconds": seconds + self.seconds["resumed_seconds"],
            "train_seconds": self.seconds["train_seconds"],
            "evaluate_seconds": self.seconds["evaluate_seconds"],
            "n_parameters": float(sum(parameter.numel() for parameter in network.parameters())),
            "kept_bytes": float(sum(strategy.kept_bytes() for strategy in self.learner.strategies)),
        }

    def chance_accuracy(self) -> float:
        """Return the average accuracy of the best constant answer; one a task where the task is known."""
        n_tasks, n_outputs = self.stream.n_tasks, self.stream.layout.n_outputs
        labels = [self._evaluation(task).labels for task in range(n_tasks)]
        shares = torch.stack([torch.bincount(of, minlength=n_outputs) / len(of) for of in labels])
        if self.spec.incremental_type == "task":
            return float(shares.max(1).values.mean())
        return float(shares.mean(0).max())

    def details(self) -> dict[str, Any]:
        """Return what the strategies report of themselves."""
        return {s.name: facts for s in self.learner.strategies if (facts := s.report())}

    def _measure(self, after: int, report: Report | None) -> None:
        """Append row `after` of R: the tasks seen; all of them where forward transfer means something (`domain`)."""
        clock = time.perf_counter()
        n_tasks = self.stream.n_tasks
        measured = n_tasks if self.spec.incremental_type == "domain" else after + 1
        row = [self._n_correct(task) if task < measured else None for task in range(n_tasks)]
        self.n_correct.append(row)
        self.seconds["evaluate_seconds"] += time.perf_counter() - clock
        if report is not None:
            counts = zip(row, self.n_examples, strict=True)
            report(after, [math.nan if c is None else c / n for c, n in counts])

    def _n_correct(self, task: int) -> int:
        data = self._evaluation(task)
        self.learner.network.eval()
        first, _ = self.stream.layout.inference_range(task, max(self.learner.n_seen, 1))
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for batch in data.batches(_EVALUATION_ROWS):
            predicted = self.learner.logits(batch.inputs, task).argmax(1) + first
            correct += (predicted == batch.labels).sum()
        return int(correct)

    def _evaluation(self, task: int) -> TaskData:
        """Return the held-out examples of `task`, kept in memory while they fit into the cache."""
        if task not in self._cache:
            data = self.stream.evaluation(task)
            n_bytes = data.inputs.nbytes
            if self._cached_bytes + n_bytes > _EVALUATION_CACHE_BYTES:
                return data
            self._cache[task] = data
            self._cached_bytes += n_bytes
        return self._cache[task]

    def _save(self, path: Path | StoredFile) -> None:
        payload = {
            "next_task": self.next_task,
            "n_correct": self.n_correct,
            "n_examples": self.n_examples,
            "seconds": self.seconds
            | {"resumed_seconds": self.seconds["train_seconds"] + self.seconds["evaluate_seconds"]},
            "learner": self.learner.state_dict(),
        }
        save_checkpoint(path, self._identity, payload)

    def load(self, path: Path | StoredFile) -> bool:
        """Go on from the checkpoint where there is one; return False where that went wrong, and this run is spoilt."""
        payload = load_checkpoint(path, self._identity)
        if payload is None:
            return True
        try:
            self.next_task = payload["next_task"]
            self.n_correct = payload["n_correct"]
            self.n_examples = payload["n_examples"]
            self.seconds = payload["seconds"]
            self.learner.load_state_dict(payload["learner"])
        except Exception as error:
            if _is_shortage(error):
                raise
            return False
        return True

    @cached_property
    def _identity(self) -> Identity:
        return identity_of(self.spec.key, self.device, map(type, self.learner.strategies))


def _begin(spec: TrialSpec, data: PhaseData, placement: Placement, checkpoint: Path | StoredFile | None) -> _Protocol:
    """Return the run where its checkpoint left it, or at its beginning."""
    run = _Protocol(spec, data, placement)
    return run if checkpoint is None or run.load(checkpoint) else _Protocol(spec, data, placement)


def _is_shortage(error: Exception) -> bool:
    """Return whether memory was refused, or a GPU failed."""
    told = isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError)
    return told or (isinstance(error, RuntimeError) and _MACHINES.search(str(error)) is not None)


def warm_up() -> None:
    """Take a step, and so load what PyTorch loads at the first one: that would be counted to a worker's first trial.

    The source is hashed here too, while it is what was imported.
    """
    weight = torch.zeros(1, requires_grad=True)
    optimizer = SGD([weight], lr=1.0, fused=True)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    source_hash()


def _describe(error: BaseException) -> str:
    """Return the error in one line, with the place in the code where it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}{where}"
