"""Object stores by their URIs, through obstore: S3 and what speaks like it, Google Cloud Storage, Azure, and memory.

Credentials come from the environment of each process and from the role of its machine, never from a URI.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from obstore.store import AzureStore, GCSStore, MemoryStore, ObjectStore, S3Store

from orchestrator.core.errors import StorageError
from orchestrator.storage.uris import Uri, shown

_CLIENT = {"timeout": "1 h", "connect_timeout": "5 s", "read_timeout": "30 s"}
"""A large checkpoint may take long as long as bytes arrive; obstore would end it after 30 seconds."""

_RETRY = {"max_retries": 8}
"""Waits about 25 seconds in all (0.1 s, doubled each time), then gives up."""

_SECONDS_TO_FIND_A_REGION = 5.0

_S3_OPTIONS = {"region", "scheme", "endpoint_override", "force_virtual_addressing", "tls_verify_certificates"}
_S3_IGNORED = {
    "allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open", "check_directory_existence_before_creation",
}  # fmt: skip
"""pyarrow's options for buckets and directories, neither of which is made here; pandas may need them in the URI."""

_GCS_OPTIONS = {"scheme", "endpoint_override"}
_GCS_IGNORED = {"retry_limit_seconds", "project_id"}
_AZURE_OPTIONS = {"enable_tls"}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def open_store(uri: str) -> tuple[ObjectStore, str]:
    """Return the store that a URI names, and the path in it without slashes at its ends.

    Args:
        uri: without secrets; its options are those that pyarrow knows, so that pandas reads the same URI.

    Raises:
        StorageError: if no store has this scheme, or its bucket, path or options are not valid.
    """
    parts = Uri.parse(uri)
    make = _STORES.get(parts.scheme)
    if make is None:
        raise _refusal(uri, f"'{parts.scheme}' is none of {', '.join(sorted(_STORES))}; mount it and give the path")
    try:
        store, path = make(parts, unquote(parts.path).strip("/"))
    except StorageError:
        raise
    except Exception as error:  # obstore's own, or those of the packages that find credentials
        raise _refusal(uri, str(error).strip().split("\n")[0]) from error
    if {"", ".", ".."} & set(path.split("/")) and path:
        raise _refusal(uri, "its path has an empty part, '.' or '..'; leave that out")
    return store, path


def _s3(uri: Uri, path: str) -> tuple[ObjectStore, str]:
    options = _options(uri, _S3_OPTIONS, _S3_IGNORED)
    bucket, endpoint = _bucket(uri), _endpoint(options)
    config: dict[str, Any] = {"disable_bulk_delete": True}  # not every server has it
    if endpoint and _is_true(uri, options, "force_virtual_addressing", False):
        config |= {"endpoint": endpoint.replace("://", f"://{bucket}.", 1), "virtual_hosted_style_request": True}
    elif endpoint:
        config["endpoint"] = endpoint
    region = options.get("region") or ("" if endpoint else _region_of(bucket))
    if region:
        config["region"] = region
    client = _client(endpoint)
    if not _is_true(uri, options, "tls_verify_certificates", True):
        client["allow_invalid_certificates"] = True
    provider = _aws_profile()
    extra = {"credential_provider": provider} if provider else {}
    return S3Store(bucket, config=config, client_options=client, retry_config=_RETRY, **extra), path  # type: ignore[arg-type]


