"""From question to answer: decide, wake if that is what it takes, and reply when it is over.

For `dns_boot.server`, which brings packets and takes replies; control sees a `Steering`. No thread
waits for a wake: a query is held as a few hundred bytes until the wake's future calls back. What
an answer looks like is left to `dns_boot.answers`, where a service runs to control.
"""

import heapq
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable, MutableMapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace

from dnslib import CLASS, QTYPE

from dns_boot import answers
from dns_boot.answers import Answer, Zone
from dns_boot.clients import Clients
from dns_boot.cookies import Cookies
from dns_boot.forward import Forwarder
from dns_boot.names import HEADER_BYTES, RD, Malformed, NameTable, Query, parse_query
from dns_boot.packed import PackedAnswers
from dns_boot.rates import Limiter
from orchestrator.errors import Overloaded, WakeError
from orchestrator.model import DnsSettings, Endpoint, Population
from orchestrator.steering.base import Route
from orchestrator.summons import Summoner
from orchestrator.trace import WakeTrace

logger = logging.getLogger(__name__)

MAX_HELD = 20_000  # queries that wait for wakes; about 1.5 KB each
GRACE_S = 1.0  # what control may be late by before a held query is answered without it
TCP_BYTES = 65_535

META_TYPES = range(128, 256)  # ANY, AXFR, TKEY and other query and meta types (RFC 6895, 3.1)
BINDINGS = frozenset({QTYPE.HTTPS, 64})  # 64 is SVCB, which dnslib does not name
# Questions worth packing when the answer is that there is no such record.
COMMON_TYPES = BINDINGS | {QTYPE.A, QTYPE.AAAA, QTYPE.NS, QTYPE.SOA, QTYPE.MX, QTYPE.TXT}

Respond = Callable[[bytes | None], None]


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
    if query.name == zone.apex and query.qtype in {QTYPE.SOA, QTYPE.NS}:
        return zone.apex_records(query.qtype)
    route = table.route(query.name)
    if route is not None:
        return Wake(route) if wakes(query.qtype, route) else zone.nodata
    if query.name == zone.nameserver:
        return zone.nameserver_address(query.qtype)
    return zone.nodata if table.exists(query.name) else zone.nxdomain


def wakes(qtype: int, route: Route) -> bool:
    """Say whether a question of this type for a service can have an answer, and so wakes it."""
    if qtype == QTYPE.AAAA:
        return route.ipv6
    return qtype == QTYPE.A or (qtype in BINDINGS and bool(route.service.alpn))


class _Asked:
    """One query on its way to exactly one reply."""

    __slots__ = ("_respond", "packet", "query", "source")

    def __init__(self, packet: bytes, query: Query, source: Source, respond: Respond) -> None:
        self.packet = packet
        self.query = query
        self.source = source
        self._respond: Respond | None = respond

    @property
    def key(self) -> Hashable:
        """What makes another packet the same query, sent again."""
        return self.source, self.query.id, self.query.question

    @property
    def limit(self) -> int:
        return self.query.udp_limit if self.source.udp else TCP_BYTES

    def reply(self, reply: bytes | None) -> None:
        """Hand over the reply, or None for no reply; only the first call counts."""
        respond, self._respond = self._respond, None
        if respond is not None:
            respond(reply)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class _Held:
    """A query and the wake it is about; in `Resolver._held` while the wake is not over."""

    asked: _Asked
    route: Route
    trace: WakeTrace | None


