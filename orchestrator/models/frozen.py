"""Features of a frozen network in place of a stream's inputs: computed once, before any trial."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.core.canonical import short_hash
from orchestrator.core.errors import DataError, ModelError
from orchestrator.models.building import load_model_class
from orchestrator.storage.base import Storage
from orchestrator.streams.datasets import Dataset, Inputs
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import FrozenFeatures, StreamSettings
from orchestrator.streams.sources.loading import load_stream
from orchestrator.streams.stream import padded_shape, to_inputs

FOLDER = "features"
"""Where a run keeps them."""

_ROWS_AT_ONCE = 256
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, which the weights of torchvision and timm were trained with."""

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


class FeatureStore:
    """The features that a run has computed, by hash of the data and the network.

    Args:
        storage: the folder that holds them.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._new: dict[str, Pair] = {}

    def read(self, identity: str) -> Pair | None:
        """Return the features of the training and of the test examples, or None if they are not there or damaged."""
        name = _file_of(identity)
        if identity in self._new:
            return self._new[identity]
        try:
            found = safetensors.numpy.load(self._storage.read(name))
            train, test = found["train"], found["test"]
        except (OSError, KeyError, safetensors.SafetensorError):
            return None
        return train, test

    def add(self, identity: str, features: Pair) -> None:
        """Remember features until they are written."""
        self._new[identity] = features

    def write(self) -> None:
        """Write what is new.

        Raises:
            OSError: if the system refuses.
        """
        for identity, (train, test) in self._new.items():
            content = safetensors.numpy.save({"train": train, "test": test})
            self._storage.write(_file_of(identity), content, "features", durable=False)


def _file_of(identity: str) -> str:
    return f"{identity}.safetensors"


def load_with_features(
    stream: str, settings: StreamSettings, data_dir: Path, store: FeatureStore | None = None
) -> Dataset:
    """Return the data of a stream; with `features`, those of a frozen network in place of the inputs.

    Args:
        stream: its name.
        settings: its settings.
        data_dir: where torchvision's data sets are.
        store: what the run has computed.

    Raises:
        DataError: if data are missing or damaged, or the network cannot be built, loaded or applied.
    """
    dataset = load_stream(stream, settings, data_dir)
    if settings.features is None:
        return dataset
    where = f"streams.{stream}.features"
    shape = padded_shape(dataset.facts.shape, settings.padding)
    network = _network(settings.features, shape, where)
    identity = _identity(dataset, settings, network)
    features = store.read(identity) if store is not None else None
    if features is None:
        plain = settings.model_copy(update={"normalisation": "unit"})
        train = _features(network, dataset.train_inputs, plain, dataset.facts, where)
        features = train, _features(network, dataset.test_inputs, plain, dataset.facts, where)
        if store is not None:
            store.add(identity, features)
    return _replaced(dataset, stream, settings.features, features, identity)


def _replaced(dataset: Dataset, stream: str, asked: FrozenFeatures, features: Pair, identity: str) -> Dataset:
    train, test = features
    n_features = train.shape[1]
    shown = "x".join(map(str, dataset.facts.shape))
    facts = dataclasses.replace(
        dataset.facts,
        shape=(n_features,),
        maximum=1,
        n_numbers=n_features,
        source=f"{dataset.facts.source}; {n_features} features of {asked.module}",
    )
    note = f"streams.{stream}: examples are {n_features} features of {asked.module} in place of {shown} inputs"
    return dataclasses.replace(
        dataset, name=stream, train_inputs=train, test_inputs=test, facts=facts, columns=(), identity=identity,
        notes=(*dataset.notes, note),
    )  # fmt: skip


def _identity(dataset: Dataset, settings: StreamSettings, network: _Frozen) -> str:
    """Return a hash of the data, the network with its weights, and how it is applied.

    It is not one of the features, whose last bits depend on the machine that computes them.
    """
    assert settings.features is not None
    digest = hashlib.sha256()
    for name, value in network.module.state_dict().items():
        digest.update(str((name, tuple(value.shape), str(value.dtype))).encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    plain = settings.features.model_copy(update={"weights": None}).model_dump(mode="json")
    return short_hash(
        {
            "data": dataset.fingerprint(),
            "features": plain,
            "padding": settings.padding,
            "weights": digest.hexdigest(),
            "source": network.source,
        }
    )


@dataclasses.dataclass(frozen=True)
class _Frozen:
    """A frozen network and how it takes its inputs.

    Args:
        module: maps (N, …) float32 to (N, F).
        side: images are resized to this side; None as they are.
        is_of_imagenet: whether it takes three channels with ImageNet's mean 0 and deviation 1.
        source: hash of a user's own code, empty for a library's.
    """

    module: nn.Module
    side: int | None
    is_of_imagenet: bool
    source: str = ""


def _network(asked: FrozenFeatures, shape: tuple[int, ...], where: str) -> _Frozen:
    """Return the network with its weights, in evaluation mode on the CPU.

    Raises:
        DataError: if it cannot be built, or its weights cannot be loaded.
    """
    library, _, name = asked.module.partition(":")
    is_known = library in ("torchvision", "timm")
    if is_known and len(shape) != 3:
        raise DataError(f"{where}.module: {asked.module} takes images, and examples are {shape}; name a class of yours")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            module = _of_library(library, name, asked.options) if is_known else _own(asked, shape)
        except ModelError as error:
            raise DataError(f"{where}.module{str(error).removeprefix('model.name')}") from error
        except Exception as error:  # whatever a user's class or a library raises
            options = f" with {asked.options}" if asked.options else ""
            raise DataError(
                f"{where}.module: {asked.module} cannot be built{options} ({_reason(error)}); correct name or options"
            ) from error
    if asked.weights is not None:
        _load_weights(module, asked.weights, where)
    if is_known:
        _cut_head(module, asked.module, where)
    return _Frozen(module.eval().requires_grad_(False), asked.image_size, is_known, "" if is_known else _code(module))


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


def _load_weights(module: nn.Module, path: str, where: str) -> None:
    """Load a state dict, without running code from the file.

    Raises:
        DataError: if the file is missing, damaged, or of another network.
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
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
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
        raise DataError(
            f"{where}.weights: '{path}' is of another network: it has {', '.join(wrong[:3])}{more}; give the file of "
            "this one, or options such as num_classes"
        )
    module.load_state_dict(state)


