"""How each task is trained, for every method alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from strategies.layout import ActiveOutputs


@dataclass(frozen=True)
class Added:
    """Marks a field that trials once did not have, `Annotated[TYPE, Added()]`.

    At its default it is not part of a trial's key, so that the trials of before keep theirs.
    """


class TrainingSettings(BaseModel):
    """How each task is trained; part of a trial's key."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(5, ge=1, description="passes over a task's training data")
    iterations: int | None = Field(None, ge=1, description="optimizer steps a task; replaces epochs if given")
    batch_size: int = Field(64, ge=1, description="new examples a step")
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = Field("sgd", description="update rule")
    learning_rate: float = Field(0.01, gt=0, le=100, description="step size")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd and rmsprop")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, as the optimizer defines it")
    keep_optimizer: bool = Field(False, description="keep the optimizer's state from task to task")
    clip_gradient_norm: float | None = Field(
        None, gt=0, description="largest 2-norm of the whole gradient; null means no clipping"
    )
    active_outputs: ActiveOutputs = Field(
        "seen",
        description="outputs in the training loss of `class` scenarios: of classes seen so far, all, or the task's own",
    )
