"""Continual backpropagation: a few of the least useful units begin again, all the time.

Source: Dohare, Sutton & Mahmood 2021, arXiv 2108.06325, algorithm 1; Dohare et al. 2024, Nature 632, 768, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import nn, no_grad, torch
from strategies.parts.layers import HiddenUnits

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner


class CbpHyperparameters(Hyperparameters):
    """How many units begin again, when at the earliest, and what makes a unit useful."""

    replacement_rate: float = Field(
        1e-4, ge=0, le=1, description="share of a layer's mature units that is replaced a step; fractions add up"
    )
    maturity: int = Field(100, ge=0, description="optimizer steps during which a new unit is not replaced")
    utility_decay: float = Field(0.99, ge=0, lt=1, description="η, decay of the averages over steps")
    utility: Literal["mean_corrected", "contribution"] = Field(
        "mean_corrected",
        description="a unit's output counts by its distance to its own mean, and that mean stays behind in the next "
        "biases; or by its size, and nothing stays behind",
    )

    def unused(self) -> frozenset[str]:
        """Return all others if no unit is replaced."""
        return frozenset({"maturity", "utility_decay", "utility"}) if self.replacement_rate == 0 else frozenset()


@dataclass
class CbpState:
    """What is known of each hidden unit, all layers one after the other.

    Args:
        ages: optimizer steps since a unit's weights were drawn, (units,) int64.
        utilities: u, before the correction for its start at 0, (units,) float32.
        means: f, likewise, of each column of what is read of the units, (columns,) float32.
        n_due: units of each layer to replace that add up to less than one, (layers,), from 0 to 1.
    """

    ages: Tensor | None = None
    utilities: Tensor | None = None
    means: Tensor | None = None
    n_due: list[float] = field(default_factory=list)


class Cbp(Strategy):
    """Give the least useful of the units that are old enough new weights in, and none out, at a steady small rate.

    After each step, for each hidden unit with outputs h, outgoing weights w and age a:

    - its mean f ← η f + (1 - η) E[h], and f̂ = f / (1 - ηᵃ);
    - its utility u ← η u + (1 - η) E|h - f̂| Σ|w|, and û = u / (1 - ηᵃ).

    E is over the batch, and over the pixels of a map that a convolution reads. Of the n units of a layer that are older
    than `maturity`, ρ n are due, and as many whole ones as are due by now, those of the smallest û, begin again: their
    weights and bias are drawn as the network's first, f, u and a are 0, w f̂ is added to the biases of what reads them,
    and w is 0. The optimizer's averages of these weights are 0. So what other units say hardly changes.

    It is a cure for lost plasticity and does nothing for old tasks: combine it with a method that does. With one head a
    task, w are those of all heads so far.

    Differs: the paper of 2021 also divides the utility by Σ|v| of the incoming weights v, its new biases are 0, and its
    f̂ is of the step before; the authors' code takes that of the present step, as here, and leaves no w f̂ of a
    convolution behind. Adam counts its steps for a whole layer here, and goes on counting. `utility: contribution` is
    Eq. 1 of the paper of 2024, E|h| Σ|w| without a mean, but with û; as there, no w f̂ stays behind.
    """

    name = "cbp"
    summary = "replaces the least useful units a few at a time, so that many tasks later the network still learns"
    paper = "Dohare et al. 2024, Loss of plasticity (Nature); Dohare et al. 2021, arXiv 2108.06325"
    hyperparameter_class = CbpHyperparameters
    state_class = CbpState
    knows_kept_bytes = True
    naive_at: ClassVar[Mapping[str, Any]] = {"replacement_rate": 0.0}
    unsupported_models: ClassVar[Mapping[str, str]] = {
        "resnet18": "it follows units through plain chains of layers, without shortcuts or norms"
    }

    def __init__(self, learner: Learner, hyperparameters: Hyperparameters) -> None:
        super().__init__(learner, hyperparameters)
        self._units = HiddenUnits(learner, self.name)
        self._calls: list[tuple[Tensor, list[Tensor]]] = []
        self._hooks: list[Any] = []

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of an age and a utility for each unit, and of a mean for each column."""
        return (8 + 4) * sum(self._units.n_units) + 4 * sum(self._units.n_columns)

    def begin_task(self, task: TaskData) -> None:
        """Start with units of age 0."""
        if self.state.ages is None:
            n_units, n_columns, device = sum(self._units.n_units), sum(self._units.n_columns), self.learner.device
            self.state.ages = torch.zeros(n_units, dtype=torch.int64, device=device)
            self.state.utilities = torch.zeros(n_units, device=device)
            self.state.means = torch.zeros(n_columns, device=device)
            self.state.n_due = [0.0] * len(self._units.layers)

    def extend_batch(self, batch: Batch) -> Batch:
        """Return `batch`, and from now on, until the step is done, note what each layer reads."""
        if self.hyperparameters.replacement_rate:
            self._watch()
        return batch

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Renew ages, means and utilities, and replace the units that are due."""
        own, state = self.hyperparameters, self.state
        if own.replacement_rate == 0:
            return
        given = self._stop_watching(forward.features)
        state.ages += 1
        shares = 1 - own.utility_decay**state.ages  # of what their averages lack for having begun at 0
        self._average(given, shares)
        mature = self._by_unit(state.ages > own.maturity)
        for index, n_mature in enumerate(torch.stack([part.sum() for part in mature]).tolist()):
            if not self._units.layers[index].weight.requires_grad:
                continue  # `freeze` holds it
            due = state.n_due[index] + own.replacement_rate * n_mature
            state.n_due[index] = due - int(due)
            if int(due):
                self._replace(index, int(due), self._by_unit(shares)[index])

    def _watch(self) -> None:
        """Note the output of each call of the backbone, and what its layers but the first read in it."""
        self._forget_calls()
        read: list[Tensor] = []

        def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read.append(inputs[0].detach())

        def note_all(backbone: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._calls.append((output, [*read, output.detach()]))
            read.clear()

        self._hooks = [layer.register_forward_pre_hook(note) for layer in self._units.layers[1:]]
        self._hooks.append(self.learner.network.backbone.register_forward_hook(note_all))

    def _stop_watching(self, features: Tensor) -> list[Tensor]:
        """Return what each layer's units gave, one row a reading, (rows, columns), in the call that gave `features`."""
        found = next(read for output, read in self._calls if output is features)
        self._forget_calls()
        given = []
        for index, values in enumerate(found):
            rows = values if isinstance(self._units.following(index)[0], nn.Linear) else values.movedim(1, -1)
            given.append(rows.reshape(-1, rows.shape[-1]))
        return given

    def _forget_calls(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._calls = [], []

    def _average(self, given: list[Tensor], shares: Tensor) -> None:
        """Renew means and utilities by what the units gave; `shares` is 1 - ηᵃ, (units,) float32."""
        own, state = self.hyperparameters, self.state
        state.means.lerp_(torch.cat([rows.mean(0) for rows in given]), 1 - own.utility_decay)
        new = []
        for index, (rows, means, share) in enumerate(
            zip(given, self._by_column(state.means), self._by_unit(shares), strict=True)
        ):
            centred = rows if own.utility == "contribution" else rows - means / self._units.spread(index, share)
            sizes = [_sums_by_input(module.weight) for module in self._units.following(index)]
            new.append((centred.abs().mean(0) * sum(sizes)).view(len(share), -1).sum(1))
        state.utilities.lerp_(torch.cat(new), 1 - own.utility_decay)

    def _replace(self, index: int, n: int, shares: Tensor) -> None:
        """Replace the `n` least useful mature units of a layer; `shares` is 1 - ηᵃ of its units, (U,) float32."""
        own, state = self.hyperparameters, self.state
        ages, utilities = self._by_unit(state.ages)[index], self._by_unit(state.utilities)[index]
        means = self._by_column(state.means)[index]
        corrected = (utilities / shares).masked_fill(ages <= own.maturity, torch.inf)
        chosen = torch.zeros_like(ages, dtype=torch.bool)
        chosen[corrected.argsort(stable=True)[:n]] = True
        columns = self._units.spread(index, chosen)
        if own.utility == "mean_corrected":
            left = torch.where(columns, means / self._units.spread(index, shares), 0.0)
            for module in self._units.following(index):
                if module.bias is not None:
                    module.bias += module.weight.reshape(*module.weight.shape[:2], -1).sum(2) @ left
        self._units.recycle(index, chosen)
        ages[chosen], utilities[chosen], means[columns] = 0, 0.0, 0.0

    def _by_unit(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return a view of each layer's part of `values` (units,)."""
        return torch.split(values, self._units.n_units)

    def _by_column(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return a view of each layer's part of `values` (columns,)."""
        return torch.split(values, self._units.n_columns)


def _sums_by_input(weight: Tensor) -> Tensor:
    """Return the sum of the sizes of all weights that read each input, (inputs,), of a layer's (outputs, inputs, …)."""
    return weight.abs().sum((0, *range(2, weight.dim())))
