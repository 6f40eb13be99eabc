"""Whether a network can still learn: its units, features and weights, and how fast it learns beside a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from orchestrator.trial.diagnostics.fisher import Found, layer_of
from strategies import (
    Generators,
    Learner,
    Network,
    TaskData,
    TrainingSettings,
    TrialDivergedError,
    derive_seed,
    find_method,
)


class _Activations(TorchFunctionMode):
    """Keeps for each call of ReLU, as a module or a function, which units were above 0 for some example."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") in ("relu", "relu_") and isinstance(out, Tensor) and out.dim() > 1:
            positive = out > 0
            self.alive.append(positive.any(0) if out.dim() == 2 else positive.transpose(0, 1).flatten(1).any(1))
        return out


@torch.no_grad()
def feature_rows(network: Network, inputs: Tensor) -> Found:
    """Yield the share of dead units, the stable rank of the features, and the norm of each layer's weights.

    A ReLU unit is dead if it is 0 on all examples; a channel of a convolution, if it is at all pixels too. The stable
    rank is ‖Φ‖_F² / ‖Φ‖₂² of the features Φ (n, d), at least 1 and at most their rank.
    Source: dead units as in Dohare et al. 2024, 'Loss of plasticity in deep continual learning'; stable rank: Rudelson
    & Vershynin 2007, arXiv math/0503442. Differs: features are not centred.

    Args:
        network: in evaluation mode.
        inputs: examples of the new task, (n, *S).
    """
    with _Activations() as units:
        features = network.backbone(inputs)
    total, n_dead = 0, 0
    for number, alive in enumerate(units.alive, start=1):
        dead = int((~alive).sum())
        total, n_dead = total + alive.numel(), n_dead + dead
        yield "dead_units", f"relu {number}", dead / alive.numel()
    if total:
        yield "dead_units", "", n_dead / total
    wide = features.double()
    products = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide  # the same eigenvalues; the smaller one
    squares = float(products.trace())
    if squares > 0.0:
        yield "feature_rank", "", squares / float(torch.linalg.eigvalsh(products)[-1])
    norms: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        norms[layer_of(name)] = norms.get(layer_of(name), 0.0) + float(parameter.square().sum())
    yield from (("weight_norm", layer, square**0.5) for layer, square in norms.items())


@torch.no_grad()
def own_accuracy(network: Network, task: TaskData) -> float:
    """Return the share of the examples of a task that are right among the task's own outputs, in evaluation mode."""
    with evaluated(network):
        logits = network.heads[network.layout.head_of(task.index)](network.backbone(task.inputs))
    first = network.layout.ranges[task.index][0]
    return float((logits.argmax(1) == task.labels - first).double().mean())


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode within the block, and each of them back into its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Restore PyTorch's global generators after the block, which dropout and models of one's own draw from."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        yield


def fresh_accuracy(
    build: Callable[[torch.Generator], Network],
    settings: TrainingSettings,
    task: TaskData,
    held_out: TaskData,
    n_steps: int,
    seed: int,
    class_names: Sequence[str],
) -> float | None:
    """Return what a fresh network learns of a task in a few steps, without a method; None if it diverges.

    Args:
        build: returns an untrained network whose weights are drawn from a generator.
        settings: of the trial.
        task: the training examples.
        held_out: the examples that it is measured on.
        n_steps: optimizer steps.
        seed: of its first weights and its batches.
        class_names: the class behind each output.
    """
    generators = Generators(derive_seed(seed, "diagnostics/fresh", task.index))
    with own_randomness(task.inputs.device):
        seed_of_all = generators.fresh("global").initial_seed()
        torch.default_generator.manual_seed(seed_of_all)  # `torch.manual_seed` formats three tracebacks without a GPU
        if task.inputs.device.type == "cuda":
            torch.cuda.manual_seed(seed_of_all)
        learner = Learner(
            lambda: build(generators.fresh("init/backbone")),
            _no_past,
            find_method("naive").split({}),
            settings.model_copy(update={"iterations": n_steps}),
            generators,
            task.inputs.device,
            class_names,
        )
        try:
            learner.learn(task)
        except TrialDivergedError:
            return None
        return own_accuracy(learner.network, held_out)


def _no_past(task: int) -> TaskData:
    raise AssertionError(f"a fresh network has not seen task {task}")
