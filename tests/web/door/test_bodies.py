"""Bodies as they come over TCP: whole and read in one way, or refused and never handed on."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from web.door.server import TcpServer

Ask = Callable[[bytes], bytes]


@pytest.fixture
def handed_on() -> list[bytes]:
    """Return the bodies that the application got."""
    return []


@pytest.fixture
def ask(handed_on: list[bytes]) -> Iterator[Ask]:
    """Return what sends bytes, then nothing more, and returns all that is answered."""

    def app(environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        handed_on.append(environ["wsgi.input"].read())
        begin("200 OK", [("Content-Length", "0")])
        return []

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = TcpServer(listener, app, streams=1)
        server.prepare()
        thread = threading.Thread(target=server.serve)
        thread.start()
        address = listener.getsockname()

        def asked(sent: bytes) -> bytes:
            with socket.create_connection(address, timeout=5) as line:
                line.sendall(b"POST / HTTP/1.1\r\nHost: t\r\n" + sent)
                line.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: line.recv(4096), b""))

        yield asked
        server.stop()
        thread.join()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (CHUNKED + b"2\r\nab\r\n1;a=b\r\nc\r\n0\r\n\r\n", b"abc"),
        (CHUNKED + b"A\r\n0123456789\r\n0\r\nSome: trailer\r\n\r\n", b"0123456789"),
    ],
)
def test_a_whole_body_is_handed_on(
    ask: Ask, handed_on: list[bytes], sent: bytes, body: bytes
) -> None:
    assert ask(sent).startswith(b"HTTP/1.1 200")
    assert handed_on == [body]


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 90\r\n\r\nhosts: {}",
        CHUNKED + b"2\r\nab\r\n",
        CHUNKED + b"2\r\nab\r\n0\r\n",
        CHUNKED + b"2\r\nab",
        CHUNKED + b"2\r\nabXX0\r\n\r\n",
        CHUNKED + b"-2\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"+2\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
        CHUNKED + b" 2\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"2\nab\r\n0\r\n\r\n",
        CHUNKED + b"\r\n",
    ],
)
def test_a_body_that_breaks_off_or_reads_in_two_ways_is_refused(
    ask: Ask, handed_on: list[bytes], sent: bytes
) -> None:
    answer = ask(sent)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert handed_on == []


def test_a_body_in_chunks_is_bounded_too(ask: Ask, handed_on: list[bytes]) -> None:
    assert ask(CHUNKED + b"ffffffff\r\nab").startswith(b"HTTP/1.1 413")
    assert handed_on == []


def test_trailers_are_no_request(ask: Ask, handed_on: list[bytes]) -> None:
    answer = ask(CHUNKED + b"0\r\nGET http://t/ HTTP/1.1\r\nHost: t\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert handed_on == [b""]
