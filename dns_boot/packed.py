"""Warm answers as bytes: a query for a service that is awake is answered without being parsed.

For the receive loops of `dns_boot.udp` and `dns_boot.tcp`. An entry holds a reply without its id
and its question; a query finds it by its question section and the form of its OPT record, so that
a look-up is a few slices and dictionary accesses. Cookies and the response rate are seen to on the
way. Whatever does not look like the most common queries is not found here and goes to
`dns_boot.resolver`, which also decides what may be packed and when it is no longer true.
"""

import threading
import time
from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Protocol

from dns_boot import cookies as cookie_rules
from dns_boot.cookies import Cookies
from dns_boot.names import CD, DO, HEADER_BYTES, MIN_UDP_BYTES, OPT_BYTES, RD, TC, Query
from dns_boot.rates import DROP, SEND, Kind, Limiter

MAX_PACKED = 65_536  # entries; about 500 bytes each

_AD = 0x0020
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A reply in pieces: `headers` (bytes 2 to 12, one per choice of RD and CD) and `tail`.

    `service` is the one that an answer keeps awake; empty for answers such as NODATA. A reply to a
    query with EDNS ends with an OPT record without options.
    """

    service: str
    kind: int
    headers: tuple[bytes, ...]
    tail: bytes


def _form_and_question(packet: bytes) -> tuple[int, bytes] | None:
    """Return the form and the question of a common query."""
    end = packet.find(b"\0", HEADER_BYTES) + 5
    opt = packet[end:]
    head = _HEADS.get(packet[2:HEADER_BYTES] + opt[_OPT_HEAD] + opt[_OPT_REST])
    if head is None or head[2] != len(opt):
        return None
    return head[0], packet[HEADER_BYTES:end]


Give = Callable[[int, bytes, Entry], None]
"""Takes an entry: the form and the question it is for, and the entry."""


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
    """

    def __init__(
        self,
        asked: MutableMapping[str, float],
        *,
        limit: int = MAX_PACKED,
        cookies: Cookies | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self.cookies = cookies or Cookies()
        self.limiter = limiter or Limiter()
        self.copies: Copies | None = None
        self._asked = asked
        self._limit = limit
        self._lock = threading.Lock()
        self._generation = 0  # of the last change that was not of single services
        self._changed: dict[str, int] = {}  # generation of a service's last own change
        self._tables: tuple[dict[bytes, Entry], ...] = tuple({} for _ in range(FORMS))
        self._keys: dict[str, set[tuple[int, bytes]]] = {}  # what is kept, by service
        self._given: set[str] = set()  # services of which copies may have something

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
        entry = table.get(question) or table.get(_key(question))
        if entry is None:
            return None
        tail = entry.tail
        good = False
        if len(opt) > OPT_BYTES and self.cookies.on:
            cookie, good = self.cookies.answer(opt[_COOKIE_AT:], address)
            if limited and not good and self.cookies.required:
                return None
            tail = tail[:-2] + _COOKIE_REPLY + cookie
        if limited and not good:
            verdict = self.limiter.judge(address, entry.kind)
            if verdict != SEND:
                size = OPT_BYTES + len(tail) - len(entry.tail) if form else 0
                short = packet[:2] + _short(entry.headers[place], question, tail, size)
                return b"" if verdict == DROP else short
        if entry.service:
            self._asked[entry.service] = time.monotonic()
        return packet[:2] + entry.headers[place] + question + tail

    # --- keeping ------------------------------------------------------------------------------

    def add(self, generation: int, query: Query, reply: bytes, service: str = "") -> None:
        """Keep a reply, if nothing has changed since those routes and every client can take it."""
        flags = int.from_bytes(reply[2:4], "big") & ~(RD | CD)
        room = MIN_UDP_BYTES if query.edns is None else MIN_UDP_BYTES - _COOKIE_REPLY_BYTES
        if query.edns is not None:
            reply = _without_cookie(reply)
            if reply[-OPT_BYTES:][_OPT_HEAD] != _OPT_START or reply[-2:] != b"\0\0":
                return  # its OPT record says what only this client was to hear
        if len(reply) > room or flags & TC:
            return
        form = _PLAIN if query.edns is None else _EDNS_DO if query.edns.do else _EDNS
        kind = Kind.ANSWER if reply[6:8] != b"\0\0" else Kind.NODATA
        headers = tuple((flags | copied).to_bytes(2, "big") + reply[4:12] for copied in _COPIED)
        entry = Entry(service, kind, headers, reply[HEADER_BYTES + len(query.question) :])
        with self._lock:
            if generation >= max(self._generation, self._changed.get(service, 0)):
                self._put(form, _key(query.question), entry)

    def put(self, form: int, question: bytes, entry: Entry) -> None:
        """Keep what `share` of another process gave."""
        with self._lock:
            self._put(form, question, entry)

    def _put(self, form: int, key: bytes, entry: Entry) -> None:
        table = self._tables[form]
        if len(table) >= self._limit // FORMS:  # the oldest goes; it will be packed again if asked
            oldest = next(iter(table))
            self._keys[table.pop(oldest).service].discard((form, oldest))
        table[key] = entry
        self._keys.setdefault(entry.service, set()).add((form, key))

    def forget(self, generation: int, services: Collection[str] | None = None) -> None:
        """Forget what depends on these services, or all, since routes of this generation came.

        When this returns, copies have forgotten it as well.
        """
        with self._lock:
            if services is None:
                self._generation = generation
                self._changed = {}
                self._tables = tuple({} for _ in range(FORMS))
                self._keys = {}
            else:
                for service in services:
                    self._changed[service] = generation
                    for form, key in self._keys.pop(service, ()):
                        self._tables[form].pop(key, None)
            wait = self._tell(services)
        wait()

    def _tell(self, services: Collection[str] | None) -> Callable[[], None]:
        """Tell copies, if they may have something of it. The caller holds the lock."""
        told = self._given if services is None else self._given.intersection(services)
        if self.copies is None or not told:
            return _nothing
        wait = self.copies.forget(None if services is None else tuple(told))
        self._given = self._given - told
        return wait

    def share(self, packet: bytes, give: Give) -> None:
        """Give the entry that a query would find, unless it is being forgotten. Takes no time."""
        found = _form_and_question(packet)
        if found is None:
            return
        form, question = found
        with self._lock:
            key = _key(question)
            entry = self._tables[form].get(key)
            if entry is not None:
                self._given.add(entry.service)
                give(form, key, entry)


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


def _key(question: bytes) -> bytes:
    # The type and class stay as they are: 65 (HTTPS) is the letter A and must not become 97.
    return question[:-4].lower() + question[-4:]
