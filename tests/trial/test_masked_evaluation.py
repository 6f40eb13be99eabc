"""Task-incremental evaluation of a network that is trained on all outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from orchestrator.core.errors import SpecError
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.stream import Stream
from orchestrator.trial.protocol import run_trial
from strategies import Learner

MakeTrial = Callable[..., TrialSpec]
TRAINING = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}
MASKED = {**TRAINING, "evaluate": "masked"}


def _run(trial: TrialSpec, digits: Dataset) -> tuple[list[list[int | None]], Learner, Stream]:
    trained: list[tuple[Learner, Stream]] = []
    result = run_trial(
        trial,
        digits.phase(trial.phase, trial.validation_share),
        trained=lambda learner, stream: trained.append((learner, stream)),
    )
    assert result.status == "completed", result.reason
    return result.n_correct, *trained[0]


@pytest.mark.parametrize("method", ["naive", "replay", "icarl", "wa", "ridge"])
def test_it_is_trained_as_class_and_answers_among_the_classes_of_the_task(
    method: str, make_trial: MakeTrial, digits: Dataset
) -> None:
    masked, learner, stream = _run(make_trial("split-digits/task", method, training=MASKED), digits)
    _, of_class, _ = _run(make_trial("split-digits/class", method, training=TRAINING), digits)

    own, other = learner.network.state_dict(), of_class.network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    for task in range(stream.n_tasks):
        data = stream.evaluation(task)
        start, stop = stream.layout.ranges[task]
        expected = of_class.logits(data.inputs, task)[:, start:stop].argmax(1) + start
        assert masked[-1][task] == int((expected == data.labels).sum())


def test_the_task_makes_answers_better(make_trial: MakeTrial, digits: Dataset) -> None:
    masked = _run(make_trial("split-digits/task", "naive", training=MASKED), digits)[0]
    among_all = _run(make_trial("split-digits/class", "naive", training=TRAINING), digits)[0]
    assert sum(n or 0 for n in masked[-1]) > 1.5 * sum(n or 0 for n in among_all[-1])


def test_methods_are_refused_as_in_class() -> None:
    fields: dict[str, Any] = {"scenarios": ["split-digits/task"], "training": {"evaluate": "masked"}}
    assert parse_spec({**fields, "methods": ["icarl"]}).cells
    with pytest.raises(SpecError, match=r"methods\.packnet: packnet cannot learn split-digits/task"):
        parse_spec({**fields, "methods": ["packnet"]})


def test_streams_whose_tasks_share_classes_are_refused() -> None:
    fields = {"scenarios": ["rotated-digits/task"], "methods": ["naive"], "training": {"evaluate": "masked"}}
    with pytest.raises(SpecError, match=r"masked it is trained as rotated-digits/class"):
        parse_spec(fields)


def test_other_types_are_what_they_are(make_trial: MakeTrial, digits: Dataset) -> None:
    for kind in ("domain", "class"):
        one, other = (
            _run(make_trial(f"split-digits/{kind}", "naive", training=settings), digits)[0]
            for settings in (TRAINING, MASKED)
        )
        assert one == other
