"""Places as users type them: none silently becomes another one, and no secret in one is ever printed."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import api
from orchestrator.cli.shared.exits import EXIT_MISTAKE
from orchestrator.core.errors import StorageError
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.opening import open_storage
from orchestrator.storage.uris import Uri, checked_uri, is_uri, join, shown

SECRET = "hushhush"


# Secrets.


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("s3://me:hushhush@bucket/a?region=x", "s3://bucket/a?region=x"),
        ("s3://me@bucket/a", "s3://bucket/a"),
        ("s3://bucket/a?secret_key=hushhush&region=x", "s3://bucket/a?region=x"),
        ("s3://bucket/a?endpoint_override=http://me:hushhush@host:1", "s3://bucket/a?endpoint_override=http://host:1"),
        ("s3://bucket/a?endpoint_override=me:hushhush@host:1", "s3://bucket/a?endpoint_override=host:1"),
        ("s3://bucket/a?endpoint_override=me%3Ahush%2540hush%40host:1", "s3://bucket/a?endpoint_override=host:1"),
        ("s3://me:hush/hush@bucket/a?region=x", "s3://bucket/a?region=x"),
        ("s3://me:hush?hush#@bucket/a", "s3://bucket/a"),
        ("S3://me%3Ahushhush%40bucket/a", "s3://bucket/a"),
        ("s3://bucket:hushhush/a", "s3://bucket"),
        ("gs://bucket/a?X-Goog-Signature=hushhush", "gs://bucket/a"),
        ("abfs://container:hushhush@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("abfs://container@hushhush@account/a", "abfs://container@account/a"),
        ("abfs://:hushhush@account/a", "abfs://account/a"),
    ],
)
def test_secrets_in_a_uri_are_refused(uri: str, kept: str) -> None:
    assert shown(uri) == kept
    with pytest.raises(StorageError, match=r"^storage: .* holds credentials") as caught:
        open_storage(uri)
    assert f"storage: '{kept}' holds" in str(caught.value)
    assert SECRET not in str(caught.value)


KEYS = [
    "access_key", "secret_key", "SECRET_KEY", "session_token", "Password", "passwd", "pwd", "token", "SAS", "sas_token",
    "account_key", "X-Amz-Signature", "sig", "connection_string", "client_secret", "access%5Fkey", "%70assword",
    "acce%2573s_%6bey",
]  # fmt: skip
SCHEMES = ["s3", "S3", "gs", "GCS", "abfs", "Abfss", "memory", "https", "sftp", "nonsense", "file", "hdfs", "local"]
HOSTS = ["", "bucket", "host:9000", "container@account.dfs.core.windows.net", "[::1]:9000"]
NAMED = [
    "me:{}@",
    "me:x@{}@",
    "me:{}%40",
    "me%3A{}@",
    "me:x/{}@",
    "me:{}/y@",
    "me:x?{}@",
    "me:x#{}@",
    ":{}@",
    "me:x@y:{}@",
]
VALUES = [
    "me:{}@h:1", "{}@h", "{}%40h", "{}%2540h", "//me:{}@h", "http://me:{}@h", "HTTPS%3A%2F%2Fme:{}@h", "a@{}@h",
    "me:x/{}@h", "me:x&{}@h", "me:x#{}@h", "me:x#y&{}@h", "me:x?{}@h", "http://h?token={}", "http://h%3Ftoken={}",
]  # fmt: skip


def planted() -> list[str]:
    """Return URIs that hold SECRET, each in another position."""
    queries = [f"{key}={SECRET}" for key in KEYS] + [f"endpoint_override={v.format(SECRET)}" for v in VALUES]
    queries += [f"region=x&{query}" for query in queries] + [f"{query}&region=x" for query in queries]
    found = [f"{scheme}://{user.format(SECRET)}{host}/p" for scheme in SCHEMES for user in NAMED for host in HOSTS]
    found += [f"{scheme}://{host}/p?{query}" for scheme in SCHEMES for host in HOSTS for query in queries]
    found += [f"{scheme}://{host}/p{end}" for scheme in SCHEMES for host in HOSTS for end in (
        f"#{SECRET}", f"?region=x#{SECRET}", f"#token={SECRET}&a={SECRET}", f"?a=b#c=d&e={SECRET}")]  # fmt: skip
    found += [f"{scheme}:///{user.format(SECRET)}bucket/p" for scheme in SCHEMES for user in NAMED]
    return found


def test_a_secret_anywhere_is_refused_and_never_shown() -> None:
    uris = planted()
    assert len(uris) > 5000
    for uri in uris:
        assert SECRET not in shown(uri), uri
        assert SECRET not in shown(join(uri, "n")), uri
        for place in (uri, join(uri, "n")):
            with pytest.raises(StorageError) as caught:
                open_storage(place)
            assert SECRET not in str(caught.value), uri
            assert re.match("storage: '.*' (holds credentials|goes on after a #) ", str(caught.value)), uri


def test_a_secret_in_a_misspelt_uri_is_never_shown() -> None:
    for uri in random.Random(0).sample(planted(), 500):
        scheme, _, rest = uri.partition("://")
        for place in (
            f"{scheme}:/{rest}",
            f" {uri}",
            f"simplecache::{uri}",
            Path(uri),
            f"s3:{rest}",
            f"s3:me:{SECRET}:/b",
        ):
            with pytest.raises(StorageError, match=r"neither a path nor a URI|credentials|after a #") as caught:
                open_storage(place)
            assert SECRET not in str(caught.value), place


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/runs?region=eu-west-1",
        "s3://bucket/user@example.com/runs?scheme=http&endpoint_override=127.0.0.1:9000",
        "s3://bucket/a:b/c",
        "gs://bucket/runs?endpoint_override=localhost:1",
        "gcs://bucket/runs",
        "abfs://container@account.dfs.core.windows.net/me@example.com",
        "abfss://account.blob.core.windows.net/container/runs?enable_tls=true",
        "memory:///runs",
        "sftp://me@host:22/runs",
        "https://[::1]:9000/runs",
    ],
)
def test_a_uri_without_secrets_is_kept_as_it_is(uri: str) -> None:
    assert str(checked_uri(uri)) == uri
    assert shown(uri) == uri.replace("sftp://me@", "sftp://")


# Places that are no other places.


@pytest.mark.parametrize(
    ("root", "joined"),
    [
        ("s3://b/p/?region=x", "s3://b/p/n?region=x"),
        ("S3://b", "s3://b/n"),
        ("hdfs:///data/runs", "hdfs:///data/runs/n"),
        ("memory:///", "memory:///n"),
        ("file:///tmp", "file:///tmp/n"),
        ("zip:///?a=b#c", "zip:///n?a=b#c"),
        ("runs", "runs/n"),
        ("runs/", "runs/n"),
        ("./s3:/b", "./s3:/b/n"),
        ("~/runs", "~/runs/n"),
        (Path("/tmp/runs"), "/tmp/runs/n"),
    ],
)
def test_a_name_is_put_after_the_path(root: str | Path, joined: str) -> None:
    assert join(root, "n") == joined


def test_parts_of_a_uri_are_kept_as_they_are() -> None:
    uri = "s3://u@h:1/a%20b//c\n?d=e?&f#g#h"
    assert str(Uri.parse(uri)) == uri
    assert Uri.parse(uri) == Uri("s3", "u@h:1", "/a%20b//c\n", "d=e?&f", "g#h")
    with pytest.raises(ValueError, match="expected SCHEME://"):
        Uri.parse("s3:/b")
    assert [is_uri(place) for place in ("s3://", "a://b", "s3:/b", "/a://b", " s3://b")] == [True, True] + [False] * 3


def test_paths_and_file_uris_are_folders(tmp_path: Path) -> None:
    for place in (
        tmp_path, str(tmp_path), f"file://{tmp_path}", f"FILE://{tmp_path}", f"file://localhost{tmp_path}",
    ):  # fmt: skip
        assert isinstance(open_storage(place), LocalStorage)
        assert open_storage(place).path == tmp_path
    assert open_storage("file:///a%20b%23").path == Path("/a b#")
    for path in ("runs", "C:/runs", "a:b", "./s3:/b", "/s3:/b", "runs/a:/b"):
        assert open_storage(path).path == Path(path)


@pytest.mark.parametrize("uri", ["file://runs", "file://tmp/a", "file://", "file:///a?b=c", "file://localhost:1/a"])
def test_a_file_uri_names_a_whole_path_and_no_machine(uri: str) -> None:
    with pytest.raises(StorageError, match=re.escape(f"storage: '{uri}' is not file:///FOLDER ")):
        open_storage(uri)


def test_what_follows_a_hash_is_not_dropped() -> None:
    for uri in ("s3://bucket/run#1", "file:///tmp/run#1", "memory:///a#"):
        with pytest.raises(StorageError, match=r"storage: .* goes on after a # .* Write %23"):
            open_storage(uri)


@pytest.mark.parametrize(
    "place",
    [
        "file:/tmp/a",
        "s3:b/p",
        "s3:/b/p",
        "S3:b",
        "hdfs:/data",
        "dbfs:/x",
        "foo:/x",
        "gs:",
        "simplecache::s3://b/p",
        " s3://b",
    ],
)
def test_a_misspelt_uri_makes_no_folder(place: str) -> None:
    for typed in (place, Path(place), join(place, "n"), join(Path(place), "n")):
        with pytest.raises(StorageError, match=r"storage: .* is neither a path nor a URI such as .* Write SCHEME://"):
            open_storage(typed)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("~/runs", Path("~/runs"), join("~", "runs")):
        assert open_storage(place).path == tmp_path / "runs"
    assert open_storage("runs/~").path == Path("runs/~")
    with pytest.raises(StorageError, match=r"storage: '~nob\S* begins with ~, but that is no home folder"):
        open_storage("~nobody-of-this-name/runs")


@pytest.mark.parametrize("option", ["run", "storage"])
def test_a_sweep_takes_both_of_its_places_so(
    option: str, tmp_path: Path, make_spec: Callable[..., SweepSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    spec = make_spec()
    here = {"run": "~/runs/sweep", "storage": "~/runs"}[option]
    assert api.plan(spec, data_dir=tmp_path, **{option: here}).run == f"{tmp_path}/home/runs/sweep"  # type: ignore[arg-type]
    for place in ("hdfs:///data/runs", "file://runs/x", Path("s3://bucket/runs"), "s3:b"):
        with pytest.raises(StorageError, match=r"^storage: .*(none of|not file:///|neither a path nor)"):
            api.plan(spec, data_dir=tmp_path, **{option: place})  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_the_command_line_prints_no_password(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.cli.main import app
    from orchestrator.cli.shared.exits import guarded

    uri = f"s3://b/p?scheme=http&endpoint_override=minio:{SECRET}@h:9000"
    for arguments in (["show", uri], ["compact", uri], ["plan", "--storage", uri], ["plan", "--run", uri]):
        monkeypatch.setattr("sys.argv", ["orchestrator", *arguments])
        assert guarded(app) == EXIT_MISTAKE
        printed = "".join(capfd.readouterr())
        assert "storage: 's3://b/p" in printed
        assert SECRET not in printed
