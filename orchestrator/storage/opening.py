"""Opens a storage, or a file in one, from a path, a URI or an address."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from orchestrator.storage.base import Place, Storage, StoredFile
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.uris import Uri, checked_uri, is_uri, local_path, path_of


def open_storage(place: Place) -> Storage:
    """Return the storage at a path or URI, whether it exists or not; nothing is read or written.

    Raises:
        StorageError: if it is a URI that holds a secret or that no store here knows, or neither URI nor path.
    """
    if isinstance(place, Storage):
        return place
    if isinstance(place, Path) or not is_uri(place):
        return LocalStorage(local_path(place))
    uri = checked_uri(place)
    if uri.scheme == "file":
        return LocalStorage(path_of(uri))
    from orchestrator.storage.objects import open_object_storage  # a run on a disk needs no obstore

    return open_object_storage(str(uri))


def stored_file(place: str | Path | StoredFile) -> StoredFile:
    """Return the file at a path, URI or `Storage.address`."""
    if isinstance(place, StoredFile):
        return place
    if isinstance(place, str) and is_uri(place):
        uri = Uri.parse(place)
        folder, _, name = uri.path.rpartition("/")
        return StoredFile(open_storage(str(replace(uri, path=folder))), unquote(name))
    path = Path(place)
    return StoredFile(LocalStorage(path.parent), path.name)
