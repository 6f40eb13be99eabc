"""Supermasks in superposition: weights stay as drawn, and each task learns which of them to use.

Source: Wortsman et al. 2020, arXiv 2006.14769, section 3 (the task is given at inference, GG). Masks are learned by
edge-popup: Ramanujan et al. 2020, arXiv 1911.13299, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import nn, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner
    from strategies.parts.subnet import Subnet


class SupsupHyperparameters(Hyperparameters):
    """The density of the masks."""

    kept_share: float = Field(0.5, gt=0, lt=1, description="share of each layer's weights that a task uses")


@dataclass
class SupsupState:
    """The masks.

    Args:
        masks: for each task learned, layer name -> which weights it uses, of the weight's shape, bool.
        learning: whether a task is being trained, so that its scores are parameters of the network.
    """

    masks: list[dict[str, Tensor]] = field(default_factory=list)
    learning: bool = False


class Supsup(Strategy):
    """Leave every weight of the backbone as drawn and learn scores; a task's mask selects the highest.

    Weights are signed constants ±c, c² = 2 / (fan_in · kept_share) (Kaiming, scaled for masking); biases are 0. After a
    task its mask is kept and its scores are dropped; heads are per task and trained as usual. Inference on task k uses
    mask k, so its logits never change again.
    A score's gradient is its weight's gradient times c, so scores need a larger learning rate than weights. Only their
    order matters, so a larger initial scale acts as a smaller learning rate; here it is ±1/sqrt(fan_in), as in the
    papers' code. Differs: heads are trained (the paper masks every layer).
    """

    name = "supsup"
    summary = "learns for each task which of the random weights to use, and trains none of them; never forgets"
    paper = "Wortsman et al. 2020, arXiv 2006.14769; Ramanujan et al. 2020, arXiv 1911.13299"
    hyperparameter_class = SupsupHyperparameters
    state_class = SupsupState
    knows_kept_bytes = True
    never_forgets = True
    alone = "it fixes the weights that every other part would train"
    needs_whole_tasks = "each task trains a mask of its own on all examples that come with it"
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {
        "domain": "it must know the task at inference to choose its mask, and a single head would change under it",
        "class": "it must know the task at inference to choose its mask",
    }
    unsupported_models: ClassVar[Mapping[str, str]] = {
        "resnet18": "its norms have running statistics, which every later task would move"
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        from torch.nn.utils import parametrize

        from strategies.parts.subnet import Subnet

        self._layers = _layers(learner.network.backbone)
        self._subnets: dict[str, Subnet] = {}
        for name, layer in self._layers.items():
            n_kept = max(round(hyperparameters.kept_share * layer.weight.numel()), 1)
            self._fix(layer, learner.generators.fresh(f"init/supsup/{name}"))
            self._subnets[name] = Subnet(n_kept).to(learner.device)
            parametrize.register_parametrization(layer, "weight", self._subnets[name], unsafe=True)

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of a mask for each task, one a weight of the backbone."""
        return self.learner.layout.n_tasks * sum(layer.weight.numel() for layer in self._layers.values())

    def begin_task(self, task: TaskData) -> None:
        """Draw new scores for every layer."""
        self._add_scores(task.index)

    def end_task(self, task: TaskData) -> None:
        """Keep the mask and drop the scores."""
        self.state.masks.append({name: subnet.chosen() for name, subnet in self._subnets.items()})
        self.state.learning = False
        for subnet in self._subnets.values():
            subnet.scores = None

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return the logits (B, C) of `task` under its mask."""
        if task >= len(self.state.masks):
            return None
        for name, mask in self.state.masks[task].items():
            self._subnets[name].mask = mask
        try:
            return self.learner.network(inputs, task, self.learner.n_seen)  # type: ignore[no-any-return]
        finally:
            for subnet in self._subnets.values():
                subnet.mask = None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state; within a task, add scores, since the network's parameters are loaded next."""
        super().load_state_dict(state)
        if self.state.learning:
            self._add_scores(len(self.state.masks))

    def _add_scores(self, task: int) -> None:
        self.state.learning = True
        for name, subnet in self._subnets.items():
            weight = self._layers[name].parametrizations["weight"].original  # type: ignore[union-attr, index]
            bound = 1.0 / math.sqrt(weight[0].numel())
            generator = self.learner.generators.fresh(f"init/supsup/{task}/{name}")
            drawn = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator)
            subnet.scores = nn.Parameter(drawn.to(weight.device))

    @no_grad
    def _fix(self, layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
        """Set the weights of `layer` to ±c and its biases to 0, and freeze them."""
        constant = math.sqrt(2 / (layer.weight[0].numel() * self.hyperparameters.kept_share))
        signs = torch.randint(2, layer.weight.shape, generator=generator) * 2 - 1
        layer.weight.copy_(signs * constant)
        if layer.bias is not None:
            layer.bias.zero_()
        layer.requires_grad_(False)


def _layers(backbone: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the layers to mask by their name in the backbone.

    Raises:
        ValueError: if the backbone has anything else that training changes.
    """
    layers = {name: m for name, m in backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    own = {id(p) for layer in layers.values() for p in (layer.weight, layer.bias) if p is not None}
    others = [name for name, p in backbone.named_parameters() if id(p) not in own]
    others += [name for name, _ in backbone.named_buffers()]
    if others or not layers:
        raise ValueError(
            "supsup: expected a backbone whose parameters are those of nn.Linear and nn.Conv2d layers, "
            f"got {', '.join(others) or 'none'} in {type(backbone).__name__}; choose another model or method"
        )
    return layers
