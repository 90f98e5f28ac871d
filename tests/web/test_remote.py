"""The command line and an edgewake on another machine: through its door, with a token."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import Exit, app
from orchestrator.errors import EdgewakeError
from tests.web.door.test_server import certificate  # noqa: F401 - a fixture
from web.client import ApiError, Client, NotRunning
from web.door.server import TcpServer, TlsAdapter
from web.remote import Remote


def api(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer what a door would, to one token."""
    known = environ.get("HTTP_AUTHORIZATION") == "Bearer ew_right"
    body = b'{"abilities": []}' if known else b'{"detail": "say who you are", "hint": "so"}'
    status = "200 OK" if known else "401 Unauthorized"
    start_response(status, [("Content-Type", "application/json")])
    return [body]


@contextmanager
def serving(tls: TlsAdapter | None = None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = TcpServer(listener, api, streams=1, tls=tls)
        server.prepare()
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


def test_commands_ask_another_machine(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("ew_right\n")
    there = ["--url", f"http://127.0.0.1:{port}"]
    command = ["abilities", "--json"]
    told = CliRunner().invoke(app, [*there, "--token-file", str(file), *command])
    assert (told.exit_code, told.stdout) == (0, '{\n  "abilities": []\n}\n')
    monkeypatch.setenv("EDGEWAKE_URL", there[1])
    monkeypatch.setenv("EDGEWAKE_TOKEN", "ew_right")
    assert CliRunner().invoke(app, command).exit_code == 0
    monkeypatch.setenv("EDGEWAKE_TOKEN", "ew_wrong")
    told = CliRunner().invoke(app, command)
    assert told.exit_code == Exit.FAILED
    assert "say who you are" in told.output
    told = CliRunner().invoke(app, ["--token-file", str(tmp_path / "none"), *command])
    assert "no token can be read" in told.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://box.example.org:8480", "without TLS"),
        ("http://192.0.2.1", "without TLS"),
        ("http://localhost.example.org", "without TLS"),
        ("ftp://box", "no address"),
        ("box:8480", "no address"),
        ("https://", "no address"),
        ("https://box/api", "no address"),
        ("https://box:99999", "out of range"),
        ("https://[::1", "Invalid"),
    ],
)
def test_a_url_that_is_none_or_would_show_the_token(url: str, said: str) -> None:
    with pytest.raises(EdgewakeError, match=said):
        Remote.parse(url, "ew_right")


@pytest.mark.parametrize("token", ["", "ew_é", "ew_\r\nX: y"])
def test_a_token_that_is_none(token: str) -> None:
    with pytest.raises(EdgewakeError, match="no token"):
        Remote.parse("https://box", token)


def test_a_token_is_not_in_what_is_printed() -> None:
    remote = Remote.parse("https://[2001:db8::1]", "ew_secret")
    assert str(remote) == "https://[2001:db8::1]:443"
    assert "secret" not in repr(remote)


def test_nobody_there_is_told(port: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        remote = Remote.parse(f"http://127.0.0.1:{unused.getsockname()[1]}", "ew_right")
        with pytest.raises(NotRunning, match="nobody answers"):
            Client(remote, timeout_s=5).get("/status")
    with pytest.raises(ApiError):
        Client(Remote.parse(f"http://127.0.0.1:{port}", "x"), timeout_s=5).get("/status")


def test_a_certificate_is_checked(certificate: tuple[Path, Path]) -> None:  # noqa: F811
    with serving(TlsAdapter(*certificate)) as port:
        for host in ("127.0.0.1", "localhost"):
            url = f"https://{host}:{port}"
            with pytest.raises(EdgewakeError, match="certificate is not to be believed"):
                Client(Remote.parse(url, "ew_right"), timeout_s=5).get("/x")
        known = Remote.parse(f"https://127.0.0.1:{port}", "ew_right", certificate[0])
        assert Client(known, timeout_s=5).get("/x") == {"abilities": []}
        other = Remote.parse(f"https://localhost:{port}", "ew_right", certificate[0])
        with pytest.raises(EdgewakeError, match="not to be believed"):
            Client(other, timeout_s=5).get("/x")
        no_file = Remote.parse(f"https://127.0.0.1:{port}", "ew_right", certificate[0] / "x")
        with pytest.raises(EdgewakeError, match="no certificates can be read"):
            Client(no_file, timeout_s=5).get("/x")
