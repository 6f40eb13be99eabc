"""Freezing the first layers after the first task: a plain baseline from transfer learning.

Source: Yosinski et al. 2014, arXiv 1411.1792, section 2 (with two tasks; the first n layers are copied and frozen).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from strategies.contract import Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.layout import IncrementalType
from strategies.lazy import nn


class FreezeHyperparameters(Hyperparameters):
    """How much is frozen."""

    frozen_layers: int = Field(
        1, ge=0, description="layers of the backbone that stop training after task 0, from below"
    )


class Freeze(Strategy):
    """Train everything on task 0, and only what is above the first n layers of the backbone on later tasks.

    A layer is a module with a weight matrix or kernel, in order of definition. Modules after it that have vectors only
    (norms) belong to it. If n exceeds the number of layers, all are frozen; heads always train. Frozen parameters are
    not in the optimizer, so neither weight decay nor kept momentum moves them. If a frozen layer has running statistics
    (BatchNorm), those of the whole backbone are fixed, since `Network.frozen_norms` is one switch.
    """

    name = "freeze"
    summary = "stops training the first layers after the first task"
    paper = "Yosinski et al. 2014, arXiv 1411.1792"
    hyperparameter_class = FreezeHyperparameters
    knows_kept_bytes = True
    naive_at: ClassVar[Mapping[str, Any]] = {"frozen_layers": 0}
    notes: ClassVar[Mapping[IncrementalType, str]] = {
        "domain": "known to forget: the one head still changes with every task",
        "class": "known to sit at the naive level: nothing separates classes of different tasks",
    }

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return 0: nothing is kept."""
        return 0

    def prepare(self, task: TaskData) -> None:
        """Freeze the first layers from task 1 on. The optimizer is built after this."""
        if task.index == 0:
            return
        network = self.learner.network
        for module in frozen_modules(network.backbone, self.hyperparameters.frozen_layers):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
                parameter.grad = None  # the optimizer no longer clears it, and clipping would include it
            if any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False)):
                network.frozen_norms = True


def frozen_modules(backbone: nn.Module, n_layers: int) -> list[nn.Module]:
    """Return the modules in the first `n_layers` layers of `backbone`, in order of definition.

    Modules before the first layer belong to it.
    """
    found: list[nn.Module] = []
    n_seen = 0
    for module in backbone.modules() if n_layers else ():
        n_seen += any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
        if n_seen > n_layers:
            break
        found.append(module)
    return found
