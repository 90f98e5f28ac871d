"""Local names: `NAME.local` is answered on one link by multicast DNS, and wakes like any name.

For `orchestrator.daemon`, which also lets control steer it. What stands on the wire is read and
written by `dns_boot.mdns_wire`. An answer that needs a wake is sent when the guest answers, once
and to everybody; who asks again meanwhile joins. A failed wake is silence.
"""

import contextlib
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from dns_boot import mdns_wire
from dns_boot.clients import Clients
from dns_boot.mdns_wire import AAAA, ANY, A, Address, MdnsQuery, Question
from dns_boot.names import FormatError, Name
from orchestrator.errors import EdgewakeError
from orchestrator.model import Endpoint, Population
from orchestrator.steering.base import Route
from orchestrator.summons import Summoner, Summons

logger = logging.getLogger(__name__)

GROUP4, GROUP6, PORT = "224.0.0.251", "ff02::fb", 5353  # RFC 6762, section 3
DOMAIN = b"local"
AGAIN_S = 1.0  # RFC 6762, section 6: no record is multicast twice within a second
MAX_PACKET_BYTES = 9000  # RFC 6762, section 17
MOST_WAITING = 256  # who waits for one wake, beside everybody
POLL_S = 0.5

Peer = tuple[str, int] | tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asked what, over which socket."""

    link: socket.socket
    peer: Peer
    ident: int
    question: Question

    @property
    def is_legacy(self) -> bool:
        """Whether it asked as in plain DNS, and so hears nothing that is sent to everybody."""
        return self.peer[1] != PORT


class MdnsResponder:
    """Answers for all services on one interface. A `Steering` back end.

    Raises EdgewakeError when it is made, if the interface is not there or cannot be used.
    """

    def __init__(
        self,
        interface: str,
        populations: Callable[[], Sequence[Population]],
        summoner: Summoner,
    ) -> None:
        self._populations = populations
        self._clients = Clients(populations())
        self._summoner = summoner
        self._routes: dict[Name, Route] = {}
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Asker]] = {}
        self._said_at: dict[tuple[str, int, int], float] = {}
        self._links = _open(interface)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dns-mdns", daemon=True)

    def start(self) -> None:
        """Answer."""
        self._thread.start()

    def set(self, routes: Sequence[Route]) -> None:
        """Answer from exactly these routes from now on."""
        self._clients = Clients(self._populations())
        self._routes = {(route.service.name.encode(), DOMAIN): route for route in routes}

    def close(self) -> None:
        """Answer nothing any more. May be called twice."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        for link in self._links:
            link.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            for link in select.select(self._links, (), (), POLL_S)[0]:
                try:
                    packet, peer = link.recvfrom(MAX_PACKET_BYTES)
                    if (query := mdns_wire.read(packet)) is not None:
                        self._answer(link, peer, query)
                except (OSError, FormatError) as error:
                    logger.debug("multicast DNS: %s", error)
                except Exception:
                    # A front door: whatever a packet brought to light, the next one is read.
                    logger.exception("a multicast DNS packet could not be handled")

    def _answer(self, link: socket.socket, peer: Peer, query: MdnsQuery) -> None:
        client = self._clients.of(peer[0])
        for question in query.questions:
            route = self._routes.get(question.name)
            if route is None or not _can_be_answered(question, route):
                continue
            asker = _Asker(link, peer, query.id, question)
            name = route.service.name
            with self._lock:
                waiting = self._waiting.get(name)
                if waiting is not None:  # asked again, or by others, while it wakes
                    if asker not in waiting and len(waiting) < MOST_WAITING:
                        waiting.append(asker)
                    continue
            summons = self._summoner.summon(name, client)
            if summons.trace is None:
                self._say(route, [asker], summons.endpoints, query=query)
            else:
                self._hold(route, asker, summons)

    def _hold(self, route: Route, asker: _Asker, summons: Summons) -> None:
        with self._lock:
            self._waiting[route.service.name] = [asker]
        summons.endpoints.add_done_callback(partial(self._woken, route, summons))

    def _woken(
        self, route: Route, summons: Summons, endpoints: Future[tuple[Endpoint, ...]]
    ) -> None:
        """Say what everybody waited for. Runs in control's thread."""
        with self._lock:
            askers = self._waiting.pop(route.service.name, [])
        self._say(route, askers, endpoints, waited=True)
        if summons.trace is not None:
            summons.trace.replied()

    def _say(
        self,
        route: Route,
        askers: Sequence[_Asker],
        ended: Future[tuple[Endpoint, ...]],
        *,
        query: MdnsQuery | None = None,
        waited: bool = False,
    ) -> None:
        if ended.cancelled() or (error := ended.exception()) is not None:
            logger.debug("multicast DNS: %s: %s", route.service.name, error)
            return
        endpoints = ended.result()
        ttl_s = min(endpoint.ttl_s for endpoint in endpoints)
        ttl_s = min(ttl_s, route.service.ttl_waking_s) if waited else ttl_s
        said = False
        for asker in askers:
            addresses = _addresses(endpoints, asker.question.qtype)
            name = asker.question.name
            if query is not None:
                addresses = [a for a in addresses if not query.knows(name, a, ttl_s)]
            if addresses and self._send(asker, route.service.name, addresses, ttl_s, waited=waited):
                said = True
        if said:
            self._summoner.asked[route.service.name] = time.monotonic()

    def _send(
        self, asker: _Asker, service: str, addresses: list[Address], ttl_s: int, *, waited: bool
    ) -> bool:
        """Send an answer to whom it is for; False if everybody was told a moment ago."""
        question = asker.question
        alone = asker.is_legacy or (question.unicast and not waited)
        if not alone and not self._may_repeat(service, asker):
            return False
        if asker.is_legacy:
            packet = mdns_wire.legacy_response(asker.ident, question, addresses, ttl_s)
        else:
            packet = mdns_wire.response(question.name, addresses, ttl_s)
        try:
            asker.link.sendto(packet, asker.peer if alone else _everybody(asker.link))
        except OSError as error:
            logger.debug("multicast DNS answer for %s: %s", service, error)
            return False
        return True

    def _may_repeat(self, service: str, asker: _Asker) -> bool:
        now, key = time.monotonic(), (service, asker.question.qtype, asker.link.fileno())
        with self._lock:
            if now - self._said_at.get(key, float("-inf")) < AGAIN_S:
                return False
            self._said_at[key] = now
            return True


