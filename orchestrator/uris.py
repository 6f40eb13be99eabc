"""URIs of storages: how they are told from paths, joined with a name, and shown without what is secret in them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SECRET = re.compile(r"key|secret|token|passw|sig|credential|sas", re.IGNORECASE)
_NAMED_BY_USER = ("abfs", "abfss")
"""Schemes whose URIs hold a container, and not a person, before the @."""


def is_uri(place: str) -> bool:
    """Return whether a text is a URI and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def join(root: str | Path, name: str) -> str:
    """Return the path or URI of `name` in `root`; a URI keeps its query."""
    if isinstance(root, Path) or not is_uri(root):
        return str(Path(root) / name)
    parts = urlsplit(root)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def shown(uri: str) -> str:
    """Return a URI as it may be printed and stored: without passwords, people's names and secrets in its query."""
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0] + at if parts.scheme in _NAMED_BY_USER else ""
    return urlunsplit(parts._replace(netloc=name + host, query=shown_query(parts.query), fragment=""))


def shown_query(query: str) -> str:
    """Return the query of a URI as it may be printed and stored."""
    kept = [item for item in query.split("&") if item and not is_secret(item.partition("=")[0])]
    return "&".join(re.sub(r"(//|%2F%2F)[^/&]*?(@|%40)", r"\1", item, flags=re.IGNORECASE) for item in kept)


def is_secret(name: str) -> bool:
    """Return whether an option of this name may hold a secret."""
    return _SECRET.search(name) is not None
