"""A frozen network: built from its settings, given its weights, and applied to examples."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.core.errors import DataError, ModelError
from orchestrator.models.building import load_model_class
from orchestrator.streams.settings import FrozenFeatures

ROWS_AT_ONCE = 256
"""How many examples it is applied to at once."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel."""

_IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's networks, and most of timm's, were trained with."""


_OF_THIS = "give the file of this one, or options such as num_classes"
_AS_THEN = "use the code and the versions that they were kept by"


class FrozenNetwork(nn.Module):
    """A network that no trial trains, in evaluation mode, and how it takes examples.

    Args:
        network: maps (N, ...) float32 to (N, F).
        asked: its settings.
        shape: of an example, with its padding.
        where: the place of faults.
        statistics: mean and deviation of each channel of the images that a library's network was trained on; None for
            a class of a user's own, which normalises for itself.
        source: what else tells it apart: a hash of a user's own code.
    """

    def __init__(
        self,
        network: nn.Module,
        asked: FrozenFeatures,
        shape: tuple[int, ...],
        where: str,
        statistics: Statistics | None,
        source: str,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.asked, self.source = asked, source
        self._where, self._statistics = where, statistics
        sides = shape[1:] if asked.image_size is not None else ()
        self._resizing = [resizing(n, asked.image_size) for n in sides if asked.image_size is not None]

    def forward(self, examples: Tensor) -> Tensor:
        """Return the features (N, F) of examples (N, *S) float32 in [0, 1]: resized, in three channels, normalised.

        In a trace for ONNX, resizing is a product with a matrix on each side, because ONNX has no operator that PyTorch
        writes this kind of resizing as.
        """
        side = self.asked.image_size
        if side is not None:
            if torch.onnx.is_in_onnx_export():
                rows, columns = self._resizing
                examples = rows @ examples @ columns.T
            else:
                examples = _resized(examples, (side, side))
        if self._statistics is not None:
            examples = examples.expand(-1, 3, -1, -1) if examples.shape[1] == 1 else examples
            mean, std = (torch.tensor(v, device=examples.device)[:, None, None] for v in self._statistics)
            examples = (examples - mean) / std
        found: Tensor = self.network(examples)
        return found

    def features(self, batches: Iterable[Tensor]) -> NDArray[np.float32]:
        """Return the features of examples, (N, F) float32, computed on a GPU if there is one.

        Args:
            batches: examples (n, *S) float32 in [0, 1] each, one batch or more.

        Raises:
            DataError: if the network fails, or gives something else.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.to(device)
        with torch.inference_mode():
            parts = [self._of_batch(batch.to(device)) for batch in batches]
        features = torch.cat(parts)
        if not bool(features.isfinite().all()):
            row = int((~features.isfinite()).any(1).nonzero()[0])
            raise DataError(
                f"{self._where}.module: the features of example {row} are not finite; check its weights and inputs"
            )
        return features.numpy()

    def _of_batch(self, batch: Tensor) -> Tensor:
        where = f"{self._where}.module"
        try:
            found: Any = self(batch)
        except Exception as error:  # whatever a user's forward raises
            raise DataError(
                f"{where}: it fails on examples of shape {tuple(batch.shape[1:])} ({_reason(error)}); "
                "correct it, or set image_size or padding"
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(batch):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"{where}: expected features ({len(batch)}, F), got {shape}; correct its forward")
        return found.float().cpu()

    def weights_hash(self) -> str:
        """Return a hash of its weights, 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(str((name, tuple(value.shape), str(value.dtype))).encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def resizing(n: int, side: int) -> Tensor:
    """Return the matrix (side, n) float32 that resizes n pixels: resizing is linear, and one axis after the other."""
    return _resized(torch.eye(n)[None, None], (side, n))[0, 0]


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def build_frozen(
    asked: FrozenFeatures, shape: tuple[int, ...], where: str, weights: Mapping[str, Tensor] | None = None
) -> FrozenNetwork:
    """Return a frozen network with its weights, on the CPU.

    Args:
        asked: its settings.
        shape: of an example, with its padding.
        where: the place of faults.
        weights: of the network without its classifier; by default those in the file that the settings name.

    Raises:
        DataError: if it cannot be built, or its weights cannot be loaded.
    """
    library, _, name = asked.module.partition(":")
    if not asked.is_own_class and len(shape) != 3:
        raise DataError(f"{where}.module: {asked.module} takes images, and examples are {shape}; name a class of yours")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            module = _own(asked, shape) if asked.is_own_class else _of_library(library, name, asked.options)
        except ModelError as error:
            raise DataError(f"{where}.module{str(error).removeprefix('model.name')}") from error
        except Exception as error:  # whatever a user's class or a library raises
            options = f" with {asked.options}" if asked.options else ""
            raise DataError(
                f"{where}.module: {asked.module} cannot be built{options} ({_reason(error)}); correct name or options"
            ) from error
    if weights is None and asked.weights is not None:
        _load(module, _read(asked.weights, where), f"{where}.weights: '{asked.weights}' is", _OF_THIS)
    statistics = None if asked.is_own_class else _statistics(module)
    if statistics is not None:
        _cut_head(module, asked.module, where)
    if weights is not None:
        _load(module, weights, f"{where}: the weights that were kept are", _AS_THEN)
    source = _code(module) if statistics is None else "" if statistics == _IMAGENET else str(statistics)
    return FrozenNetwork(module, asked, shape, where, statistics, source)


def _statistics(module: nn.Module) -> Statistics:
    """Return mean and deviation of the images that a library's network was trained on; timm's networks know theirs."""
    known = getattr(module, "pretrained_cfg", None) or {}
    mean, std = (known.get(name, default) for name, default in zip(("mean", "std"), _IMAGENET, strict=True))
    return tuple(mean), tuple(std)


def _of_library(library: str, name: str, options: dict[str, Any]) -> nn.Module:
    if library == "torchvision":
        from torchvision.models import get_model

        found: nn.Module = get_model(name, weights=None, **options)
        return found
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ModelError("model.name: timm is not installed; run: pip install timm") from error
    made: nn.Module = timm.create_model(name, pretrained=False, **options)
    return made


def _own(asked: FrozenFeatures, shape: tuple[int, ...]) -> nn.Module:
    side = asked.image_size
    resized = shape if side is None or len(shape) != 3 else (shape[0], side, side)
    return load_model_class(asked.module)(resized, **asked.options)


def _code(module: nn.Module) -> str:
    source = inspect.getsourcefile(type(module))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else ""


def _read(path: str, where: str) -> dict[str, Any]:
    """Return a state dict, without running code from the file.

    Raises:
        DataError: if the file is missing or damaged.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise DataError(f"{where}.weights: there is no file '{path}'; correct the path")
    try:
        if place.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(place)
        else:
            state = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of itself
        raise DataError(f"{where}.weights: '{path}' cannot be read ({_reason(error)}); give a state dict") from error
    found: dict[str, Any] = state.get("state_dict", state) if isinstance(state, dict) else {}
    return found


def _load(module: nn.Module, state: Mapping[str, Any], what: str, advice: str) -> None:
    """Load a state dict; `what` it is and the `advice` are for the message.

    Raises:
        DataError: if it is of another network.
    """
    own = module.state_dict()
    wrong = [
        *(f"no '{name}'" for name in own if name not in state),
        *(f"'{name}', which the network has not" for name in state if name not in own),
        *(
            f"'{name}' of shape {tuple(state[name].shape)} for {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(f"{what} of another network: it has {', '.join(wrong[:3])}{more}; {advice}")
    module.load_state_dict(state)


def _cut_head(module: nn.Module, name: str, where: str) -> None:
    """Put the identity in place of the classifier: as timm does for its networks, else of the last linear layer.

    Raises:
        DataError: if there is none.
    """
    reset: Callable[[int], None] | None = getattr(module, "reset_classifier", None)
    if reset is not None:
        reset(0)
        return
    found = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise DataError(f"{where}.module: {name} has no linear classifier to cut off; name a class of yours")
    parent, _, last = found[-1].rpartition(".")
    setattr(module.get_submodule(parent), last, nn.Identity())


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
