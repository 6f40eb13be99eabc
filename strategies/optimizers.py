"""PyTorch's optimizers as trials use them: fused, and without the compiler.

The first optimizer of a process makes PyTorch import its compiler, only to mark what it should not compile. That is 900
modules and two seconds of CPU in each new worker, and nothing here is compiled.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from strategies.settings import TrainingSettings

_Kind = TypeVar("_Kind", bound=Optimizer)


def _eager(optimizer: type[_Kind]) -> type[_Kind]:
    """Return `optimizer` without the wrappers that import the compiler."""
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    return type(optimizer.__name__, (optimizer,), plain | {"step": torch.no_grad()(inspect.unwrap(optimizer.step))})


SGD = _eager(torch.optim.SGD)
Adam = _eager(torch.optim.Adam)
AdamW = _eager(torch.optim.AdamW)
RMSprop = _eager(torch.optim.RMSprop)


def make_optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> Optimizer:
    """Return the optimizer of `settings`. It never moves parameters without a gradient."""
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            sgd = SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True)
            _start_momentum(sgd, parameters)
            return sgd
        case "adam":
            return Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case "rmsprop":
            return RMSprop(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, foreach=True)


def _start_momentum(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Set the momentum of `parameters` to 0: fused SGD needs a buffer for all parameters that it moves, or for none."""
    if optimizer.defaults["momentum"]:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
