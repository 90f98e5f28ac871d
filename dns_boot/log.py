"""The DNS log: the last queries with what became of them, and exact counts of all.

An `orchestrator.queries.QueryLog`. The resolver tells each query that is not answered from packed
bytes; of those that are, `dns_boot.packed` counts all and `dns_boot.samples` keeps some, which are
collected here when somebody looks, at least as often as the feed does. Further processes send
theirs once a second. Only bytes are kept; text is made of them for who reads. Nothing is written to
disk, and with ``log: anonymous`` no address of a client is kept, only its network.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from dns_boot.log_rates import NO_WORD, Rates
from dns_boot.names import FORMERR, HEADER_BYTES, TC, FormatError, Name, opt_of
from dns_boot.packed import NO_REPLY, Counted, PackedAnswers
from dns_boot.query_text import (
    TYPES,
    answers_of,
    counted_type,
    question_of,
    rcode_word,
    shown,
    type_word,
)
from dns_boot.samples import QUERY_BYTES, ROOM, Sample
from orchestrator.metrics import Histogram, Labels
from orchestrator.queries import (
    EVERYTHING,
    WINDOWS_S,
    Chosen,
    LoggedQuery,
    Mode,
    Outcome,
    QueryRates,
)

KEPT = 2000  # queries, about 1 KB each
REPLY_BYTES = 1300  # of a reply that are kept
MOST_NEWS = 50  # queries that the feed is told at once
MODES: dict[str, Mode] = {"on": "on", "off": "off", "anonymous": "anonymous"}
OFF, ANONYMOUS = "off", "anonymous"
PREFIXES = {4: 24, 6: 56}  # what is kept of an address when the log is anonymous

_RCODE = 0xF
# SERVFAIL, NOTIMP, REFUSED, NOTAUTH, BADVERS, BADCOOKIE
_NO_ANSWER = frozenset({2, 4, 5, 9, 16, 23})
_TIMED = frozenset({Outcome.COLD, Outcome.FORWARDED})
_UNREAD = "?"  # for a question that cannot be read


@dataclass(slots=True)
class Told:
    """What the resolver knows of a query that is not answered from packed bytes.

    `begun` is when it came (monotonic), `outcome` None where the reply says it.
    """

    log: "DnsLog"
    packet: bytes
    address: str
    port: int
    udp: bool
    begun: float
    outcome: Outcome | None = None
    service: str = ""
    wake: int = 0
    subnet: str = ""

    def answered(
        self, reply: bytes | None, *, rcode: int | None = None, limited: bool = False
    ) -> None:
        """Note its reply, or None for none; takes some microseconds."""
        self.log.answered(self, reply, rcode=rcode, limited=limited)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A query as it is kept; `packet` and `reply` may be cut."""

    number: int
    at: float
    client: str
    port: int
    udp: bool
    packet: bytes
    reply: bytes
    outcome: Outcome
    rcode: int
    took_s: float
    service: str = ""
    wake: int = 0
    subnet: str = ""
    process: int = 0
    of: int = 1


