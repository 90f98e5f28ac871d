"""From question to answer: decide, wake if that is what it takes, and reply when it is over.

For `dns_boot.server`, which brings packets and takes replies; control sees a `Steering`. No thread
waits for a wake: a query is held as a few hundred bytes until the wake's future calls back. What
an answer looks like is left to `dns_boot.answers`, where a service runs to control.
"""

import heapq
import itertools
import logging
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Hashable, MutableMapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from dnslib import CLASS, QTYPE

from dns_boot import answers, tsig
from dns_boot.answers import Answer
from dns_boot.clients import Clients
from dns_boot.cookies import Cookies
from dns_boot.forward import Forwarder
from dns_boot.log import DnsLog, Told
from dns_boot.names import (
    CD,
    FORMERR,
    HEADER_BYTES,
    RD,
    TC,
    FormatError,
    Malformed,
    Name,
    NameTable,
    Query,
    name_of,
    parse_query,
)
from dns_boot.notify import Notifier
from dns_boot.packed import PackedAnswers
from dns_boot.rates import Limiter
from dns_boot.serial import Serials
from dns_boot.subnet import ClientSubnet
from dns_boot.subnet import parse as parse_subnet
from dns_boot.zone import Zone
from orchestrator.errors import Overloaded, WakeError
from orchestrator.model import AnswerOrder, Client, DnsSettings, Endpoint, Population, Transfer
from orchestrator.queries import Outcome
from orchestrator.steering.base import Order, Route
from orchestrator.summons import Summoner
from orchestrator.trace import WakeTrace
from orchestrator.wake_context import working_for

logger = logging.getLogger(__name__)

MAX_HELD = 20_000  # queries that wait for wakes; about 1.5 KB each
GRACE_S = 1.0  # what control may be late by before a held query is answered without it
TCP_BYTES = 65_535
MAX_ENCODED = 2048  # replies; about 1 KB each

COPY_TYPES = frozenset({QTYPE.AXFR, QTYPE.IXFR})
NO_TRANSFER = Transfer()
META_TYPES = range(128, 256)  # ANY, AXFR, TKEY and other query and meta types (RFC 6895, 3.1)
BINDINGS = frozenset({QTYPE.HTTPS, 64})  # 64 is SVCB, which dnslib does not name
# Questions worth packing when the answer is that there is no such record.
COMMON_TYPES = BINDINGS | {QTYPE.A, QTYPE.AAAA, QTYPE.NS, QTYPE.SOA, QTYPE.MX, QTYPE.TXT}

Respond = Callable[[bytes | None], object]
"""Takes the reply to a query, or None for none; says True if it was limited, and not sent whole."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a packet came from; `udp` says how, and `at` when (monotonic; 0 if unknown)."""

    address: str
    port: int
    udp: bool = True
    at: float = field(default=0.0, compare=False)


Enqueue = Callable[[bytes, Source, Respond], None]
"""Takes a packet that somebody else is to answer."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The decision that a service must be awake before there is an answer."""

    route: Route


@dataclass(frozen=True, slots=True)
class Forward:
    """The decision that another resolver knows."""


def decide(
    query: Query, zone: Zone, table: NameTable, *, forwarding: bool
) -> Answer | Wake | Forward:
    """Return what to do about a question, from the routes of now. Pure."""
    if query.edns and query.edns.version > 0:
        return answers.BAD_VERSION
    if query.qclass != CLASS.IN or query.qtype in META_TYPES:
        return answers.NOT_SUPPORTED
    if not table.covers(query.name):
        return Forward() if forwarding and query.flags & RD else answers.NOT_OURS
    return _decide_in_zone(query, zone, table)


def _decide_in_zone(query: Query, zone: Zone, table: NameTable) -> Answer | Wake:
    route = table.route(query.name)
    if route is not None and wakes(query.qtype, route):
        return Wake(route)
    static = zone.find(query.name, query.qtype)
    if static is not None:
        return static
    return zone.nodata if table.exists(query.name) else zone.nxdomain


