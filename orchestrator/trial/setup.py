"""What a trial trains with: its stream and its learner, put together the same way wherever they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

import torch

from orchestrator.models.building import build_network
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.stream import Stream
from orchestrator.trial.provenance import source_hash
from strategies import Generators, Learner, Strategy
from strategies.optimizers import SGD


def set_up(
    spec: TrialSpec,
    data: PhaseData,
    device: torch.device,
    learner_class: type[Learner] | None = None,
    planned_tasks: int = 0,
) -> tuple[Stream, Learner]:
    """Return the stream of a trial and its learner: untrained, or in the state of the model that the data begin with.

    From a model, the trial's seed decides all that is random from there on.

    Args:
        spec: the trial.
        data: the arrays of its phase.
        device: where the tasks, the network and the strategies are placed.
        learner_class: the class of the learner; a subclass may count what it does.
        planned_tasks: how many tasks there will be, if they are more than the stream has.

    Raises:
        ModelError: if the model cannot be built for the stream.
        ValueError: if the method refuses the model or the stream.
    """
    compute_repeatably(device)
    stream, start = (
        Stream(spec.stream, spec.stream_settings, spec.incremental_type, spec.seed, data, device),
        data.start,
    )
    planned = planned_tasks if start is None else max(planned_tasks, start.planned_tasks)
    learner = learner_for(spec, stream, device, learner_class, planned)
    if start is not None:
        refuse_unplanned(spec.method, learner.strategies, start.planned_tasks, stream.n_tasks)
        state = start.states[spec.seed % len(start.states)]
        learner.load_state_dict({**state, "generators": learner.generators.state_dict()})
    return stream, learner


def compute_repeatably(device: torch.device) -> None:
    """Let a GPU give the same bits each time; a CPU does so by itself.

    PyTorch refuses a matrix product whose workspace cuBLAS may choose, so the workspace is fixed, unless a user has.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def refuse_unplanned(method: str, strategies: Iterable[Strategy], planned: int, n_tasks: int) -> None:
    """Refuse more tasks than a model was trained for, if its method needs to know their number.

    Raises:
        ValueError: saying what to do.
    """
    planning = next(filter(None, (strategy.plans_ahead for strategy in strategies)), "")
    if planning and n_tasks > planned:
        raise ValueError(
            f"{method} was trained for {planned} tasks ({planning}); export the model with --more-tasks "
            f"{max(n_tasks - planned, 1)} or more"
        )


def learner_for(
    spec: TrialSpec,
    stream: Stream,
    device: torch.device,
    learner_class: type[Learner] | None = None,
    planned_tasks: int = 0,
) -> Learner:
    """Return the untrained learner of a trial for a stream, which may be longer than the trial's own.

    Raises:
        ModelError, ValueError: as for `set_up`.
    """
    generators, settings = Generators(spec.seed), spec.resolved_training()
    layout = stream.layout
    if settings.learned_as(layout.incremental_type) != layout.incremental_type:
        layout = replace(layout, incremental_type="class", is_masked=True)
    return (learner_class or Learner)(
        build=lambda: build_network(spec.model, stream.input_shape, layout, generators.fresh("init/backbone")),
        past_task=stream.train,
        methods=spec.methods(),
        settings=settings,
        generators=generators,
        device=device,
        class_names=stream.output_names,
        planned_tasks=planned_tasks,
    )


def warm_up() -> None:
    """Take one optimizer step, so that what PyTorch loads lazily is not counted to a worker's first trial.

    Also hashes the source now, while the files on disk are those that were imported.
    """
    weight = torch.zeros(1, requires_grad=True)
    optimizer = SGD([weight], lr=1.0, fused=True)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    source_hash()
