"""PackNet: each task owns a share of the weights, which never change again.

Source: Mallya & Lazebnik 2018, arXiv 1711.05769, section 3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import nn, no_grad, torch
from strategies.parts.layers import initialise_layer

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.layout import IncrementalType
    from strategies.learner import Learner

_FREE = 255
"""Owner of a free weight, so there are at most 255 tasks."""

LEAST_SHARE = 0.01
"""Share of the weights below which a task has next to nothing to learn with."""


def share_before(pruning_rate: float, task: int) -> float:
    """Return the share of the weights that is free when `task`, 0 … T-1, begins: p^task.

    Each task frees the share p of the free weights again. With q = 1 - p for the share that a task keeps this is the
    rule (1 - q)^(T - 1) for the last of T tasks.
    """
    return float(pruning_rate**task)


class PacknetHyperparameters(Hyperparameters):
    """How much is pruned, and how long the rest is retrained."""

    pruning: Literal["constant", "equal_share"] = Field(
        "constant",
        description="free `pruning_rate` of the free weights each time, or leave every task an equal share",
    )
    pruning_rate: float = Field(
        0.75,
        gt=0,
        lt=1,
        description="p: share of the free weights freed again, so task k owns (1-p)p^k; constant only",
    )
    post_prune_epochs: int = Field(3, ge=0, description="epochs of retraining after pruning")

    def unused(self) -> frozenset[str]:
        """Return `pruning_rate` if every task has an equal share."""
        return frozenset({"pruning_rate"}) if self.pruning == "equal_share" else frozenset()


@dataclass
class PacknetState:
    """Which task owns which weight. Parameters without owners (biases, norms) are frozen after task 0.

    Args:
        owner: layer name -> owner of each weight, tensor of the weight's shape, uint8; 255 is free.
    """

    owner: dict[str, Tensor] = field(default_factory=dict)


class Packnet(Strategy):
    """Train the free weights, keep the largest for the task, free the rest, retrain what was kept, freeze it.

    Inference on task k uses the weights of tasks ≤ k and zero for all others, so its logits never change again. Owned
    weights are those of `nn.Linear` and `nn.Conv2d` layers. Everything else in the backbone is frozen after task 0:
    biases, and norms with their running statistics. Heads are per task and not pruned. Differs: freed weights are drawn
    anew for the next task (the paper's code leaves them at zero). With norms that have running statistics they stay at
    zero here too: the frozen statistics fit the pruned network, and training diverged with drawn weights.
    """

    name = "packnet"
    summary = "prunes after each task and gives the freed weights to the next; never forgets"
    paper = "Mallya & Lazebnik 2018, arXiv 1711.05769"
    hyperparameter_class = PacknetHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"pruning"})
    state_class = PacknetState
    knows_kept_bytes = True
    never_forgets = True
    alone = "it decides which weights each task may use, and no other part may move them"
    needs_whole_tasks = "each task trains weights of its own on all examples that come with it"
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {
        "domain": "it must know the task at inference to choose its weights, and a single head would change under it",
        "class": "it must know the task at inference to choose its weights",
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        if learner.n_tasks > _FREE:
            raise ValueError(
                f"packnet: expected at most {_FREE} tasks, got {learner.n_tasks}; choose fewer tasks or another method"
            )
        self._layers_now: dict[str, nn.Linear | nn.Conv2d] = {}
        self._others_now: list[nn.Parameter] = []
        self._masks: dict[str, Tensor] = {}
        self._frozen: dict[str, Tensor] = {}
        for name, layer in self._layers().items():
            self.state.owner[name] = torch.full_like(layer.weight, _FREE, dtype=torch.uint8)

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of the owners, which are there from the start: one a weight."""
        return self.kept_bytes()

    @property
    def plans_ahead(self) -> str:
        """Return that equal shares depend on the number of tasks."""
        return "each task gets an equal share of the weights" if self.hyperparameters.pruning == "equal_share" else ""

    def pruning_rate(self, task: int) -> float:
        """Return p for `task`, 0 … 1: the share of its free weights that is freed again after it."""
        if self.hyperparameters.pruning == "equal_share":
            left = self.learner.n_tasks - task
            return (left - 1) / left
        return float(self.hyperparameters.pruning_rate)

    def begin_task(self, task: TaskData) -> None:
        """Draw every free weight anew after task 0, or leave it at zero if norms are frozen."""
        if task.index == 0 or self.learner.network.running_norms():
            return
        for name, layer in self._layers().items():
            free = self.state.owner[name] == _FREE
            fresh = copy.deepcopy(layer).cpu()
            generator = self.learner.generators.fresh(f"packnet/{task.index}/{name}")
            initialise_layer(fresh, generator, self.learner.network.init)
            with torch.no_grad():
                layer.weight.copy_(torch.where(free, fresh.weight.to(free.device), layer.weight))

    def prepare(self, task: TaskData) -> None:
        """Let the task train every free weight; after task 0, freeze parameters without owners."""
        self.learner.network.frozen_norms = task.index > 0
        self._others_now = self._others() if task.index > 0 else []
        for name, layer in self._layers().items():
            self._train_only(name, layer, self.state.owner[name] == _FREE)

    def adjust_gradients(self) -> None:
        """Zero the gradients of frozen weights, and drop those of other frozen parameters."""
        for name, mask in self._masks.items():
            gradient = self._layers_now[name].weight.grad
            if gradient is not None:
                gradient.mul_(mask)
        for parameter in self._others_now:
            parameter.grad = None

    @no_grad
    def after_step(self, batch: Batch, forward: Forward) -> None:
        """Restore frozen weights if the optimizer moves weights even at zero gradient.

        Weight decay and momentum from an earlier task do. A new optimizer without decay moves them by exactly 0.
        """
        settings = self.learner.settings
        if settings.weight_decay == 0 and not settings.keep_optimizer:
            return
        for name, mask in self._masks.items():
            layer = self._layers_now[name]
            torch.where(mask.bool(), layer.weight, self._frozen[name], out=layer.weight.data)

    def end_task(self, task: TaskData) -> None:
        """Prune each layer's free weights by magnitude, retrain the survivors, and freeze them."""
        rate = self.pruning_rate(task.index)
        for name, layer in self._layers().items():
            owner = self.state.owner[name]
            free = owner == _FREE
            n_pruned = round(rate * int(free.sum()))
            magnitude = torch.where(free, layer.weight.detach().abs(), torch.inf).flatten()
            pruned = torch.zeros_like(magnitude, dtype=torch.bool)
            pruned[magnitude.argsort(stable=True)[:n_pruned]] = True
            survivors = free & ~pruned.view_as(free)
            owner[survivors] = task.index
            with torch.no_grad():
                layer.weight[free & ~survivors] = 0.0
            self._train_only(name, layer, survivors)
        if self.hyperparameters.post_prune_epochs:
            self.learner.reset_optimizer()
            self.learner.fit(task, self.hyperparameters.post_prune_epochs)
            self.learner.optimizer = None

    @no_grad
    def logits(self, inputs: Tensor, task: int) -> Tensor:
        """Return the logits (B, C) of `task` with its own and earlier tasks' weights; all others are zero.

        While a task is trained, the free weights are its own.
        """
        is_learning = self.learner.inside_task and task == self.learner.task
        last = _FREE if is_learning else task
        masked = {
            f"{name}.weight": torch.where(self.state.owner[name] <= last, layer.weight, 0.0)
            for name, layer in self._layers().items()
        }
        return torch.func.functional_call(self.learner.network, masked, (inputs, task, self.learner.n_seen))  # type: ignore[no-any-return]

    def report(self) -> dict[str, Any]:
        """Return the capacity report: the share of each layer's weights that each task owns, and that is free."""
        shares = {}
        for name, owner in self.state.owner.items():
            counts = torch.bincount(owner.flatten().long(), minlength=_FREE + 1).tolist()
            total = owner.numel()
            shares[name] = {str(t): counts[t] / total for t in range(self.learner.n_tasks) if counts[t]}
            shares[name]["free"] = counts[_FREE] / total
        return {"capacity": shares}

    def diagnose(self) -> dict[tuple[str, str], float]:
        """Return the share of free weights, what the rule predicts, and how many tasks are left.

        `tasks_left` counts the further tasks of the stream that begin with at least `LEAST_SHARE` of the weights.
        """
        free = {name: int((owner == _FREE).sum()) for name, owner in self.state.owner.items()}
        sizes = {name: owner.numel() for name, owner in self.state.owner.items()}
        found = {("free_share", name): n / sizes[name] for name, n in free.items()}
        n_done, share = self.learner.n_seen, sum(free.values()) / max(sum(sizes.values()), 1)
        found["free_share", ""] = left = share
        found["predicted_free_share", ""] = math.prod(self.pruning_rate(task) for task in range(n_done))
        n_left = 0
        for task in range(n_done, self.learner.n_tasks):
            if left < LEAST_SHARE:
                break
            n_left, left = n_left + 1, left * self.pruning_rate(task)
        return found | {("tasks_left", ""): float(n_left)}

    def _train_only(self, name: str, layer: nn.Linear | nn.Conv2d, trainable: Tensor) -> None:
        """Let steps change only the `trainable` weights (bool, of the weight's shape) of a layer."""
        self._layers_now[name] = layer
        self._masks.pop(name, None)
        if not bool(trainable.all()):
            self._masks[name] = trainable.float()
            self._frozen[name] = layer.weight.detach().clone()

    def _layers(self) -> dict[str, nn.Linear | nn.Conv2d]:
        """Return the layers whose weights tasks own, by their name in the network; a tied weight counts once."""
        layers: dict[str, nn.Linear | nn.Conv2d] = {}
        own = {id(parameter) for parameter in self.learner.network.backbone.parameters()}
        for name, module in self.learner.network.backbone.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and id(module.weight) in own:
                own.remove(id(module.weight))
                layers[f"backbone.{name}" if name else "backbone"] = module
        return layers

    def _others(self) -> list[nn.Parameter]:
        """Return the backbone's parameters without owners: biases, norms and anything else."""
        owned = {id(layer.weight) for layer in self._layers().values()}
        return [parameter for parameter in self.learner.network.backbone.parameters() if id(parameter) not in owned]
