"""Connections to hypervisors that are shared by URI, made when needed and made again when broken.

For drivers whose library has a connection that can die under them. It knows no such library: a
`Transport` opens and closes, a `Tenant` (one per host of the lab) is told of losses and returns.
No lock is held while a connection is opened, closed or asked whether it lives.

A lost host is tried by one thread, ever more seldom; whoever else asks for its connection meanwhile
is told at once why the last try failed. An attempt may hang for ever, because the other side takes
our bytes and says nothing: it is given up then, and another is made beside it.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0  # how long a caller waits; ssh and TLS take 1 to 2 s
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0
# An attempt this old is given up. Its thread stays until it ends, so each one that hangs doubles
# the patience with the next: a host that swallows everything costs a thread or so an hour.
HUNG_FIRST_S, HUNG_MOST_S = 30.0, 3600.0

C = TypeVar("C")


class Unopened(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """The connection cannot be made; the message is the library's own."""


class Tenant(Protocol):
    """Who shares a connection. Called by threads that must not be kept waiting."""

    def ended(self, uuid: str, why: str) -> None:
        """Take note that the domain with this UUID, ours or not, has stopped."""
        ...

    def lost(self, why: str) -> None:
        """Take note that the connection broke, or cannot be made and is being tried."""
        ...

    def back(self) -> None:
        """Take note that a lost connection was made again."""
        ...


class Transport(Protocol[C]):
    """How connections of one kind are made. All may block."""

    def open(self, uri: str, connection: "Connection[C]") -> C:
        """Connect, and arrange for `connection.lose` and its tenants' `ended` to be called.

        Raises `Unopened` and nothing else.
        """
        ...

    def alive(self, line: C) -> bool:
        """Return whether the connection still stands, without asking the other side."""
        ...

    def close(self, line: C) -> None:
        """Close a connection, dead or alive. Never raises."""
        ...


class Connection(Generic[C]):
    """A connection to one URI, shared by the tenants that joined it."""

    def __init__(self, uri: str, transport: Transport[C]) -> None:
        self.uri = uri
        self.tenants: tuple[Tenant, ...] = ()
        self._transport = transport
        self._lock = threading.Lock()
        self._line: C | None = None
        self._attempt: Future[C] | None = None
        self._attempt_at = 0.0  # monotonic
        self._hung = 0  # attempts that were given up and have not ended
        self._failure: Unopened | None = None  # of the last attempt, if it failed
        self._down = False  # the tenants were told so
        self._retrying = False
        self._closed = threading.Event()

    @property
    def current(self) -> C | None:
        """The connection, if there is one just now; does not wait."""
        with self._lock:
            return self._line

    def get(self) -> C:
        """Return a live connection; callers that come while one is being made share the attempt.

        Raises `Unopened`, or `TimeoutError` when an attempt takes longer than `OPEN_TIMEOUT_S`; the
        attempt then goes on. While a lost connection is being tried, it fails at once.
        """
        with self._lock:
            line = self._line
        if line is not None:
            if self._transport.alive(line):
                return line
            self.lose(line, "the connection is dead")
        with self._lock:
            if self._line is None and self._retrying and self._failure is not None:
                raise Unopened(str(self._failure))
        return self._made()

    def _made(self) -> C:
        """Return the connection, waiting for the attempt that is under way, or for a new one."""
        now = time.monotonic()
        with self._lock:
            if self._line is not None:
                return self._line
            if self._attempt is not None and now - self._attempt_at > self._hung_after():
                self._attempt, self._hung = None, self._hung + 1
            ours = self._attempt is None
            attempt = self._attempt = self._attempt or Future()
            self._attempt_at = now if ours else self._attempt_at
            patience = self._attempt_at + OPEN_TIMEOUT_S - now
        if ours:
            self._in_background(lambda: self._try(attempt))
        return attempt.result(max(0.0, patience))

    def _hung_after(self) -> float:
        return min(HUNG_FIRST_S * 2.0**self._hung, HUNG_MOST_S)

    def lose(self, line: C, why: str) -> None:
        """Drop a broken connection, tell the tenants and connect anew. For the transport."""
        with self._lock:
            if self._line is not line:
                return
            self._line = None
            self._failure = None
        # In a thread, because closing may wait for the very thread that calls this.
        self._in_background(lambda: self._transport.close(line))
        self.keep_trying(why)

    def keep_trying(self, why: str) -> None:
        """Tell the tenants that the host is lost, once, and connect until it is back."""
        with self._lock:
            told, self._down = self._down, True
            start, self._retrying = not self._retrying, True
        if not told:
            for tenant in self.tenants:
                tenant.lost(why)
        if start:
            self._in_background(self._retry)

    def close(self) -> None:
        """Close for good."""
        self._closed.set()
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            self._transport.close(line)

    def _try(self, attempt: "Future[C]") -> None:
        try:
            line = self._transport.open(self.uri, self)
        except Unopened as error:
            self._failed(attempt, error)
            return
        except Exception as error:
            log.exception("connecting to %s failed in a way we did not foresee", self.uri)
            self._failed(attempt, Unopened(repr(error)))
            return
        with self._lock:
            self._ended(attempt)
            ours, self._line, self._failure = self._line or line, self._line or line, None
            was_down, self._down = self._down, False
        attempt.set_result(ours)
        if ours is not line:  # an attempt that was given up came after one that was not
            self._transport.close(line)
        if self._closed.is_set():
            self.close()
        elif was_down:
            for tenant in self.tenants:
                tenant.back()

    def _failed(self, attempt: "Future[C]", error: Unopened) -> None:
        """Let whoever waits for an attempt know, and the next one try again."""
        with self._lock:
            self._ended(attempt)
            self._failure = error
        attempt.set_exception(error)

    def _ended(self, attempt: "Future[C]") -> None:
        """Take note, under the lock, that an attempt is over, perhaps one that was given up."""
        if self._attempt is attempt:
            self._attempt = None
        else:
            self._hung -= 1

    def _retry(self) -> None:
        pause = RETRY_FIRST_S
        while not self._closed.wait(pause):
            with suppress(Unopened, TimeoutError):
                self._made()
                break
            pause = min(2 * pause, RETRY_MOST_S)
        with self._lock:
            self._retrying = False
            again = self._down and not self._closed.is_set()
        if again:  # it broke anew before this thread was done
            self.keep_trying("")

    def _in_background(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"connection {self.uri}", daemon=True).start()


class Connections(Generic[C]):
    """Connections of one kind, one per URI, each kept while a tenant uses it."""

    def __init__(self, transport: Transport[C]) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._by_uri: dict[str, Connection[C]] = {}

    def join(self, uri: str, tenant: Tenant) -> Connection[C]:
        """Return the connection to `uri`, which need not be open yet, and tell `tenant` of it."""
        with self._lock:
            connection = self._by_uri.get(uri)
            if connection is None:
                connection = self._by_uri[uri] = Connection(uri, self._transport)
            connection.tenants = (*connection.tenants, tenant)
            return connection

    def leave(self, connection: Connection[C], tenant: Tenant) -> None:
        """Give up a share; the last tenant out closes the connection."""
        with self._lock:
            connection.tenants = tuple(t for t in connection.tenants if t is not tenant)
            last = not connection.tenants
            if last:
                self._by_uri.pop(connection.uri, None)
        if last:
            connection.close()