class DnsLog:
    """Keeps the last queries and counts all. Safe to use from several threads.

    `service_of` says which service a name, in lower case, stands for; empty for none.
    """

    def __init__(self, mode: str, packed: PackedAnswers, service_of: Callable[[Name], str]) -> None:
        self._mode = MODES[mode]
        self._packed = packed
        self._service_of = service_of
        self._lock = threading.Lock()
        self._collecting = threading.Lock()
        self._kept: deque[_Kept] = deque(maxlen=KEPT)
        self._number = 0
        self._news = 0  # the number of the last query that the feed was told
        self._room = ROOM
        self._skipped = 0
        self._counts: Counter[Counted] = Counter()
        self._fresh: Counter[Counted] = Counter()  # what is not among them yet
        self._took: dict[str, Histogram] = {}
        self._rates = Rates(time.monotonic())
        packed.samples.room = self.room

    @property
    def mode(self) -> Mode:
        """``on``, ``off`` or ``anonymous``."""
        return self._mode

    @property
    def room(self) -> int:
        """How many samples are wanted from each who takes them, until they are collected."""
        return 0 if self._mode == OFF else ROOM

    # --- what happens -------------------------------------------------------------------------

    def answered(
        self, told: Told, reply: bytes | None, *, rcode: int | None = None, limited: bool = False
    ) -> None:
        """Note what became of a query: its reply, or None for none; takes some microseconds."""
        now = time.monotonic()
        took_s = max(0.0, now - told.begun)
        if rcode is None or reply is None:
            rcode = _rcode_of(reply)
        outcome = told.outcome or _outcome_of(rcode)
        if limited:
            outcome = Outcome.LIMITED
        try:
            qtype = counted_type(question_of(told.packet)[1])
        except FormatError:
            qtype = 0
        with self._lock:
            self._fresh[qtype, rcode, outcome, told.service] += 1
            if outcome in _TIMED:
                self._took.setdefault(outcome, Histogram()).add(took_s)
            if outcome is Outcome.COLD:
                self._rates.held(now, took_s)
            if self._mode == OFF:
                return
            if outcome not in _TIMED and self._room <= 0:
                self._skipped += 1
                return
            of = 1
            if outcome not in _TIMED:
                self._room -= 1
                of, self._skipped = 1 + self._skipped, 0
            sample = Sample(time.time(), took_s, told.packet, reply or b"", told.address, told.port)
            self._keep(sample, told, outcome, rcode, of=of)

    def take(self, samples: Sequence[Sample], process: int, answers: int) -> None:
        """Keep samples of packed replies, of so many that a process gave; oldest first."""
        share, more = divmod(max(answers, len(samples)), len(samples) or 1)
        with self._lock:
            for index, sample in enumerate(samples):
                told = Told(self, sample.packet, sample.address, sample.port, sample.udp, 0.0)
                limited = not sample.reply or int.from_bytes(sample.reply[2:4], "big") & TC
                outcome = Outcome.LIMITED if limited else Outcome.WARM
                rcode = sample.reply[3] & _RCODE if sample.reply else NO_REPLY
                of = share + (index < more)
                self._keep(sample, told, outcome, rcode, of=of, process=process)

    def count(self, counts: Counter[Counted]) -> None:
        """Add what was counted elsewhere."""
        with self._lock:
            for (qtype, rcode, outcome, service), number in counts.items():
                self._fresh[counted_type(qtype), rcode, outcome, service] += number

    def collect(self) -> None:
        """Take what was counted and sampled of packed replies, and make room for more."""
        with self._collecting:
            samples = self._packed.samples.take(self.room)
            counts = self._packed.counted()
            if samples:
                self.take(samples, os.getpid(), counts.total())
            self.count(counts)
        with self._lock:
            self._room = ROOM
            self._rates.add(time.monotonic(), self._fresh)
            self._counts.update(self._fresh)
            self._fresh = Counter()

    # --- who looks ----------------------------------------------------------------------------

    def last(self, limit: int, before: int = 0, chosen: Chosen = EVERYTHING) -> list[LoggedQuery]:
        """Return the last queries that are chosen, newest first, with numbers below `before`."""
        self.collect()
        with self._lock:
            kept = tuple(self._kept)
        found: list[LoggedQuery] = []
        for each in reversed(kept):
            if before and each.number >= before:
                continue
            if len(found) == limit:
                break
            if _client_fits(each, chosen) and _fits(shown_query := self._shown(each), chosen):
                found.append(shown_query)
        return found

    def rates(self) -> tuple[QueryRates, ...]:
        """Return the rates over each of `WINDOWS_S`."""
        self.collect()
        with self._lock:
            now = time.monotonic()
            return tuple(self._rates.over(now, window) for window in WINDOWS_S)

    def counts(self) -> tuple[dict[Labels, int], dict[Labels, Histogram]]:
        """Return what was counted since the start, as `orchestrator.metrics.DnsCounts` has it."""
        self.collect()
        with self._lock:
            queries: Counter[Labels] = Counter()
            for (qtype, rcode, outcome, _), number in self._counts.items():
                rcode_text = rcode_word(rcode) or NO_WORD
                labels = ("type", TYPES[qtype]), ("rcode", rcode_text), ("outcome", str(outcome))
                queries[labels] += number
            took: dict[Labels, Histogram] = {
                (("outcome", outcome),): each.copy() for outcome, each in self._took.items()
            }
            return dict(queries), took

    def news(self) -> list[list[LoggedQuery]]:
        """Return the newest of the queries since this was last asked, as one list, oldest first."""
        self.collect()
        with self._lock:
            new = min(self._number - self._news, MOST_NEWS, len(self._kept))
            self._news = self._number
            kept = [self._kept[at] for at in range(len(self._kept) - new, len(self._kept))]
        return [[self._shown(each) for each in kept]] if kept else []

    # --- inside -------------------------------------------------------------------------------

    def _keep(
        self,
        sample: Sample,
        told: Told,
        outcome: Outcome,
        rcode: int,
        *,
        of: int = 1,
        process: int = 0,
    ) -> None:
        """Keep a query. The caller holds the lock."""
        self._number += 1
        hidden = self._mode == ANONYMOUS
        kept = _Kept(
            number=self._number,
            at=sample.at,
            client=_network_of(sample.address) if hidden else sample.address,
            port=0 if hidden else sample.port,
            udp=told.udp,
            packet=_question_only(sample.packet),
            reply=sample.reply[:REPLY_BYTES],
            outcome=outcome,
            rcode=rcode,
            took_s=sample.took_s,
            service=told.service,
            wake=told.wake,
            subnet=_network_of(told.subnet) if hidden and told.subnet else told.subnet,
            process=process or os.getpid(),
            of=of,
        )
        self._kept.append(kept)

    def _shown(self, kept: _Kept) -> LoggedQuery:
        try:
            name, qtype = question_of(kept.packet)
            text, qtype_text = shown(name), type_word(qtype)
            service = kept.service or self._service_of(tuple(each.lower() for each in name))
        except FormatError:
            text = qtype_text = _UNREAD
            service = ""
        return LoggedQuery(
            number=kept.number,
            at=kept.at,
            client=kept.client,
            port=kept.port,
            name=text,
            qtype=qtype_text,
            transport="udp" if kept.udp else "tcp",
            outcome=kept.outcome,
            rcode=rcode_word(kept.rcode),
            answers=answers_of(kept.reply),
            latency_s=kept.took_s,
            service=service,
            wake=kept.wake,
            subnet=kept.subnet,
            process=kept.process,
            of=kept.of,
        )