def wakes(qtype: int, route: Route) -> bool:
    """Say whether a question of this type for a service can have an answer, and so wakes it."""
    if qtype == QTYPE.AAAA:
        return route.ipv6
    return qtype == QTYPE.A or (qtype in BINDINGS and bool(route.service.alpn))


class _Asked:
    """One query on its way to exactly one reply."""

    __slots__ = (
        *("_respond", "packet", "proven", "query", "rcode"),
        *("signer", "source", "subnet", "told"),
    )

    def __init__(
        self,
        packet: bytes,
        query: Query,
        source: Source,
        respond: Respond,
        *,
        told: Told,
        subnet: ClientSubnet | None = None,
        signer: tsig.Signer | None = None,
        proven: bool = False,
    ) -> None:
        self.packet = packet
        self.proven = proven or not source.udp
        self.query = query
        self.source = source
        self.subnet = subnet
        self.signer = signer
        self.told = told
        self.rcode: int | None = None  # of the reply, where an answer of ours says it
        self._respond: Respond | None = respond

    @property
    def key(self) -> Hashable:
        """What makes another packet the same query, sent again."""
        return self.source, self.query.id, self.query.question

    @property
    def limit(self) -> int:
        signature = self.signer.size if self.signer else 0
        return (self.query.udp_limit if self.source.udp else TCP_BYTES) - signature

    def reply(self, reply: bytes | None) -> None:
        """Hand over the reply, or None for no reply; only the first call counts."""
        respond, self._respond = self._respond, None
        if respond is not None:
            signed = self.signer.sign(reply) if self.signer and reply else reply
            limited = respond(signed) is True
            self.told.answered(signed, rcode=self.rcode, limited=limited)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class _Held:
    """A query and the wake it is about; in `Resolver._held` while the wake is not over."""

    asked: _Asked
    route: Route
    trace: WakeTrace | None


