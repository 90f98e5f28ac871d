"""Warm answers as bytes: a query for a service that is awake is answered without being parsed.

For the receive loop of `dns_boot.server`. An entry holds a reply without its id and its question;
a query finds it by its question section and by the form of its OPT record, so that a look-up is two
slices and one dictionary access. Whatever does not look like the most common queries is not found
here and goes to `dns_boot.resolver`, which also decides what may be packed.
"""

import threading
import time
from collections.abc import MutableMapping
from dataclasses import dataclass

from dns_boot.names import CD, DO, HEADER_BYTES, MIN_UDP_BYTES, RD, TC, Query

MAX_PACKED = 65_536  # entries; about 500 bytes each

_AD = 0x0020
_COPIED = (0, RD, CD, RD | CD)  # flags that a reply repeats, in the order of Entry.headers
_COUNTS = (b"\0\1\0\0\0\0\0\0", b"\0\1\0\0\0\0\0\1")  # one question; without and with an OPT
_PLAIN, _EDNS, _EDNS_DO = 0, 1, 2  # forms of a query
# What follows the header's id: (an OPT record follows the question, place in Entry.headers).
_HEADS = {
    (flags | ad).to_bytes(2, "big") + counts: (has_opt, place)
    for place, flags in enumerate(_COPIED)
    for ad in (0, _AD)
    for has_opt, counts in enumerate(_COUNTS)
}
# An OPT record of version 0 without options and without the client's UDP size, which does not
# matter because no packed reply is longer than the 512 bytes that every client takes.
_OPT_BYTES = 11
_OPTS = {
    b"\0\x00\x29" + b"\0\0" + flags.to_bytes(2, "big") + b"\0\0": form
    for flags, form in ((0, _EDNS), (DO, _EDNS_DO))
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A reply in pieces: `headers` (bytes 2 to 12, one per choice of RD and CD) and `tail`.

    `service` is the one that an answer keeps awake; empty for answers such as NODATA.
    """

    service: str
    headers: tuple[bytes, ...]
    tail: bytes


class PackedAnswers:
    """The packed replies of one generation of routes. Reading needs no lock."""

    def __init__(self, asked: MutableMapping[str, float], *, limit: int = MAX_PACKED) -> None:
        self._asked = asked
        self._limit = limit
        self._lock = threading.Lock()
        self._generation = 0
        self._tables: tuple[dict[bytes, Entry], ...] = ({}, {}, {})

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def reply(self, packet: bytes) -> bytes | None:
        """Return the reply to a query and note that its service was asked for; None if unknown."""
        head = _HEADS.get(packet[2:HEADER_BYTES])
        if head is None:
            return None
        form, place = head
        if form:
            opt = packet[-_OPT_BYTES:]
            form = _OPTS.get(opt[:3] + opt[5:], _PLAIN)
            if form == _PLAIN:
                return None
            question = packet[HEADER_BYTES:-_OPT_BYTES]
        else:
            question = packet[HEADER_BYTES:]
        table = self._tables[form]
        entry = table.get(question) or table.get(_key(question))
        if entry is None:
            return None
        if entry.service:
            self._asked[entry.service] = time.monotonic()
        return packet[:2] + entry.headers[place] + question + entry.tail

    def add(self, generation: int, query: Query, reply: bytes, service: str = "") -> None:
        """Keep a reply, if it was made from the routes of now and every client can take it."""
        flags = int.from_bytes(reply[2:4], "big") & ~(RD | CD)
        if len(reply) > MIN_UDP_BYTES or flags & TC:
            return
        form = _PLAIN if query.edns is None else _EDNS_DO if query.edns.do else _EDNS
        headers = tuple((flags | copied).to_bytes(2, "big") + reply[4:12] for copied in _COPIED)
        entry = Entry(service, headers, reply[HEADER_BYTES + len(query.question) :])
        with self._lock:
            if generation != self._generation:
                return
            table = self._tables[form]
            if len(table) >= self._limit // len(self._tables):
                del table[next(iter(table))]  # the oldest; it will be packed again when asked for
            table[_key(query.question)] = entry

    def clear(self, generation: int) -> None:
        """Forget all replies; from now on only those of this generation are kept."""
        with self._lock:
            self._generation = generation
            self._tables = ({}, {}, {})


def _key(question: bytes) -> bytes:
    # The type and class stay as they are: 65 (HTTPS) is the letter A and must not become 97.
    return question[:-4].lower() + question[-4:]
