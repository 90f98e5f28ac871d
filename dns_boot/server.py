"""The sockets: UDP and TCP on one port, and the three threads that serve them.

For `orchestrator.cli`, which hands it a resolver. One thread drains the UDP socket and answers at
once what `dns_boot.packed` knows; one serves all TCP connections; one works through the rest, names
that exist first. So neither a wake nor a flood of odd questions holds up a warm answer.
"""

import contextlib
import errno
import logging
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

from dns_boot.arrivals import arrived_at, note_arrivals
from dns_boot.resolver import Resolver, Respond, Source
from orchestrator.errors import EdgewakeError

logger = logging.getLogger(__name__)

MAX_UDP_QUERY_BYTES = 4096  # a longer one is cut, and so answered FORMERR
DRAIN = 64  # datagrams taken per wake-up before the thread looks whether it is to stop
RECEIVE_BUFFER_BYTES = 4 << 20  # holds a burst of some 5,000 queries; the kernel may grant less
BACKLOG = 2048  # queries that wait for the worker, of names that exist and of others each
# After each query of a backlog the worker sleeps this long: only a thread that really lets go of
# the interpreter lets the UDP thread in at once, instead of after the switch interval of 5 ms.
NAP_S = 50e-6

IDLE_S = 10.0  # RFC 7766, section 6.2.3, asks for seconds
CONNECTIONS = 256
PIPELINED = 64  # queries of one connection that may wait for replies before it is read again
ACCEPT_REST_S = 0.05  # without file descriptors the listener stays readable: no busy loop
OUTBOX_BYTES = 65_536  # replies that may wait for the client to read before it is read again
SWEEP_S = 0.5  # how often idle connections are looked for

PORT_TRIES = 20  # with port 0, until a port that is free for UDP is free for TCP too
IP_PKTINFO = 8  # ip(7); the socket module has no name for it

Peer = Any  # what `receive` gave and `send` takes: an address, or an address and a packet info
Work = tuple[bytes, Source, Respond]
Enqueue = Callable[[bytes, Source, Respond], None]


class DnsServer:
    """Serves a resolver on one address and port, 0 meaning any free port."""

    def __init__(
        self,
        resolver: Resolver,
        listen: str,
        port: int,
        *,
        idle_s: float = IDLE_S,
        connections: int = CONNECTIONS,
    ) -> None:
        self._resolver = resolver
        self._listen = listen
        self._port = port
        self._idle_s = idle_s
        self._connections = connections
        self._backlog = _Backlog()
        self._parts = contextlib.ExitStack()
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The address and port we listen on; the port is the real one once started."""
        return self._listen, self._port

    @property
    def dropped(self) -> int:
        """How many queries were dropped because too many waited for the worker."""
        return self._backlog.dropped

    def bind(self) -> None:
        """Take the address, so that it is ours before anything else is begun.

        Nothing is answered yet. Raises EdgewakeError if it cannot be had.
        """
        self._sockets = _bind(self._listen, self._port)
        self._port = self._sockets[0].getsockname()[1]
        for sock in self._sockets:
            self._parts.enter_context(sock)

    def start(self) -> None:
        """Serve; bind first, if that was not done. Raises EdgewakeError if it cannot be bound."""
        if self._sockets is None:
            self.bind()
        assert self._sockets is not None  # noqa: S101 - bound or raised
        udp, listener = self._sockets
        note_arrivals(udp)
        with contextlib.ExitStack() as parts:
            parts.push(self._parts.pop_all())
            worker = threading.Thread(target=self._work, name="dns-worker", daemon=True)
            worker.start()
            parts.callback(worker.join)
            parts.callback(self._backlog.close)
            doors = (
                _UdpDoor(udp, self._resolver, self._enqueue),
                _TcpDoor(listener, self._resolver, self._enqueue, self._idle_s, self._connections),
            )
            for door in doors:
                door.start()
                parts.callback(door.stop)
            self._parts = parts.pop_all()

    def stop(self) -> None:
        """Close the sockets and end our threads. May be called twice."""
        self._parts.close()
        self._sockets = None

    def _enqueue(self, packet: bytes, source: Source, respond: Respond) -> None:
        """Leave a query to the worker. Called by the thread that received it last."""
        known = self._resolver.knows(packet)
        if known and self._sockets is not None:  # it may wake: a trace begins when it came
            came_at = arrived_at(self._sockets[0]) if source.udp else time.monotonic()
            source = replace(source, at=came_at)
        if not self._backlog.put((packet, source, respond), known=known):
            respond(None)

    def _work(self) -> None:
        while (work := self._backlog.take()) is not None:
            try:
                self._resolver.resolve(*work)
            except Exception:
                logger.exception("a query failed in a way we did not foresee; the next one goes on")
            if self._backlog:
                time.sleep(NAP_S)


class _Backlog:
    """Queries for the worker, in two bounded queues: those for names that exist go first."""

    def __init__(self) -> None:
        self.dropped = 0
        self._known: deque[Work] = deque()
        self._others: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._known or self._others)

    def put(self, work: Work, *, known: bool) -> bool:
        """Add a query; False if there is no room for it."""
        queue = self._known if known else self._others
        with self._changed:
            if len(queue) >= BACKLOG:
                self.dropped += 1
                return False
            queue.append(work)
            self._changed.notify()
            return True

    def take(self) -> Work | None:
        """Wait for a query and return it; None when closed."""
        with self._changed:
            while not self._closed:
                if self:
                    return (self._known or self._others).popleft()
                self._changed.wait()
            return None

    def close(self) -> None:
        """Let the worker go, whatever still waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()