class Resolver:
    """Answers the queries of one zone. A `Steering` back end; safe to use from several threads.

    `populations` is asked for the lab's client populations whenever routes are set, which is also
    after another lab was applied. Raises EdgewakeError if the zone's own names are no DNS names, or
    a key of it cannot be read.
    """

    def __init__(
        self,
        settings: DnsSettings,
        populations: Callable[[], Sequence[Population]],
        summoner: Summoner,
        *,
        held_limit: int = MAX_HELD,
        grace_s: float = GRACE_S,
        serials: Serials | None = None,
    ) -> None:
        rates = settings.rate_limit
        self.packed = PackedAnswers(
            summoner.asked,
            cookies=Cookies(settings.cookies),
            limiter=Limiter(rates.per_second, rates.slip, rates.exempt),
        )
        self._settings = settings
        self._keys = tsig.load_keys(settings.keys)
        self._serials = serials or Serials()
        self._zone = Zone(settings, serial_of=lambda _content: self._serials.last)
        self._table = NameTable(self._zone.apex, (), own=self._zone.names)
        self._populations = populations
        self._known = populations()
        self._clients = self.packed.clients = Clients(self._known)
        self._summoner = summoner
        self._forwarder = Forwarder(settings.forward_to) if settings.forward_to else None
        told = settings.transfer.notify
        self._notifier = Notifier(self._zone.apex, told, self._keys) if told else None
        self._told_serial: int | None = None
        self._held: dict[Hashable, _Held] = {}
        self._held_limit = held_limit
        self._grace_s = grace_s
        self._claiming = threading.Lock()
        self._alarm = _Alarm(self._expire)
        self._setting = threading.Lock()
        self._encoded = _Encoded()
        self.log = DnsLog(settings.log, self.packed, self._service_of)

    @property
    def asked(self) -> MutableMapping[str, float]:
        """When each service was last asked for, for whoever answers from the packed replies."""
        return self._summoner.asked

    # --- steering -----------------------------------------------------------------------------

    def set(self, routes: Sequence[Route]) -> None:
        """Answer from exactly these routes from now on. Never raises; odd names are logged."""
        with self._setting:
            generation = self._table.generation + 1
            table = NameTable(
                self._zone.apex,
                routes,
                own=self._zone.names,
                generation=generation,
                like=self._table,
            )
            if table.wires is not self._table.wires or self._told_serial is None:
                self._zone = Zone(self._settings, table.services, self._serials.of)
            # In this order: a reply made from the old table meanwhile is refused by `packed`.
            moved = table.moved(self._table)
            if (known := self._populations()) != self._known:
                self._known, self._clients = known, Clients(known)
                self.packed.forget(generation, clients=self._clients)
            else:
                self.packed.forget(generation, moved)
            self._table = table
            self._notify()

    def _notify(self) -> None:
        """Tell the secondaries of a zone that they were not told of, also at the start."""
        if self._told_serial != self._zone.serial:
            self._told_serial = self._zone.serial
            if self._notifier is not None:
                self._notifier.tell()

    def close(self) -> None:
        """Tell everybody who waits that nothing will come, and end our threads."""
        if self._notifier is not None:
            self._notifier.close()
        self._alarm.close()
        for held in tuple(self._held.values()):
            if self._claim(held):
                self._give_up(held, answers.failure(CancelledError()))
        if self._forwarder is not None:
            self._forwarder.close()

    # --- questions ----------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many queries wait for a wake."""
        return len(self._held)

    def knows(self, packet: bytes) -> bool:
        """Say, in about a microsecond, whether a packet asks for a name that exists here."""
        end = packet.find(b"\0", HEADER_BYTES) + 1
        return packet[HEADER_BYTES:end].lower() in self._table.wires

    def resolve(self, packet: bytes, source: Source, respond: Respond) -> None:
        """Call `respond` once, now or later and from any thread, with the reply to a packet.

        The reply is None if there is nothing to say. Never raises.
        """
        query = parse_query(packet)
        told = self._told(packet, source)
        if query is None:
            respond(None)
            told.answered(None)
        elif isinstance(query, Malformed):
            self._tell_malformed(query, told, respond)
        else:
            query, good = self._with_cookie(query, source)
            try:
                subnet = self._believed(query, source)
                signer = tsig.check(packet, query.tsig_at, self._keys) if query.tsig_at else None
            except FormatError:
                self._tell_malformed(Malformed(query.id, query.flags, FORMERR), told, respond)
                return
            if subnet is not None and subnet.network is not None:
                told.subnet = str(subnet.network)
            asked = _Asked(
                packet, query, source, respond, told=told, subnet=subnet, signer=signer, proven=good
            )
            sent_one = bool(query.edns and query.edns.cookie)
            if sent_one and self.packed.cookies.required and not asked.proven:
                asked.reply(self._pack(asked, answers.BAD_COOKIE))
            else:
                self._resolve(asked)

    def _tell_malformed(self, malformed: Malformed, told: Told, respond: Respond) -> None:
        limited = respond(reply := answers.bare(malformed)) is True
        told.outcome = Outcome.MALFORMED
        told.answered(reply, limited=limited)

    def lost(self, packet: bytes, source: Source) -> None:
        """Note that a query is dropped because too many wait."""
        self._told(packet, source).answered(None)

    def _told(self, packet: bytes, source: Source) -> Told:
        begun = source.at or time.monotonic()
        return Told(self.log, packet, source.address, source.port, source.udp, begun)

    def _with_cookie(self, query: Query, source: Source) -> tuple[Query, bool]:
        """Return a query with the cookie that its reply is to carry; and whether it sent ours."""
        cookies = self.packed.cookies
        if query.edns is None or not query.edns.cookie:
            return query, False
        if not cookies.on:
            return replace(query, edns=replace(query.edns, cookie=b"")), False
        cookie, good = cookies.answer(query.edns.cookie, source.address)
        return replace(query, edns=replace(query.edns, cookie=cookie)), good

    def _believed(self, query: Query, source: Source) -> ClientSubnet | None:
        """Return the client subnet that a query names, if its sender is to be believed."""
        named = query.edns.subnet if query.edns else None
        if named is None or not self._settings.client_subnet:
            return None
        trusted, sender = self._settings.client_subnet_from, self._clients.of(source.address)
        if trusted and not any(_has(subnet, sender.address) for subnet in trusted):
            return None
        return parse_subnet(named)

    def _resolve(self, asked: _Asked) -> None:
        try:
            table = self._table
            decision = self._decide(asked, table)
            if isinstance(decision, Wake):
                self._wake(asked, decision.route)
            elif isinstance(decision, Forward):
                self._forward(asked)
            else:
                self._say(asked, decision, table)
        except Exception as error:  # noqa: BLE001 - a front door: one query must not end the loop
            self._fail(asked, error)

    def _decide(self, asked: _Asked, table: NameTable) -> Answer | Wake | Forward:
        query = asked.query
        if asked.signer and asked.signer.error:
            return answers.BADLY_SIGNED
        wants_copy = query.qtype in COPY_TYPES and query.qclass == CLASS.IN
        if wants_copy and self._settings.transfer != NO_TRANSFER and query.name == self._zone.apex:
            return self._copy(asked)
        return decide(query, self._zone, table, forwarding=self._forwarder is not None)

    def _copy(self, asked: _Asked) -> Answer:
        """Return the copy of the zone that a secondary asks for, if it may have one.

        To one that asks for the changes since a serial, all is said anew (RFC 1995, section 4);
        over UDP only the SOA record, which has it come again over TCP.
        """
        transfer, source = self._settings.transfer, self._clients.of(asked.source.address)
        signed = asked.signer is not None and asked.signer.signature.key in {
            name_of(key) for key in transfer.keys
        }
        if not signed and not any(_has(subnet, source.address) for subnet in transfer.allow):
            return answers.PROHIBITED
        if asked.source.udp:
            soa = self._zone.find(self._zone.apex, QTYPE.SOA)
            return soa if soa and asked.query.qtype == QTYPE.IXFR else answers.NOT_SUPPORTED
        copy = self._zone.transfer()
        reply = self._pack(asked, copy)
        too_large = int.from_bytes(reply[2:4], "big") & TC
        return answers.TOO_LARGE if too_large else copy

    def _say(self, asked: _Asked, answer: Answer, table: NameTable) -> None:
        reply = self._pack(asked, answer)
        query = asked.query
        common = query.qtype in COMMON_TYPES and table.covers(query.name)
        if answer.rcode == answers.NOERROR and common and asked.subnet is None:
            self.packed.add(table.generation, query, reply)
        asked.reply(reply)

    def _fail(self, asked: _Asked, error: BaseException) -> None:
        logger.error("a query could not be answered", exc_info=error)
        asked.reply(self._pack(asked, answers.failure(error)))

    def _service_of(self, name: Name) -> str:
        route = self._table.route(name)
        return route.service.name if route else ""

    def _pack(self, asked: _Asked, answer: Answer) -> bytes:
        asked.rcode = answer.rcode
        forwarding = self._forwarder is not None
        return answers.pack(
            asked.query, answer, forwarding=forwarding, limit=asked.limit, subnet=asked.subnet
        )

    # --- forwarding ---------------------------------------------------------------------------

    def _forward(self, asked: _Asked) -> None:
        asked.told.outcome = Outcome.FORWARDED
        if self._forwarder is not None:
            self._forwarder.ask(asked.query, lambda reply: self._forwarded(asked, reply))

    def _forwarded(self, asked: _Asked, reply: bytes | None) -> None:
        if reply is None:
            reply = self._pack(asked, answers.NO_FORWARDER)
        elif len(reply := answers.with_cookie(asked.query, reply)) > asked.limit:
            reply = answers.truncated(asked.query)
        asked.reply(reply)

    # --- waking -------------------------------------------------------------------------------

    def _wake(self, asked: _Asked, route: Route) -> None:
        service = route.service
        asked.told.service = service.name
        if asked.key in self._held:
            asked.reply(None)  # sent again while it waits: the first one's reply is on its way
            return
        if len(self._held) >= self._held_limit:
            full = Overloaded(service.name, f"{len(self._held)} queries are waiting already")
            asked.reply(self._pack(asked, answers.failure(full)))
            return
        client, _ = self._client(asked)
        summons = self._summoner.summon(service.name, client, asked.source.at)
        held = _Held(asked, route, summons.trace)
        if summons.trace is not None:
            with working_for(summons.trace):
                logger.debug("%s is asked for by %s", service.name, asked.source.address)
        if summons.endpoints.done():
            self._reply_wake(held, summons.endpoints)
        else:
            self._hold(held, summons.endpoints)

    def _client(self, asked: _Asked) -> tuple[Client, int]:
        """Return who asks, and how many bits of a client subnet say so (0: none was believed).

        The address stays that of the packet: it is who pays for a wake.
        """
        client = self._clients.of(asked.source.address)
        if asked.proven:
            client = replace(client, proven=True)
        network = asked.subnet.network if asked.subnet else None
        if network is None:
            return client, 0
        population, scope = self._clients.within(network)
        return replace(client, population=population), scope

    def _hold(self, held: _Held, endpoints: Future[tuple[Endpoint, ...]]) -> None:
        with self._claiming:
            first = self._held.setdefault(held.asked.key, held) is held
        if not first:
            held.asked.reply(None)
            return
        told = held.asked.told
        told.outcome, told.wake = Outcome.COLD, held.trace.id if held.trace else 0
        self._alarm.at(time.monotonic() + held.route.service.deadline_s + self._grace_s, held)
        endpoints.add_done_callback(lambda ended: self._ended(held, ended))

    def _claim(self, held: _Held) -> bool:
        """Say whether the caller is the one to reply: a wake's end, the alarm or `close`."""
        with self._claiming:
            if self._held.get(held.asked.key) is not held:
                return False
            del self._held[held.asked.key]
            return True

    def _ended(self, held: _Held, endpoints: Future[tuple[Endpoint, ...]]) -> None:
        """Reply to a held query now that its wake is over. Runs in control's thread."""
        if self._claim(held):
            self._reply_wake(held, endpoints)

    def _expire(self, held: _Held) -> None:
        """Reply to a held query whose wake is not over although it must be."""
        if self._claim(held):
            logger.error("the wake of %s is over time and has not ended", held.route.service.name)
            self._give_up(held, answers.late(held.route.service))

    def _give_up(self, held: _Held, answer: Answer) -> None:
        held.asked.reply(self._pack(held.asked, answer))
        if held.trace is not None:
            held.trace.replied()

    def _reply_wake(self, held: _Held, endpoints: Future[tuple[Endpoint, ...]]) -> None:
        """Reply with what a wake came to, then note when that was."""
        with working_for(held.trace):
            self._reply_at_end(held, endpoints)

    def _reply_at_end(self, held: _Held, endpoints: Future[tuple[Endpoint, ...]]) -> None:
        try:
            error = CancelledError() if endpoints.cancelled() else endpoints.exception()
            if error is not None:
                if not isinstance(error, WakeError | CancelledError):
                    logger.error("waking %s failed oddly", held.route.service.name, exc_info=error)
                self._give_up(held, answers.failure(error))
                return
            held.asked.reply(self._served(held, endpoints.result()))
        except Exception as bug:  # noqa: BLE001 - a future would swallow it, and the query hang
            self._fail(held.asked, bug)
            return
        if held.trace is not None:
            held.trace.replied()
            logger.debug("%s was told to %s", held.route.service.name, held.asked.source.address)
        self._summoner.asked[held.route.service.name] = time.monotonic()

    def _served(self, held: _Held, endpoints: tuple[Endpoint, ...]) -> bytes:
        """Return the reply that names these endpoints; of many that are alike, one is encoded."""
        asked, waited = held.asked, held.trace is not None
        service, table = held.route.service, self._table
        route = table.route_of(service.name)  # of the table first: `set` has new clients before it
        client, scope = self._client(asked)
        own = client.population if route and route.theirs else None
        key = (table.generation, service, endpoints, waited, own, _likeness(asked))
        if (reply := self._encoded.get(key)) is not None:
            return _addressed(reply, asked.query)
        answer = answers.served(asked.query, service, endpoints, waited=waited)
        if not answer.answers:
            answer, own = self._zone.nodata, None
        elif len(endpoints) > 1 and service.answer is not AnswerOrder.ROTATED:
            answer = replace(answer, scope=scope)
        reply = self._pack(asked, answer)
        orders = _what_follows(route, endpoints, client.population)
        may_be_packed = orders and asked.subnet is None and not waited
        if may_be_packed and self.packed.wants(asked.query, reply, own):
            known = {endpoints: reply}
            replies = self._round(held, orders, known) if answer.answers else [reply]
            self.packed.add(
                table.generation, asked.query, *replies, service=service.name, population=own
            )
        else:
            self._encoded.put(key, reply)
        return reply

    def _round(
        self, held: _Held, orders: Sequence[Order], known: dict[Order, bytes]
    ) -> list[bytes]:
        """Return the replies that name endpoints in these orders; what is not known is encoded."""
        for order in orders:
            if order not in known:
                answer = answers.served(held.asked.query, held.route.service, order)
                known[order] = self._pack(held.asked, answer)
        return [known[order] for order in orders]


