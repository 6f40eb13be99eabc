"""Builds a network from its settings, or says beforehand why it cannot be built."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from orchestrator.core.errors import ModelError
from orchestrator.models.backbones import SlimResNet18, build_cnn, build_mlp
from orchestrator.models.settings import ModelSettings
from strategies import Network, OutputLayout


def load_model_class(name: str) -> type[nn.Module]:
    """Import `module:Class` and return the class.

    This runs the module's code. Whatever only reads a spec or a run folder must not call it.

    Raises:
        ModelError: if it cannot be imported or is no `nn.Module`.
    """
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever a user's module raises at its top
        reason = " ".join(str(error).split())
        raise ModelError(
            f"model.name: cannot import '{name}' ({type(error).__name__}: {reason}). "
            "Correct it, or put its folder on PYTHONPATH on every machine."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(
            f"model.name: '{name}' is {_kind(found)} and no subclass of torch.nn.Module. Name the class of a model."
        )
    return found


def build_network(
    settings: ModelSettings,
    input_shape: tuple[int, ...],
    layout: OutputLayout,
    generator: torch.Generator,
) -> Network:
    """Return an untrained network without heads, on the CPU. Its weights are drawn from `generator`.

    Args:
        settings: which model.
        input_shape: shape of one example, without the batch.
        layout: the outputs of each task.
        generator: for the initial weights.

    Raises:
        ModelError: if the model cannot be built for this shape, or at all.
    """
    return Network(*_build_backbone(settings, input_shape, generator), layout, settings.init or "pytorch")


def input_shape_fault(settings: ModelSettings, input_shape: tuple[int, ...]) -> str | None:
    """Return why the model cannot take examples of this shape, or None. A user's own class may take any shape.

    The slim ResNet-18 divides height and width by 8, rounding up. Its last maps must have more than one pixel, or
    BatchNorm has no variance in a batch of one example.
    """
    if settings.name not in ("cnn", "resnet18"):
        return None
    smallest = 9 if settings.name == "resnet18" else 2 ** len(settings.channels or ())
    shown = "x".join(map(str, input_shape)) or "a single number"
    if len(input_shape) != 3:
        return (
            f"model.name: {settings.name} needs examples of shape (channels, height, width), and these are {shown}. "
            "Use mlp or a stream of images."
        )
    if min(input_shape[1:]) < smallest:
        other = "cnn" if settings.name == "resnet18" else "fewer channels"
        return (
            f"model.name: {settings.name} needs images of {smallest}x{smallest} pixels or more, and these are {shown}. "
            f"Use streams.STREAM.padding or {other}."
        )
    return None


def model_faults(settings: ModelSettings, input_shape: tuple[int, ...] | None = None) -> list[str]:
    """Return what is wrong with a model, to say it before anything starts. Imports a user's own class.

    Args:
        settings: which model.
        input_shape: shape of one example, if it is known. A user's class is then built and tried on two zeros.
    """
    try:
        if settings.is_own_class:
            load_model_class(settings.name)
        if input_shape is not None:
            fault = input_shape_fault(settings, input_shape)
            if fault is not None:
                return [fault]
            if settings.is_own_class:
                _check_own(settings, input_shape)
    except ModelError as error:
        return [str(error)]
    return []


def _build_backbone(
    settings: ModelSettings, input_shape: tuple[int, ...], generator: torch.Generator
) -> tuple[nn.Module, int]:
    fault = input_shape_fault(settings, input_shape)
    if fault is not None:
        raise ModelError(fault)
    init = settings.init or "pytorch"
    match settings.name:
        case "mlp":
            return build_mlp(input_shape, settings.hidden or (), generator, init)
        case "cnn":
            return build_cnn(input_shape, settings.channels or (), settings.hidden or (), generator, init)
        case "resnet18":
            resnet = SlimResNet18(input_shape[0], settings.width or 0, generator, init)
            return resnet, resnet.n_features
    return _build_own(settings, input_shape, generator)


def _build_own(
    settings: ModelSettings, input_shape: tuple[int, ...], generator: torch.Generator
) -> tuple[nn.Module, int]:
    """Return the user's model and its number of features. PyTorch's CPU generator is seeded for it, then restored."""
    own = load_model_class(settings.name)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            backbone = own(input_shape, **(settings.options or {}))
        except Exception as error:  # whatever a user's class raises
            reason = " ".join(str(error).split())
            raise ModelError(
                f"model.options: {settings.name} cannot be built for examples of shape {input_shape} with "
                f"{settings.options} ({type(error).__name__}: {reason}). Correct the options or the class."
            ) from error
    n_features = getattr(backbone, "n_features", None)
    if not isinstance(n_features, int) or isinstance(n_features, bool) or n_features < 1:
        raise ModelError(
            f"model.name: n_features of {settings.name} must be a whole number of 1 or more, and it is "
            f"{n_features!r}. Set self.n_features in the class."
        )
    return backbone, n_features


def _check_own(settings: ModelSettings, input_shape: tuple[int, ...]) -> None:
    """Build the user's model and check the features of two examples.

    Raises:
        ModelError: if they are not (2, n_features) float32.
    """
    backbone, n_features = _build_own(settings, input_shape, torch.Generator().manual_seed(0))
    rule = f"model.name: {settings.name} must map {(2, *input_shape)} float32 to (2, {n_features}) float32"
    way_out = "Correct its forward."
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = backbone.eval()(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a user's forward raises
        reason = " ".join(str(error).split())
        raise ModelError(f"{rule}, but it raises {type(error).__name__}: {reason}. {way_out}") from error
    if not isinstance(features, torch.Tensor):
        raise ModelError(f"{rule}, but it returns {_kind(features)}. {way_out}")
    if features.shape != (2, n_features) or features.dtype != torch.float32:
        raise ModelError(f"{rule}, but it returns {tuple(features.shape)} {features.dtype}. {way_out}")


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
