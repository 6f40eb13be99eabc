"""URIs of object stores: which store, path and settings each one means."""

from __future__ import annotations

import io
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from orchestrator.core.errors import StorageError
from orchestrator.storage import stores
from orchestrator.storage.opening import open_storage, stored_file
from orchestrator.storage.stores import open_store
from orchestrator.storage.uris import join


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    stores._region_of.cache_clear()


# S3.


@pytest.mark.parametrize(
    ("query", "config"),
    [
        ("region=eu-west-1", {"region": "eu-west-1"}),
        ("endpoint_override=h:9000", {"endpoint": "https://h:9000"}),
        ("endpoint_override=h:9000&scheme=http", {"endpoint": "http://h:9000"}),
        ("endpoint_override=http://h:9000", {"endpoint": "http://h:9000"}),
        ("endpoint_override=http%3A%2F%2Fh", {"endpoint": "http://h"}),
        (
            "endpoint_override=h&force_virtual_addressing=true",
            {"endpoint": "https://bucket.h", "virtual_hosted_style_request": "true"},
        ),
        ("endpoint_override=h&allow_bucket_creation=true&allow_delayed_open=true", {"endpoint": "https://h"}),
    ],
)
def test_an_s3_uri_gives_bucket_and_server(query: str, config: dict[str, str]) -> None:
    store, path = open_store(f"s3://bucket/a%20b/c/?{query}")
    assert isinstance(store, S3Store)
    assert path == "a b/c"
    found = {key.removeprefix("aws_"): str(value).lower() for key, value in store.config.items()}
    assert found == {"bucket": "bucket", "disable_bulk_delete": "true", **config}
    is_plain = config.get("endpoint", "").startswith("http://")
    assert (store.client_options or {})["allow_http"] == str(is_plain).lower()  # type: ignore[comparison-overlap]


def test_certificates_are_checked_by_default() -> None:
    for value, is_allowed in (("true", None), ("1", None), ("false", "true"), ("0", "true")):
        store, _ = open_store(f"s3://bucket/a?region=x&tls_verify_certificates={value}")
        assert (store.client_options or {}).get("allow_invalid_certificates") == is_allowed  # type: ignore[union-attr]


def answer(region: str, status: int = 200) -> Callable[..., Any]:
    headers = Message()
    if region:
        headers["x-amz-bucket-region"] = region

    def reply(request: urllib.request.Request, timeout: float) -> Any:
        assert (request.full_url, request.method) == ("https://s3.amazonaws.com/bucket", "HEAD")
        if status == 0:
            raise TimeoutError
        raise urllib.error.HTTPError(request.full_url, status, "", headers, io.BytesIO())

    return reply


@pytest.mark.parametrize(
    ("reply", "region"),
    [(answer("eu-west-1", 403), "eu-west-1"), (answer("eu-west-1", 301), "eu-west-1"), (answer("", 404), None),
     (answer("", 0), None)],
)  # fmt: skip
def test_the_region_of_a_bucket_is_found(
    reply: Callable[..., Any], region: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", reply)
    for _ in range(2):
        store, _ = open_store("s3://bucket/a")
        assert isinstance(store, S3Store)
        assert store.config.get("region", store.config.get("aws_region")) == region


def test_a_given_region_or_server_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    open_store("s3://bucket/a?endpoint_override=h")
    open_store("s3://bucket/a?region=x")


def test_an_aws_profile_gives_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = me\naws_secret_access_key = mine\n"
        "[other]\naws_access_key_id = you\naws_secret_access_key = yours\n"
    )
    for profile, key in (("", "me"), ("other", "you")):
        if profile:
            monkeypatch.setenv("AWS_PROFILE", profile)
        store, _ = open_store("s3://bucket/a?region=x")
        assert isinstance(store, S3Store)
        assert store.credential_provider is not None
        assert store.credential_provider()["access_key_id"] == key  # type: ignore[index]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "they")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "theirs")
    store, _ = open_store("s3://bucket/a?region=x")
    assert isinstance(store, S3Store)
    assert store.credential_provider is None


def test_a_profile_without_boto3_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.auth.boto3", None)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nregion = eu-west-1\n")
    open_store("s3://bucket/a?region=x")
    (tmp_path / ".aws" / "credentials").write_text("[default]\n")
    with pytest.raises(StorageError, match=r"need the package boto3.*pip install boto3"):
        open_store("s3://bucket/a?region=x")


