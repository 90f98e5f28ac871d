"""What hello's web server answers, byte by byte."""

import http.client
import itertools
import json
import socket
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

import pytest

from tests.images.hello.conftest import (
    ADDRESS,
    ADDRESS6,
    MAC,
    SETTINGS,
    TIMEOUT_S,
    Fetch,
    Guest,
    Lan,
)

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("guest")]

Exchange = Callable[..., bytes]
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def exchange() -> Exchange:
    """Send pieces, each in a segment of its own, and return all that comes until the end."""

    def send(*pieces: bytes, pause_s: float = 0.02, half_close: bool = False) -> bytes:
        with socket.create_connection((ADDRESS, 80), TIMEOUT_S) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(pause_s)
                peer.sendall(piece)
            if half_close:
                peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(65536), b""))

    return send


def statuses(answer: bytes) -> list[bytes]:
    """Return the status codes in a stream of responses."""
    return [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_the_page_shows_what_it_was_told(fetch: Fetch) -> None:
    page = fetch("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    for row in (
        "<tr><th>Guest</th><td>g1</td></tr>",
        "<tr><th>Service</th><td>web</td></tr>",
        "<tr><th>Host</th><td>box</td></tr>",
        f"<tr><th>Address</th><td>{ADDRESS}</td></tr>",
        f"<tr><th>IPv6 address</th><td>{ADDRESS6}</td></tr>",
        "<tr><th>Platform</th><td>QEMU</td></tr>",
        "<tr><th>greeting</th><td>Hi &lt;b&gt;&amp;&quot;x&quot;</td></tr>",
        "<h1>Hi &lt;b&gt;&amp;&quot;x&quot;</h1>",
    ):
        assert row in text
    assert "<b>" not in text
    assert "<tr><th>Up for</th><td>" in text


def test_info_is_the_same_for_programs(fetch: Fetch) -> None:
    first, second = fetch("/info").json, fetch("/info").json
    assert first.items() >= {
        "name": "g1", "service": "web", "host": "box", "ip": ADDRESS, "ip6": ADDRESS6, "mac": MAC,
        "platform": "QEMU", "config": {"greeting": 'Hi <b>&"x"'}, "config_cut": False,
    }.items()  # fmt: skip
    assert second["requests"] == first["requests"] + 1
    assert second["uptime"] > first["uptime"]


def test_healthz_and_the_date(fetch: Fetch) -> None:
    reply = fetch("/healthz")
    assert (reply.status, reply.body) == (200, b"ok\n")
    said = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    assert abs(said - time.time()) < 3


ANSWERS = [
    ("GET", "/nothing", 404),
    ("GET", "/healthz?a=b", 200),
    ("GET", f"http://{ADDRESS}/healthz", 200),
    ("GET", f"http://{ADDRESS}", 200),
    ("GET", "/../healthz", 404),
    ("GET", "*", 404),
    ("POST", "/healthz", 405),
    ("BREW", "/", 405),
    ("get", "/", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_status(fetch: Fetch, method: str, path: str, status: int) -> None:
    reply = fetch(path, method=method)
    assert reply.status == status
    assert ("Allow" in reply.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/", "/healthz", "/info", "/nothing"])
def test_head_is_get_without_the_body(fetch: Fetch, path: str) -> None:
    head, get = fetch(path, method="HEAD"), fetch(path)
    assert head.status == get.status
    assert head.body == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert abs(int(head.headers["Content-Length"]) - len(get.body)) < 4  # uptime may be longer


MALFORMED = [
    (b"hello\r\n\r\n", b"400"),
    (b"GET\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1 x\r\n\r\n", b"400"),
    (b"GET / http/1.1\r\nHost: x\r\n\r\n", b"400"),
    (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", b"400"),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"505"),
    (b"\0\xff\x80\r\n\r\n", b"400"),
]


@pytest.mark.parametrize(("request_", "status"), MALFORMED)
def test_a_malformed_request_is_refused_and_ends_the_connection(
    exchange: Exchange, request_: bytes, status: bytes
) -> None:
    assert statuses(exchange(request_)) == [status]


def test_requests_share_a_connection() -> None:
    connection = http.client.HTTPConnection(ADDRESS, timeout=TIMEOUT_S)
    connection.connect()
    ports = set()
    for path in ("/", "/healthz", "/info", "/nothing", "/healthz"):
        connection.request("GET", path)
        ports.add(connection.sock.getsockname()[1])
        response = connection.getresponse()
        assert response.getheader("Connection") == "keep-alive"
        assert len(response.read()) == int(response.headers["Content-Length"])
    connection.close()
    assert len(ports) == 1


def test_http_1_0_ends_unless_asked_to_go_on(exchange: Exchange) -> None:
    assert statuses(exchange(b"GET /healthz HTTP/1.0\r\n\r\n" + GET)) == [b"200"]
    kept = b"GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
    assert statuses(exchange(kept + kept + LAST)) == [b"200"] * 3


def test_many_requests_in_one_go_are_answered_in_their_order(exchange: Exchange) -> None:
    paths = [b"/info", b"/healthz", b"/", b"/nothing"] * 25
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths)
    answer = exchange(requests + LAST)
    assert statuses(answer) == [b"200", b"200", b"200", b"404"] * 25 + [b"200"]
    counts = [
        json.loads(part.partition(b"\r\n\r\n")[2])["requests"]
        for part in answer.split(b"HTTP/1.1 ")
        if b"application/json" in part
    ]
    assert counts == list(range(counts[0], counts[0] + 100, 4))


def split(data: bytes, *at: int) -> Sequence[bytes]:
    edges = [0, *at, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("at", [(1,), (10,), (len(LAST) - 1,), (len(LAST) - 3,), (3, 25, 40)])
def test_a_request_may_come_in_pieces(exchange: Exchange, at: tuple[int, ...]) -> None:
    assert statuses(exchange(*split(LAST, *at))) == [b"200"]


def test_a_request_may_come_byte_by_byte(exchange: Exchange) -> None:
    assert statuses(exchange(*split(LAST, *range(1, len(LAST))), pause_s=0.002)) == [b"200"]


def test_lines_may_end_as_in_unix(exchange: Exchange) -> None:
    assert statuses(exchange(b"\r\n\r\n" + LAST.replace(b"\r\n", b"\n"))) == [b"200"]


@pytest.mark.parametrize("length", [2047, 2048, 2049, 100_000])
def test_a_request_has_a_greatest_length(exchange: Exchange, length: int) -> None:
    filler = b"X-Filler: "
    request = LAST[:-2] + filler + b"x" * (length - len(LAST) - len(filler) - 2) + b"\r\n\r\n"
    assert len(request) == length
    assert statuses(exchange(request)) == [b"200" if length <= 2048 else b"431"]


def test_a_body_is_not_waited_for(exchange: Exchange) -> None:
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    assert statuses(exchange(post, b"x" * 100_000)) == [b"405"]
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert statuses(exchange(get)) == [b"200"]


def test_a_client_that_closed_its_half_is_answered(exchange: Exchange) -> None:
    assert statuses(exchange(GET * 20, half_close=True)) == [b"200"] * 20
    assert exchange(b"GET / HT", half_close=True) == b""
    assert exchange(half_close=True) == b""


def test_more_config_than_fits_is_left_out_and_said(
    shared_lan: Lan, guest: Guest, fetch: Fetch
) -> None:
    shared_lan.tap("tap1", "10.0.1.1/24")
    config = " ".join(f"k{n}={'%22' * 20}" for n in range(28))
    cmdline = SETTINGS.replace("10.0.0.", "10.0.1.").replace("fd00::", "fd01::")
    other = shared_lan.boot(f"{cmdline} {config}", tap="tap1", mac="02:00:00:00:00:03")
    other.says("listening on 10.0.1.2")
    page, info = fetch("/", "10.0.1.2"), fetch("/info", "10.0.1.2").json
    assert page.body.endswith(b"<p>There is no room for the rest.</p></body></html>\n")
    assert info["config_cut"] is False
    assert info["config"] == {f"k{n}": '"' * 20 for n in range(28)}