def _cut_head(module: nn.Module, name: str, where: str) -> None:
    """Put the identity in place of the last linear layer, the classifier.

    Raises:
        DataError: if there is none.
    """
    found = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise DataError(f"{where}.module: {name} has no linear classifier to cut off; name a class of yours")
    parent, _, last = found[-1].rpartition(".")
    setattr(module.get_submodule(parent), last, nn.Identity())


def _features(
    network: _Frozen, inputs: Inputs, settings: StreamSettings, facts: DatasetFacts, where: str
) -> NDArray[np.float32]:
    """Return the features of examples, (N, F) float32, computed on a GPU if there is one.

    Raises:
        DataError: if the network fails, or gives something else.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module, parts = network.module.to(device), list[Tensor]()
    with torch.inference_mode():
        for start in range(0, max(len(inputs), 1), _ROWS_AT_ONCE):
            rows = to_inputs(inputs[start : start + _ROWS_AT_ONCE], settings, facts, (0.0, 1.0)).to(device)
            try:
                found = module(_as_taken(rows, network))
            except Exception as error:  # whatever a user's forward raises
                raise DataError(
                    f"{where}.module: it fails on examples of shape {tuple(rows.shape[1:])} ({_reason(error)}); "
                    "correct it, or set image_size or padding"
                ) from error
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(rows):
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise DataError(f"{where}.module: expected features ({len(rows)}, F), got {shape}; correct its forward")
            parts.append(found.float().cpu())
    features = torch.cat(parts)
    if not bool(features.isfinite().all()):
        row = int((~features.isfinite()).any(1).nonzero()[0])
        raise DataError(f"{where}.module: the features of example {row} are not finite; check its weights and inputs")
    return features.numpy()


def _as_taken(rows: Tensor, network: _Frozen) -> Tensor:
    """Return images as the network takes them: resized, in three channels, normalised."""
    if network.side is not None:
        size = (network.side, network.side)
        rows = F.interpolate(rows, size=size, mode="bilinear", align_corners=False, antialias=True)
    if network.is_of_imagenet:
        rows = rows.expand(-1, 3, -1, -1) if rows.shape[1] == 1 else rows
        mean, std = (torch.tensor(v, device=rows.device)[:, None, None] for v in (_MEAN, _STD))
        rows = (rows - mean) / std
    return rows


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