def _what_follows(route: Route | None, endpoints: Order, population: str) -> tuple[Order, ...]:
    """Return the orders of a round of answers, from the one after an answer with these endpoints.

    It is what clients of that population are to get for as long as the routes stay; nothing if they
    do not say. The endpoints must be what they say: an answer that control made from newer or older
    knowledge would outlive its truth.
    """
    if route is None or set(route.endpoints) != set(endpoints):
        return ()
    if len(endpoints) == 1:
        return (endpoints,)
    turns = route.turns_of(population)
    if not turns:
        return ()
    ends = [turn for turn, order in enumerate(turns, 1) if order == endpoints]
    first = secrets.choice(ends or range(len(turns)))
    return turns[first:] + turns[:first]


class _Encoded:
    """The last replies that were encoded, by all that they depend on but id and letter case.

    Many who wait for one wake ask alike, and the orders in which copies are named come again.
    """

    def __init__(self) -> None:
        self._replies: dict[Hashable, bytes] = {}

    def get(self, key: Hashable) -> bytes | None:
        """Return a reply, if it is kept."""
        return self._replies.get(key)

    def put(self, key: Hashable, reply: bytes) -> None:
        """Keep a reply."""
        if len(self._replies) >= MAX_ENCODED:
            self._replies = {}
        self._replies[key] = reply


