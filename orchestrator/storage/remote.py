"""Files of a user's own data in an object store or on a web server: which there are, and their content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, unquote

from obstore.store import HTTPStore

from orchestrator.core.errors import StorageError
from orchestrator.storage.stores import open_store
from orchestrator.storage.uris import Uri, checked_uri, shown

_WEB = ("http", "https")


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be read.

    Args:
        uri: its URI, without secrets.
        size_bytes: its size.
        version: another one if its content has changed.
    """

    uri: str
    size_bytes: int
    version: str


def find_remote(text: str) -> list[RemoteFile]:
    """Return the files at a URI: the file itself, those that match a pattern with *, or all in a folder.

    Raises:
        StorageError: if the URI holds a secret, no store knows it, or the store refuses.
    """
    uri = checked_uri(text)
    store, path = _open(uri)
    if uri.scheme in _WEB:
        return _single(uri, store, path)
    try:
        prefix = path.partition("*")[0].rpartition("/")[0] if "*" in path else path
        found = [meta for batch in store.list(prefix or None) for meta in batch]
    except Exception as error:  # obstore's own
        raise _refused(text, error) from error
    if "*" in path:
        found = [meta for meta in found if _matches(meta["path"], path)]
    elif not found:
        return _single(uri, store, path) if path else []
    return sorted((_file(uri, path, meta) for meta in found), key=lambda file: file.uri)


def read_remote(file: RemoteFile) -> bytes:
    """Return the content of a file.

    Raises:
        StorageError: if the store refuses.
    """
    store, path = _open(Uri.parse(file.uri))
    try:
        content: bytes = store.get(path).bytes().to_bytes()
    except Exception as error:  # obstore's own
        raise _refused(file.uri, error) from error
    return content


def _open(uri: Uri) -> tuple[Any, str]:
    if uri.scheme not in _WEB:
        return open_store(str(uri))
    options: Any = {"allow_http": uri.scheme == "http", "timeout": "1 h", "connect_timeout": "5 s"}
    server = str(replace(uri, path="", query="", fragment=""))
    return HTTPStore.from_url(server, client_options=options, retry_config={"max_retries": 2}), uri.path.strip("/")


def _single(uri: Uri, store: Any, path: str) -> list[RemoteFile]:
    """Return the file at a path, or none."""
    try:
        return [_file(uri, path, store.head(path))]
    except FileNotFoundError:
        return []
    except Exception as error:  # obstore's own
        raise _refused(str(uri), error) from error


def _matches(path: str, pattern: str) -> bool:
    """Return whether each part of a path matches its part of a pattern."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _file(uri: Uri, path: str, meta: Any) -> RemoteFile:
    """Return the file that a store knows as `meta`, given the store's path of `uri`, which may lack its container."""
    root, own = unquote(uri.path).strip("/"), str(meta["path"])
    if uri.scheme in _WEB:
        own = path
    elif root.endswith(path):
        own = root.removesuffix(path) + own
    else:
        own = own.removeprefix(path.removesuffix(root))
    place = replace(uri, path="/" + (own if uri.scheme in _WEB else quote(own, safe="/=")))
    return RemoteFile(str(place), int(meta["size"]), str(meta.get("e_tag") or meta.get("last_modified")))


def _refused(uri: str, error: Exception) -> StorageError:
    reason = " ".join(str(error).partition("Debug source")[0].split())[:200] or type(error).__name__
    return StorageError(f"cannot read '{shown(uri)}': {reason}")
