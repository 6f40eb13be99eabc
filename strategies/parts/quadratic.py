"""A quadratic pull towards past parameters, λ/2 Σ A (θ - θ*)², added to the gradient in closed form.

Shared by EWC, SI and MAS, which differ only in the importance A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from strategies.contract import Batch, Strategy, TaskData
from strategies.gradients.graph import uses_in_graph
from strategies.lazy import nn, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner

_SAMPLE_BATCH = 256
_TINY = 2.0**-126
"""The smallest normal float32."""


@dataclass
class QuadraticState:
    """The state of a quadratic penalty between tasks.

    Args:
        importance: A, parameter name -> tensor of the parameter's shape, float32, ≥ 0; () if it is the same for all.
        anchor: θ*, likewise.
        offset: Σ of the constants from merging anchors, which make the value of the penalty exact too.
        n_consolidated: tasks consolidated so far.
    """

    importance: dict[str, Tensor] = field(default_factory=dict)
    anchor: dict[str, Tensor] = field(default_factory=dict)
    offset: float = 0.0
    n_consolidated: int = 0

    def diagonal(self) -> dict[str, Tensor]:
        """Return the diagonal of the whole curvature by parameter: `importance`, if there is no more than that."""
        return self.importance

    def means(self) -> dict[str, Tensor]:
        """Return what one task makes the mean over its examples of what each makes alone, by name: the diagonal."""
        return self.diagonal()

    def curvature_along(self, moves: Mapping[str, Tensor]) -> float:
        """Return Σ A d² for the moves d, parameter name -> tensor of the parameter's shape."""
        return sum(float((importance * moves[name].square()).sum()) for name, importance in self.importance.items())


def merge_anchor(state: QuadraticState, name: str, importance: Tensor, anchor: Tensor) -> None:
    """Add the pull Σ F (θ - θ*)² of one more task to those in `state`.

    A sum of quadratics is one quadratic: importance ΣF_k, anchor ΣF_kθ*_k / ΣF_k, plus a constant. So a separate F and
    θ* for every task costs no more memory or time than one.
    """
    if name not in state.importance:
        state.importance[name], state.anchor[name] = importance, anchor
        return
    old, old_anchor = state.importance[name], state.anchor[name]
    total = old + importance
    weight = importance / total.clamp_min(_TINY)
    state.offset += float((old * weight * (anchor - old_anchor).square()).sum())
    state.importance[name] = total
    state.anchor[name] = torch.where(total > 0, old_anchor + weight * (anchor - old_anchor), anchor)


def penalty_value(state: QuadraticState, parameters: dict[str, nn.Parameter], penalty_weight: float) -> float:
    """Return λ/2 (Σ A (θ - θ*)² + offset); 0 if nothing is consolidated."""
    moves = {name: parameters[name].detach() - anchor for name, anchor in state.anchor.items()}
    return 0.5 * penalty_weight * (state.offset + state.curvature_along(moves))


