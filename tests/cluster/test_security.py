"""What an embedded cluster opens to others, and what it sends."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from orchestrator.execution.cluster import Cluster, connected
from tests.cluster.conftest import RAY_IN_THIS_PROCESS

pytestmark = RAY_IN_THIS_PROCESS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected(None, 1) as connection:
        yield connection


def test_the_dashboard_listens_on_loopback_and_nowhere_else(cluster: Cluster) -> None:
    port = urlsplit(cluster.dashboard).port
    listening = [
        each.laddr.ip
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]


@pytest.mark.parametrize("path", ["/api/jobs/", "/nodes?view=summary", "/api/v0/actors", "/api/cluster_status"])
def test_the_dashboard_asks_for_the_token(cluster: Cluster, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(cluster.dashboard + path, timeout=10)
    assert refused.value.code in (401, 403)
    refused.value.close()


def test_a_job_without_the_token_is_refused(cluster: Cluster) -> None:
    job = urllib.request.Request(
        f"{cluster.dashboard}/api/jobs/",
        b'{"entrypoint": "touch /tmp/never"}',
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(job, timeout=10)
    assert refused.value.code in (401, 403)
    refused.value.close()


def test_usage_reports_are_off(cluster: Cluster) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
