"""Progressive neural networks: every task adds a column that reads the frozen columns before it.

Source: Rusu et al. 2016, arXiv 1606.04671, section 2, Eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from strategies.contract import Strategy, TaskData
from strategies.network import initialise_layer

if TYPE_CHECKING:
    from strategies.learner import Learner
    from strategies.network import IncrementalType

Weighted = nn.Linear | nn.Conv2d


@dataclass
class PnnState:
    """What the columns of the network follow from; their parameters are the network's.

    Args:
        n_columns: one a task that began, and at least 1.
    """

    n_columns: int = 1


class Column(nn.Module):
    """One task's layers, and its laterals from the columns before it.

    Args:
        layers: the weighted layers, in order.
        laterals: for layer l from the second on and each earlier column j, the matrix U from (l - 1, j) into l.
    """

    def __init__(self, layers: list[Weighted], laterals: list[list[Weighted]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.laterals = nn.ModuleList(nn.ModuleList(into_layer) for into_layer in laterals)


class Progressive(nn.Module):
    """Columns side by side, of which `active` answers: inputs (B, *S) -> features (B, n_features) float32.

    Eq. 1: h_i^k = f(W_i^k h_{i-1}^k + Σ_{j<k} U_i^{k:j} h_{i-1}^j), with a bias in W. A stage i is a weighted layer and
    the modules f that follow it, without parameters, which all columns share.

    Args:
        backbone: the first column as built: an `nn.Sequential` of `nn.Linear` or `nn.Conv2d` layers with modules
            without parameters between them.
        fresh: returns a new generator for a purpose.

    Raises:
        ValueError: where the backbone is anything else.
    """

    def __init__(self, backbone: nn.Module, fresh: Any) -> None:
        super().__init__()
        first, layers, between = _stages(backbone)
        self.first = first
        self.between = nn.ModuleList(between)
        self.columns = nn.ModuleList([Column(layers, [[] for _ in layers[1:]])])
        self.active = 0
        self._fresh = fresh

    def grow(self) -> None:
        """Add a column: layers and laterals of the first column's kinds and shapes, drawn as its layers were."""
        k = len(self.columns)
        like: list[Weighted] = list(self.columns[0].layers)  # type: ignore[arg-type]
        layers = [_similar(layer) for layer in like]
        laterals = [[_similar(layer, bias=False) for _ in range(k)] for layer in like[1:]]
        generator = self._fresh(f"init/column/{k}")
        for layer in (*layers, *(lateral for into_layer in laterals for lateral in into_layer)):
            initialise_layer(layer, generator)
        self.columns.append(Column(layers, laterals).to(like[0].weight.device))

    def train_column(self, k: int) -> None:
        """Answer with column `k`, and let it alone be trained."""
        self.active = k
        _train_only(self.columns, k)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features (B, n_features) of the active column."""
        hidden = [self.first(inputs)] * (self.active + 1)
        last = len(self.between) - 1
        for stage, between in enumerate(self.between):
            # Of the last stage only the active column is read.
            begin = self.active if stage == last else 0
            with torch.no_grad():
                past = [between(self._sum(stage, k, hidden)) for k in range(begin, self.active)]
            hidden = [*past, between(self._sum(stage, self.active, hidden))]
        features: Tensor = hidden[-1]
        return features

    def _sum(self, stage: int, k: int, hidden: list[Tensor]) -> Tensor:
        """Return W h^k + Σ_{j<k} U^j h^j, with h the outputs of the stage before in columns 0 … active."""
        column: Column = self.columns[k]  # type: ignore[assignment]
        total: Tensor = column.layers[stage](hidden[k])
        if stage > 0:
            for lateral, past in zip(column.laterals[stage - 1], hidden, strict=False):  # type: ignore[call-overload]
                total = total + lateral(past)
        return total


class Pnn(Strategy):
    """Add a column a task, which learns beside the frozen columns of earlier tasks and reads their hidden layers.

    Inference on task k uses column k and those before it, so its logits never change again. Differs: laterals are
    linear, as in Eq. 1, without the adapters of Eq. 2, and none reaches a head: the output of task k reads column k.
    """

    name = "pnn"
    summary = "adds a column of layers for each task, which reads the frozen ones before it; never forgets"
    paper = "Rusu et al. 2016, arXiv 1606.04671"
    state_class = PnnState
    alone = "it adds a column of parameters for each task, and no other part may move those before"
    unsupported: ClassVar[Mapping[IncrementalType, str]] = {
        "domain": "it must know the task at inference to choose its column, and a single head would change under it",
        "class": "it must know the task at inference to choose its column",
    }
    unsupported_models: ClassVar[Mapping[str, str]] = {
        "resnet18": "its columns are plain chains of layers, without shortcuts or norms"
    }

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._columns = Progressive(learner.network.backbone, learner.generators.fresh)
        learner.network.backbone = self._columns

    def begin_task(self, task: TaskData) -> None:
        """Add the task's column; the first task has the network as built."""
        self._grow_to(task.index + 1)

    def prepare(self, task: TaskData) -> None:
        """Let steps change the task's column and head, and nothing else."""
        self._columns.train_column(task.index)
        _train_only(self.learner.network.heads, task.index)

    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return the logits (B, C) of `task` from its own column."""
        self._columns.active = min(task, self.state.n_columns - 1)
        return None

    def report(self) -> dict[str, Any]:
        """Return the capacity report: the parameters of each column with its laterals, without its head."""
        sizes = [sum(p.numel() for p in column.parameters()) for column in self._columns.columns]
        return {"n_parameters": {str(task): size for task, size in enumerate(sizes)}}

    @classmethod
    def relative_cost(cls, hyperparameters: Any, settings: Any, n_tasks: int) -> float:
        """Return 1 plus what a column more in the forward pass costs, for the mean number of earlier columns."""
        return 1 + 0.5 * (n_tasks - 1) / 2

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state, and add the columns that it knows."""
        n_columns = state["n_columns"]
        self._grow_to(n_columns)
        super().load_state_dict(state)

    def _grow_to(self, n_columns: int) -> None:
        while len(self._columns.columns) < n_columns:
            self._columns.grow()
        self.state.n_columns = n_columns


