"""DNS over UDP in batches: up to 64 datagrams per system call, by recvmmsg(2) and sendmmsg(2).

For sockets that are bound to one address, on 64-bit Linux; `door_of` gives the plain loop of
`dns_boot.udp` to all others. Python has no such calls, so they are made through ctypes, on buffers
that are laid out once. A query costs about a quarter less CPU time this way (docs/dns.md).
"""

import ctypes
import logging
import socket
import struct
from typing import Any

from dns_boot.arrivals import arrived_at
from dns_boot.packed import PackedAnswers
from dns_boot.udp import DRAIN, MAX_QUERY_BYTES, Hand, Peer, UdpDoor

logger = logging.getLogger(__name__)

BATCHES = 4  # taken per wake-up before the caller looks at what else there is to do
MAX_REMEMBERED = 16_384  # client addresses that are known as text

_NAME_BYTES = 32  # room for a sockaddr_in6, of 28
_OUT_BYTES = 512  # no packed reply is longer
_MESSAGE = struct.Struct("@PIxxxxPNPNixxxxIxxxx")  # struct mmsghdr
_VECTOR = struct.Struct("@PN")  # struct iovec
_LENGTHS = [struct.Struct("=" + "56xI4x" * count) for count in range(DRAIN + 1)]
_VECTORS = [struct.Struct("@" + "PN" * count) for count in range(DRAIN + 1)]
_FAMILIES = {  # address family: size of its sockaddr, and the addresses in a batch of them
    socket.AF_INET: (16, [struct.Struct("=" + "4x4s24x" * count) for count in range(DRAIN + 1)]),
    socket.AF_INET6: (28, [struct.Struct("=" + "8x16s8x" * count) for count in range(DRAIN + 1)]),
}
_PEER4 = struct.Struct("!2xH4s")
_PEER6 = struct.Struct("!2xHI16s")
_SCOPE = struct.Struct("@I")
_SCOPE_AT = 24


def door_of(udp: socket.socket, packed: PackedAnswers, hand: Hand) -> UdpDoor:
    """Return the fastest door that there is for a socket."""
    plain = UdpDoor(udp, packed, hand)
    calls = _calls()
    if calls is None or plain.with_info:
        return plain
    return BatchDoor(udp, packed, hand, *calls)


def _calls() -> tuple[Any, Any] | None:
    """Return the C library's recvmmsg and sendmmsg; None where our layout does not hold."""
    if (_MESSAGE.size, _VECTOR.size) != (64, 16):
        return None
    # PyDLL keeps the interpreter's lock: the calls do not wait, and whoever lets go of the lock
    # beside busy threads gets it back only after the switch interval, up to three times per batch.
    library = ctypes.PyDLL(None, use_errno=True)
    try:
        return library.recvmmsg, library.sendmmsg
    except AttributeError:
        return None


