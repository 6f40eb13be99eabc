"""PyTorch's optimizers as trials use them: fused, in one call a step, and without the compiler.

The first optimizer of a process makes PyTorch import its compiler, only to mark what it should not compile. That is 900
modules and two seconds of CPU in each new worker, and nothing here is compiled. A step of a small network costs more in
PyTorch's Python around the fused operation than in it, so the operation is called directly.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from strategies.settings import TrainingSettings

_Kind = TypeVar("_Kind", bound=Optimizer)


def _eager(optimizer: type[_Kind]) -> type[_Kind]:
    """Return `optimizer` without the wrappers that import the compiler."""
    wrapped = ("add_param_group", "load_state_dict", "state_dict")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in wrapped}
    plain |= {"step": torch.no_grad()(inspect.unwrap(optimizer.step)), "zero_grad": _drop_gradients}
    return type(optimizer.__name__, (optimizer,), plain)


def _drop_gradients(optimizer: Optimizer, set_to_none: bool = True) -> None:
    """Leave no parameter a gradient."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def _moved(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters of a group that have a gradient, and the gradients."""
    moved = [parameter for parameter in group["params"] if parameter.grad is not None]
    return moved, [parameter.grad for parameter in moved]


class SGD(_eager(torch.optim.SGD)):  # type: ignore[misc]  # a class that is made
    """`torch.optim.SGD(fused=True)`, the same bits. With momentum, every parameter has a buffer beforehand."""

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        for group in self.param_groups:
            parameters, gradients = _moved(group)
            momentum = group["momentum"]
            buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters] if momentum else []
            if parameters:
                torch._fused_sgd_(
                    parameters,
                    gradients,
                    buffers,
                    weight_decay=group["weight_decay"],
                    momentum=momentum,
                    lr=group["lr"],
                    dampening=0.0,
                    nesterov=False,
                    maximize=False,
                    is_first_step=False,
                )


def _fused_adam_step(optimizer: Optimizer, fused: Any, first: Any) -> None:
    """Take the step of Adam or AdamW by the operation `fused`, or by PyTorch's own step `first` if a state is missing.

    PyTorch makes the state of a parameter when it first has a gradient.
    """
    for group in optimizer.param_groups:
        parameters, gradients = _moved(group)
        states = [optimizer.state[parameter] for parameter in parameters]
        if not all(states):
            first(optimizer)
            return
        if not parameters:
            continue
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        fused(
            parameters,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            amsgrad=False,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


_EagerAdam, _EagerAdamW = _eager(torch.optim.Adam), _eager(torch.optim.AdamW)


class Adam(_EagerAdam):  # type: ignore[misc,valid-type]
    """`torch.optim.Adam(fused=True)`, the same bits."""

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        _fused_adam_step(self, torch._fused_adam_, _EagerAdam.step)


class AdamW(_EagerAdamW):  # type: ignore[misc,valid-type]
    """`torch.optim.AdamW(fused=True)`, the same bits."""

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        _fused_adam_step(self, torch._fused_adamw_, _EagerAdamW.step)


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