def _addressed(reply: bytes, query: Query) -> bytes:
    """Return the reply to another query as the one to this query, which is like it."""
    end = HEADER_BYTES + len(query.question)
    ident = query.id.to_bytes(2, "big")
    return ident + reply[2:HEADER_BYTES] + query.question + reply[end:]


def _likeness(asked: _Asked) -> Hashable:
    query = asked.query
    flags = query.flags & (RD | CD)
    return query.name, query.qtype, flags, query.edns, asked.subnet, asked.limit


def _has(subnet: IPv4Network | IPv6Network, address: IPv4Address | IPv6Address | None) -> bool:
    return address is not None and address.version == subnet.version and address in subnet


class _Alarm:
    """Calls `ring` with each thing at its monotonic time, from a thread of its own."""

    def __init__(self, ring: Callable[[_Held], None]) -> None:
        self._ring = ring
        self._things: list[tuple[float, int, weakref.ref[_Held]]] = []
        self._numbers = itertools.count()  # things of the same time are not compared
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="dns-alarm", daemon=True)
        self._thread.start()

    def at(self, when: float, thing: _Held) -> None:
        """Ring at a monotonic time."""
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._things, (when, number, weakref.ref(thing)))
            if self._things[0][1] == number:
                self._changed.notify()

    def close(self) -> None:
        """Ring no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (thing := self._next()) is not None:
            try:
                self._ring(thing)
            except Exception:
                logger.exception("a held query failed in a way we did not foresee")

    def _next(self) -> _Held | None:
        """Wait for the next thing that is due and return it; None when closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._things and self._things[0][0] <= now:
                    thing = heapq.heappop(self._things)[2]()
                    if thing is not None:
                        return thing
                    continue
                self._changed.wait(self._things[0][0] - now if self._things else None)
            return None