def _train_only(modules: nn.ModuleList, chosen: int) -> None:
    """Let one of the modules be trained; what is left of the others' gradients must not count when they are clipped."""
    for index, module in enumerate(modules):
        module.requires_grad_(index == chosen)
        if index != chosen:
            module.zero_grad(set_to_none=True)


def _stages(backbone: nn.Module) -> tuple[nn.Sequential, list[Weighted], list[nn.Sequential]]:
    """Return what comes before the first weighted layer, the weighted layers, and what follows each of them."""
    rule = "pnn: expected a backbone that is an nn.Sequential of nn.Linear and nn.Conv2d layers (groups 1)"
    way_out = "choose another model or method"
    if not isinstance(backbone, nn.Sequential) or type(backbone).forward is not nn.Sequential.forward:
        raise ValueError(f"{rule}, got {type(backbone).__name__}; {way_out}")
    first: list[nn.Module] = []
    layers: list[Weighted] = []
    between: list[list[nn.Module]] = []
    for module in backbone:
        if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1:
            layers.append(module)
            between.append([])
        elif not [*module.parameters(), *module.buffers()]:
            (between[-1] if layers else first).append(module)
        else:
            raise ValueError(f"{rule} and modules without parameters, got {type(module).__name__} in it; {way_out}")
    if not layers:
        raise ValueError(f"{rule}, got none of them; {way_out}")
    return nn.Sequential(*first), layers, [nn.Sequential(*modules) for modules in between]


def _similar(layer: Weighted, bias: bool = True) -> Weighted:
    """Return a new layer of the same kind and geometry, on the CPU; without a bias where `layer` has none."""
    bias = bias and layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias)
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=layer.padding_mode,
    )