def _rcode_of(reply: bytes | None) -> int:
    """Return the response code of a reply, with the bits that its OPT record has of it."""
    if reply is None or len(reply) < HEADER_BYTES:
        return NO_REPLY
    span = opt_of(reply)
    return reply[3] & _RCODE | (reply[span[0] + 5] << 4 if span else 0)


def _outcome_of(rcode: int) -> Outcome:
    if rcode == NO_REPLY:
        return Outcome.DROPPED
    if rcode == FORMERR:
        return Outcome.MALFORMED
    return Outcome.REFUSED if rcode in _NO_ANSWER else Outcome.WARM


def _question_only(packet: bytes) -> bytes:
    """Return a query without its records, which have a cookie and whose network it is for."""
    end = packet.find(b"\0", HEADER_BYTES, QUERY_BYTES) + 5
    return packet[:end] if end > HEADER_BYTES else packet[:HEADER_BYTES]


def _network_of(address: str) -> str:
    """Return the network that is kept of an address, or of a longer network."""
    bare, _, length = address.partition("%")[0].partition("/")
    try:
        known = ip_address(bare)
    except ValueError:
        return ""
    known = getattr(known, "ipv4_mapped", None) or known
    bits = min(PREFIXES[known.version], int(length or known.max_prefixlen))
    return str(ip_network((known, bits), strict=False))


def _client_fits(kept: _Kept, chosen: Chosen) -> bool:
    if chosen.client is None:
        return True
    network = ip_network(kept.client.partition("%")[0].removeprefix("::ffff:"))
    if network.version != chosen.client.version:
        return False
    # Of an anonymous log it is a network, in which the client that is looked for may be.
    return network.subnet_of(chosen.client) or chosen.client.subnet_of(network)  # type: ignore[arg-type]


def _fits(query: LoggedQuery, chosen: Chosen) -> bool:
    return chosen.service in {"", query.service} and chosen.rcode in {"", query.rcode}
