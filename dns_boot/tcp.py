"""DNS over TCP: all connections in one thread, pipelined, out of order, with limits (RFC 7766).

For `dns_boot.server`. What `dns_boot.packed` knows is answered here, the rest is handed on, and its
replies come back from whichever thread made them.
"""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import Counter, deque
from functools import partial

from dns_boot.packed import PackedAnswers
from dns_boot.rates import network_of
from dns_boot.resolver import Enqueue, Source
from dns_boot.sockets import Bell

logger = logging.getLogger(__name__)

IDLE_S = 10.0  # RFC 7766, section 6.2.3, asks for seconds
CONNECTIONS = 256
PIPELINED = 64  # queries of one connection that may wait for replies before it is read again
ACCEPT_REST_S = 0.05  # without file descriptors the listener stays readable: no busy loop
OUTBOX_BYTES = 65_536  # replies that may wait for the client to read before it is read again
SWEEP_S = 0.5  # how often idle connections are looked for


class _Connection:
    """One TCP connection. `since` is when it last got something done: a whole query or reply."""

    def __init__(self, sock: socket.socket, source: Source) -> None:
        self.sock = sock
        self.source = source
        self.network = network_of(source.address)
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.pending = 0
        self.since = time.monotonic()
        self.ended = False
        self.events = 0

    @property
    def message_ready(self) -> bool:
        return len(self.inbox) >= 2 and len(self.inbox) - 2 >= int.from_bytes(self.inbox[:2], "big")

    @property
    def has_room(self) -> bool:
        return self.pending < PIPELINED and len(self.outbox) < OUTBOX_BYTES

    def take(self) -> bytes:
        """Remove the first message from the inbox and return it."""
        end = 2 + int.from_bytes(self.inbox[:2], "big")
        message = bytes(self.inbox[2:end])
        del self.inbox[:end]
        return message

    def add(self, reply: bytes) -> None:
        self.outbox += len(reply).to_bytes(2, "big") + reply


class TcpDoor:
    """Serves all TCP connections of a listener.

    A connection that gets nothing done for `idle_s` is closed, however busily it sends single
    bytes; one that waits for a wake is not. Beyond `limit` connections one of the network of
    clients that has most goes, an idle one if there is any.
    """

    def __init__(
        self,
        listener: socket.socket,
        packed: PackedAnswers,
        enqueue: Enqueue,
        idle_s: float,
        limit: int,
    ) -> None:
        self._listener = listener
        self._lookup = packed.reply
        self._samples = packed.samples
        self._enqueue = enqueue
        self._idle_s = idle_s
        self._limit = limit
        self._connections: set[_Connection] = set()
        self._replies: deque[tuple[_Connection, bytes | None]] = deque()
        self._swept = time.monotonic()
        self._bell = Bell()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="dns-tcp", daemon=True)

    def start(self) -> None:
        """Serve, in a thread of our own."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._bell, selectors.EVENT_READ, lambda _events: self._bell.hush())
        self._thread.start()

    def stop(self) -> None:
        """End the thread and all connections."""
        self._bell.ring()
        self._thread.join()
        for connection in tuple(self._connections):
            self._close(connection)
        self._selector.close()
        self._bell.close()

    def _run(self) -> None:
        while not self._bell.rung:
            try:
                for key, events in self._selector.select(SWEEP_S):
                    key.data(events)
                self._hand_out()
                self._sweep()
            except Exception:
                # A front door: one connection's trouble must not end all the others.
                logger.exception("a TCP connection could not be served")

    def _accept(self, _events: int) -> None:
        try:
            sock, (address, port, *_) = self._listener.accept()
        except OSError as error:
            logger.warning("accepting a TCP connection: %s", error)
            time.sleep(ACCEPT_REST_S)
            return
        connection = _Connection(sock, Source(address, port, udp=False))
        if len(self._connections) >= self._limit and not self._evict(connection.network):
            sock.close()
            return
        sock.setblocking(False)
        self._connections.add(connection)
        self._set_events(connection, selectors.EVENT_READ)

    def _evict(self, network: bytes) -> bool:
        """Make room for a connection of a network; False if there is none to be made.

        Of those that are idle, the one idle for longest goes, of the network that has most. If
        all are busy, it is the newest of that network: unless the newcomer would have as many then.
        """
        count = Counter(each.network for each in self._connections)
        idle = [each for each in self._connections if not each.pending and not each.outbox]
        if idle:
            self._close(min(idle, key=lambda each: (-count[each.network], each.since)))
            return True
        busiest, most = count.most_common(1)[0]
        if most <= count[network] + 1:
            return False
        of_busiest = [each for each in self._connections if each.network == busiest]
        self._close(max(of_busiest, key=lambda each: each.since))
        return True

    def _serve(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_READ:
            try:
                data = connection.sock.recv(OUTBOX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._close(connection)
                return
            connection.inbox += data
            connection.ended = not data
        self._advance(connection)

    def _advance(self, connection: _Connection) -> None:
        """Do all that can be done for a connection without waiting."""
        try:
            self._write(connection)
            while connection.message_ready and connection.has_room:
                connection.since = time.monotonic()
                self._answer(connection, connection.take())
                self._write(connection)
        except OSError:
            self._close(connection)
            return
        if connection.ended and not connection.pending and not connection.outbox:
            self._close(connection)
            return
        wanted = selectors.EVENT_WRITE if connection.outbox else 0
        if connection.has_room and not connection.ended:
            wanted |= selectors.EVENT_READ
        self._set_events(connection, wanted)

    def _answer(self, connection: _Connection, message: bytes) -> None:
        reply = self._lookup(message, connection.source.address)
        if reply is not None:
            connection.add(reply)
            if self._samples.room > 0:
                sender = connection.source.address, connection.source.port
                self._samples.note(message, reply, *sender, connection.since, udp=False)
            return
        connection.pending += 1
        self._enqueue(message, connection.source, partial(self._hand_in, connection))

    def _hand_in(self, connection: _Connection, reply: bytes | None) -> None:
        """Take a reply from any thread."""
        self._replies.append((connection, reply))
        self._bell.nudge()

    def _hand_out(self) -> None:
        while self._replies:
            connection, reply = self._replies.popleft()
            if connection in self._connections:
                connection.pending -= 1
                if reply is not None:
                    connection.add(reply)
                self._advance(connection)

    def _write(self, connection: _Connection) -> None:
        if not connection.outbox:
            return
        with contextlib.suppress(BlockingIOError):
            del connection.outbox[: connection.sock.send(connection.outbox)]
        if not connection.outbox:
            connection.since = time.monotonic()

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept < SWEEP_S:
            return
        self._swept = now
        for connection in tuple(self._connections):
            waits_for_us = connection.pending and not connection.outbox
            if now - connection.since > self._idle_s and not waits_for_us:
                self._close(connection)

    def _set_events(self, connection: _Connection, wanted: int) -> None:
        if wanted == connection.events:
            return
        if not wanted:
            self._selector.unregister(connection.sock)
        elif not connection.events:
            self._selector.register(connection.sock, wanted, partial(self._serve, connection))
        else:
            self._selector.modify(connection.sock, wanted, partial(self._serve, connection))
        connection.events = wanted

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._set_events(connection, 0)
        connection.sock.close()