def parameters_to_hold(learner: Learner, example_shape: tuple[int, ...], unused_too: bool) -> list[nn.Parameter] | None:
    """Return parameters like those that have an importance and an anchor after the last task.

    Only a forward pass shows which parameters take part, so a network that is built for it makes one, on zeros.

    Args:
        learner: the training loop.
        example_shape: shape of the inputs of one example.
        unused_too: count frozen parameters, and those that the outputs do not depend on. Else the latter make the
            answer None, since they may take part with other examples.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():  # new layers draw from PyTorch's own generator
        network = learner.untrained(learner.layout.n_heads).eval()
        outputs = network.outputs(network.backbone(torch.zeros(2, *example_shape)), learner.layout.n_heads)
    parameters = [p for p in network.parameters() if unused_too or p.requires_grad]
    uses = uses_in_graph(outputs)
    if not unused_too and not all(uses[parameter] for parameter in parameters):
        return None
    return parameters


def bytes_to_hold(learner: Learner, example_shape: tuple[int, ...], unused_too: bool) -> int | None:
    """Return the bytes of an importance and an anchor for each of `parameters_to_hold`, None if that is None."""
    parameters = parameters_to_hold(learner, example_shape, unused_too)
    return None if parameters is None else 2 * sum(parameter.nbytes for parameter in parameters)


class Pull(Protocol):
    """What a quadratic penalty adds to the gradients of a step."""

    def add_to_gradients(self) -> None:
        """Add the derivative of the penalty to every gradient."""


class QuadraticPull:
    """The pull, prepared for one task, in which λ and the learning rate do not change.

    The gradient is λA(θ - θ*), as published, if ηλA ≤ 1, η being the learning rate. Differs: above 1, a plain step
    jumps past the anchor, and above 2 it diverges. So the parameter's whole gradient is divided by ηλA, and the step
    ends at the anchor plus a step of the loss. Stiff parameters are then held instead of diverging, and λ can be
    searched over many orders of magnitude.

    Args:
        state: the consolidated importance and anchors.
        parameters: the network's parameters by name.
        penalty_weight: λ.
        learning_rate: η of the optimizer.
    """

    def __init__(
        self,
        state: QuadraticState,
        parameters: dict[str, nn.Parameter],
        penalty_weight: float,
        learning_rate: float,
    ) -> None:
        self._terms: list[tuple[nn.Parameter, Tensor, Tensor, Tensor | None, Tensor]] = []
        if penalty_weight == 0:
            return
        for name, importance in state.importance.items():
            stiffness = importance * penalty_weight
            damping = (stiffness * learning_rate).clamp_min(1.0)
            held = damping.reciprocal_() if bool((damping > 1).any()) else None
            scratch = torch.empty_like(parameters[name], requires_grad=False)
            self._terms.append((parameters[name], stiffness, state.anchor[name], held, scratch))

    @no_grad
    def add_to_gradients(self) -> None:
        """Add the pull to every gradient; parameters without a gradient stay at their anchor."""
        for parameter, stiffness, anchor, held, scratch in self._terms:
            gradient = parameter.grad
            if gradient is None:
                continue
            torch.sub(parameter, anchor, out=scratch)
            gradient.addcmul_(stiffness, scratch)
            if held is not None:
                gradient.mul_(held)


class Pulls:
    """Several pulls on different parameters.

    Args:
        pulls: in the order in which they are added.
    """

    def __init__(self, pulls: Sequence[Pull]) -> None:
        self._pulls = pulls

    def add_to_gradients(self) -> None:
        """Add the derivative of all penalties."""
        for pull in self._pulls:
            pull.add_to_gradients()


class QuadraticStrategy(Strategy):
    """Base of methods that only add a pull while training; they differ in how they measure A."""

    state_class = QuadraticState
    naive_at: ClassVar[Mapping[str, Any]] = {"penalty_weight": 0.0}
    notes: ClassVar[Mapping[IncrementalType, str]] = {
        "class": "known to sit at the naive level: nothing separates classes of different tasks"
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._pull: Pull | None = None

    def strength(self) -> float:
        """Return λ of the present task in the convention of `QuadraticPull`, λ/2 Σ A (θ - θ*)²."""
        return 2.0 * float(self.hyperparameters.penalty_weight)

    def prepare(self, task: TaskData) -> None:
        """Prepare the pull at this task's strength."""
        parameters = dict(self.learner.network.named_parameters())
        self._pull = QuadraticPull(self.state, parameters, self.strength(), self.learner.settings.learning_rate)

    def adjust_gradients(self) -> None:
        """Add the derivative of the penalty, λA(θ - θ*)."""
        assert self._pull is not None
        self._pull.add_to_gradients()

    def samples(
        self, task: TaskData, n: int | None, generator: torch.Generator, size: int | None = None
    ) -> list[Batch]:
        """Return `n` random examples of `task` (None: all) in batches, and set the network to evaluation mode.

        The batches have `size` examples, or as many as are fast.
        """
        rows = torch.randperm(len(task), generator=generator)[: min(n or len(task), len(task))]
        self.learner.network.eval()
        return [task.take(some) for some in torch.split(rows.to(self.learner.device), size or _SAMPLE_BATCH)]

    def competing_logits(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the logits (B, C) that compete in the training loss, and the output index of column 0."""
        learner = self.learner
        return learner.network.training_logits(
            batch.inputs, batch.task_ids, learner.n_seen, learner.settings.active_outputs
        )
