"""What a trial trains with: its stream and its learner, put together the same way wherever they are needed."""

from __future__ import annotations

import torch

from orchestrator.models.building import build_network
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.stream import Stream
from strategies import Generators, Learner


def set_up(
    spec: TrialSpec,
    data: PhaseData,
    device: torch.device,
    learner_class: type[Learner] | None = None,
    planned_tasks: int = 0,
) -> tuple[Stream, Learner]:
    """Return the stream of a trial and its learner, untrained.

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
    stream = Stream(spec.stream, spec.stream_settings, spec.incremental_type, spec.seed, data, device)
    return stream, learner_for(spec, stream, device, learner_class, planned_tasks)


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
    generators = Generators(spec.seed)
    return (learner_class or Learner)(
        build=lambda: build_network(spec.model, stream.input_shape, stream.layout, generators.fresh("init/backbone")),
        past_task=stream.train,
        methods=spec.methods(),
        settings=spec.resolved_training(),
        generators=generators,
        device=device,
        class_names=stream.output_names,
        planned_tasks=planned_tasks,
    )