class BatchDoor(UdpDoor):
    """Serves one UDP socket, many datagrams at a time."""

    def __init__(
        self, udp: socket.socket, packed: PackedAnswers, hand: Hand, receive: Any, send: Any
    ) -> None:
        super().__init__(udp, packed, hand)
        self._receive_many, self._send_many = receive, send
        self._name_bytes, self._addresses = _FAMILIES[udp.family]
        self._hosts: dict[bytes, str] = {}
        self._in = bytearray(DRAIN * MAX_QUERY_BYTES)
        self._view = memoryview(self._in)
        self._out = bytearray(DRAIN * _OUT_BYTES)
        self._names = bytearray(DRAIN * _NAME_BYTES)
        self._in_messages = bytearray(DRAIN * _MESSAGE.size)
        self._in_vectors = bytearray(DRAIN * _VECTOR.size)
        self._out_messages = bytearray(DRAIN * _MESSAGE.size)
        self._out_vectors = bytearray(DRAIN * _VECTOR.size)
        self._lay_out()

    def _lay_out(self) -> None:
        """Have the messages point to their buffers; a reply goes where its query came from."""
        names, vectors, out = map(_address, (self._names, self._in_vectors, self._out_vectors))
        packets = _address(self._in)
        for index in range(DRAIN):
            at, vector = index * _MESSAGE.size, index * _VECTOR.size
            name = names + index * _NAME_BYTES
            packet = packets + index * MAX_QUERY_BYTES
            _VECTOR.pack_into(self._in_vectors, vector, packet, MAX_QUERY_BYTES)
            for messages, first in ((self._in_messages, vectors), (self._out_messages, out)):
                parts = (name, self._name_bytes, first + vector, 1, 0, 0, 0, 0)
                _MESSAGE.pack_into(messages, at, *parts)
        self._in_at = ctypes.c_void_p(_address(self._in_messages))
        self._out_messages_at = _address(self._out_messages)
        self._out_at = _address(self._out)

    def drain(self) -> None:
        """Serve what is there, up to `BATCHES` times `DRAIN` datagrams."""
        for _ in range(BATCHES):
            count = self._receive_many(self._udp.fileno(), self._in_at, DRAIN, 0, None)
            if count > 0:
                self._serve_batch(count)
            if count < DRAIN:
                return

    def _serve_batch(self, count: int) -> None:
        lookup, view, hosts = self._lookup, self._view, self._hosts
        lengths = _LENGTHS[count].unpack_from(self._in_messages)
        start = first = 0
        replies: list[bytes] = []
        noted: list[tuple[bytes, bytes, int]] | None = [] if self._samples.room > 0 else None
        for index, raw in enumerate(self._addresses[count].unpack_from(self._names)):
            packet = view[start : start + lengths[index]].tobytes()
            start += MAX_QUERY_BYTES
            reply = lookup(packet, hosts.get(raw) or self._host(raw), limited=True)
            if noted is not None and reply is not None:
                noted.append((packet, reply, index))
            if reply:
                replies.append(reply)
                continue
            # A run of replies ends here: those that are sent at once lie side by side.
            self._send_run(first, replies)
            first, replies = index + 1, []
            if reply is None:
                self._hand(self, packet, self._peer(index))
        self._send_run(first, replies)
        if noted:
            self._note(noted)

    def _note(self, noted: list[tuple[bytes, bytes, int]]) -> None:
        """Note replies that were sent, as far as there is room; the kernel times the last query."""
        since = arrived_at(self)
        for packet, reply, index in noted[: self._samples.room]:
            self._samples.note(packet, reply, *self.sender(self._peer(index)), since)

    def _send_run(self, first: int, replies: list[bytes]) -> None:
        """Send replies to the senders of the datagrams from `first` on."""
        if not replies:
            return
        joined = b"".join(replies)
        self._out[: len(joined)] = joined
        at = self._out_at
        vectors: list[int] = []
        for reply in replies:
            size = len(reply)
            vectors += (at, size)
            at += size
        count = len(replies)
        _VECTORS[count].pack_into(self._out_vectors, first * _VECTOR.size, *vectors)
        while count > 0:
            messages = ctypes.c_void_p(self._out_messages_at + first * _MESSAGE.size)
            sent = self._send_many(self._udp.fileno(), messages, count, 0)
            if sent <= 0:  # the first of them cannot be sent, and is lost, as UDP allows
                logger.debug("replying to %s: error %d", self._peer(first), ctypes.get_errno())
                sent = 1
            first, count = first + sent, count - sent

    def _host(self, raw: bytes) -> str:
        """Return an address as text, from its bytes."""
        if len(self._hosts) >= MAX_REMEMBERED:
            self._hosts.clear()
        host = self._hosts[raw] = socket.inet_ntop(self._udp.family, raw)
        return host

    def _peer(self, index: int) -> Peer:
        at = index * _NAME_BYTES
        if self._udp.family == socket.AF_INET:
            port, raw = _PEER4.unpack_from(self._names, at)
            return socket.inet_ntop(socket.AF_INET, raw), port
        port, flow, raw = _PEER6.unpack_from(self._names, at)
        (scope,) = _SCOPE.unpack_from(self._names, at + _SCOPE_AT)
        return socket.inet_ntop(socket.AF_INET6, raw), port, flow, scope


def _address(buffer: bytearray) -> int:
    """Return where a buffer lies; it must not change its size any more."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