# --- binding ----------------------------------------------------------------------------------


def _bind(listen: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a listening TCP socket on the same port. Raises EdgewakeError."""
    try:
        family = socket.AF_INET6 if ip_address(listen).version == 6 else socket.AF_INET
        return _bind_any(family, listen, port) if port == 0 else _bind_both(family, listen, port)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        hint = _BIND_HINTS.get(number, "set dns.listen to an IP address of this machine")
        raise EdgewakeError(
            f"cannot serve DNS on {listen} port {port}: {error}", hint=hint
        ) from error


def _bind_any(family: int, listen: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Try ports that are free for UDP until one is free for TCP too."""
    for _ in range(PORT_TRIES - 1):
        try:
            return _bind_both(family, listen, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind_both(family, listen, port)


_BIND_HINTS: dict[int | None, str] = {
    errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; "
    "or set dns.listen to a port above",
    errno.EADDRINUSE: "another program has this port (`ss -lntup` shows which); "
    "stop it, or set dns.listen to another port",
    errno.EADDRNOTAVAIL: "this machine has no such address (`ip address` lists them); "
    "set dns.listen to one that it has",
}


def _bind_both(family: int, listen: str, port: int) -> tuple[socket.socket, socket.socket]:
    with contextlib.ExitStack() as undo:
        udp = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        tcp = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((listen, port))
        tcp.bind((listen, udp.getsockname()[1]))
        tcp.listen(CONNECTIONS)
        udp.setblocking(False)
        tcp.setblocking(False)
        undo.pop_all()
        return udp, tcp


# --- UDP --------------------------------------------------------------------------------------


class _UdpDoor:
    """Drains the UDP socket; what is packed is answered here, the rest goes to the worker."""

    def __init__(self, udp: socket.socket, resolver: Resolver, enqueue: Enqueue) -> None:
        self._udp = udp
        self._lookup = resolver.packed.reply
        self._enqueue = enqueue
        self._bell = _Bell()
        self._thread = threading.Thread(target=self._run, name="dns-udp", daemon=True)
        self._receive: Callable[[], tuple[bytes, Peer]] = self._receive_plain
        self._send_to: Callable[[bytes, Peer], object] = udp.sendto
        if ip_address(udp.getsockname()[0]).is_unspecified:
            _ask_for_packet_info(udp)
            self._receive, self._send_to = self._receive_with_info, self._send_with_info

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._bell.ring()
        self._thread.join()
        self._bell.close()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._udp, select.POLLIN)
        poller.register(self._bell, select.POLLIN)
        while not self._bell.rung:
            poller.poll()
            try:
                self._drain()
            except Exception:
                # A front door: whatever a datagram brought to light, the next one is served.
                logger.exception("a datagram could not be handled")

    def _drain(self) -> None:
        for _ in range(DRAIN):
            try:
                packet, peer = self._receive()
            except BlockingIOError:
                return
            except OSError as error:  # such as an ICMP error for an earlier reply
                logger.debug("receiving: %s", error)
                continue
            reply = self._lookup(packet)
            if reply is None:
                address, port, *_ = peer[0] if isinstance(peer[0], tuple) else peer
                self._enqueue(packet, Source(address, port), partial(self._send, peer))
            else:
                self._send(peer, reply)

    def _send(self, peer: Peer, reply: bytes | None) -> None:
        """Send a reply, from any thread. One that cannot be sent is lost, as UDP allows."""
        if reply is None:
            return
        try:
            self._send_to(reply, peer)
        except OSError as error:
            logger.debug("replying to %s: %s", peer, error)

    def _receive_plain(self) -> tuple[bytes, Peer]:
        return self._udp.recvfrom(MAX_UDP_QUERY_BYTES)

    def _receive_with_info(self) -> tuple[bytes, Peer]:
        packet, infos, _, address = self._udp.recvmsg(MAX_UDP_QUERY_BYTES, socket.CMSG_SPACE(20))
        return packet, (address, [_without_interface(*info) for info in infos])

    def _send_with_info(self, reply: bytes, peer: Peer) -> None:
        address, infos = peer
        self._udp.sendmsg([reply], infos, 0, address)


def _ask_for_packet_info(udp: socket.socket) -> None:
    """Have each datagram say which of our addresses it came to, for the reply to leave from it."""
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _without_interface(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Return a packet info that fixes the address but lets routing choose the interface."""
    if level == socket.IPPROTO_IPV6:
        return level, kind, data[:16] + bytes(4)
    return level, kind, bytes(4) + data[4:]


class _Bell:
    """Wakes a thread that waits for sockets."""

    def __init__(self) -> None:
        self.rung = False
        self._ear, self._hand = socket.socketpair()
        self._ear.setblocking(False)
        self._hand.setblocking(False)

    def fileno(self) -> int:
        return self._ear.fileno()

    def ring(self) -> None:
        self.rung = True
        self.nudge()

    def nudge(self) -> None:
        """Wake the thread without asking it to end. A full pipe means that it is awake."""
        with contextlib.suppress(OSError):
            self._hand.send(b"\0")

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)

    def close(self) -> None:
        self._ear.close()
        self._hand.close()


# --- TCP --------------------------------------------------------------------------------------


class _Connection:
    """One TCP connection. `since` is when it last got something done: a whole query or reply."""

    def __init__(self, sock: socket.socket, source: Source) -> None:
        self.sock = sock
        self.source = source
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


class _TcpDoor:
    """Serves all TCP connections from one thread: pipelined, out of order, with limits (RFC 7766).

    A connection that gets nothing done for `idle_s` is closed, however busily it sends single
    bytes; one that waits for a wake is not. Beyond `limit` connections the longest idle one goes.
    """

    def __init__(
        self,
        listener: socket.socket,
        resolver: Resolver,
        enqueue: Enqueue,
        idle_s: float,
        limit: int,
    ) -> None:
        self._listener = listener
        self._lookup = resolver.packed.reply
        self._enqueue = enqueue
        self._idle_s = idle_s
        self._limit = limit
        self._connections: set[_Connection] = set()
        self._replies: deque[tuple[_Connection, bytes | None]] = deque()
        self._swept = time.monotonic()
        self._bell = _Bell()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="dns-tcp", daemon=True)

    def start(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._bell, selectors.EVENT_READ, lambda _events: self._bell.hush())
        self._thread.start()

    def stop(self) -> None:
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
        if len(self._connections) >= self._limit and not self._evict():
            sock.close()
            return
        sock.setblocking(False)
        connection = _Connection(sock, Source(address, port, udp=False))
        self._connections.add(connection)
        self._set_events(connection, selectors.EVENT_READ)

    def _evict(self) -> bool:
        """Close the connection that has been idle for longest; False if none is idle."""
        idle = [c for c in self._connections if not c.pending and not c.outbox]
        if idle:
            self._close(min(idle, key=lambda connection: connection.since))
        return bool(idle)

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
        reply = self._lookup(message)
        if reply is not None:
            connection.add(reply)
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
