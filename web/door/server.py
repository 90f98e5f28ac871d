"""Serves the door over TCP, with or without TLS, and bears with callers who mean no good.

cheroot parses HTTP; here it is told to be strict where leniency lets one request be read as two
(RFC 9112, 11.2), not to shake hands on the thread that accepts, and to give no caller more than
`READ_S` for a request, however slowly it trickles in.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from logging import getLogger
from pathlib import Path
from time import monotonic
from typing import Any

from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.workers.threadpool import ThreadPool
from cheroot.wsgi import Gateway_10
from cheroot.wsgi import Server as WsgiServer

from web.door import bodies
from web.door.tls import tls_context

log = getLogger(__name__)

SILENT_S = 10.0  # for the next bytes of a request, and for a caller to take those of an answer
READ_S = 20.0  # for a request to come in whole
WATCH_S = 1.0  # how often that is looked at
WORKERS = 24  # requests that are answered at once, beside streams
KEPT_ALIVE = 100  # connections that wait for their next request
LARGEST_HEADERS = 32 << 10  # bytes, with the request line
MOST_HEADERS = 100
ONLY_ONCE = frozenset({b"Host", b"Content-Length", b"Transfer-Encoding", b"Authorization"})
NAME_CHARACTERS = frozenset(b"!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyz")
JOINED = frozenset({b"Accept", b"Cache-Control", b"Connection", b"X-Forwarded-For"})

Wsgi = Callable[..., Any]


def read_headers(rfile: Any, into: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Read header lines; ValueError says what is wrong with one.

    Stricter than it must be: no folded lines, no space before the colon, no underscore (which WSGI
    would not tell from a hyphen), and none of the headers that frame a message twice.
    """
    for _ in range(MOST_HEADERS):
        line = rfile.readline()
        if line == b"\r\n":
            return into
        if not line.endswith(b"\r\n"):
            raise ValueError("Illegal end of headers.")
        name, colon, value = line.partition(b":")
        if not colon or not name or not NAME_CHARACTERS.issuperset(name.lower()):
            raise ValueError("Illegal header line.")
        key, value = name.title(), value.strip(b" \t\r\n")
        if any(byte < 0x20 and byte != 0x09 for byte in value):
            raise ValueError("Illegal character in a header.")
        if key in into and key in ONLY_ONCE:
            raise ValueError("A header that must come once came twice.")
        into[key] = into[key] + b", " + value if key in into and key in JOINED else value
    raise ValueError("Too many headers.")


