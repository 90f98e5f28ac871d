"""The server: UDP and TCP on one port, and the threads and processes that serve them.

For `orchestrator.daemon`, which hands it a resolver. One thread drains the UDP socket and answers
at once what `dns_boot.packed` knows; one serves all TCP connections; one works through the rest,
names that exist first. So neither a wake nor a flood of odd questions holds up a warm answer. With
several processes, the further ones drain the UDP sockets (`dns_boot.front_parent`): what this one
computes does not hold them up.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from functools import partial

from dns_boot.arrivals import arrived_at, note_arrivals
from dns_boot.front_parent import FrontProcesses
from dns_boot.resolver import Resolver, Respond, Source
from dns_boot.sockets import Bell, Sockets, bind
from dns_boot.tcp import CONNECTIONS, IDLE_S, TcpDoor
from dns_boot.udp import Peer, UdpDoor
from dns_boot.udp_batch import door_of

logger = logging.getLogger(__name__)

BACKLOG = 2048  # queries that wait for the worker, of names that exist and of others each
# After each query of a backlog the worker sleeps this long: only a thread that really lets go of
# the interpreter lets the UDP thread in at once, instead of after the switch interval of 5 ms.
NAP_S = 50e-6

Work = tuple[bytes, Source, Respond]


class DnsServer:
    """Serves a resolver on one address and port, 0 meaning any free port.

    With `processes` more than 1, all but this one answer over UDP.
    """

    def __init__(
        self,
        resolver: Resolver,
        listen: str,
        port: int,
        *,
        processes: int = 1,
        idle_s: float = IDLE_S,
        connections: int = CONNECTIONS,
    ) -> None:
        self._resolver = resolver
        self._listen = listen
        self._port = port
        self._processes = processes
        self._idle_s = idle_s
        self._connections = connections
        self._backlog = _Backlog()
        self._parts = contextlib.ExitStack()
        self._sockets: Sockets | None = None
        self._fronts: FrontProcesses | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The address and port we listen on; the port is the real one once started."""
        return self._listen, self._port

    @property
    def dropped(self) -> int:
        """How many queries were dropped because too many waited for the worker."""
        return self._backlog.dropped

    @property
    def front_pids(self) -> tuple[int, ...]:
        """The ids of the further processes that run now."""
        return () if self._fronts is None else self._fronts.pids

    def bind(self) -> None:
        """Take the address, so that it is ours before anything else is begun.

        Nothing is answered yet. Raises EdgewakeError if it cannot be had.
        """
        self._sockets = bind(self._listen, self._port, udps=max(1, self._processes - 1))
        self._port = self._sockets.tcp.getsockname()[1]
        for sock in self._sockets:
            self._parts.enter_context(sock)

    def start(self) -> None:
        """Serve; bind first, if that was not done. Raises EdgewakeError if it cannot be bound."""
        if self._sockets is None:
            self.bind()
        assert self._sockets is not None  # noqa: S101 - bound or raised
        for sock in self._sockets.udps:
            note_arrivals(sock)
        packed = self._resolver.packed
        with contextlib.ExitStack() as parts:
            parts.push(self._parts.pop_all())
            worker = threading.Thread(target=self._work, name="dns-worker", daemon=True)
            worker.start()
            parts.callback(worker.join)
            parts.callback(self._backlog.close)
            tcp = TcpDoor(self._sockets.tcp, packed, self._enqueue, self._idle_s, self._connections)
            tcp.start()
            parts.callback(tcp.stop)
            udps = self._sockets.udps
            if self._processes > 1:
                self._fronts = FrontProcesses(
                    udps, packed, self._resolver.asked, self._door, self._resolver.log
                )
            udp = self._fronts or _UdpThread(self._door(udps[0]))
            udp.start()
            parts.callback(udp.stop)
            self._parts = parts.pop_all()

    def stop(self) -> None:
        """Close the sockets and end our threads. May be called twice."""
        self._parts.close()
        self._sockets = self._fronts = None

    def _door(self, udp: socket.socket) -> UdpDoor:
        return door_of(udp, self._resolver.packed, self._hand)

    def _hand(self, door: UdpDoor, packet: bytes, peer: Peer) -> None:
        address, port = door.sender(peer)
        at = arrived_at(door) if self._resolver.knows(packet) else 0.0  # it may wake
        self._enqueue(packet, Source(address, port, at=at), partial(door.reply, packet, peer))

    def _enqueue(self, packet: bytes, source: Source, respond: Respond) -> None:
        """Leave a query to the worker. Called by the thread that received it last."""
        known = self._resolver.knows(packet)
        if known and not source.udp:  # it may wake: a trace begins when it came
            source = replace(source, at=time.monotonic())
        if not self._backlog.put((packet, source, respond), known=known):
            respond(None)
            self._resolver.lost(packet, source)

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


class _UdpThread:
    """Drains the UDP socket of this process."""

    def __init__(self, door: UdpDoor) -> None:
        self._door = door
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="dns-udp", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._bell.ring()
        self._thread.join()
        self._bell.close()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._door, select.POLLIN)
        poller.register(self._bell, select.POLLIN)
        while not self._bell.rung:
            poller.poll()
            try:
                self._door.drain()
            except Exception:
                # A front door: whatever a datagram brought to light, the next one is served.
                logger.exception("a datagram could not be handled")
