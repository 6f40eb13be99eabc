"""The call at the end of a sweep."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.execution.monitoring.notify import check_address, notify


class Hook(BaseHTTPRequestHandler):
    received: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, json.loads(body)))
        status = {"/moved": 302, "/broken": 500}.get(self.path.partition("?")[0], 204)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.received = []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_answer_arrives(hook: str) -> None:
    assert notify(f"{hook}/here?secret=1", "end", "runs/a", {"answer": {"n_missing": 0}}) == ""
    assert Hook.received == [("/here?secret=1", {"event": "end", "run": "runs/a", "answer": {"n_missing": 0}})]


@pytest.mark.parametrize("path", ["/broken", "/moved"])
def test_a_refusal_is_said(hook: str, path: str) -> None:
    said = notify(f"{hook}{path}?secret=1", "end", "runs/a", {})
    assert said.startswith("--notify: 127.0.0.1 did not take the answer (")
    assert "secret" not in said
    assert [where for where, _ in Hook.received] == [f"{path}?secret=1"], "no redirect is followed"


def test_nobody_there_is_said() -> None:
    assert "did not take the answer" in notify("http://127.0.0.1:9/", "end", "runs/a", {})


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org", "file:///etc/passwd", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected an address such as https"):
        check_address(url)
