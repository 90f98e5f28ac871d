"""Names that are not ours: a question is passed on to a configured resolver, its answer back.

For `dns_boot.resolver`. Every exchange has a random id and a source port of its own, and an answer
counts only if it comes from the server that was asked and repeats id and question (RFC 5452). The
answer itself is passed on as it is. Nothing is cached: that is the other resolver's job.
"""

import logging
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dns_boot.names import CD, EDNS_UDP_BYTES, HEADER_BYTES, OPCODE, OPT, QR, RA, RD, TC, Query

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0  # for one server, UDP and TCP together
THREADS = 32
MAX_FORWARDED = 512  # exchanges in the air and waiting
MAX_REPLY_BYTES = 65_535

_SERVFAIL, _REFUSED = 2, 5
_HEADER = struct.Struct("!6H")
_DO_TTL = 0x8000

Target = tuple[str, int]
Done = Callable[[bytes | None], None]


class Forwarder:
    """Asks other resolvers, in the order given, each for at most `timeout_s` seconds."""

    def __init__(self, targets: Sequence[Target], *, timeout_s: float = TIMEOUT_S) -> None:
        self._targets = tuple(targets)
        self._timeout_s = timeout_s
        self._room = threading.BoundedSemaphore(MAX_FORWARDED)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dns-forward")
        self._closed = threading.Event()

    def ask(self, query: Query, done: Done) -> None:
        """Call `done` once, from any thread, with the answer to a query or None if there is none.

        The answer carries the query's own id and the flag RA.
        """
        if self._closed.is_set() or not self._room.acquire(blocking=False):
            done(None)
            return
        try:
            self._threads.submit(self._run, query, done)
        except RuntimeError:  # closed in this very moment
            done(None)

    def close(self) -> None:
        """Stop asking; who still waits is told None within the time of one exchange."""
        self._closed.set()
        self._threads.shutdown(wait=True)

    def _run(self, query: Query, done: Done) -> None:
        try:
            reply = self._first_good(query)
        finally:
            self._room.release()
        done(None if reply is None else _for_client(query, reply))

    def _first_good(self, query: Query) -> bytes | None:
        """Return the first answer that is not a refusal, or the last refusal, or None."""
        refusal = None
        for target in self._targets:
            if self._closed.is_set():
                return None
            try:
                reply = _exchange(query, target, self._timeout_s)
            except (OSError, ValueError) as error:  # ValueError: a host name that cannot be one
                logger.debug("forwarding to %s port %d: %s", *target, error)
                continue
            if reply[3] & 0xF not in {_SERVFAIL, _REFUSED}:
                return reply
            refusal = reply
        return refusal


def _exchange(query: Query, target: Target, timeout_s: float) -> bytes:
    """Ask one server over UDP, and over TCP if the answer did not fit. Raises OSError."""
    deadline = time.monotonic() + timeout_s
    question = _question(query)
    family, _, _, _, address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.connect(address)  # a connected socket hears the server that was asked, and no other
        udp.send(question)
        reply = b""
        while not _answers(reply, question, query):
            udp.settimeout(_left(deadline))
            reply = udp.recv(MAX_REPLY_BYTES)
    if not int.from_bytes(reply[2:4], "big") & TC:
        return reply
    with socket.socket(family, socket.SOCK_STREAM) as tcp:
        tcp.settimeout(_left(deadline))
        tcp.connect(address)
        tcp.sendall(len(question).to_bytes(2, "big") + question)
        length = int.from_bytes(_read(tcp, 2, deadline), "big")
        reply = _read(tcp, length, deadline)
    if not _answers(reply, question, query):
        raise OSError("the answer over TCP is to another question")
    return reply


def _question(query: Query) -> bytes:
    """Return the query to send: the client's question with our own id and our own EDNS size."""
    flags = RD | query.flags & CD
    header = _HEADER.pack(secrets.randbelow(1 << 16), flags, 1, 0, 0, 1 if query.edns else 0)
    opt = b""
    if query.edns:
        ttl = _DO_TTL if query.edns.do else 0
        opt = b"\0" + struct.pack("!HHIH", OPT, EDNS_UDP_BYTES, ttl, 0)
    return header + query.question + opt


def _answers(reply: bytes, question: bytes, query: Query) -> bool:
    """Say whether a packet is an answer to the question that was sent."""
    if len(reply) < HEADER_BYTES or reply[:2] != question[:2] or reply[4:6] != b"\0\1":
        return False
    flags = int.from_bytes(reply[2:4], "big")
    theirs = reply[HEADER_BYTES : HEADER_BYTES + len(query.question)]
    same = theirs[:-4].lower() == query.question[:-4].lower() and theirs[-4:] == query.question[-4:]
    return bool(flags & QR) and not flags & OPCODE and same


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _read(tcp: socket.socket, length: int, deadline: float) -> bytes:
    data = b""
    while len(data) < length:
        tcp.settimeout(_left(deadline))
        part = tcp.recv(length - len(data))
        if not part:
            raise ConnectionResetError("the connection ended within an answer")
        data += part
    return data


def _for_client(query: Query, reply: bytes) -> bytes:
    """Return an answer as the client is to see it: its own id, question and RD, and our RA."""
    flags = int.from_bytes(reply[2:4], "big") | RA
    end = HEADER_BYTES + len(query.question)
    ident = query.id.to_bytes(2, "big")
    return ident + flags.to_bytes(2, "big") + reply[4:HEADER_BYTES] + query.question + reply[end:]
