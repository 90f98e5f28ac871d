"""Warm answers as bytes: a query for a service that is awake is answered without being parsed.

For the receive loops of `dns_boot.udp` and `dns_boot.tcp`. An entry holds a reply without its id
and its question; a query finds it by its question section and the form of its OPT record, so that
a look-up is a few slices and dictionary accesses. Cookies and the response rate are seen to on the
way. Whatever does not look like the most common queries is not found here and goes to
`dns_boot.resolver`, which also decides what may be packed and when it is no longer true.
"""

import itertools
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from dns_boot import cookies as cookie_rules
from dns_boot.clients import Clients
from dns_boot.cookies import Cookies
from dns_boot.names import CD, DO, HEADER_BYTES, MIN_UDP_BYTES, OPT_BYTES, RD, TC, Query
from dns_boot.rates import DROP, SEND, Kind, Limiter
from dns_boot.samples import Samples

MAX_PACKED = 65_536  # entries; about 500 bytes each

WARM, LIMITED, DROPPED = "warm", "limited", "dropped"  # outcomes, as in `orchestrator.queries`
NO_REPLY = -1  # in the place of a response code
_AD = 0x0020
_RCODE = 0xF  # of a header's second byte of flags
_COPIED = (0, RD, CD, RD | CD)  # flags that a reply repeats, in the order of Entry.headers
_COUNTS = (b"\0\1\0\0\0\0\0\0", b"\0\1\0\0\0\0\0\1")  # one question; without and with an OPT
_PLAIN, _EDNS, _EDNS_DO = 0, 1, 2  # forms of a query
FORMS = 3
# An OPT record of version 0 without the client's UDP size, which does not matter because no packed
# reply is longer than the 512 bytes that every client takes. With no options, or with nothing but a
# cookie: the client's, or the client's and ours.
_OPT_START = b"\0\x00\x29"
_OPT_HEAD = slice(0, 3)
_OPT_REST = slice(5, 15)
_COOKIE_AT = OPT_BYTES + 4
_COOKIE_REPLY = (4 + cookie_rules.FULL_BYTES).to_bytes(2, "big") + bytes(
    (0, cookie_rules.OPTION, 0, cookie_rules.FULL_BYTES)
)
_COOKIE_REPLY_BYTES = 4 + cookie_rules.FULL_BYTES  # what a cookie adds to a reply


def _opt_key(flags: int, cookie_bytes: int) -> bytes:
    """Return what `_OPT_HEAD` and `_OPT_REST` leave of an OPT record; 0: without a cookie."""
    head = _OPT_START + b"\0\0" + flags.to_bytes(2, "big")
    if not cookie_bytes:
        return head + b"\0\0"
    option = bytes((0, cookie_rules.OPTION, 0, cookie_bytes))
    return head + (4 + cookie_bytes).to_bytes(2, "big") + option


# What follows the header's id, and what `_OPT_HEAD` and `_OPT_REST` leave of the OPT record, tell
# (form, place in Entry.headers, length of the OPT record).
_HEADS = {
    (flags | ad).to_bytes(2, "big") + _COUNTS[bool(key)] + key: (form, place, length)
    for place, flags in enumerate(_COPIED)
    for ad in (0, _AD)
    for key, form, length in (
        (b"", _PLAIN, 0),
        *(
            (_opt_key(do, size), form, _COOKIE_AT + size if size else OPT_BYTES)
            for do, form in ((0, _EDNS), (DO, _EDNS_DO))
            for size in (0, cookie_rules.CLIENT_BYTES, cookie_rules.FULL_BYTES)
        ),
    )
}


