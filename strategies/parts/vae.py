"""A small variational autoencoder: learns a distribution of inputs and is sampled from.

Source: Kingma & Welling 2014, arXiv 1312.6114, Eq. 10 and appendices B and C.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.parts.layers import initialise_layer


class Vae(nn.Module):
    """Encoder and decoder with two hidden layers of ReLU each, a standard normal prior, values in 0 … 1.

    Args:
        n_values: size of an input, D.
        hidden_size: width of the hidden layers.
        latent_size: width of the code, L.
        generator: for the initial weights.
    """

    def __init__(self, n_values: int, hidden_size: int, latent_size: int, generator: torch.Generator) -> None:
        super().__init__()
        encoder, decoder = _widths(n_values, hidden_size, latent_size)
        self.encoder = _perceptron(encoder, generator)
        self.decoder = _perceptron(decoder, generator)

    def loss(self, values: Tensor, noise: Tensor) -> Tensor:
        """Return the negative lower bound on the log-likelihood of each row, (B,) float32, with its graph.

        Eq. 10 with one draw. A value is the mean of a Bernoulli variable, so the reconstruction is a
        cross-entropy.

        Args:
            values: (B, D) float32, 0 … 1.
            noise: standard normal, (B, L) float32.
        """
        mean, log_variance = self.encoder(values).chunk(2, dim=1)
        code = torch.addcmul(mean, torch.exp(0.5 * log_variance), noise)
        reconstruction = F.binary_cross_entropy_with_logits(self.decoder(code), values, reduction="none").sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return reconstruction + divergence  # type: ignore[no-any-return]

    def sample(self, noise: Tensor) -> Tensor:
        """Return the inputs (B, D) float32, 0 … 1, of the codes `noise` (B, L)."""
        return torch.sigmoid(self.decoder(noise))


def n_parameters(n_values: int, hidden_size: int, latent_size: int) -> int:
    """Return the number of parameters of a `Vae` with these sizes, without building it."""
    pairs = [pair for widths in _widths(n_values, hidden_size, latent_size) for pair in pairwise(widths)]
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairs)


def _widths(n_values: int, hidden_size: int, latent_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the widths of the encoder and of the decoder, from their inputs to their outputs."""
    return (n_values, hidden_size, hidden_size, 2 * latent_size), (latent_size, hidden_size, hidden_size, n_values)


def _perceptron(widths: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        initialise_layer(linear, generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
