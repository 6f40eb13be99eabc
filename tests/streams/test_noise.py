"""Noisy streams, and those that are clean, then rotated, then noisy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from orchestrator.streams.checking import refused_type, stream_faults
from orchestrator.streams.datasets import PhaseData
from orchestrator.streams.facts import DATASETS
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.stream import Stream
from orchestrator.trial.protocol import run_trial

CPU = torch.device("cpu")


def images(value: int = 8, n: int = 500) -> PhaseData:
    """Return images of one value of 16, so that what is added can be read off; held out are the same."""
    inputs = np.full((n, 8, 8), value, dtype=np.uint8)
    labels = np.arange(n, dtype=np.int64) % 10
    return PhaseData(inputs, labels, inputs, labels, DATASETS["digits"], 0.5, 0.25)


def stream_of(name: str = "noisy-digits", data: PhaseData | None = None, seed: int = 0, **settings: Any) -> Stream:
    return Stream(name, StreamSettings(**settings), "domain", seed, data or images(), CPU)


def test_noise_grows_evenly_from_none_to_the_most() -> None:
    stream = stream_of(n_tasks=5, max_noise=0.08)  # 6 deviations from 0.5 stay inside [0, 1]: nothing is cut
    deviations = [float((stream.train(task).inputs - 0.5).std()) for task in range(5)]
    assert torch.equal(stream.train(0).inputs, torch.full((500, 1, 8, 8), 0.5))
    # 32,000 pixels: the deviation is known to 0.4 %, so 4 of these are 1.6 %.
    assert deviations[1:] == pytest.approx([0.02, 0.04, 0.06, 0.08], rel=0.016)
    means = [float((stream.train(task).inputs - 0.5).mean()) for task in range(5)]
    assert means == pytest.approx([0.0] * 5, abs=4 * 0.08 / np.sqrt(32_000))


def test_noisy_pixels_stay_in_zero_to_one() -> None:
    for value, bound in ((0, 0.0), (16, 1.0)):
        pixels = stream_of(data=images(value), n_tasks=2, max_noise=0.5).train(1).inputs
        assert 0 <= pixels.min() < pixels.max() <= 1
        assert float((pixels == bound).float().mean()) == pytest.approx(0.5, abs=0.012)  # half of it is cut


def test_noise_depends_on_its_seed_task_and_part_alone() -> None:
    one, again = stream_of(n_tasks=3, seed=0), stream_of(n_tasks=3, seed=9)
    other = stream_of(n_tasks=3, noise_seed=1)
    assert torch.equal(one.train(2).inputs, one.train(2).inputs)
    for task in (1, 2):
        assert torch.equal(one.train(task).inputs, again.train(task).inputs)
        assert not torch.equal(one.train(task).inputs, one.evaluation(task).inputs)
        assert not torch.equal(one.train(task).inputs, other.train(task).inputs)
    assert torch.equal(one.evaluation(1).inputs, again.evaluation(1).inputs)
    # Twice the deviation, yet not twice the same noise.
    first, second = ((s - 0.5).flatten() for s in (one.train(1).inputs, one.train(2).inputs))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03
    assert torch.equal(one.train(0).inputs, other.train(0).inputs)


def test_noise_of_a_row_ignores_the_rows_after_it() -> None:
    """The stream makes 8,192 rows at a time; here are more."""
    many, few = (stream_of(data=images(n=n), n_tasks=2).train(1).inputs for n in (9000, 8))
    assert torch.equal(many[:8], few)
    assert not torch.equal(many[8192:8200], few)


def test_noise_comes_before_the_normalisation() -> None:
    unit = stream_of(n_tasks=2).train(1).inputs
    standard = stream_of(n_tasks=2, normalisation="standard").train(1).inputs
    torch.testing.assert_close(standard, (unit - 0.5) / 0.25)


def test_one_task_is_clean() -> None:
    assert torch.equal(stream_of(n_tasks=1).train(0).inputs, torch.full((500, 1, 8, 8), 0.5))


def test_clean_then_rotated_then_noisy() -> None:
    inputs = np.random.default_rng(1).integers(0, 17, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60, dtype=np.int64) % 10
    data = PhaseData(inputs, labels, inputs, labels, DATASETS["digits"], 0.5, 0.25)
    stream = stream_of("clean-rotated-noisy-digits", data, rotation=30, max_noise=0.01)
    clean, rotated, noisy = (stream.train(task).inputs for task in range(3))
    assert stream.n_tasks == 3
    assert torch.equal(clean[:, 0], torch.tensor(inputs).float() / 16)
    torch.testing.assert_close(rotated, rotate(clean, 30.0, InterpolationMode.BILINEAR))
    assert 0 < (noisy - clean).abs().max() < 0.06
    inner = (clean > 0.1) & (clean < 0.9)
    assert float((noisy - clean)[inner].std()) == pytest.approx(0.01, rel=0.06)
    assert stream.layout.ranges == ((0, 10),) * 3


@pytest.mark.parametrize(
    ("stream", "settings", "said"),
    [
        ("noisy-mnist", {"max_rotation": 9.0}, "max_rotation: only rotated streams have this field; leave it out"),
        ("noisy-mnist", {"rotation": 9.0}, "rotation: only clean-rotated-noisy streams have"),
        ("split-mnist", {"max_noise": 0.1}, "max_noise: only noisy and clean-rotated-noisy streams have"),
        ("rotated-mnist", {"noise_seed": 1}, "noise_seed: only noisy"),
        ("clean-rotated-noisy-mnist", {"n_tasks": 4}, "n_tasks: this stream always has 3 tasks, got 4; leave it out"),
        ("clean-rotated-noisy-mnist", {"rotation_seed": 1}, "rotation_seed: only rotated streams"),
    ],
)  # fmt: skip
def test_faults_of_settings(stream: str, settings: dict[str, Any], said: str) -> None:
    (fault,) = stream_faults(stream, StreamSettings(**settings))
    assert fault.startswith(said)


@pytest.mark.parametrize("family", ["noisy", "clean-rotated-noisy"])
def test_no_task_brings_new_classes(family: str) -> None:
    reason = refused_type(f"{family}-mnist", "class")
    assert reason is not None
    assert "keeps its class" in reason
    assert refused_type(f"{family}-mnist", "task") is None


@pytest.mark.parametrize("scenario", ["noisy-digits/domain", "clean-rotated-noisy-digits/task"])
def test_trials_of_these_streams_complete(scenario: str, make_trial: Any, digits: Any) -> None:
    result = run_trial(make_trial(scenario), digits.phase("confirm", 0.1))
    assert (result.status, result.reason) == ("completed", "")