@dataclass(slots=True)
class Entry:
    """A reply in pieces: `headers` (bytes 2 to 12, one per choice of RD and CD) and `tails`.

    Only its counts change: how often it was `given`, and was not, or was cut short, because replies
    are `limited`; and how much of that was `told` already.

    `service` is the one that an answer keeps awake; empty for answers such as NODATA. There are
    several tails where the order of the records changes: one for each answer of a round, all of one
    length. `turn` gives the next one. With EDNS, a tail ends with an OPT record without options.
    """

    service: str
    kind: int
    headers: tuple[bytes, ...]
    tails: tuple[bytes, ...]
    turn: Iterator[bytes] = field(init=False, repr=False, compare=False)
    given: int = field(init=False, default=0, repr=False, compare=False)
    limited: int = field(init=False, default=0, repr=False, compare=False)
    told: tuple[int, int] = field(init=False, default=(0, 0), repr=False, compare=False)

    def __post_init__(self) -> None:
        # To take a turn is one call into C, so threads take turns without a lock.
        alone = len(self.tails) == 1
        self.turn = itertools.repeat(self.tails[0]) if alone else itertools.cycle(self.tails)

    def news(self) -> tuple[int, int]:
        """Return how often it was given and was limited since this was last asked."""
        given, limited = now = self.given, self.limited
        before, self.told = self.told, now
        return given - before[0], limited - before[1]

    def begun_anywhere(self) -> "Entry":
        """Return the same with a round of its own, from some turn on."""
        first = secrets.randbelow(len(self.tails))
        return replace(self, tails=self.tails[first:] + self.tails[:first])


def _form_and_question(packet: bytes) -> tuple[int, bytes] | None:
    """Return the form and the question of a common query."""
    end = packet.find(b"\0", HEADER_BYTES) + 5
    opt = packet[end:]
    head = _HEADS.get(packet[2:HEADER_BYTES] + opt[_OPT_HEAD] + opt[_OPT_REST])
    if head is None or head[2] != len(opt):
        return None
    return head[0], packet[HEADER_BYTES:end]


Give = Callable[[int, bytes, Entry], None]
"""Takes an entry: the form and the key it is for, and the entry."""


Counted = tuple[int, int, str, str]
"""What answers are counted by: type, rcode, outcome and service."""


class Copies(Protocol):
    """Further tables that are given entries of ours, in other processes."""

    def forget(self, services: Collection[str] | None) -> Callable[[], None]:
        """Tell them to forget these services, None for all; what is returned waits until they have.

        Telling takes no time; waiting is bounded.
        """
        ...


