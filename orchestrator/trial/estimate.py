"""How long a trial takes, measured from a few of its steps on its own stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import fmean
from typing import Any

import torch

from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.stream import Stream
from orchestrator.trial.diagnostics.plasticity import evaluated
from orchestrator.trial.evaluation import Evaluator, is_evaluated_within
from orchestrator.trial.setup import set_up
from strategies import Learner

MOST_SECONDS = 0.3
"""How long a trial is measured, about: no further task is begun after that, but three are always measured."""

_WARM_UP_STEPS = 3
"""Steps of each training that are not timed: the first ones allocate memory."""

_SECONDS_A_TRAINING = 0.05
"""How long the steps of one training are timed, at least two of them."""


class SampledLearner(Learner):
    """Takes a few steps of each training, times them, and counts the time that the others would take.

    `skipped_seconds` is that time, and `n_steps` the number of steps of all trainings so far, taken or not.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.skipped_seconds = 0.0
        self.n_steps = 0
        self._is_warm = True
        super().__init__(*arguments, **named)

    @property
    def in_last_pass(self) -> bool:
        """Return whether it is the last pass; also true in the first steps, so that buffers fill."""
        return self._is_last or not self._is_warm

    @in_last_pass.setter
    def in_last_pass(self, value: bool) -> None:
        self._is_last = value

    def steps(self, first: int, stop: int) -> Iterator[int]:
        """Yield the numbers of the first steps, until they are timed."""
        self.n_steps += stop - first
        seconds: list[float] = []
        for number in range(first, stop):
            self._is_warm = number - first >= _WARM_UP_STEPS
            clock = self._now()
            yield number
            if self._is_warm:
                seconds.append(self._now() - clock)
            if len(seconds) >= 2 and sum(seconds) >= _SECONDS_A_TRAINING:
                self.skipped_seconds += (stop - number - 1) * fmean(seconds)
                break
        self._is_warm = True

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def trial_seconds(spec: TrialSpec, data: PhaseData, device: str = "cpu", threads: int = 1) -> float:
    """Return about how long a trial takes here; NaN if its first task fails, as by diverging.

    A few steps of each task are taken, in order, so that remembered examples, consolidation and growing networks
    are felt. What a method does between its steps is run in full, and each evaluation once or twice. Other work on the
    machine is part of the estimate, as it will be part of the trials.

    Args:
        spec: the trial.
        data: the arrays of its phase.
        device: `cpu` or `cuda`.
        threads: CPU threads.

    Raises:
        ModelError: if the model cannot be built for the stream.
        ValueError: if the method refuses the model or the stream.
    """
    with _threads(threads), torch.random.fork_rng(devices=[]):
        clock = time.perf_counter()
        stream, learner = set_up(spec, data, torch.device(device), SampledLearner)
        assert isinstance(learner, SampledLearner)
        begun = time.perf_counter() - clock
        evaluator = Evaluator(stream, learner, spec.ranked_scores)
        training, evaluation, n_steps, looks = list[float](), list[float](), list[int](), list[float]()
        first = data.start.n_learned if data.start is not None else 0
        with suppress(Exception):  # a trial that fails is a result, and no reason to end a plan
            begun += sum(_evaluate(evaluator, task, 2) for task in range(first))
            for task in range(first, stream.n_tasks):
                n_before = learner.n_steps
                seconds, look = _train(learner, stream, task, evaluator)
                training.append(seconds)
                looks.append(look)
                n_steps.append(learner.n_steps - n_before)
                evaluation.append(_evaluate(evaluator, task, _n_measurements(spec, stream.n_tasks, task)))
                if task >= first + 2 and time.perf_counter() - clock > MOST_SECONDS:
                    break
    n_measured = len(evaluation)
    if not n_measured:
        return float("nan")
    whole = sum(extrapolated(training[:n_measured], n_steps[:n_measured], stream.n_tasks - first))
    measured = [_n_measurements(spec, stream.n_tasks, task) for task in range(first, stream.n_tasks)]
    whole += _within(learner, stream, looks[:n_measured], first)
    return begun + whole + sum(evaluation) / sum(measured[:n_measured]) * sum(measured)


def extrapolated(seconds: Sequence[float], n_steps: Sequence[int], n_tasks: int) -> list[float]:
    """Return the seconds of each task, (n_tasks,): those measured, and what follows from them for the others.

    The number of steps goes on as between the last two tasks that were measured; a step takes as long as in the last.

    Args:
        seconds: of the first tasks, at least one.
        n_steps: of the same tasks, whether taken or not.
        n_tasks: tasks of the stream.
    """
    found, more = list(seconds), n_steps[-1] - n_steps[-2] if len(n_steps) > 1 else 0
    for ahead in range(1, n_tasks - len(seconds) + 1):
        growth = max(n_steps[-1] + ahead * more, 0) / n_steps[-1] if n_steps[-1] else 1.0
        found.append(seconds[-1] * growth)
    return found


def _train(learner: SampledLearner, stream: Stream, task: int, evaluator: Evaluator) -> tuple[float, float]:
    """Learn a task with a few steps and return how long it takes with all of them, and an evaluation within it.

    The evaluation is made after the first step, if the trial makes any within tasks.
    """
    look: float | None = None if is_evaluated_within(learner) else 0.0

    def between_steps() -> None:
        nonlocal look
        if look is None:
            begun = time.perf_counter()
            with evaluated(learner.network):
                for seen in range(task + 1):
                    evaluator.measure(seen)
            look = time.perf_counter() - begun

    skipped, clock = learner.skipped_seconds, time.perf_counter()
    learner.learn(stream.train(task), between_steps)
    return time.perf_counter() - clock + learner.skipped_seconds - skipped - (look or 0.0), look or 0.0


def _within(learner: Learner, stream: Stream, looks: Sequence[float], first: int) -> float:
    """Return the seconds of all evaluations within tasks.

    Args:
        learner: of the trial.
        stream: of the trial.
        looks: seconds of one evaluation within each of the first tasks, of all tasks seen then.
        first: tasks that were learned before.
    """
    settings, sizes = learner.settings, stream.sizes().n_examples[first:]
    if settings.evaluate_every is None:
        return 0.0
    each = sum(looks) / sum(range(first + 1, first + 1 + len(looks)))
    total = 0.0
    for task, n in enumerate(sizes):
        given = n * settings.epochs if settings.iterations is None else settings.iterations * settings.batch_size
        total += (given if learner.trains_network else n) // settings.evaluate_every * each * (first + task + 1)
    return total


def _evaluate(evaluator: Evaluator, task: int, n_times: int) -> float:
    """Measure a task twice and return how long it takes `n_times`; the first time its examples are made."""
    clock = time.perf_counter()
    evaluator.measure(task)
    first = time.perf_counter() - clock
    evaluator.measure(task)
    return first + (n_times - 1) * (time.perf_counter() - clock - first)


def _n_measurements(spec: TrialSpec, n_tasks: int, task: int) -> int:
    """Return how often a trial measures a task: before and after every task in `domain`, else from its own on."""
    return n_tasks + 1 if spec.incremental_type == "domain" else n_tasks - task


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
