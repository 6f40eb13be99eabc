"""Transforms that tasks apply to images: a permutation of the pixels, a rotation, or noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from orchestrator.streams.settings import Family, Seed, StreamSettings
from strategies.seeds import derive_seed

Part = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Permutation:
    """An order of the pixels (P,) int64."""

    order: Tensor

    @property
    def identity(self) -> bytes:
        """Return what tells it apart from any other transform."""
        return b"permutation" + np.ascontiguousarray(self.order.numpy()).tobytes()


@dataclass(frozen=True)
class Rotation:
    """An angle in degrees, counter-clockwise."""

    degrees: float

    @property
    def identity(self) -> bytes:
        """Return what tells it apart from any other transform."""
        return f"rotation {self.degrees!r}".encode()


class Noise:
    """Gaussian noise for pixels in [0, 1]. It is drawn row by row, so the size of the portions does not matter.

    Args:
        deviation: standard deviation.
        seed: seed of the noise.
    """

    def __init__(self, deviation: float, seed: int) -> None:
        self.deviation = deviation
        self.identity = f"noise {deviation!r} {seed}".encode()
        self._generator = np.random.default_rng(seed)

    def add(self, images: Tensor) -> Tensor:
        """Add noise to images (N, 1, H, W) float32 in place, clip to [0, 1] and return them."""
        drawn = self._generator.standard_normal(tuple(images.shape), dtype=np.float32)
        return images.add_(torch.from_numpy(drawn), alpha=self.deviation).clamp_(0, 1)


Change = Permutation | Rotation | Noise


def change_of(
    family: Family, settings: StreamSettings, task: int, n_tasks: int, part: Part, n_pixels: int, trial_seed: int = 0
) -> Change | None:
    """Return the transform of a task, or None for the first task and for families without transforms.

    Args:
        family: family of the stream.
        settings: settings of the stream.
        task: index of the task.
        n_tasks: number of tasks.
        part: training or held-out examples. Only noise differs between the two.
        n_pixels: pixels of an image.
        trial_seed: in place of a seed that is `trial`.
    """
    if task == 0:
        return None

    def seed(own: Seed, *purpose: object) -> int:
        return derive_seed(*(("trial", trial_seed) if own == "trial" else (own,)), *purpose)

    match family:
        case "permuted":
            generator = np.random.default_rng(seed(settings.permutation_seed, "permutation", task))
            return Permutation(torch.from_numpy(generator.permutation(n_pixels)))
        case "rotated":
            if settings.rotation_seed is None:
                return Rotation(settings.max_rotation * task / n_tasks)
            generator = np.random.default_rng(seed(settings.rotation_seed, "rotation", task))
            return Rotation(float(generator.uniform(0, settings.max_rotation)))
        case "clean-rotated-noisy" if task == 1:
            return Rotation(settings.rotation)
        case "noisy" | "clean-rotated-noisy":
            return Noise(settings.max_noise * task / (n_tasks - 1), seed(settings.noise_seed, "noise", task, part))
        case _:
            return None


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Return images (N, C, H, W) rotated about their centre, with background in the corners."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate as turn

    return turn(images, degrees, InterpolationMode.BILINEAR)  # type: ignore[no-any-return]
