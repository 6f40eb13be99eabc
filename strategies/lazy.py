"""PyTorch and NumPy, imported when they are first used.

`from strategies.lazy import torch` in place of `import torch` keeps what a strategy declares readable at once: the
commands that list and check methods do not wait the two seconds that importing PyTorch takes. What subclasses a class
of PyTorch lives in modules that import it plainly, and is imported by the functions that use it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _LazyModule:
    """Stands for a module and imports it on first use; from then on it shares the module's namespace."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        module = importlib.import_module(self.__name__)
        self.__dict__ = module.__dict__
        return getattr(module, attribute)


if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
else:
    np, torch, nn, F = map(_LazyModule, ("numpy", "torch", "torch.nn", "torch.nn.functional"))


def no_grad(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `function` without recording of gradients: `torch.no_grad()`, as a decorator that needs no PyTorch yet."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with torch.no_grad():
            return function(*args, **kwargs)

    return call


__all__ = ["F", "nn", "no_grad", "np", "torch"]
