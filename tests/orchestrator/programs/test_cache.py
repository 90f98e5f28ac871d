"""The cache, between a client and an origin of this process: what is kept, and what never is."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import pytest

from orchestrator.programs import cache

MINUTE = ("Cache-Control", "max-age=60")
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (200, [MINUTE], 60),
        (200, [("cache-control", "Max-Age=60, s-maxage=5")], 5),
        (200, [("Date", DATE), ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")], 60),
        (200, [("Date", DATE), ("Expires", "0")], 0),
        (200, [], 0),
        (404, [MINUTE], 0),
        (206, [MINUTE], 0),
        (200, [MINUTE, ("Vary", "Accept")], 0),
        (200, [MINUTE, ("Set-Cookie", "a=b")], 0),
        (200, [("Cache-Control", "private, max-age=60")], 0),
        (200, [("Cache-Control", "no-store, max-age=60")], 0),
        (200, [("Cache-Control", 'no-cache="x", max-age=60')], 0),
        (200, [("Cache-Control", "max-age=-1")], 0),
    ],
)
def test_how_long_an_answer_is_fresh(
    status: int, headers: list[tuple[str, str]], seconds: float
) -> None:
    assert cache.freshness(status, headers) == seconds


class Origin(BaseHTTPRequestHandler):
    """Answers with a number that grows, and the headers that the path names."""

    asked = 0

    def _answer(self) -> None:
        type(self).asked += 1
        body = f"{self.command} {type(self).asked}".encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        if "/fresh" in self.path:
            self.send_header(*MINUTE)
        if "/old" in self.path:
            self.send_header(*MINUTE)
            self.send_header("Age", "100")
        self.send_header("Connection", "X-Hop")
        self.send_header("X-Hop", "only here")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(server: HTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def origin() -> Iterator[str]:
    Origin.asked = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    with serving(server) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def proxy(origin: str) -> Iterator[int]:
    with serving(cache.server(0)) as port:
        yield port


def ask(
    port: int, url: str, method: str = "GET", **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, url, headers=named)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.msg
    finally:
        connection.close()


def test_a_fresh_answer_is_given_again(proxy: int, origin: str) -> None:
    first, second = (ask(proxy, f"http://{origin}/fresh") for _ in range(2))
    assert (first[1], second[1]) == ("GET 1", "GET 1")
    assert first[2]["Cache-Status"] == "edgewake; fwd=uri-miss"
    assert second[2]["Cache-Status"] == "edgewake; hit"
    assert second[2]["Age"] == "0"
    assert second[2]["X-Hop"] is None, "what concerns one hop is not passed on"
    assert second[2]["Via"] == "1.1 edgewake"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/old", {}),
        ("/fresh", {"Authorization": "Basic x"}),
        ("/fresh", {"Range": "bytes=0-1"}),
        ("/fresh", {"Cache_Control": "no-cache"}),
    ],
)
def test_what_is_not_kept(proxy: int, origin: str, path: str, headers: dict[str, str]) -> None:
    answers = [ask(proxy, f"http://{origin}{path}", **headers)[1] for _ in range(2)]
    assert answers == ["GET 1", "GET 2"]


def test_a_change_makes_it_forget(proxy: int, origin: str) -> None:
    url = f"http://{origin}/fresh"
    ask(proxy, url)
    assert ask(proxy, url, "POST", Content_Length="0")[1] == "POST 2"
    assert ask(proxy, url)[1] == "GET 3"


def test_it_can_stand_before_one_origin(origin: str) -> None:
    with serving(cache.server(0, origin)) as port:
        assert [ask(port, "/fresh")[1] for _ in range(2)] == ["GET 1", "GET 1"]


def test_errors_are_answers(proxy: int) -> None:
    assert ask(proxy, "/fresh")[0] == 400
    assert ask(proxy, "http://127.0.0.1:1/")[0] == 502
    assert ask(proxy, "somewhere:443", "CONNECT")[0] == 501


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    kept = cache.Kept()
    for number in range(5):
        kept.put(str(number), cache.Answer(200, [MINUTE], b"x" * 40))
    assert [kept.get(str(number)) is not None for number in range(5)] == [False] * 3 + [True] * 2
    monkeypatch.setattr(cache, "LARGEST", 10)
    kept.put("9", cache.Answer(200, [MINUTE], b"x" * 40))
    assert kept.get("9") is None
