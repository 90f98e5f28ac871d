"""A small shared cache for plain HTTP: a forward proxy, or one in front of a single origin.

    cache PORT [HOST:PORT]    with an origin, it also answers requests whose URL names no host

It keeps answers in memory as RFC 9111 allows, and less: only whole 200 answers to GET that say how
long they are fresh and do not vary, and it fetches a stale one anew instead of asking whether it
has changed. It speaks no TLS: a client that wants a tunnel (CONNECT) is refused. Each request is a
JSON line on standard output.
"""

import http.client
import json
import os
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

MOST_BYTES = 64 * 2**20  # of all bodies together
LARGEST = 8 * 2**20  # of one body that is kept; a larger one is passed on, up to `LARGEST_PASSED`
LARGEST_PASSED = 64 * 2**20
ORIGIN_TIMEOUT_S = 30.0
NAME = "edgewake"
HOP_BY_HOP = frozenset(  # RFC 9110, 7.6.1
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length"),
    )
)

Headers = list[tuple[str, str]]


class Answer:
    """An answer of an origin, and since when and for how long it is fresh."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.came = time.monotonic()
        self.age_s = _number(_value(headers, "age"), 0.0)
        self.fresh_s = freshness(status, headers)

    def age(self) -> float:
        """Return how old it is (seconds), where it was before included."""
        return self.age_s + time.monotonic() - self.came


class Kept:
    """The answers that are kept, by URL; those not asked for longest go first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._bytes = 0

    def get(self, url: str) -> Answer | None:
        """Return a fresh answer, or None."""
        with self._lock:
            answer = self._answers.get(url)
            if answer is None or answer.age() >= answer.fresh_s:
                self._drop(url)
                return None
            self._answers.move_to_end(url)
            return answer

    def put(self, url: str, answer: Answer) -> None:
        """Keep an answer, if there is any use in that."""
        if answer.fresh_s <= answer.age_s or len(answer.body) > LARGEST:
            return
        with self._lock:
            self._drop(url)
            self._answers[url] = answer
            self._bytes += len(answer.body)
            while self._bytes > MOST_BYTES:
                self._drop(next(iter(self._answers)))

    def drop(self, url: str) -> None:
        """Forget an answer."""
        with self._lock:
            self._drop(url)

    def _drop(self, url: str) -> None:
        answer = self._answers.pop(url, None)
        self._bytes -= len(answer.body) if answer else 0


def freshness(status: int, headers: Headers) -> float:
    """Return for how many seconds a shared cache may use an answer; 0 if it may not keep it."""
    rules = directives(_value(headers, "cache-control"))
    forbidden = {"no-store", "private", "no-cache"} & rules.keys()
    if status != 200 or forbidden or _value(headers, "vary") or _value(headers, "set-cookie"):
        return 0.0
    for name in ("s-maxage", "max-age"):
        if name in rules:
            return _number(rules[name], 0.0)
    try:
        expires = parsedate_to_datetime(_value(headers, "expires"))
        date = parsedate_to_datetime(_value(headers, "date"))
        return max(0.0, (expires - date).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def directives(text: str) -> dict[str, str]:
    """Return the directives of a Cache-Control field, names in lower case."""
    parts = (part.strip().partition("=") for part in text.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name}


def _value(headers: Iterable[tuple[str, str]], name: str) -> str:
    return ", ".join(value for key, value in headers if key.lower() == name)


def _number(text: str, otherwise: float) -> float:
    return float(text) if text.isascii() and text.isdigit() else otherwise


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server_version = NAME
    timeout = 60
    kept: Kept
    origin: str

    def _do(self) -> None:
        url = self._url()
        if url is None:
            self.send_error(400, "give the whole URL: this is a proxy")
            return
        usable = self.command == "GET" and not self._bypasses()
        answer = self.kept.get(url) if usable else None
        status = "hit" if answer else "fwd=uri-miss" if usable else "fwd=bypass"
        try:
            answer = answer or self._fetched(url)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.send_error(502, "the origin does not answer", str(error))
            return
        if usable and status != "hit":
            self.kept.put(url, answer)
        elif self.command not in {"GET", "HEAD", "OPTIONS"}:
            self.kept.drop(url)  # RFC 9111, section 4.4
        self._send(answer, status)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _do  # noqa: N815

    def _url(self) -> str | None:
        if self.path.startswith("http://"):
            return self.path
        if self.path.startswith("/") and self.origin:
            return f"http://{self.origin}{self.path}"
        return None

    def _bypasses(self) -> bool:
        rules = directives(self.headers.get("Cache-Control", ""))
        special = any(name in self.headers for name in ("Authorization", "Range"))
        return special or bool({"no-cache", "no-store"} & rules.keys())

    def _fetched(self, url: str) -> Answer:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= LARGEST_PASSED or "Transfer-Encoding" in self.headers:
            raise ValueError("a request's body must tell its length, and not be too large")
        body = self.rfile.read(length) if length else None
        origin = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=ORIGIN_TIMEOUT_S
        )
        try:
            passed = self._passed(self.headers.items(), self.headers.get("Connection", ""))
            named = {name.lower(): value for name, value in passed}
            headers = {**named, "host": parts.netloc, "via": f"1.1 {NAME}"}
            origin.request(self.command, target, body=body, headers=headers)
            answer = origin.getresponse()
            data = answer.read(LARGEST_PASSED + 1)
            if len(data) > LARGEST_PASSED:
                raise ValueError(f"the answer has more than {LARGEST_PASSED} bytes")
            kept = self._passed(answer.getheaders(), answer.getheader("Connection") or "")
            return Answer(answer.status, kept, data)
        finally:
            origin.close()

    def _passed(self, headers: Iterable[tuple[str, str]], connection: str) -> Headers:
        named = {name.strip().lower() for name in connection.split(",")}
        return [each for each in headers if each[0].lower() not in HOP_BY_HOP | named]

    def _send(self, answer: Answer, status: str) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() != "age":
                self.send_header(name, value)
        if status == "hit":
            self.send_header("Age", str(int(answer.age())))
        self.send_header("Via", f"1.1 {NAME}")
        self.send_header("Cache-Status", f"{NAME}; {status}")  # RFC 9211
        if answer.status not in {204, 304} and self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        said = {
            "from": self.client_address[0],
            "method": self.command,
            "url": self.path[:500],
            "status": answer.status,
            "cache": status,
            "bytes": len(answer.body),
        }
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Say errors as our other lines; requests say themselves."""
        if arguments and "code" in format:
            sys.stdout.write(json.dumps({"error": format % arguments}) + "\n")
            sys.stdout.flush()


def server(port: int, origin: str = "") -> ThreadingHTTPServer:
    """Return the proxy, which listens, on all addresses; `serve_forever` makes it answer."""
    handler = type("OneCache", (Handler,), {"kept": Kept(), "origin": origin})
    return _Server(("", port), handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Both families by one socket (ipv6(7), IPV6_V6ONLY); IPv4 alone where there is no IPv6.
    address_family = (
        socket.AF_INET6 if os.path.exists("/proc/net/if_inet6") else socket.AF_INET  # noqa: PTH110
    )


if __name__ == "__main__":
    server(int(sys.argv[1]), *sys.argv[2:3]).serve_forever()
