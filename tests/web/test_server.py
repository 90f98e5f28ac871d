"""The socket: who may open it, what is left behind, and what clients are told when it is gone."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import EdgewakeError
from web.client import ApiError, Client, NotRunning
from web.server import Server

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def _answering(status: str, body: bytes, content_type: str = "application/json") -> Wsgi:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, [("Content-Type", content_type)])
        return [body]

    return app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def serve(path: Path) -> Iterator[Callable[[Wsgi], Client]]:
    """Return what serves an application on the socket and gives a client of it."""
    servers: list[Server] = []

    def start(app: Wsgi) -> Client:
        server = Server(app, path)
        server.start()
        servers.append(server)
        return Client(path, timeout_s=5.0)

    yield start
    for server in servers:
        server.stop()


def test_only_the_owner_may_open_the_socket(serve: Callable[[Wsgi], Client], path: Path) -> None:
    before = os.umask(0)
    try:
        client = serve(_answering("200 OK", b'{"a": 1}'))
        assert os.umask(0) == 0, "the process's umask was changed"
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert client.get("/status") == {"a": 1}


def test_the_socket_is_gone_after_stop_and_stop_may_be_repeated(path: Path) -> None:
    server = Server(_answering("200 OK", b"{}"), path)
    server.start()
    server.stop()
    server.stop()
    assert not path.exists()
    with pytest.raises(NotRunning):
        Client(path).get("/status")


def test_a_socket_left_by_a_killed_process_is_replaced(
    serve: Callable[[Wsgi], Client], path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(NotRunning):
        Client(path).get("/status")
    assert serve(_answering("200 OK", b"{}")).get("/status") == {}


def test_the_socket_of_a_living_process_is_left_alone(
    serve: Callable[[Wsgi], Client], path: Path
) -> None:
    client = serve(_answering("200 OK", b'{"mine": true}'))
    with pytest.raises(EdgewakeError, match="another edgewake answers there"):
        Server(_answering("200 OK", b"{}"), path).start()
    assert client.get("/status") == {"mine": True}


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(EdgewakeError, match=str(path)):
        Server(_answering("200 OK", b"{}"), path).start()
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    with pytest.raises(EdgewakeError, match="short path"):
        Server(_answering("200 OK", b"{}"), long).start()
    with pytest.raises(EdgewakeError):
        Client(long).get("/status")


def test_requests_are_served_at_the_same_time(serve: Callable[[Wsgi], Client]) -> None:
    """Each request waits for the other one, so that neither ends if they take turns."""
    barrier = threading.Barrier(2, timeout=10.0)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        barrier.wait()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'"met"']

    client = serve(app)
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(client.get("/x"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["met", "met"]


def test_nobody_running_says_how_to_start_one(path: Path) -> None:
    with pytest.raises(NotRunning) as caught:
        Client(path).get("/status")
    assert str(path.parent) in caught.value.message
    assert "edgewake up" in caught.value.hint


def test_a_problem_is_raised_with_its_hint(serve: Callable[[Wsgi], Client]) -> None:
    body = b'{"title": "No capacity", "detail": "web: full", "hint": "sleep something"}'
    client = serve(_answering("503 Service Unavailable", body, "application/problem+json"))
    with pytest.raises(ApiError, match="web: full; sleep something") as caught:
        client.post("/services/web/wake")
    assert caught.value.status == 503
    assert caught.value.problem["title"] == "No capacity"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_a_failure_without_a_problem_document_is_still_told(
    serve: Callable[[Wsgi], Client], body: bytes
) -> None:
    with pytest.raises(ApiError, match=r"(?i)bad gateway") as caught:
        serve(_answering("502 Bad Gateway", body)).get("/status")
    assert caught.value.status == 502


def test_an_answer_that_is_not_json_is_an_error_of_ours(serve: Callable[[Wsgi], Client]) -> None:
    with pytest.raises(EdgewakeError, match="not JSON"):
        serve(_answering("200 OK", b"<html>")).get("/status")


def test_an_answer_that_does_not_come_is_an_error_of_ours(
    serve: Callable[[Wsgi], Client], path: Path
) -> None:
    release = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        release.wait(10.0)
        start_response("200 OK", [])
        return [b"{}"]

    serve(app)
    try:
        with pytest.raises(EdgewakeError, match=r"no answer within 0\.1 s"):
            Client(path, timeout_s=0.1).get("/status")
    finally:
        release.set()


def test_text_is_text(serve: Callable[[Wsgi], Client]) -> None:
    body = "grüß\n".encode() + b"\xff"
    client = serve(_answering("200 OK", body, "text/plain; charset=utf-8"))
    assert client.text("/services/web/console") == "grüß\n\ufffd"
