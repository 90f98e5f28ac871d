"""Bytes from callers who mean no good, against a real server."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from web.door.framing import LARGEST_BODY, LARGEST_HEADERS, MOST_HEADERS
from web.door.server import TcpServer, TlsAdapter

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
QUICK = 0.04  # of the patience that callers are given otherwise


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with what the application was told."""
    body = environ["wsgi.input"].read()
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "size": len(body),
        "body": body[:100].decode("latin-1"),
        "role": environ.get("HTTP_X_EDGEWAKE_ROLE"),
        "scheme": environ["wsgi.url_scheme"],
    }
    answer = json.dumps(told).encode()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    )
    return [answer]


@contextmanager
def serving(**more: Any) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = TcpServer(listener, echo, streams=2, **more)
        server.prepare()
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with serving() as address:
        yield address


def said(address: tuple[str, int], *parts: bytes, more: bool = False) -> bytes:
    """Return all that is answered until the connection ends; `more`: we could say more."""
    with socket.create_connection(address, timeout=10) as caller:
        try:
            for part in parts:
                caller.sendall(part)
            if not more:
                caller.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was cut off: what was said before that counts
        answer = b""
        try:
            while piece := caller.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def test_an_ordinary_request_is_answered(server: tuple[str, int]) -> None:
    answer = said(server, GET + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Server: edgewake\r\n" in answer, "no version for those who look for one"
    two = said(server, POST + b"Content-Length: 3\r\n\r\nabc" + GET + b"Connection: close\r\n\r\n")
    assert two.count(b"HTTP/1.1 200 OK") == 2
    chunks = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    assert b'"body": "abcde"' in said(server, chunks)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (POST + b"Content-Length: -3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 0_3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (POST + b"Content-Length : 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 999\r\n\r\nabc", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 99 + b"3\r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Content-Length: %d\r\n\r\n" % (LARGEST_BODY + 1), 413),
        (POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", 413),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (GET + b"X-Edgewake_Role: admin\r\n\r\n", 400),
        (GET + b" folded: line\r\n\r\n", 400),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b"X: \x00\r\n\r\n", 400),
        (GET + b"X: y\n\r\n", 400),
        (GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
        (GET + b"X: y\r\n" * (MOST_HEADERS + 1) + b"\r\n", 400),
        (GET + b"X: " + b"y" * LARGEST_HEADERS + b"\r\n\r\n", 413),
        (b"GET /" + b"y" * LARGEST_HEADERS + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/9\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\r\n\r\n", 400),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_ends(
    server: tuple[str, int], request_: bytes, status: int
) -> None:
    answer = said(server, request_ + GET + b"\r\n")
    first, _, rest = answer.partition(b"\r\n")
    assert first.split(b" ")[:2] == [b"HTTP/1.1", b"%d" % status], answer[:200]
    assert b"HTTP/1.1 200" not in rest, "what came behind it was taken for a request"


def test_what_follows_the_last_chunk_is_no_request(server: tuple[str, int]) -> None:
    trailing = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + GET + b"\r\n"
    assert said(server, trailing).count(b"HTTP/1.1 ") == 1


def test_headers_of_several_lines_stay_together(server: tuple[str, int]) -> None:
    answer = said(server, GET + b"X-Edgewake-Role: viewer\r\nX-Edgewake-Role: admin\r\n\r\n")
    assert b'"role": "admin"' in answer, "the door passes none of them on"


@pytest.mark.parametrize(
    "begin",
    [b"", b"G", GET, POST + b"Content-Length: 9\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n"],
)
def test_who_says_nothing_more_is_let_go(begin: bytes) -> None:
    with serving(patience=QUICK) as address:
        assert b"200" not in said(address, begin, more=True)


def test_who_trickles_is_cut_off() -> None:
    with serving(patience=QUICK) as address, socket.create_connection(address) as caller:
        caller.sendall(GET)
        ended = threading.Event()

        def trickle() -> None:
            try:
                while not ended.wait(0.02):
                    caller.sendall(b"X: y\r\n")
            except OSError:
                ended.set()

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert ended.wait(10.0)
        finally:
            ended.set()
            thread.join()


def test_who_says_nothing_takes_no_thread_from_others() -> None:
    with serving() as address:
        silent = [socket.create_connection(address) for _ in range(60)]
        try:
            assert said(address, GET + b"\r\n").startswith(b"HTTP/1.1 200")
        finally:
            for each in silent:
                each.close()


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP/1.1\r\nHost: t", POST + b"Content-Length: 9\r\n\r\na"]
)
def test_who_is_slow_gets_less_time_while_others_wait(
    monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    for name in ("HEAD_S", "BODY_S", "SILENT_S"):
        monkeypatch.setattr(f"web.door.server.{name}", 1000.0)
    monkeypatch.setattr("web.door.server.HURRY_S", 0.1)
    monkeypatch.setattr("web.door.server.WORKERS", 2)
    with serving() as address, ExitStack() as callers:
        for _ in range(8):  # there are four threads
            caller = callers.enter_context(socket.create_connection(address, timeout=10))
            caller.sendall(begin)
        answer = said(address, GET + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")


def test_there_are_so_many_connections_at_most() -> None:
    with serving(most_connections=3) as address:
        callers = [socket.create_connection(address, timeout=10) for _ in range(4)]
        try:
            refused = callers[-1].recv(1000)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: " in refused
            callers[0].sendall(GET + b"\r\n")
            assert callers[0].recv(1000).startswith(b"HTTP/1.1 200 ")
        finally:
            for each in callers:
                each.close()


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate and its key, made as docs/security.md says."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=box"),
            *("-addext", "subjectAltName=DNS:box,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[tuple[str, int]]:
    with serving(tls=TlsAdapter(*certificate)) as address:
        yield address


def over_tls(address: tuple[str, int], certificate: Path, request_: bytes) -> bytes:
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="box") as caller,
    ):
        caller.sendall(request_)
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
        return answer


def test_tls_is_spoken_and_nobody_holds_it_up(
    secure: tuple[str, int], certificate: tuple[Path, Path]
) -> None:
    with socket.create_connection(secure) as silent, socket.create_connection(secure) as half:
        half.sendall(b"\x16\x03\x01\x02\x00")  # the beginning of a handshake
        answer = over_tls(secure, certificate[0], GET + b"Connection: close\r\n\r\n")
        assert b'"scheme": "https"' in answer
        assert silent.fileno() > 0


def test_plain_http_to_a_port_of_tls_is_told_so(secure: tuple[str, int]) -> None:
    assert b"https://" in said(secure, GET + b"\r\n")


def test_what_is_no_tls_harms_nobody(
    secure: tuple[str, int], certificate: tuple[Path, Path]
) -> None:
    for noise in (b"\x00" * 600, b"\x16\x03\x01\x00\x05hello" * 90, b"SSH-2.0-x\r\n"):
        assert b"200" not in said(secure, noise)
    answer = over_tls(secure, certificate[0], GET + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
