"""How each task is trained, for every method alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from strategies.layout import ActiveOutputs, IncrementalType


def _as_text(value: Any) -> Any:
    """Return a number or a boolean, which YAML makes of a class such as 1 or true, as the name of the class."""
    return str(value) if isinstance(value, int | float) else value


ClassName = Annotated[str, BeforeValidator(_as_text)]
Weight = Annotated[float, Field(gt=0, le=1e6)]


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
    class_weight: Annotated[Literal["balanced"] | dict[ClassName, Weight] | None, Added()] = Field(
        None,
        examples=["balanced"],
        description="weight of examples in the loss, remembered ones too: balanced (by how rare their class is in the "
        "tasks so far), or class -> weight (1 for those left out)",
    )
    output_layer: Annotated[Literal["heads", "single"], Added()] = Field(
        "heads",
        description="outputs that a step does not reach: heads of their own, which stand still, or rows of a single "
        "layer, with a gradient of 0, which momentum, Adam's averages and weight decay move on",
    )
    evaluate: Annotated[Literal["as_trained", "masked"], Added()] = Field(
        "as_trained",
        description="`task` scenarios: outputs of the example's task, in training too; or masked, which trains as in "
        "`class`, all outputs competing, and leaves out those of other tasks at evaluation",
    )

    evaluate_every: Annotated[int | None, Added()] = Field(
        None,
        ge=1,
        examples=[500],
        description="new examples after which the tasks seen so far are evaluated within a task too, for "
        "anytime_average and worst_case_average; changes no training",
    )

    def learned_as(self, incremental_type: IncrementalType) -> IncrementalType:
        """Return the incremental type that a scenario of this type is trained as."""
        return "class" if incremental_type == "task" and self.evaluate == "masked" else incremental_type
