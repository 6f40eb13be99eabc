from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tiny_worlds import make_settings
from torch import Tensor

from strategies.optimizers import make_optimizer

WHOLE_LIFE = """
import sys
import torch
from strategies.optimizers import make_optimizer
from strategies.settings import TrainingSettings

for name in ("sgd", "adam", "adamw", "rmsprop"):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([parameter], TrainingSettings(optimizer=name))
    parameter.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    assert parameter.grad is None and parameter.requires_grad and bool((parameter != 1).all()), name
print([name for name in ("torch._dynamo", "scipy") if name in sys.modules])
"""


def test_no_compiler_is_imported_by_any_optimizer() -> None:
    done = subprocess.run([sys.executable, "-c", WHOLE_LIFE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _one_step(optimizer: str, p: Tensor, g: Tensor, rate: float, decay: float) -> Tensor:
    decayed = g + decay * p
    match optimizer:
        case "sgd":
            return p - rate * decayed
        case "adam":
            return p - rate * decayed / (decayed.abs() + 1e-8)
        case "adamw":
            return p * (1 - rate * decay) - rate * g / (g.abs() + 1e-8)
    return p - rate * decayed / ((0.01 * decayed.square()).sqrt() + 1e-8)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_every_optimizer_takes_the_step_that_it_is_named_after(optimizer: str, decay: float) -> None:
    start, gradient = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 1.0, -4.0])
    parameter = torch.nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    settings = make_settings(optimizer=optimizer, learning_rate=0.01, momentum=0.9, weight_decay=decay)

    make_optimizer([parameter], settings).step()

    torch.testing.assert_close(parameter.detach(), _one_step(optimizer, start, gradient, 0.01, decay))


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_momentum_carries_the_last_step_on(optimizer: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    stepper = make_optimizer([parameter], make_settings(optimizer=optimizer, momentum=0.5, learning_rate=1.0))
    parameter.grad = torch.ones(1)
    stepper.step()
    first = parameter.item()
    parameter.grad = torch.zeros(1)
    stepper.step()

    assert parameter.item() - first == pytest.approx(0.5 * first)


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.9), ("sgd", 0.0), ("adam", 0.0), ("adamw", 0.0)])
def test_steps_are_those_of_pytorchs_own_class_bit_for_bit(name: str, momentum: float) -> None:
    """The second parameter has a gradient in some steps only, as a head of another task does."""
    settings = make_settings(optimizer=name, learning_rate=0.01, momentum=momentum, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(33, 7)), torch.nn.Parameter(torch.ones(5))] for _ in range(2))
    own = make_optimizer(ours, settings)
    options = {"lr": 0.01, "weight_decay": 0.01, "fused": True} | ({"momentum": momentum} if name == "sgd" else {})
    reference = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](theirs, **options)
    if momentum:
        for parameter in theirs:
            reference.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    for step in range(6):
        own.zero_grad()
        for mine, its in zip(ours, theirs, strict=True):
            gradient = torch.randn(mine.shape, generator=generator)
            is_reached = mine.dim() == 2 or step in (2, 3, 5)
            mine.grad, its.grad = (gradient.clone(), gradient.clone()) if is_reached else (None, None)
        own.step()
        reference.step()
        assert all(torch.equal(mine, its) for mine, its in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_without_gradients_moves_nothing(name: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    make_optimizer([parameter], make_settings(optimizer=name)).step()
    assert parameter.tolist() == [1.0, 1.0]
