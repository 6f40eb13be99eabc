"""What the tasks of a stream do to its images: a permutation of the pixels, a rotation, or noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from orchestrator.streams.settings import Family, StreamSettings
from strategies.seeds import derive_seed

Part = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Permutation:
    """An order of the pixels (P,) int64."""

    order: Tensor


@dataclass(frozen=True)
class Rotation:
    """An angle in degrees, counter-clockwise."""

    degrees: float


class Noise:
    """Gaussian noise of one deviation, for pixels in [0, 1]; drawn row by row, so in any portions of rows the same.

    Args:
        deviation: standard deviation.
        seed: of the noise.
    """

    def __init__(self, deviation: float, seed: int) -> None:
        self.deviation = deviation
        self._generator = np.random.default_rng(seed)

    def add(self, images: Tensor) -> Tensor:
        """Return images (N, 1, H, W) float32 with noise, cut to [0, 1]."""
        drawn = self._generator.standard_normal(tuple(images.shape), dtype=np.float32)
        return images.add_(torch.from_numpy(drawn), alpha=self.deviation).clamp_(0, 1)


Change = Permutation | Rotation | Noise


def change_of(
    family: Family, settings: StreamSettings, task: int, n_tasks: int, part: Part, n_pixels: int
) -> Change | None:
    """Return what `task` does to the images of one part of the data; None leaves them alone, as the first task does.

    Args:
        family: of the stream.
        settings: of the stream.
        task: which.
        n_tasks: how many there are.
        part: training or held-out examples; their noise differs, all else is the same.
        n_pixels: of an image.
    """
    if task == 0:
        return None
    match family:
        case "permuted":
            generator = np.random.default_rng(derive_seed(settings.permutation_seed, "permutation", task))
            return Permutation(torch.from_numpy(generator.permutation(n_pixels)))
        case "rotated" if settings.rotation_seed is None:
            return Rotation(settings.max_rotation * task / n_tasks)
        case "rotated":
            generator = np.random.default_rng(derive_seed(settings.rotation_seed, "rotation", task))
            return Rotation(float(generator.uniform(0, settings.max_rotation)))
        case "clean-rotated-noisy" if task == 1:
            return Rotation(settings.rotation)
        case "noisy" | "clean-rotated-noisy":
            return Noise(
                settings.max_noise * task / (n_tasks - 1), derive_seed(settings.noise_seed, "noise", task, part)
            )
        case _:
            return None


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Return images (N, C, H, W) turned about their centre, background where nothing was."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate as turn

    return turn(images, degrees, InterpolationMode.BILINEAR)  # type: ignore[no-any-return]