class PackedAnswers:
    """The packed replies to what the routes of now say. Reading needs no lock.

    `generation` counts the routes: a reply is kept only if nothing that it depends on has changed
    since the routes that it was made from. Safe to use from several threads.

    Where a reply depends on who asks, there is one for each population, and one for the clients of
    none, which `clients` tells apart; without it (None) such a reply is not found.
    """

    def __init__(
        self,
        asked: MutableMapping[str, float],
        *,
        limit: int = MAX_PACKED,
        cookies: Cookies | None = None,
        limiter: Limiter | None = None,
        clients: Clients | None = None,
    ) -> None:
        self.clients = clients
        self.cookies = cookies or Cookies()
        self.limiter = limiter or Limiter()
        self.copies: Copies | None = None
        self._asked = asked
        self._limit = limit
        self._lock = threading.Lock()
        self._generation = 0  # of the last change that was not of single services
        self._changed: dict[str, int] = {}  # generation of a service's last own change
        self._tables: tuple[dict[bytes, Entry], ...] = tuple({} for _ in range(FORMS))
        self._split: set[bytes] = set()  # questions whose replies depend on who asks
        self._keys: dict[str, set[tuple[int, bytes]]] = {}  # what is kept, by service
        self._given: set[str] = set()  # services of which copies may have something
        self.samples = Samples()
        self._gone: deque[tuple[bytes, Entry]] = deque(maxlen=limit)  # since `counted` was asked
        self._leaving: tuple[tuple[bytes, Entry], ...] = ()

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    # --- asking -------------------------------------------------------------------------------

    def reply(self, packet: bytes, address: str = "", *, limited: bool = False) -> bytes | None:
        """Return the reply to a query and note that its service was asked for; None if unknown.

        `address` is the client's. With `limited`, as for UDP, the reply is counted and may be
        truncated, or empty for none at all; and a cookie must be good if one is required.
        """
        # As in `_form_and_question`, whose call would cost a tenth of all this.
        end = packet.find(b"\0", HEADER_BYTES) + 5
        question = packet[HEADER_BYTES:end]
        opt = packet[end:]
        head = _HEADS.get(packet[2:HEADER_BYTES] + opt[_OPT_HEAD] + opt[_OPT_REST])
        if head is None or head[2] != len(opt):
            return None
        form, place, _ = head
        table = self._tables[form]
        entry = table.get(question)
        if entry is None:
            key = _key(question)
            entry = table.get(key) or table.get(self._own_key(key, address))
            if entry is None:
                return None
        tail = said = next(entry.turn)
        good = False
        if len(opt) > OPT_BYTES and self.cookies.on:
            cookie, good = self.cookies.answer(opt[_COOKIE_AT:], address)
            if limited and not good and self.cookies.required:
                return None
            tail = tail[:-2] + _COOKIE_REPLY + cookie
        if limited and not good:
            verdict = self.limiter.judge(address, entry.kind)
            if verdict != SEND:
                entry.limited += 1
                size = OPT_BYTES + len(tail) - len(said) if form else 0
                short = packet[:2] + _short(entry.headers[place], question, tail, size)
                return b"" if verdict == DROP else short
        entry.given += 1  # the interpreter lets no other thread in within a line like this
        if entry.service:
            self._asked[entry.service] = time.monotonic()
        return packet[:2] + entry.headers[place] + question + tail

    def _own_key(self, key: bytes, address: str) -> bytes:
        """Return the key of the reply to clients like this one; the same if all get the same."""
        if key not in self._split or self.clients is None:
            return key
        return key + b"\0" + self.clients.of(address).population.encode()

    # --- keeping ------------------------------------------------------------------------------

    def wants(self, query: Query, reply: bytes, population: str | None = None) -> bool:
        """Say whether a reply is not kept yet, and can be given to everybody who asks so."""
        key = _key(query.question, population)
        return key not in self._tables[_form(query)] and _fits(query, reply)

    def add(
        self,
        generation: int,
        query: Query,
        *replies: bytes,
        service: str = "",
        population: str | None = None,
    ) -> None:
        """Keep a reply, if nothing has changed since those routes and every client can take it.

        Of several replies, which differ in the order of their records, each is given in its turn.
        With a `population`, it is only for clients of that one, empty for those of none.
        """
        if not _fits(query, replies[0]):
            return
        flags = int.from_bytes(replies[0][2:4], "big") & ~(RD | CD)
        counts = replies[0][4:HEADER_BYTES]
        kind = Kind.ANSWER if counts[2:4] != b"\0\0" else Kind.NODATA
        headers = tuple((flags | copied).to_bytes(2, "big") + counts for copied in _COPIED)
        tails = {reply: _tail(query, reply) for reply in replies}  # some come several times
        turns = tails.values() if len(tails) == 1 else map(tails.__getitem__, replies)
        entry = Entry(service, kind, headers, tuple(turns))
        with self._lock:
            if generation >= max(self._generation, self._changed.get(service, 0)):
                self._put(_form(query), _key(query.question, population), entry)

    def put(self, form: int, key: bytes, entry: Entry) -> None:
        """Keep what `share` of another process gave."""
        with self._lock:
            self._put(form, key, entry)

    def _put(self, form: int, key: bytes, entry: Entry) -> None:
        table = self._tables[form]
        if len(table) >= self._limit // FORMS:  # the oldest goes; it will be packed again if asked
            oldest = next(iter(table))
            gone = table.pop(oldest)
            self._keys[gone.service].discard((form, oldest))
            self._gone.append((oldest, gone))
        elif key in table:
            self._gone.append((key, table[key]))
        table[key] = entry
        question = key[: key.find(b"\0") + 5]
        if question == key:
            self._split.discard(key)
        else:
            self._split.add(question)
        self._keys.setdefault(entry.service, set()).add((form, key))

    def forget(
        self,
        generation: int,
        services: Collection[str] | None = None,
        *,
        clients: Clients | None = None,
    ) -> None:
        """Forget what depends on these services, or all, since routes of this generation came.

        When this returns, copies have forgotten it as well. With other `clients`, all is forgotten.
        """
        with self._lock:
            if clients is not None:
                self.clients, services = clients, None
            if services is None:
                self._generation = generation
                self._changed = {}
                self._split = set()
                self._gone.extend(each for table in self._tables for each in table.items())
                self._tables = tuple({} for _ in range(FORMS))
                self._keys = {}
            else:
                for service in services:
                    self._changed[service] = generation
                    for form, key in self._keys.pop(service, ()):
                        if (entry := self._tables[form].pop(key, None)) is not None:
                            self._gone.append((key, entry))
            wait = self._tell(services, always=clients is not None)
        wait()

    def _tell(self, services: Collection[str] | None, *, always: bool) -> Callable[[], None]:
        """Tell copies, if they may have something of it. The caller holds the lock."""
        told = self._given if services is None else self._given.intersection(services)
        if self.copies is None or not (told or always):
            return _nothing
        wait = self.copies.forget(None if services is None else tuple(told))
        self._given = self._given - told
        return wait

    def share(self, packet: bytes, address: str, give: Give) -> None:
        """Give the entry that a query would find, unless it is being forgotten. Takes no time."""
        found = _form_and_question(packet)
        if found is None:
            return
        form, question = found
        with self._lock:
            key = self._own_key(_key(question), address)
            entry = self._tables[form].get(key)
            if entry is not None:
                self._given.add(entry.service)
                give(form, key, entry.begun_anywhere())

    # --- counting -----------------------------------------------------------------------------

    def counted(self) -> Counter[Counted]:
        """Return what was answered since this was last asked. For one caller; takes 50 ns an entry.

        What is forgotten is looked at twice: somebody may be about to give it for the last time.
        """
        with self._lock:
            kept = [
                (key, entry)
                for table in self._tables
                for key, entry in table.items()
                if (entry.given, entry.limited) != entry.told
            ]
            gone = tuple(self._gone)
            self._gone.clear()
        counts: Counter[Counted] = Counter()
        for key, entry in (*kept, *self._leaving, *gone):
            qtype = int.from_bytes(key[(end := key.find(b"\0") + 1) : end + 2], "big")
            rcode = entry.headers[0][1] & _RCODE
            given, limited = entry.news()
            counts[qtype, rcode, WARM, entry.service] += given
            counts[qtype, rcode, LIMITED, entry.service] += limited
        self._leaving = gone
        return +counts


