"""Serves the door over TCP, with or without TLS, and bears with callers who mean no good.

cheroot parses HTTP. Here it is told to be strict where leniency lets one request be read as two
(RFC 9112, 11.2), to give no thread to callers who have said nothing yet, to shake hands on the
thread that reads and not on the one that accepts, and to cut off whoever trickles. Bodies and
headers are read by `web.door.framing`.
"""

import os
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

from web.door.framing import LARGEST_BODY, LARGEST_HEADERS, TooLarge, read_body, read_headers
from web.door.framing import fault as framing_fault
from web.door.tls import tls_context

log = getLogger(__name__)

SILENT_S = 10.0  # for the next bytes of a request, and for a caller to take those of an answer
HEAD_S = 5.0  # for a request's head to come in, and for the handshake before it
BODY_S = 20.0  # for its body
HURRY_S = 1.0  # for either, while others wait for a thread
WATCH_S = 0.5  # how often that is looked at
BACKLOG = 128
WORKERS = 40  # requests that are answered at once, beside streams
KEPT_ALIVE = 200  # connections that wait for their next request
MOST_CONNECTIONS = 500  # in all: a process may have 1024 files open
RETRY_S = 5
BUSY = (
    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_S}\r\nContent-Length: 0\r\n"
    "Connection: close\r\n\r\n"
).encode()
NO_TLS = b"this port speaks HTTPS: write https:// before its address\n"
PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(NO_TLS), NO_TLS)
)

Wsgi = Callable[..., Any]


class Request(HTTPRequest):  # type: ignore[misc]  # cheroot is not typed
    """A request whose framing can be read in one way only."""

    header_reader = staticmethod(read_headers)

    def parse_request(self) -> None:
        """Read a request's head, in bounded time."""
        self.conn.watch(HEAD_S)
        super().parse_request()

    def read_request_headers(self) -> bool:
        """Read the headers, and refuse what proxies and servers read in different ways."""
        if not super().read_request_headers():
            return False
        why = framing_fault(self.inheaders, self.response_protocol)
        if why:
            self._refuse("400 Bad Request", why)
        return not why

    def respond(self) -> None:
        """Read the body, in bounded time, and answer."""
        self.conn.watch(BODY_S)
        if self.chunked_read:
            self.close_connection = True  # what may follow the last chunk is never a request
        try:
            body = read_body(self.conn.rfile, self.inheaders)
        except TooLarge as error:
            return self._refuse("413 Request Entity Too Large", str(error))
        except ValueError as error:
            return self._refuse("400 Bad Request", str(error))
        self.conn.arrived()
        self.rfile = BytesIO(body)
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")
        return None

    def _refuse(self, status: str, why: str) -> None:
        self.close_connection = True
        self.simple_response(status, f"{why}\n")


class Connection(HTTPConnection):  # type: ignore[misc]
    """A connection that is cut when a request does not come in whole in time."""

    RequestHandlerClass = Request
    since = 0.0
    due: float | None = None
    shaken = False

    def watch(self, seconds: float) -> None:
        """Begin to count the time of something."""
        self.since = monotonic()
        self.due = self.since + seconds * self.server.patience
        self.server.watched.add(self)

    def arrived(self) -> None:
        """Note that a request is there whole."""
        self.due = None
        self.server.watched.discard(self)

    def communicate(self) -> bool:
        """Answer one request; return whether the connection may have another one."""
        try:
            return self._shake() and bool(super().communicate())
        finally:
            self.arrived()

    def close(self) -> None:
        """Close it."""
        self.server.open.discard(self)
        super().close()

    def cut(self) -> None:
        """End a connection whose thread waits in it."""
        # Not by the socket object, which for TLS waits for the thread that uses it.
        with suppress(OSError), socket.socket(fileno=os.dup(self.socket.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    def _shake(self) -> bool:
        """Shake hands if this is TLS; return whether that worked."""
        if self.shaken or not isinstance(self.socket, ssl.SSLSocket):
            return True
        self.watch(HEAD_S)
        try:
            self.socket.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                os.write(self.socket.fileno(), PLAIN)
            return False
        except OSError:
            return False
        self.shaken = True
        return True


class Gateway(Gateway_10):  # type: ignore[misc]
    """Hands a request, whose body is there, to the application."""

    def get_environ(self) -> dict[str, Any]:
        """Return the WSGI environment."""
        environ: dict[str, Any] = super().get_environ()
        environ["CONTENT_LENGTH"] = str(self.req.rfile.getbuffer().nbytes)
        environ["wsgi.input_terminated"] = True
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return environ


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

    def bind(self, sock: socket.socket) -> socket.socket:
        """Return a socket to listen with."""
        return sock

    def get_environ(self) -> dict[str, str]:
        """Return what the application is told of TLS."""
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: ssl.SSLSocket, mode: str = "r", bufsize: int = -1) -> Any:
        """Return a file to read from or write to a socket."""
        return MakeFile(sock, mode, bufsize)


class TcpServer(WsgiServer):  # type: ignore[misc]
    """A door's server on a socket that listens already.

    `patience` stretches the times that callers have.
    """

    ConnectionClass = Connection
    max_request_header_size = LARGEST_HEADERS
    max_request_body_size = LARGEST_BODY
    keep_alive_conn_limit = KEPT_ALIVE

    def __init__(
        self,
        listener: socket.socket,
        app: Wsgi,
        *,
        streams: int,
        tls: TlsAdapter | None = None,
        patience: float = 1.0,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        super().__init__(
            listener.getsockname()[:2],
            app,
            server_name="edgewake",
            request_queue_size=BACKLOG,
            timeout=SILENT_S * patience,
            shutdown_timeout=1,
        )
        self.gateway = Gateway
        self.requests = Pool(self, min=2, max=WORKERS + streams)
        self.ssl_adapter = tls
        self.patience = patience
        self.open: set[Connection] = set()
        self.watched: set[Connection] = set()
        self._most_connections = most_connections
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

    def process_conn(self, conn: Connection) -> None:
        """Have a connection served once its caller has said something."""
        if conn.last_used is not None:
            super().process_conn(conn)
        elif len(self.open) >= self._most_connections:
            if not isinstance(conn.socket, ssl.SSLSocket):
                with suppress(OSError):
                    conn.socket.send(BUSY, socket.MSG_DONTWAIT)
            conn.close()
        else:
            self.open.add(conn)
            self._connections.put(conn)

    def put_conn(self, conn: Connection) -> None:
        """Have a connection wait for its next request, or go on with what TLS has read of it."""
        if isinstance(conn.socket, ssl.SSLSocket) and conn.socket.pending():
            super().process_conn(conn)
        else:
            super().put_conn(conn)

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
        while not self._over.wait(WATCH_S * self.patience):
            now = monotonic()
            crowded = self.requests.qsize > 0 and not self.requests.idle
            least = now - HURRY_S * self.patience if crowded else 0.0
            for connection in tuple(self.watched):
                due = connection.due
                if due is not None and (due < now or connection.since < least):
                    connection.cut()
