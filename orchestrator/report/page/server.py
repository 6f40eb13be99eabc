"""The page of a run while it runs: on this machine's loopback address alone, behind a token."""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from orchestrator.core.errors import OrchestratorError
from orchestrator.report.page.render import content_of, render_page
from orchestrator.report.page.writing import state_of
from orchestrator.results.run import Run

_LOOPBACK = "127.0.0.1"
_LEAST_SECONDS = 2.0
"""Between two looks at the tables, whoever asks."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a browser that went away: a sweep's progress is on the same terminal."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class PageServer:
    """Serves the page of a run to browsers on this machine.

    A request needs the token, a Host that is this server, and, where a browser sends an Origin, this server as that:
    so no other site, and no name that is made to point here, can read the run.

    Args:
        place: the run folder.
        port: of the server; 0 for any that is free.
    """

    def __init__(self, place: str, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self._place = place
        self._lock = threading.Lock()
        self._looked_at = -_LEAST_SECONDS
        self._state, self._page = "", b""
        server = self

        class Handler(BaseHTTPRequestHandler):
            server_version = "continual-sweep"
            sys_version = ""

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing: the address in a line would have the token."""

        self._server = _Server((_LOOPBACK, port), Handler)

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """Return the address to open, with the token."""
        return f"http://{_LOOPBACK}:{self.port}/?token={self.token}"

    def run_until_interrupted(self) -> None:
        """Serve in this thread."""
        self._server.serve_forever(poll_interval=0.2)

    def start(self) -> None:
        """Serve in another thread, which ends with the process."""
        threading.Thread(target=self.run_until_interrupted, name="page", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request with the page, or its state."""
        hosts = {f"{name}:{self.port}" for name in (_LOOPBACK, "localhost")}
        origin = request.headers.get("Origin")
        asked = urlsplit(request.path)
        token = parse_qs(asked.query).get("token", [""])[0]
        if request.headers.get("Host") not in hosts or origin not in {None, *(f"http://{host}" for host in hosts)}:
            return _send(request, HTTPStatus.FORBIDDEN, b"This page is for this machine alone.\n")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return _send(request, HTTPStatus.FORBIDDEN, b"Open the address that the command printed: it has a token.\n")
        if asked.path not in ("/", "/state"):
            return _send(request, HTTPStatus.NOT_FOUND, b"There is only the page of the run.\n")
        try:
            state, page = self._now(asked.path == "/")
        except OrchestratorError as error:  # the run folder is not there yet, or a file of it is damaged
            return _send(request, HTTPStatus.SERVICE_UNAVAILABLE, f"Nothing to show yet. {error}\n".encode())
        if asked.path == "/state":
            return _send(request, HTTPStatus.OK, state.encode())
        return _send(request, HTTPStatus.OK, page, "text/html")

    def _now(self, with_page: bool) -> tuple[str, bytes]:
        """Return the state of the run and its page; the tables are looked at every two seconds at most."""
        with self._lock:
            is_due = time.monotonic() - self._looked_at >= _LEAST_SECONDS
            if is_due or (with_page and not self._page):
                run = Run.open(self._place, cached=True)
                state = state_of(run)
                if state != self._state:
                    self._state, self._page = state, b""
                if with_page and not self._page:
                    self._page = render_page(content_of(run), state, f"/state?token={self.token}").encode()
                self._looked_at = time.monotonic()
            return self._state, self._page


@contextmanager
def served_beside(place: str) -> Iterator[str]:
    """Serve the page of a run from a process of its own, so that this one is not slowed; yield the address.

    The process ends with the context, and also if this process dies.

    Args:
        place: the run folder, which need not exist yet.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(place, its), name="page", daemon=True)
    process.start()
    its.close()
    try:
        yield str(ours.recv())
    finally:
        ours.close()
        process.join(5)
        if process.is_alive():
            process.kill()


def _serve(place: str, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which ends this process
    server = PageServer(place)
    parent.send(server.address)
    server.start()
    try:
        parent.recv()
    except EOFError:
        server.close()


def _send(request: BaseHTTPRequestHandler, status: HTTPStatus, content: bytes, kind: str = "text/plain") -> None:
    request.send_response(status)
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Length": str(len(content)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Refresh"] = "3"
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)
