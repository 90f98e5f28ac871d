"""DNS over UDP: one socket, drained; warm answers leave at once, the rest is handed on.

The plain loop, one system call per datagram; `dns_boot.udp_batch` is the faster one.

For `dns_boot.server`, and for each further process that shares its port (`dns_boot.front_child`).
Who drains when, and what becomes of a query that is not packed, is up to them.
"""

import logging
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from dns_boot.arrivals import arrived_at
from dns_boot.names import Query, parse_query
from dns_boot.packed import PackedAnswers
from dns_boot.rates import DROP, SEND, kind_of, truncated

logger = logging.getLogger(__name__)

MAX_QUERY_BYTES = 4096  # a longer one is cut, and so answered FORMERR
DRAIN = 64  # datagrams taken per wake-up before the caller looks at what else there is to do
IP_PKTINFO = 8  # ip(7); the socket module has no name for it

Peer = Any  # what `receive` gave and `send` takes: an address, or an address and packet infos
Hand = Callable[["UdpDoor", bytes, Peer], None]


class UdpDoor:
    """Serves one UDP socket. `hand` takes what is not packed: this door, the query and its peer.

    With `with_info`, as for a socket that is bound to no one address, a peer is an address and the
    packet infos that say which of our addresses it asked.
    """

    def __init__(self, udp: socket.socket, packed: PackedAnswers, hand: Hand) -> None:
        self._udp = udp
        self._packed = packed
        self._lookup = packed.reply
        self._samples = packed.samples
        self._hand = hand
        self.with_info = ip_address(udp.getsockname()[0]).is_unspecified
        self._receive: Callable[[], tuple[bytes, Peer]] = self._receive_plain
        self._send_to: Callable[[bytes, Peer], object] = udp.sendto
        if self.with_info:
            _ask_for_packet_info(udp)
            self._receive, self._send_to = self._receive_with_info, self._send_with_info

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for."""
        return self._udp.fileno()

    def drain(self) -> None:
        """Serve what is there, up to `DRAIN` datagrams."""
        for _ in range(DRAIN):
            try:
                packet, peer = self._receive()
            except BlockingIOError:
                return
            except OSError as error:  # such as an ICMP error for an earlier reply
                logger.debug("receiving: %s", error)
                continue
            self.serve(packet, peer)

    def serve(self, packet: bytes, peer: Peer) -> None:
        """Answer a query at once if it is packed, else hand it on."""
        address, port = self.sender(peer)
        reply = self._lookup(packet, address, limited=True)
        if reply is None:
            self._hand(self, packet, peer)
            return
        if reply:
            self._send(peer, reply)
        if self._samples.room > 0:
            self._samples.note(packet, reply, address, port, arrived_at(self))

    def sender(self, peer: Peer) -> tuple[str, int]:
        """Return the address and port of a peer."""
        address: tuple[str, int] = peer[0] if self.with_info else peer
        return address[:2]

    def reply(self, packet: bytes, peer: Peer, reply: bytes | None) -> bool:
        """Send the reply to a query that was handed on, from any thread, if its rate allows.

        Returns whether it was limited: not sent, or cut short.
        """
        if reply is None:
            return False
        address, _ = self.sender(peer)
        verdict = self._packed.limiter.judge(address, kind_of(reply))
        limited = verdict != SEND and not self._vouched(packet, address)
        if not (limited and verdict == DROP):
            self._send(peer, truncated(reply) if limited else reply)
        return limited

    def _vouched(self, packet: bytes, address: str) -> bool:
        """Say whether a query carries a good cookie."""
        query, cookies = parse_query(packet), self._packed.cookies
        if not isinstance(query, Query) or query.edns is None or not query.edns.cookie:
            return False
        return cookies.on and cookies.answer(query.edns.cookie, address)[1]

    def _send(self, peer: Peer, reply: bytes) -> None:
        """Send a reply. One that cannot be sent is lost, as UDP allows."""
        try:
            self._send_to(reply, peer)
        except OSError as error:
            logger.debug("replying to %s: %s", peer, error)

    def _receive_plain(self) -> tuple[bytes, Peer]:
        return self._udp.recvfrom(MAX_QUERY_BYTES)

    def _receive_with_info(self) -> tuple[bytes, Peer]:
        packet, infos, _, address = self._udp.recvmsg(MAX_QUERY_BYTES, socket.CMSG_SPACE(20))
        return packet, (address, [_without_interface(*info) for info in infos])

    def _send_with_info(self, reply: bytes, peer: Peer) -> None:
        address, infos = peer
        self._udp.sendmsg([reply], infos, 0, address)


def _ask_for_packet_info(udp: socket.socket) -> None:
    """Have each datagram say which of our addresses it came to, for the reply to leave from it."""
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _without_interface(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Return a packet info that fixes the address but lets routing choose the interface."""
    if level == socket.IPPROTO_IPV6:
        return level, kind, data[:16] + bytes(4)
    return level, kind, bytes(4) + data[4:]
