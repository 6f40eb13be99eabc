"""A backbone with heads.

Heads are separate `Linear` layers, one per task. To grow, the network adds a layer and concatenates its outputs, so the
old logits come from the same matrix product as before and stay bit-identical.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from strategies.gradients.perceptron import PerceptronPass, perceptron_look, perceptron_pass
from strategies.layout import ActiveOutputs, OutputLayout
from strategies.parts.layers import Initialisation, initialise_layer


class Network(nn.Module):
    """A backbone and its heads.

    Args:
        backbone: maps inputs (B, *S) float32 to features (B, n_features) float32.
        n_features: width of the features.
        layout: which outputs belong to which task.
        init: how new heads are drawn, and layers that a method adds.

    Attributes:
        frozen_norms: if True, `train()` leaves the backbone's modules with running statistics (BatchNorm) in
            evaluation mode, so training neither uses a batch's statistics nor changes the running ones.

    A BatchNorm cannot normalise one value per channel, and the last batch of a task may be one example. In such a call
    it uses its running statistics, as in evaluation mode, and does not update them.
    """

    frozen_norms: bool = False
    _bounds: Tensor

    def __init__(
        self, backbone: nn.Module, n_features: int, layout: OutputLayout, init: Initialisation = "pytorch"
    ) -> None:
        super().__init__()
        self.init: Initialisation = init
        self.backbone = backbone
        self.n_features = n_features
        self.layout = layout
        self.heads = nn.ModuleList()
        self.register_buffer("_bounds", torch.tensor(layout.ranges), persistent=False)
        for norm in backbone.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
                norm.register_forward_pre_hook(_spare_single_values)
                norm.register_forward_hook(_spared, always_call=True)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or evaluation mode if `mode` is False; frozen norms stay in evaluation mode."""
        super().train(mode)
        if mode and self.frozen_norms:
            for norm in self.running_norms():
                norm.train(False)
        return self

    def running_norms(self) -> list[nn.Module]:
        """Return the backbone's modules with running statistics: buffers named `running_…`, as in BatchNorm."""
        return [
            module
            for module in self.backbone.modules()
            if any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))
        ]

    def add_heads(
        self, n_heads: int, device: torch.device, fresh: Callable[[str], torch.Generator]
    ) -> list[nn.Parameter]:
        """Grow to `n_heads` heads and return the new parameters; existing heads do not change.

        Args:
            n_heads: heads wanted in all.
            device: device of the new heads.
            fresh: returns a new generator for a purpose; each head has its own, so its first weights do not depend on
                earlier draws.
        """
        new: list[nn.Parameter] = []
        for index in range(len(self.heads), n_heads):
            start, stop = self.layout.ranges[index]
            head = nn.Linear(self.n_features, stop - start)
            initialise_layer(head, fresh(f"init/head/{index}"), self.init)
            head.to(device)
            self.heads.append(head)
            new.extend(head.parameters())
        return new

    def outputs(self, features: Tensor, n_heads: int) -> Tensor:
        """Return the logits of the first `n_heads` heads side by side, (B, outputs of those heads) float32."""
        if n_heads == 1:
            return self.heads[0](features)  # type: ignore[no-any-return]
        return torch.cat([head(features) for head in self.heads[:n_heads]], dim=1)

    def forward(self, inputs: Tensor, task: int, n_seen: int) -> Tensor:
        """Return the logits (B, C) of the outputs that compete for `task` after `n_seen` tasks.

        Column 0 is output `layout.inference_range(task, n_seen)[0]`.
        """
        features = self.backbone(inputs)
        if self.layout.incremental_type == "class" and not self.layout.is_masked:
            return self.outputs(features, n_seen)
        return self.heads[self.layout.head_of(task)](features)  # type: ignore[no-any-return]

    def training_logits(
        self, inputs: Tensor, task_ids: int | Tensor, n_seen: int, active: ActiveOutputs
    ) -> tuple[Tensor, int]:
        """Return the logits in the training loss, and the output index of their first column.

        Args:
            inputs: (B, *S) float32.
            task_ids: the task of the whole batch, or one per row, (B,) int64.
            n_seen: tasks seen so far, including the present one.
            active: which outputs compete in `class`; ignored for the other types.

        Returns:
            Logits (B, C) float32, -inf for outputs that do not compete for a row, and the first output.
        """
        cut = None if torch.is_grad_enabled() else self.training_pass(inputs, task_ids, n_seen, active)
        if cut is not None:
            return self.competing(cut.logits, task_ids, active)
        return self.training_outputs(self.backbone(inputs), task_ids, n_seen, active)

    def training_outputs(
        self, features: Tensor, task_ids: int | Tensor, n_seen: int, active: ActiveOutputs
    ) -> tuple[Tensor, int]:
        """Return what `training_logits` returns, from features (B, n_features)."""
        heads = self._heads_in_loss(task_ids, n_seen, active)
        found = [head(features) for head in heads]
        return self.competing(found[0] if len(found) == 1 else torch.cat(found, dim=1), task_ids, active)

    def training_pass(
        self, inputs: Tensor, task_ids: int | Tensor, n_seen: int, active: ActiveOutputs
    ) -> PerceptronPass | None:
        """Return the pass behind `training_logits`, if it can be taken without a graph; `competing` is left to do."""
        return perceptron_pass(self.backbone, self._heads_in_loss(task_ids, n_seen, active), inputs)

    @torch.no_grad()
    def look(self, inputs: Tensor, task_ids: int | Tensor, n_seen: int, active: ActiveOutputs) -> Tensor:
        """Return logits (B, C) float32 as `training_logits` does, but for the last bits, in the least time.

        They are for what is no part of a gradient: a target, a choice. `competing` is left to do.
        """
        heads = self._heads_in_loss(task_ids, n_seen, active)
        found = perceptron_look(self.backbone, heads, inputs)
        if found is None:
            features = self.backbone(inputs)
            found = torch.cat([head(features) for head in heads], dim=1)
        return found

    def _heads_in_loss(self, task_ids: int | Tensor, n_seen: int, active: ActiveOutputs) -> list[nn.Module]:
        """Return the heads whose logits are in the training loss of a batch."""
        heads, kind = list(self.heads), self.layout.incremental_type
        if kind == "domain":
            return heads[:1]
        if kind == "class" and active != "current":
            return heads[:n_seen] if active == "seen" else heads
        return [heads[task_ids]] if isinstance(task_ids, int) else heads[:n_seen]

    def competing(self, logits: Tensor, task_ids: int | Tensor, active: ActiveOutputs) -> tuple[Tensor, int]:
        """Return the logits (B, C) with -inf for outputs that do not compete for a row, and the first output."""
        kind = self.layout.incremental_type
        if kind == "domain" or (kind == "class" and active != "current"):
            return logits, 0
        if isinstance(task_ids, int):
            return logits, self.layout.ranges[task_ids][0]
        bounds = self._bounds[task_ids]
        columns = torch.arange(logits.shape[1], device=logits.device)
        inactive = (columns < bounds[:, :1]) | (columns >= bounds[:, 1:])
        return logits.masked_fill(inactive, -math.inf), 0


def _spare_single_values(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Put a BatchNorm into evaluation mode if its inputs (B, C, *S) have one value per channel."""
    values = inputs[0]
    if norm.training and values.dim() > 1 and values.numel() == values.shape[1]:
        norm.train(False)
        norm.spared = True  # type: ignore[assignment]  # not a buffer: it lasts for the call


def _spared(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Return a norm to training mode after `_spare_single_values`."""
    if getattr(norm, "spared", False):
        del norm.spared
        norm.train(True)
