"""Replay with asymmetric cross-entropy: new examples do not push old classes away.

Source: Caccia et al. 2022, arXiv 2104.05025, section 4 (ER-ACE).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from strategies.contract import Batch, Forward
from strategies.lazy import torch
from strategies.methods.replay import Replay, ReplayHyperparameters

if TYPE_CHECKING:
    from torch import Tensor


class ErAceHyperparameters(ReplayHyperparameters):
    """Those of replay, and the classes that new examples compete with."""

    rivals: Literal["batch", "task", "seen"] = Field(
        "batch",
        description="classes that new examples compete with: those of the batch's new examples, those of the task, or "
        "all that compete anyway, which is plain replay",
    )


class ErAce(Replay):
    """Replay in which new examples compete among the classes of the batch's new examples, remembered ones among all.

    A new class pushes the features of old ones away only through remembered examples, which hold their own classes in
    place. In `task` and `domain` the classes of a batch are mostly all that compete, so it is close to replay there.

    Differs: the loss is the mean over new and remembered examples together, where the paper adds the means of the two;
    if both are as many, theirs is twice ours, as twice the learning rate is. The first task is trained as by replay, as
    in Mammoth (models/er_ace.py), which masks nothing while there is no past. There, outputs of classes to come take
    part; here they do not. The buffer takes a task's examples at its end, as in `replay`.
    """

    name = "er-ace"
    summary = "replays, and lets new examples compete only with the classes of their own batch"
    paper = "Caccia et al. 2022, arXiv 2104.05025"
    hyperparameter_class = ErAceHyperparameters
    naive_at: ClassVar[Mapping[str, Any]] = {"replay_ratio": 0.0, "memory_batch_size": None, "rivals": "seen"}

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor | None:
        """Return the mean cross-entropy () of the batch without the logits of classes that are no rivals."""
        if self.hyperparameters.rivals == "seen" or self.learner.task == 0:
            return super().classification_loss(batch, forward)
        n = batch.n_new
        rivals = self._rivals(batch.labels[:n] - forward.first, forward)
        logits = torch.cat([forward.logits[:n].masked_fill(~rivals, -math.inf), forward.logits[n:]])
        return self.weighted_loss(batch, logits, forward.first)

    def _rivals(self, columns: Tensor, forward: Forward) -> Tensor:
        """Return which logits new examples compete with, (C,) bool; `columns` (n_new,) int64 are their classes."""
        rivals = torch.zeros(forward.logits.shape[1], dtype=torch.bool, device=columns.device)
        rivals[columns] = True
        if self.hyperparameters.rivals != "batch":
            start, stop = self.learner.layout.ranges[self.learner.task]
            rivals[start - forward.first : stop - forward.first] = True
        return rivals
