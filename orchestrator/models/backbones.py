"""The backbones of this package, without heads: an MLP, a small CNN and a slim ResNet-18."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from strategies.parts.layers import Initialisation, initialise_layer


def build_mlp(
    input_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    generator: torch.Generator,
    init: Initialisation = "pytorch",
) -> tuple[nn.Module, int]:
    """Return a multi-layer perceptron with ReLU and its number of features.

    Args:
        input_shape: shape of one example, which is flattened first.
        hidden: width of each layer.
        generator: for the initial weights.
        init: how they are drawn.
    """
    widths = [math.prod(input_shape), *hidden]
    return nn.Sequential(nn.Flatten(), *_linear_layers(widths, generator, init)), widths[-1]


def build_cnn(
    input_shape: tuple[int, ...],
    channels: tuple[int, ...],
    hidden: tuple[int, ...],
    generator: torch.Generator,
    init: Initialisation = "pytorch",
) -> tuple[nn.Module, int]:
    """Return a CNN and its number of features: 3x3 convolution, ReLU and 2x2 max-pooling, then linear layers with ReLU.

    Args:
        input_shape: (C, H, W) of one example. Each block halves H and W, rounding down.
        channels: output channels of each block.
        hidden: width of each linear layer.
        generator: for the initial weights.
        init: how they are drawn.
    """
    n_channels, height, width = input_shape
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([n_channels, *channels]):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        initialise_layer(layers[-3], generator, init)  # type: ignore[arg-type]
        height, width = height // 2, width // 2
    widths = [channels[-1] * height * width, *hidden]
    return nn.Sequential(*layers, nn.Flatten(), *_linear_layers(widths, generator, init)), widths[-1]


def _linear_layers(widths: list[int], generator: torch.Generator, init: Initialisation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        initialise_layer(linear, generator, init)
        layers += [linear, nn.ReLU()]
    return layers


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut, (B, I, H, W) -> (B, O, ⌈H/s⌉, ⌈W/s⌉) float32.

    Args:
        n_in: input channels I.
        n_out: output channels O.
        stride: s of the first convolution. If the shape changes, the shortcut is a 1x1 convolution.

    Source: He et al. 2016, arXiv 1512.03385, section 3.3 (shortcut option B).
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, inputs: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(inputs)))
        return torch.relu(self.norm2(self.conv2(out)) + self.shortcut(inputs))


class SlimResNet18(nn.Module):
    """ResNet-18 for small images, (B, C, H, W) -> (B, 8w) float32.

    A 3x3 stem without pooling, four stages of two blocks, the mean over pixels. The stages have w, 2w, 4w and 8w
    channels and strides 1, 2, 2, 2.

    Args:
        n_channels: C.
        width: w. The paper has 20; 64 gives the usual ResNet-18 for 32x32 images.
        generator: for the initial weights.
        init: how they are drawn; the authors' code has PyTorch's default.

    Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840, section 5.2.
    """

    def __init__(
        self, n_channels: int, width: int, generator: torch.Generator, init: Initialisation = "pytorch"
    ) -> None:
        super().__init__()
        self.n_features = 8 * width
        self.stem = nn.Sequential(nn.Conv2d(n_channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[nn.Module] = []
        n_in = width
        for stage in range(4):
            n_out = width * 2**stage
            blocks += [ResidualBlock(n_in, n_out, 1 if stage == 0 else 2), ResidualBlock(n_out, n_out, 1)]
            n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialise_layer(module, generator, init)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.blocks(self.stem(inputs)).mean((2, 3))
        return features
