"""Features of a frozen network in place of a stream's inputs: computed once, before any trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.core.canonical import short_hash
from orchestrator.models.frozen_network import ROWS_AT_ONCE, FrozenNetwork, build_frozen
from orchestrator.storage.base import Storage
from orchestrator.streams.datasets import Dataset, Inputs
from orchestrator.streams.facts import DatasetFacts
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.loading import load_stream
from orchestrator.streams.stream import padded_shape, to_inputs

FOLDER = "features"
"""Where a run keeps them."""

Arrays = Mapping[str, NDArray[np.float32]]
"""Features by the part of the data that they are of: `train`, `test`, and `start` with a model that is begun from."""


class FeatureStore:
    """The features that a run has computed, by hash of the data and the network.

    Args:
        storage: the folder that holds them.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._new: dict[str, Arrays] = {}

    def read(self, identity: str) -> Arrays | None:
        """Return the features of each part of the data, or None if they are not there or damaged."""
        name = _file_of(identity)
        if identity in self._new:
            return self._new[identity]
        try:
            found: Arrays = safetensors.numpy.load(self._storage.read(name))
        except (OSError, safetensors.SafetensorError):
            return None
        return found

    def add(self, identity: str, features: Arrays) -> None:
        """Remember features until they are written."""
        self._new[identity] = features

    def write(self) -> None:
        """Write what is new.

        Raises:
            OSError: if the system refuses.
        """
        for identity, features in self._new.items():
            content = safetensors.numpy.save(dict(features))
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
    return with_features(dataset, stream, settings, network_of(stream, settings, dataset), store)


def network_of(stream: str, settings: StreamSettings, dataset: Dataset) -> FrozenNetwork:
    """Return the frozen network of a stream for its data.

    Raises:
        DataError: if it cannot be built, or its weights cannot be loaded.
    """
    assert settings.features is not None
    shape = padded_shape(dataset.facts.shape, settings.padding)
    return build_frozen(settings.features, shape, f"streams.{stream}.features")


def example_settings(settings: StreamSettings) -> StreamSettings:
    """Return settings by which examples become what the first network takes: as they are, or those of a frozen one."""
    if settings.features is None:
        return settings
    return settings.model_copy(update={"features": None, "normalisation": "unit"})


def with_features(
    dataset: Dataset, stream: str, settings: StreamSettings, network: FrozenNetwork, store: FeatureStore | None = None
) -> Dataset:
    """Return data with the features of a frozen network in place of the inputs.

    Args:
        dataset: the data; those of a model's next task hold examples of earlier tasks, which become features too.
        stream: its name.
        settings: of the stream; its padding comes before the network.
        network: the frozen network.
        store: what the run has computed.

    Raises:
        DataError: if the network fails, or gives something else than features.
    """
    parts = {"train": dataset.train_inputs, "test": dataset.test_inputs}
    if dataset.start is not None:
        parts["start"] = dataset.start.inputs
    identity = _identity(dataset, settings, network)
    features = store.read(identity) if store is not None else None
    if features is None or features.keys() != parts.keys():
        features = {name: features_of(network, part, settings, dataset.facts) for name, part in parts.items()}
        if store is not None:
            store.add(identity, features)
    n_features, asked = features["train"].shape[1], network.asked.module
    shown = "x".join(map(str, dataset.facts.shape))
    facts = dataclasses.replace(
        dataset.facts,
        shape=(n_features,),
        maximum=1,
        n_numbers=n_features,
        source=f"{dataset.facts.source}; {n_features} features of {asked}",
    )
    note = f"streams.{stream}: examples are {n_features} features of {asked} in place of {shown} inputs"
    start = None if dataset.start is None else dataclasses.replace(dataset.start, inputs=features["start"])
    return dataclasses.replace(
        dataset, name=stream, train_inputs=features["train"], test_inputs=features["test"], facts=facts, columns=(),
        identity=identity, notes=(*dataset.notes, note), start=start,
    )  # fmt: skip


def features_of(
    network: FrozenNetwork, inputs: Inputs, settings: StreamSettings, facts: DatasetFacts
) -> NDArray[np.float32]:
    """Return the features of examples, (N, F) float32.

    Args:
        network: the frozen network.
        inputs: examples, as in `PhaseData`.
        settings: of their stream; the padding comes before the network.
        facts: their shape and largest pixel value.

    Raises:
        DataError: if the network fails, or gives something else than features.
    """
    plain = settings.model_copy(update={"features": None, "normalisation": "unit"})

    def batches() -> Iterator[Tensor]:
        for start in range(0, max(len(inputs), 1), ROWS_AT_ONCE):
            yield to_inputs(inputs[start : start + ROWS_AT_ONCE], plain, facts, (0.0, 1.0))

    return network.features(batches())


def _identity(dataset: Dataset, settings: StreamSettings, network: FrozenNetwork) -> str:
    """Return a hash of the data, the network with its weights, and how it is applied.

    It is not one of the features, whose last bits depend on the machine that computes them.
    """
    return short_hash(
        {
            "data": dataset.fingerprint(),
            "features": network.asked.model_copy(update={"weights": None}).model_dump(mode="json"),
            "padding": settings.padding,
            "weights": network.weights_hash(),
            "source": network.source,
        }
    )