class Resolver:
    """Answers the queries of one zone. A `Steering` back end; safe to use from several threads.

    `populations` is asked for the lab's client populations whenever routes are set, which is also
    after another lab was applied. Raises EdgewakeError if the zone's own names are no DNS names.
    """

    def __init__(
        self,
        settings: DnsSettings,
        populations: Callable[[], Sequence[Population]],
        summoner: Summoner,
        *,
        held_limit: int = MAX_HELD,
        grace_s: float = GRACE_S,
    ) -> None:
        rates = settings.rate_limit
        self.packed = PackedAnswers(
            summoner.asked,
            cookies=Cookies(settings.cookies),
            limiter=Limiter(rates.per_second, rates.slip, rates.exempt),
        )
        self._zone = Zone(settings)
        self._table = NameTable(self._zone.apex, (), own=(self._zone.nameserver,))
        self._populations = populations
        self._known = populations()
        self._clients = Clients(self._known)
        self._summoner = summoner
        self._forwarder = Forwarder(settings.forward_to) if settings.forward_to else None
        self._held: dict[Hashable, _Held] = {}
        self._held_limit = held_limit
        self._grace_s = grace_s
        self._claiming = threading.Lock()
        self._alarm = _Alarm(self._expire)
        self._setting = threading.Lock()

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
                own=(self._zone.nameserver,),
                generation=generation,
                like=self._table,
            )
            # In this order: a reply made from the old table meanwhile is refused by `packed`.
            moved = table.moved(self._table)
            if (known := self._populations()) != self._known:
                self._known, self._clients, moved = known, Clients(known), None
            self.packed.forget(generation, moved)
            self._table = table

    def close(self) -> None:
        """Tell everybody who waits that nothing will come, and end our threads."""
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
        if query is None:
            respond(None)
        elif isinstance(query, Malformed):
            respond(answers.bare(query))
        else:
            query, good = self._with_cookie(query, source)
            asked = _Asked(packet, query, source, respond)
            if good or not source.udp:
                self._resolve(asked)
            else:
                asked.reply(self._pack(asked, answers.BAD_COOKIE))

    def _with_cookie(self, query: Query, source: Source) -> tuple[Query, bool]:
        """Return a query with the cookie that its reply is to carry; and whether it is let in."""
        cookies = self.packed.cookies
        if query.edns is None or not query.edns.cookie:
            return query, True
        if not cookies.on:
            return replace(query, edns=replace(query.edns, cookie=b"")), True
        cookie, good = cookies.answer(query.edns.cookie, source.address)
        query = replace(query, edns=replace(query.edns, cookie=cookie))
        return query, good or not cookies.required

    def _resolve(self, asked: _Asked) -> None:
        try:
            table = self._table
            decision = decide(
                asked.query, self._zone, table, forwarding=self._forwarder is not None
            )
            if isinstance(decision, Wake):
                self._wake(asked, decision.route)
            elif isinstance(decision, Forward):
                self._forward(asked)
            else:
                self._say(asked, decision, table)
        except Exception as error:  # noqa: BLE001 - a front door: one query must not end the loop
            self._fail(asked, error)

    def _say(self, asked: _Asked, answer: Answer, table: NameTable) -> None:
        reply = self._pack(asked, answer)
        query = asked.query
        common = query.qtype in COMMON_TYPES and table.covers(query.name)
        if answer.rcode == answers.NOERROR and common:
            self.packed.add(table.generation, query, reply)
        asked.reply(reply)

    def _fail(self, asked: _Asked, error: BaseException) -> None:
        logger.error("a query could not be answered", exc_info=error)
        asked.reply(self._pack(asked, answers.failure(error)))

    def _pack(self, asked: _Asked, answer: Answer) -> bytes:
        forwarding = self._forwarder is not None
        return answers.pack(asked.query, answer, forwarding=forwarding, limit=asked.limit)

    # --- forwarding ---------------------------------------------------------------------------

    def _forward(self, asked: _Asked) -> None:
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
        if asked.key in self._held:
            asked.reply(None)  # sent again while it waits: the first one's reply is on its way
            return
        if len(self._held) >= self._held_limit:
            full = Overloaded(service.name, f"{len(self._held)} queries are waiting already")
            asked.reply(self._pack(asked, answers.failure(full)))
            return
        client = self._clients.of(asked.source.address)
        summons = self._summoner.summon(service.name, client, asked.source.at)
        held = _Held(asked, route, summons.trace)
        if summons.endpoints.done():
            self._reply_wake(held, summons.endpoints)
        else:
            self._hold(held, summons.endpoints)

    def _hold(self, held: _Held, endpoints: Future[tuple[Endpoint, ...]]) -> None:
        with self._claiming:
            first = self._held.setdefault(held.asked.key, held) is held
        if not first:
            held.asked.reply(None)
            return
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
        self._summoner.asked[held.route.service.name] = time.monotonic()

    def _served(self, held: _Held, endpoints: tuple[Endpoint, ...]) -> bytes:
        asked, service = held.asked, held.route.service
        reply = self.packed.reply(asked.packet, asked.source.address)
        if reply is not None:  # of many queries held for one wake, only the first is encoded
            return reply
        table = self._table
        answer = answers.served(asked.query, service, endpoints)
        if not answer.answers:
            answer = self._zone.nodata
        reply = self._pack(asked, answer)
        if self._may_pack(table.route_of(service.name), endpoints):
            self.packed.add(table.generation, asked.query, reply, service.name)
        return reply

    def _may_pack(self, route: Route | None, endpoints: tuple[Endpoint, ...]) -> bool:
        """Say whether everybody is to get these endpoints for as long as the routes stay.

        They must be what the routes of now say: an answer that control made from newer or older
        knowledge would outlive its truth. And with several endpoints and known client populations,
        the order depends on who asks.
        """
        if route is None or set(route.endpoints) != set(endpoints):
            return False
        return len(endpoints) == 1 or not self._known


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