@cache
def _region_of(bucket: str) -> str:
    """Return the AWS region of a bucket, which S3 tells without credentials; empty if it does not answer."""
    request = urllib.request.Request(f"https://s3.amazonaws.com/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS_TO_FIND_A_REGION) as response:
            headers = response.headers
    except urllib.error.HTTPError as error:  # 403 of a private bucket, 301 of one in another region
        headers = error.headers
    except OSError:
        return ""
    return str(headers.get("x-amz-bucket-region") or "")


def _aws_profile() -> Callable[[], Any] | None:
    """Return what reads the credentials of an AWS profile, as `aws configure` writes it; None if there is none to read.

    obstore itself knows the environment, web identities and the roles of containers and machines.

    Raises:
        StorageError: if there is a profile and boto3, which reads it, is not installed.
    """
    files = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    credentials, config = (Path(os.environ.get(name, path)).expanduser().is_file() for name, path in files.items())
    if "AWS_ACCESS_KEY_ID" in os.environ or not (credentials or config or "AWS_PROFILE" in os.environ):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if not credentials and "AWS_PROFILE" not in os.environ:
            return None  # a config file may hold no more than a region
        raise StorageError(
            "storage: the credentials of an AWS profile need the package boto3. Install it here and on every worker "
            "(pip install boto3), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    try:
        provider: Callable[[], Any] = Boto3CredentialProvider()
    except ValueError:  # the profile holds no credentials; the machine may have a role
        return None
    return provider


def _gcs(uri: Uri, path: str) -> tuple[ObjectStore, str]:
    options = _options(uri, _GCS_OPTIONS, _GCS_IGNORED)
    endpoint = _endpoint(options)
    config: dict[str, Any] = {"base_url": endpoint} if endpoint else {}
    return GCSStore(_bucket(uri), config=config, client_options=_client(endpoint), retry_config=_RETRY), path  # type: ignore[arg-type]


def _azure(uri: Uri, path: str) -> tuple[ObjectStore, str]:
    """Return a store for `CONTAINER@ACCOUNT.dfs.core.windows.net`, `ACCOUNT.blob.core.windows.net/CONTAINER`,
    `ACCOUNT@HOST:PORT/CONTAINER` (an emulator), or `CONTAINER` with the account in the environment.
    """
    options = _options(uri, _AZURE_OPTIONS, set())
    user, _, host = uri.authority.rpartition("@")
    config: dict[str, Any] = {}
    endpoint, container = "", user or host
    if re.search(r"\.(dfs|blob)\.core\.", host):
        config["account_name"] = host.partition(".")[0]
        if not user:
            container, _, path = path.partition("/")
    elif ":" in host:
        scheme = "https" if _is_true(uri, options, "enable_tls", True) else "http"
        config["account_name"] = user
        endpoint = config["endpoint"] = f"{scheme}://{host}/{user}"
        container, _, path = path.partition("/")
    elif user:
        config["account_name"], container = user, host
    if not container:
        raise _refusal(str(uri), "it names no container; write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER")
    return AzureStore(container, config=config, client_options=_client(endpoint), retry_config=_RETRY), path  # type: ignore[arg-type]


@cache
def _shared_memory() -> MemoryStore:
    return MemoryStore()


def _memory(uri: Uri, path: str) -> tuple[ObjectStore, str]:
    """Return the one store of this process; the host is the first folder in it."""
    _options(uri, set(), set())
    return _shared_memory(), f"{uri.authority}/{path}".strip("/")


_STORES: Mapping[str, Callable[[Uri, str], tuple[ObjectStore, str]]] = {
    "s3": _s3, "gs": _gcs, "gcs": _gcs, "abfs": _azure, "abfss": _azure, "az": _azure, "memory": _memory,
}  # fmt: skip


def _options(uri: Uri, known: set[str], ignored: set[str]) -> dict[str, str]:
    items = [item.partition("=") for item in uri.query.split("&") if item]
    options = {unquote(name): unquote(value) for name, _, value in items}
    odd = sorted(options.keys() - known - ignored)
    if odd:
        ways = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise _refusal(str(uri), f"unknown option '{odd[0]}'; {ways}")
    return options


def _is_true(uri: Uri, options: Mapping[str, str], name: str, default: bool) -> bool:
    if name not in options:
        return default
    if options[name].lower() not in _BOOLEANS:
        raise _refusal(str(uri), f"write {name}=true or {name}=false")
    return _BOOLEANS[options[name].lower()]


def _endpoint(options: Mapping[str, str]) -> str:
    """Return the URL of a server of one's own, empty if there is none."""
    place = options.get("endpoint_override", "")
    return place if "://" in place or not place else f"{options.get('scheme', 'https')}://{place}"


def _client(endpoint: str) -> dict[str, Any]:
    return {**_CLIENT, "allow_http": endpoint.startswith("http://")}


def _bucket(uri: Uri) -> str:
    if not uri.authority:
        raise _refusal(str(uri), f"it names no bucket; write {uri.scheme}://BUCKET/FOLDER")
    return uri.authority


def _refusal(uri: str, reason: str) -> StorageError:
    return StorageError(f"storage: cannot open '{shown(uri)}': {reason}.")
