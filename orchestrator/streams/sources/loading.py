"""Loads the data of every stream, built-in or a user's own."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from orchestrator.core.errors import DataError
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import STREAMS, StreamSettings, dataset_of
from orchestrator.streams.sources.builtin import load_dataset


def load_stream(stream: str, settings: StreamSettings, data_dir: Path) -> Dataset:
    """Return the data set of a stream.

    Args:
        stream: its name.
        settings: its settings. Paths of a user's own data are relative to the working directory.
        data_dir: where torchvision's data sets are, or are downloaded to.

    Raises:
        DataError: if data are missing or damaged, with every fault at once.
    """
    if stream in STREAMS:
        return load_dataset(dataset_of(stream), data_dir.expanduser().absolute())
    if not (settings.folder or settings.table):
        raise DataError(
            f"streams.{stream}: the path of its data is unknown, because a trial keeps none; pass the spec's streams"
        )
    return _load_own(stream, settings.model_dump_json(), _state(stream, settings))


State = tuple[tuple[str, int | str, int], ...]


@lru_cache(maxsize=2)
def _load_own(stream: str, content: str, state: State) -> Dataset:
    """Return a user's own data, given the settings as JSON; `state` makes the cache miss if a file has changed."""
    settings = StreamSettings.model_validate_json(content)
    if settings.folder is not None:
        from orchestrator.streams.sources.image_folder import load_folder

        return load_folder(stream, settings)
    from orchestrator.streams.sources.table import load_table

    return load_table(stream, settings)


def _state(stream: str, settings: StreamSettings) -> State:
    """Return place, time of change (ns) or version, and size (bytes) of every file of a user's own data."""
    if settings.folder is None:
        from orchestrator.streams.sources.tables.files import find_files

        found = []
        for name in ("table", "test_table"):
            with suppress(DataError):  # reported when it is read
                found += find_files(f"streams.{stream}.{name}", getattr(settings, name))[0]
        return tuple(sorted(file.state for file in found))
    root = Path(settings.folder).expanduser().absolute()
    paths = [Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names]
    facts = [(path, path.stat()) for path in sorted(paths) if path.is_file()]
    return tuple((str(path), fact.st_mtime_ns, fact.st_size) for path, fact in facts)