# Google Cloud Storage, Azure and memory.


def test_a_gcs_uri_gives_bucket_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("gs", "gcs"):
        store, path = open_store(f"{scheme}://bucket/a?endpoint_override=localhost:1&scheme=http&retry_limit_seconds=3")
        assert isinstance(store, GCSStore)
        assert path == "a"
        found = {key.removeprefix("google_"): value for key, value in store.config.items()}
        assert found == {"bucket": "bucket", "base_url": "http://localhost:1"}
        assert (store.client_options or {})["allow_http"] == "true"


@pytest.mark.parametrize(
    ("uri", "account", "container", "path", "endpoint"),
    [
        ("abfs://box@me.dfs.core.windows.net/a/b", "me", "box", "a/b", None),
        ("abfss://me.blob.core.windows.net/box/a/b?enable_tls=true", "me", "box", "a/b", None),
        ("abfs://me.dfs.core.windows.net/box", "me", "box", "", None),
        ("abfs://me@box/a", "me", "box", "a", None),
        ("az://box/a", None, "box", "a", None),
        ("abfs://me@127.0.0.1:1/box/a?enable_tls=false", "me", "box", "a", "http://127.0.0.1:1/me"),
        ("abfs://me@127.0.0.1:1/box/a", "me", "box", "a", "https://127.0.0.1:1/me"),
    ],
)
def test_an_azure_uri_gives_account_and_container(
    uri: str,
    account: str | None,
    container: str,
    path: str,
    endpoint: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "of-the-environment")
    store, found = open_store(uri)
    assert isinstance(store, AzureStore)
    config = {key.removeprefix("azure_").removeprefix("storage_"): value for key, value in store.config.items()}
    assert (found, config.get("account_name"), config["container_name"]) == (path, account, container)
    assert config.get("endpoint") == endpoint


def test_memory_is_shared_within_a_process() -> None:
    name = uuid.uuid4().hex
    storage = open_storage(join(f"MEMORY:///{name}", "n"))
    assert isinstance(open_store(f"memory:///{name}")[0], MemoryStore)
    assert storage.where == f"memory:///{name}/n"
    storage.folder("trials").write("a", b"x")
    file = stored_file(storage.folder("trials").address("a"))
    assert str(file) == f"memory:///{name}/n/trials/a"
    assert file.storage.read("a") == b"x"


# Refusals.


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nonsense://a/b", "'nonsense' is none of abfs, abfss, az, gcs, gs, memory, s3; mount it and give the path"),
        ("hdfs://host/a", "'hdfs' is none of "),
        ("local:///tmp/x", "'local' is none of "),
        ("sftp://host/x", "'sftp' is none of "),
        ("s3://bucket/a?colour=red", "unknown option 'colour'; it takes endpoint_override, "),
        ("gs://bucket/a?region=x", "unknown option 'region'; it takes endpoint_override, scheme"),
        ("abfs://c@a/p?scheme=http", "unknown option 'scheme'; it takes enable_tls"),
        ("memory://a?b=c", "unknown option 'b'; it takes none"),
        ("s3:///a?region=x", "it names no bucket; write s3://BUCKET/FOLDER"),
        ("gs:///a", "it names no bucket; write gs://BUCKET/FOLDER"),
        ("abfs://a.dfs.core.windows.net", "it names no container; write abfs://"),
        ("s3://b/p//x?region=r", "its path has an empty part, '.' or '..'"),
        ("memory://b/p/../x", "its path has an empty part, '.' or '..'"),
        ("s3://b/p?region=r&tls_verify_certificates=maybe", "write tls_verify_certificates=true or "),
    ],
)
def test_what_is_no_store_is_refused(uri: str, reason: str) -> None:
    with pytest.raises(StorageError, match=re.escape(f"storage: cannot open '{uri}': {reason}")):
        open_storage(uri)


def test_a_library_that_refuses_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such account\n\nDebug: more")

    monkeypatch.setattr(stores, "AzureStore", refuse)
    with pytest.raises(StorageError, match=r"cannot open 'abfs://c@a/p': no such account\.$"):
        open_storage("abfs://c@a/p")