def _can_be_answered(question: Question, route: Route) -> bool:
    return question.qtype in {A, ANY} or (question.qtype == AAAA and route.ipv6)


def _addresses(endpoints: Sequence[Endpoint], qtype: int) -> list[Address]:
    found: list[Address] = []
    for endpoint in endpoints:
        if qtype in {A, ANY}:
            found.append(endpoint.address)
        if qtype in {AAAA, ANY} and endpoint.address6 is not None:
            found.append(endpoint.address6)
    return found


# --- sockets ----------------------------------------------------------------------------------


def _open(interface: str) -> list[socket.socket]:
    """Return a socket for IPv4, and one for IPv6 if the interface has it."""
    try:
        index = socket.if_nametoindex(interface)
        links = [_open4(interface, index)]
    except OSError as error:
        raise EdgewakeError(
            f"cannot answer multicast DNS on {interface}: {error}",
            hint="set dns.mdns to an interface of this machine (`ip link` lists them)",
        ) from error
    try:
        links.append(_open6(interface, index))
    except OSError as error:
        logger.info("no multicast DNS over IPv6 on %s: %s", interface, error)
    return links


def _open4(interface: str, index: int) -> socket.socket:
    member = struct.pack("@4s4si", socket.inet_aton(GROUP4), bytes(4), index)  # struct ip_mreqn
    with contextlib.ExitStack() as undo:
        link = undo.enter_context(_shared(socket.AF_INET, interface))
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, member)
        link.bind((GROUP4, PORT))
        link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        undo.pop_all()
        return link


def _open6(interface: str, index: int) -> socket.socket:
    member = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("@i", index)
    with contextlib.ExitStack() as undo:
        link = undo.enter_context(_shared(socket.AF_INET6, interface))
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        link.bind((GROUP6, PORT, 0, index))
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        undo.pop_all()
        return link


def _shared(family: int, interface: str) -> socket.socket:
    """Return a socket on one interface; others (Avahi) may have the same port there."""
    link = socket.socket(family, socket.SOCK_DGRAM)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except OSError:
        link.close()
        raise
    return link


def _everybody(link: socket.socket) -> Peer:
    if link.family == socket.AF_INET:
        return GROUP4, PORT
    return GROUP6, PORT, 0, link.getsockname()[3]
