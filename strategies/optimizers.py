"""PyTorch's optimizers as trials use them: fused, and without the compiler.

The first optimizer of a process makes PyTorch import its compiler, only to tell it what not to compile: 900 modules, in
each new worker two seconds of CPU. Nothing here is compiled.
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
    """Return `optimizer` with its methods as they are under what shields them from the compiler."""
    shielded = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in shielded}
    return type(optimizer.__name__, (optimizer,), plain | {"step": torch.no_grad()(inspect.unwrap(optimizer.step))})


SGD = _eager(torch.optim.SGD)
Adam = _eager(torch.optim.Adam)
AdamW = _eager(torch.optim.AdamW)
RMSprop = _eager(torch.optim.RMSprop)


def make_optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> Optimizer:
    """Return the optimizer that `settings` name; parameters without a gradient are never moved by it."""
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
    """Give SGD a momentum of 0 for `parameters`: its fused step wants one for all or for none of those it moves."""
    if optimizer.defaults["momentum"]:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