def _form(query: Query) -> int:
    if query.edns is None:
        return _PLAIN
    return _EDNS_DO if query.edns.do else _EDNS


def _fits(query: Query, reply: bytes) -> bool:
    if int.from_bytes(reply[2:4], "big") & TC:
        return False
    if query.edns is None:
        return len(reply) <= MIN_UDP_BYTES
    reply = _without_cookie(reply)
    if reply[-OPT_BYTES:][_OPT_HEAD] != _OPT_START or reply[-2:] != b"\0\0":
        return False  # its OPT record says what only this client was to hear
    return len(reply) <= MIN_UDP_BYTES - _COOKIE_REPLY_BYTES


def _tail(query: Query, reply: bytes) -> bytes:
    """Return what follows the question in a reply to anybody."""
    whole = reply if query.edns is None else _without_cookie(reply)
    return whole[HEADER_BYTES + len(query.question) :]


def _short(header: bytes, question: bytes, tail: bytes, opt_bytes: int) -> bytes:
    """Return a reply without its id and its records but OPT, and with the TC bit."""
    counts = b"\0\1\0\0\0\0\0\1" if opt_bytes else b"\0\1\0\0\0\0\0\0"
    opt = tail[len(tail) - opt_bytes :]
    return bytes((header[0] | TC >> 8, header[1])) + counts + question + opt


def _nothing() -> None:
    """Wait for nobody."""


def _without_cookie(reply: bytes) -> bytes:
    start = len(reply) - _COOKIE_REPLY_BYTES - 2
    if reply[start : start + len(_COOKIE_REPLY)] != _COOKIE_REPLY:
        return reply
    return reply[:start] + b"\0\0"


def _key(question: bytes, population: str | None = None) -> bytes:
    # The type and class stay as they are: 65 (HTTPS) is the letter A and must not become 97.
    key = question[:-4].lower() + question[-4:]
    return key if population is None else key + b"\0" + population.encode()