class Request(HTTPRequest):  # type: ignore[misc]  # cheroot is not typed
    """A request whose framing can be read in one way only."""

    @staticmethod
    def header_reader(rfile: Any, into: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Read the headers."""
        return read_headers(rfile, into)

    def read_request_headers(self) -> bool:
        """Read the headers, and refuse what proxies and servers read in different ways."""
        if not super().read_request_headers():
            return False
        length = self.inheaders.get(b"Content-Length")
        coding = self.inheaders.get(b"Transfer-Encoding")
        why = ""
        if length is not None and coding is not None:
            why = "Both Content-Length and Transfer-Encoding."
        elif length is not None and not length.isdigit():
            why = "Malformed Content-Length Header."
        elif coding is not None and (
            coding.lower() != b"chunked" or self.response_protocol != "HTTP/1.1"
        ):
            why = "Only chunked, and only of HTTP/1.1."
        elif self.response_protocol == "HTTP/1.1" and not self.inheaders.get(b"Host"):
            why = "No Host header."
        if why:
            self.close_connection = True
            self.simple_response("400 Bad Request", why)
        return not why

    def parse_request(self) -> None:
        """Read a request's head in bounded time."""
        self.conn.watch()
        super().parse_request()

    def respond(self) -> None:
        """Answer, or say what is wrong with the body; then nothing that follows can be read."""
        try:
            super().respond()
        except bodies.Refused as refused:
            self.close_connection = True
            self.simple_response(refused.status, str(refused))


class Connection(HTTPConnection):  # type: ignore[misc]
    """A connection that is cut when a request does not come in whole in time."""

    RequestHandlerClass = Request
    due: float | None = None

    def watch(self) -> None:
        """Begin to count the time of a request."""
        self.due = monotonic() + READ_S
        self.server.watched.add(self)

    def arrived(self) -> None:
        """Note that a request is there whole."""
        self.due = None
        self.server.watched.discard(self)

    def communicate(self) -> bool:
        """Answer one request; return whether the connection may have another one."""
        try:
            return bool(super().communicate())
        finally:
            self.arrived()

    def cut(self) -> None:
        """End a connection whose thread waits in it."""
        with suppress(OSError):  # it may be over already
            self.socket.shutdown(socket.SHUT_RDWR)


class Gateway(Gateway_10):  # type: ignore[misc]
    """Hands a request to the application once its body is there."""

    def get_environ(self) -> dict[str, Any]:
        """Return the WSGI environment, with the body in memory."""
        environ: dict[str, Any] = super().get_environ()
        body = self._body()
        self.req.conn.arrived()
        environ["wsgi.input"] = BytesIO(body)
        environ["wsgi.input_terminated"] = True
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return environ

    def _body(self) -> bytes:
        if self.req.chunked_read:
            return bodies.read_chunked(self.req.conn.rfile)
        length = int(self.req.inheaders.get(b"Content-Length", 0))
        return bodies.read_counted(self.req.conn.rfile, length)


class Pool(ThreadPool):  # type: ignore[misc]
    """Threads that are made when they are needed, up to a bound."""

    def put(self, obj: Any) -> None:
        """Hand a connection to a thread."""
        super().put(obj)
        if self._queue.qsize() and len(self._threads) < self.max:
            self._threads.append(self._spawn_worker())


class TlsAdapter(Adapter):  # type: ignore[misc]
    """TLS whose handshake is made by the thread that reads, and not by the one that accepts."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.context = tls_context(certificate, key)

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Return the socket as TLS will use it, and what the application is told."""
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, str]:
        """Return what the application is told of TLS."""
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: ssl.SSLSocket, mode: str = "r", bufsize: int = -1) -> Any:
        """Return a file to read from or write to a socket."""
        return MakeFile(sock, mode, bufsize)


class TcpServer(WsgiServer):  # type: ignore[misc]
    """A door's server on a socket that listens already."""

    ConnectionClass = Connection
    max_request_header_size = LARGEST_HEADERS
    max_request_body_size = bodies.LARGEST
    keep_alive_conn_limit = KEPT_ALIVE

    def __init__(
        self,
        listener: socket.socket,
        app: Wsgi,
        *,
        streams: int,
        tls: TlsAdapter | None = None,
    ) -> None:
        super().__init__(
            listener.getsockname()[:2],
            app,
            server_name="edgewake",
            timeout=SILENT_S,
            shutdown_timeout=1,
        )
        self.gateway = Gateway
        self.requests = Pool(self, min=2, max=WORKERS + streams)
        self.ssl_adapter = tls
        self.watched: set[Connection] = set()
        self._listener = listener
        self._over = threading.Event()

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002, ARG002
        """Use the socket that there is.

        Connections inherit its options: heads and bodies of answers are written one after the
        other, and each body would wait for the caller to acknowledge its head (40 ms).
        """
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = self._listener
        return self._listener

    def serve(self) -> None:
        """Serve until `stop`."""
        threading.Thread(target=self._cut_the_slow, name="slow", daemon=True).start()
        super().serve()

    def stop(self) -> None:
        """Take no more connections, and end those that there are."""
        self._over.set()
        for connection in tuple(self.watched):
            connection.cut()
        super().stop()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Log what cheroot has to tell; what callers do wrong is no news."""
        log.log(level if traceback else min(level, 10), "%s", msg, exc_info=traceback)

    def _cut_the_slow(self) -> None:
        while not self._over.wait(WATCH_S):
            now = monotonic()
            for connection in tuple(self.watched):
                if connection.due is not None and connection.due < now:
                    connection.cut()
