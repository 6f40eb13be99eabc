"""Measures what goes on inside a trial beside its training, and changes nothing of it.

Random numbers come from generators of its own, the modes of all modules are restored, and a fresh network is trained
apart. So R is the same, bit for bit, with and without. What is measured costs at most about 0.3 times the training of a
naive trial; `benchmarks` measures it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from orchestrator.models.building import build_network
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.stream import Stream
from orchestrator.trial.diagnostics.buffers import buffer_rows
from orchestrator.trial.diagnostics.fisher import fisher_rows
from orchestrator.trial.diagnostics.plasticity import (
    evaluated,
    feature_rows,
    fresh_accuracy,
    own_accuracy,
    own_randomness,
)
from orchestrator.trial.diagnostics.quantities import LEAST_PROBE_STEPS, MOST_EXAMPLES, PROBE_SHARE
from orchestrator.trial.evaluation import Evaluator
from strategies import Batch, Learner, TaskData

_LOGGER = logging.getLogger("continual_sweep")

Row = list[Any]
"""The task after which it was measured, name, part and value."""


def choose_probes(n_steps: Sequence[int]) -> dict[int, int]:
    """Return task -> steps of a fresh network: as many tasks as their share of all steps allows, evenly to the last.

    Args:
        n_steps: of each task.
    """
    wanted = [max(round(PROBE_SHARE * n), min(LEAST_PROBE_STEPS, n)) for n in n_steps]
    most, last = PROBE_SHARE * sum(n_steps), len(n_steps) - 1
    for n in range(last, 0, -1):
        chosen = sorted({last - round(k * last / n) for k in range(n)})
        if sum(wanted[task] for task in chosen) <= most:
            return {task: wanted[task] for task in chosen}
    return {last: max(round(most), 1)} if last else {}


def _first(task: TaskData, n: int) -> TaskData:
    """Return the first examples of a task, and hold no memory of the others."""
    ids = task.task_ids if isinstance(task.task_ids, int) else task.task_ids[:n].clone()
    return TaskData(task.index, task.inputs[:n].clone(), task.labels[:n].clone(), ids)


class Diagnostics:
    """What was measured inside a trial so far.

    An error in it ends the measurements and not the trial.

    Args:
        spec: the trial.
        stream: its stream.
        learner: its learner.
        evaluator: which has the held-out examples.

    Attributes:
        rows: what was found, (after_task, name, part, value) each.
        seconds: wall time that it took, which is no cost of the trial.
        fault: why the measurements ended early; empty if they did not.
    """

    def __init__(self, spec: TrialSpec, stream: Stream, learner: Learner, evaluator: Evaluator) -> None:
        self._spec, self._stream, self._learner, self._evaluator = spec, stream, learner, evaluator
        self.rows: list[Row] = []
        self.seconds = 0.0
        self.fault = ""
        self._ever: dict[str, Tensor] = {}
        self._samples: dict[int, TaskData] = {}
        self._probes = self._choose_probes()
        self._n_steps, self._probe_at = 0, 0
        self._probed: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "rows": self.rows,
            "ever": self._ever,
            "n_steps": self._n_steps,
            "probed": self._probed,
            "fault": self.fault,
        }

    def load_state_dict(self, state: dict[str, Any] | None, n_learned: int) -> None:
        """Continue from a checkpoint.

        Args:
            state: what `state_dict` returned; None for a trial that was begun without, which goes on without.
            n_learned: tasks learned so far.
        """
        if state is None:
            self.fault = "it was begun without"
            return
        self.rows, self._ever, self.fault = state["rows"], state["ever"], state["fault"]
        self._n_steps, self._probed = state["n_steps"], state["probed"]
        for index in range(n_learned):
            self._sample(self._stream.train(index))

    def begin_task(self, task: TaskData) -> None:
        """Take a sample of a task, and train a fresh network on it for a few steps; before the trial learns it."""
        self._apart(lambda: self._begin(task))

    def after_step(self) -> None:
        """Measure the trial on the new task once it has taken as many steps as the fresh network."""
        self._n_steps += 1
        if self._n_steps == self._probe_at:
            self._apart(self._probe)

    def end_task(self, index: int) -> None:
        """Measure the learner after a task, which it has been evaluated on."""
        self._apart(lambda: self._measure(index))
        self._n_steps, self._probed = 0, {}
        n = max(MOST_EXAMPLES // (index + 1), 1)  # as many as any later task will ask for
        self._samples = {task: _first(sample, n) for task, sample in self._samples.items()}

    def _apart(self, measure: Callable[[], None]) -> None:
        """Call `measure`, unless an earlier call failed, without its random numbers and with its time counted."""
        if self.fault:
            return
        clock = time.perf_counter()
        try:
            with own_randomness(self._learner.device):
                measure()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
            _LOGGER.info("the diagnostics of trial %s raised", self._spec.key, exc_info=True)
        self.seconds += time.perf_counter() - clock

    def _begin(self, task: TaskData) -> None:
        self._sample(task)
        self._probe_at = self._probes.get(task.index, 0)
        if not self._probe_at or "fresh_accuracy" in self._probed:
            return
        stream, model = self._stream, self._spec.model
        found = fresh_accuracy(
            lambda generator: build_network(model, stream.input_shape, stream.layout, generator),
            self._learner.settings,
            task,
            self._held_out(task.index),
            self._probe_at,
            self._spec.seed,
            stream.output_names,
        )
        if found is not None:
            self._probed["fresh_accuracy"] = found

    def _choose_probes(self) -> dict[int, int]:
        """Return the tasks on which a fresh network is trained, and for how many steps.

        On the first task both are fresh. A method that starts anew trains on other examples than the new task's alone,
        so steps do not compare, and some methods take none.
        """
        if not self._learner.trains_network or any(strategy.starts_anew for strategy in self._learner.strategies):
            return {}
        settings = self._learner.settings
        sizes = self._stream.sizes().n_examples
        return choose_probes(
            [settings.iterations or settings.epochs * math.ceil(n / settings.batch_size) for n in sizes]
        )

    def _probe(self) -> None:
        held_out = self._held_out(self._learner.n_seen - 1)
        self._probed["probe_accuracy"] = own_accuracy(self._learner.network, held_out)

    def _held_out(self, index: int) -> TaskData:
        """Return at most 1,000 held-out examples of a task."""
        task = self._evaluator.data(index)
        return TaskData(index, task.inputs[:1000], task.labels[:1000], index)

    def _sample(self, task: TaskData) -> None:
        """Keep a fixed random sample of the training examples of a task: a third of them, but no more than the most.

        A third, so that what is measured on a small task is as cheap as its training.
        """
        generator = self._learner.generators.fresh(f"diagnostics/sample/{task.index}")
        n = min(MOST_EXAMPLES, (len(task) + 2) // 3)
        rows = torch.randperm(len(task), generator=generator)[:n].to(task.labels.device)
        own = task.take(rows)
        self._samples[task.index] = TaskData(task.index, own.inputs, own.labels, own.task_ids)

    def _seen(self, index: int) -> Batch:
        """Return examples of the tasks seen so far, an equal share of each; of the last alone if each has its weights.

        Methods that never forget use other weights for each task, and those of the last are in place after it.
        """
        own = self._samples[index]
        if index == 0 or any(strategy.never_forgets for strategy in self._learner.strategies):
            return own.take(torch.arange(len(own), device=own.labels.device))
        n = max(len(own) // (index + 1), 1)
        parts = [self._samples[task] for task in range(index, -1, -1)][: len(own)]
        labels = torch.cat([part.labels[:n] for part in parts])
        ids = torch.cat([part.ids[:n] for part in parts])
        return Batch(torch.cat([part.inputs[:n] for part in parts]), labels, ids)

    def _logits_of(self, batch: Batch) -> tuple[Tensor, int]:
        learner = self._learner
        active = learner.settings.active_outputs
        return learner.network.training_logits(batch.inputs, batch.task_ids, learner.n_seen, active)

    def _measure(self, index: int) -> None:
        """Add the rows of a task."""
        learner, found = self._learner, list[tuple[str, str, float]]()
        own = self._samples[index]
        network = learner.network
        if learner.trains_network and any(parameter.requires_grad for parameter in network.backbone.parameters()):
            with evaluated(network):
                latest = own.take(torch.arange(len(own), device=own.labels.device))
                seen = latest if index == 0 else self._seen(index)
                fresh = lambda purpose: learner.generators.fresh(f"{purpose}/{index}")  # noqa: E731
                rows, self._ever = fisher_rows(network, seen, latest, self._logits_of, fresh, self._ever)
                found += [*rows, *feature_rows(network, own.inputs)]
        probed = dict(self._probed)
        if len(probed) == 2:
            probed["plasticity_gap"] = probed["probe_accuracy"] - probed["fresh_accuracy"]
        found += [(name, "", value) for name, value in probed.items()]
        found += self._kept(index)
        unique = {(name, part): value for name, part, value in found if math.isfinite(value)}
        self.rows += [[index, name, part, value] for (name, part), value in unique.items()]

    def _kept(self, index: int) -> list[tuple[str, str, float]]:
        """Return what the buffers hold, and what the methods say of themselves."""
        strategies, stream = self._learner.strategies, self._stream
        kept = [found for strategy in strategies if (found := strategy.remembered()) is not None]
        rows = [(*place, float(value)) for strategy in strategies for place, value in strategy.diagnose().items()]
        if kept:
            labels, tasks = (torch.cat([part.cpu() for part in parts]) for parts in zip(*kept, strict=True))
            n_outputs = max(stop for _, stop in stream.layout.ranges[: index + 1])
            names = (stream.task_names, stream.output_names)
            rows += buffer_rows(labels, tasks, index + 1, n_outputs, names)
        return rows
