"""The served page is for browsers on this machine that know the token."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report.page.server import PageServer, served_beside
from tests.report.page.world import make_run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    folder = tmp_path_factory.mktemp("served") / "run"
    make_run(folder, {"scenarios": ["split-digits/task"], "methods": ["naive"]}, n_trials=2)
    server = PageServer(str(folder))
    server.start()
    yield server
    server.close()


def ask(server: PageServer, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def test_the_page_and_its_state(server: PageServer) -> None:
    status, page, headers = ask(server, f"/?token={server.token}")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "data-live=" in page
    assert headers["Cache-Control"] == "no-store"
    status, state, _ = ask(server, f"/state?token={server.token}")
    assert status == 200
    assert len(state) == 32
    assert state in page


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 403),
        ("/?token=", {}, 403),
        ("/?token=guess", {}, 403),
        ("/?token=ü", {}, 403),
        ("/state?token=guess", {}, 403),
        ("/?token=TOKEN", {"Host": "evil.example"}, 403),
        ("/?token=TOKEN", {"Host": "127.0.0.1:1"}, 403),
        ("/?token=TOKEN", {"Origin": "http://evil.example"}, 403),
        ("/?token=TOKEN", {"Origin": "null"}, 403),
        ("/spec.yaml?token=TOKEN", {}, 404),
        ("/../spec.yaml?token=TOKEN", {}, 404),
    ],
)
def test_others_get_nothing(server: PageServer, path: str, headers: dict[str, str], status: int) -> None:
    path = path.replace("TOKEN", server.token).replace("ü", "%C3%BC")
    found, text, _ = ask(server, path, **headers)
    assert found == status
    assert "naive" not in text


def test_it_listens_on_loopback_alone(server: PageServer) -> None:
    assert server.address.startswith(f"http://127.0.0.1:{server.port}/?token=")
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_process_of_its_own_ends_with_the_sweep(tmp_path: Path) -> None:
    """The folder is not there when the server starts, as for a sweep that begins."""
    with served_beside(str(tmp_path / "run")) as address:
        port = int(address.split(":")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", address.partition(str(port))[2])
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Refresh"]) == (503, "3")
        assert answer.read().decode().startswith("Nothing to show yet. run: expected a run folder")
        connection.close()
        make_run(tmp_path / "run", {"scenarios": ["split-digits/task"], "methods": ["naive"]}, n_trials=2)
        connection.request("GET", address.partition(str(port))[2])
        assert connection.getresponse().status == 200
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/")


def test_a_browser_that_goes_away_is_not_spoken_of(server: PageServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        connection.sendall(f"GET /?token={server.token} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        connection.close()
    assert ask(server, f"/state?token={server.token}")[0] == 200
    assert capfd.readouterr() == ("", "")
