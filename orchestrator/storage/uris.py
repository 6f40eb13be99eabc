"""URIs of storages: told apart from paths, joined with a name, and shown without secrets.

urllib does not parse them: it drops an empty host when it makes a text again, and cuts a password at a / ? or #.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from orchestrator.core.errors import StorageError

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_NO_PATH = re.compile(
    r"\s*([A-Za-z][A-Za-z0-9+.:-]+:/|(file|local|s3a?|gs|gcs|abfss?|az|adl|hf|hdfs|viewfs|dbfs|memory|https?):)",
    re.IGNORECASE,
)
"""The beginning of a URI that lost a slash, as in a Path, or got something in front. A drive has one letter."""

_AT = re.compile(r"@|%(?:25)*40")
_COLON = re.compile(r":|%(?:25)*3A", re.IGNORECASE)
_USER = re.compile(r"(https?(?::|%3A)(?://|%2F%2F))?.*(?:@|%(?:25)*40)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:%]*)(:[0-9]*)?")
_NAME = re.compile(r"[\w.-]+")
_SECRET = re.compile(r"key|secret|token|pass|pwd|sig|credential|sas|connection_?string", re.IGNORECASE)
_NAMED_BY_USER = ("abfs", "abfss")
"""Schemes with a container, and not a person, before the @."""
_NAMED_BY_BUCKET = ("s3", "gs", "gcs")
"""Schemes with a bucket in place of a host, which has neither a person nor a port."""


@dataclass(frozen=True)
class Uri:
    """The parts of a URI, as they are written.

    Args:
        scheme: in small letters.
        authority: user, host and port, or the bucket; may be empty.
        path: empty, or from its first slash on.
        query: without the question mark.
        fragment: without the #.
    """

    scheme: str
    authority: str
    path: str = ""
    query: str = ""
    fragment: str = ""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Return the parts of a text that is a URI.

        Raises:
            ValueError: if it is none.
        """
        found = _URI.fullmatch(text)
        if found is None:
            raise ValueError("expected SCHEME://…")
        scheme, *others = found.groups(default="")
        return cls(scheme.lower(), *others)

    def __str__(self) -> str:
        query, fragment = self.query and f"?{self.query}", self.fragment and f"#{self.fragment}"
        return f"{self.scheme}://{self.authority}{self.path}{query}{fragment}"

    def folder(self, name: str) -> Uri:
        """Return the URI of `name` in this one."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")


def is_uri(place: str) -> bool:
    """Return whether a text is a URI and not a path."""
    return _URI.fullmatch(place) is not None


def join(root: str | Path, name: str) -> str:
    """Return the path or URI of `name` in `root`; a URI keeps its query."""
    if isinstance(root, Path) or not is_uri(root):
        return os.path.join(root, name)
    return str(Uri.parse(root).folder(name))


def checked_uri(text: str) -> Uri:
    """Return the parts of a URI that may be opened, stored and printed.

    Raises:
        StorageError: if it holds a secret, or a fragment, which no store knows.
    """
    uri = Uri.parse(text)
    if _has_password(uri) or any(_is_secret_item(item) or _AT.search(item) for item in _items(uri.query)):
        raise StorageError(
            f"storage: '{shown(text)}' holds credentials (left out here). Set them in the environment of the sweep and "
            "its workers, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if "#" in text:
        raise StorageError(
            f"storage: '{shown(text)}' goes on after a # (left out here). Write %23 for that sign in a name, and set "
            "credentials in the environment."
        )
    return uri


def path_of(uri: Uri) -> Path:
    """Return the folder that a URI of scheme `file` names.

    Raises:
        StorageError: if it names a machine, no folder, or more than a folder.
    """
    if uri.authority.lower() not in ("", "localhost") or not uri.path or uri.query:
        raise StorageError(
            f"storage: '{shown(str(uri))}' is not file:///FOLDER with a whole path. Give the path alone; it may be "
            "relative."
        )
    return Path(unquote(uri.path))


def local_path(place: str | Path) -> Path:
    """Return the folder at a path; ~ is the home folder.

    Raises:
        StorageError: if it looks like a URI that was cut or misspelt, or names the home of nobody.
    """
    if _NO_PATH.match(str(place)):
        start = str(place).strip().partition(":")[0]
        raise StorageError(
            f"storage: '{start}:…' is neither a path nor a URI such as s3://bucket/prefix, gs://…, abfs://… or "
            "file:///folder. Write SCHEME:// with both slashes, and give a URI as a str, not as a Path. For a "
            "folder of that name give its whole path."
        )
    try:
        return Path(place).expanduser()
    except RuntimeError as error:
        raise StorageError(
            f"storage: '{place}' begins with ~, but that is no home folder on this machine. Write the whole path."
        ) from error


def shown(uri: str) -> str:
    """Return a URI as it may be printed and stored: without passwords, people's names and secrets in its query."""
    parts = Uri.parse(uri)
    if _has_password(parts) and _AT.search(parts.path + parts.query + parts.fragment):
        parts = Uri.parse(f"{parts.scheme}://{_AT.split(uri)[-1]}")  # a password may hold / ? and # too
    *users, host = _AT.split(parts.authority)
    if _has_password(replace(parts, authority=host)):
        return f"{parts.scheme}://{_COLON.split(host)[0]}"
    name = _COLON.split(users[0])[0] if users and parts.scheme in _NAMED_BY_USER else ""
    query = "" if _AT.search(parts.fragment) else shown_query(parts.query)
    return str(replace(parts, authority=f"{name}@{host}" if name else host, query=query, fragment=""))


def shown_query(query: str) -> str:
    """Return the query of a URI as it may be printed and stored: without secrets and people's names."""
    kept = [item.partition("=") for item in _items(query) if not _is_secret_item(item)]
    return "&".join(
        name + mark + _USER.sub(r"\1", value) for name, mark, value in kept if _NAME.fullmatch(_decoded(name))
    )


def is_secret(name: str) -> bool:
    """Return whether an option of this name may hold a secret."""
    return _SECRET.search(_decoded(name)) is not None


def _has_password(uri: Uri) -> bool:
    """Return whether the authority holds more than a host, or a container in front of one."""
    *users, host = _AT.split(uri.authority)
    rest = uri.path + uri.query + uri.fragment
    if not uri.authority:
        return re.search(rf"(?i:{_COLON.pattern}).*(?:{_AT.pattern})", uri.path, re.DOTALL) is not None
    if _COLON.search(host) and (uri.scheme in _NAMED_BY_BUCKET or not _HOST.fullmatch(host) or _AT.search(rest)):
        return True
    return bool(users) and (
        len(users) > 1 or uri.scheme in _NAMED_BY_BUCKET or uri.scheme == "file" or bool(_COLON.search(users[0]))
    )


def _items(query: str) -> list[str]:
    """Return each NAME=VALUE of a query; an & without a = after it belongs to a value."""
    return [item for item in re.split(r"&(?=[^&=]*=)", query) if item]


def _is_secret_item(item: str) -> bool:
    """Return whether NAME=VALUE, or a URI in the value, has the name of a secret."""
    for piece in re.split(r"[?&;#]", _decoded(item)):
        *names, value = piece.split("=")
        if any(map(is_secret, names or [value])):
            return True
    return False


def _decoded(text: str) -> str:
    """Return a text with its percent signs decoded, however often it was quoted."""
    while (once := unquote(text)) != text:
        text = once
    return text
