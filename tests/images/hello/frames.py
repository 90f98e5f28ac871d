"""Frames written and read byte by byte, for what no ordinary socket would send.

`Wire` is a tap seen from the host's side. `Peer` is a TCP client on it with an address of its own,
which the host's kernel knows nothing of, so that nothing but the test answers for it.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

ETH_P_ALL = 3
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # packet(7), linux/if_packet.h
GUEST_MAC = bytes.fromhex("020000000002")
PEER_MAC = bytes.fromhex("020000000077")
PEER, PEER6 = "10.0.0.77", "fd00::77"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_checksum(data: bytes, at: int, pseudo: bytes = b"") -> bytes:
    """Return the data with its checksum at that offset."""
    zeroed = data[:at] + bytes(2) + data[at + 2 :]
    return data[:at] + checksum(pseudo + zeroed).to_bytes(2, "big") + data[at + 2 :]


def ethernet(kind: int, payload: bytes, to: bytes = GUEST_MAC, source: bytes = PEER_MAC) -> bytes:
    return to + source + kind.to_bytes(2, "big") + payload


def packet(protocol: int, payload: bytes, source: str = PEER, to: str = "10.0.0.2") -> bytes:
    """Return an IP packet of the version of its addresses, in a frame."""
    a, b = ip_address(source), ip_address(to)
    if isinstance(a, IPv6Address):
        header = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
        return ethernet(IPV6, header + a.packed + b.packed + payload)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    return ethernet(IPV4, with_checksum(header + a.packed + b.packed, 10) + payload)


def pseudo_header(source: str, to: str, protocol: int, length: int) -> bytes:
    a, b = ip_address(source), ip_address(to)
    return a.packed + b.packed + struct.pack(">II", length, protocol)


def icmpv6(message: bytes, source: str = PEER6, to: str = "fd00::2", hops: int = 255) -> bytes:
    """Return an ICMPv6 message with its checksum, in a frame."""
    message = with_checksum(message, 2, pseudo_header(source, to, ICMPV6, len(message)))
    frame = bytearray(packet(ICMPV6, message, source, to))
    frame[14 + 7] = hops
    return bytes(frame)


def udp(data: bytes, ports: tuple[int, int], source: str, to: str) -> bytes:
    header = struct.pack(">HHHH", *ports, 8 + len(data), 0)
    pseudo = pseudo_header(source, to, UDP, 8 + len(data))
    return packet(UDP, with_checksum(header + data, 6, pseudo), source, to)


@dataclass(frozen=True)
class Segment:
    """A TCP segment."""

    source: int
    to: int
    seq: int = 0
    ack: int = 0
    flags: int = ACK
    window: int = 65535
    data: bytes = b""
    options: bytes = b""

    def frame(self, source: str = PEER, to: str = "10.0.0.2") -> bytes:
        offset = (20 + len(self.options)) // 4 << 4
        header = struct.pack(
            ">HHIIBBHHH",
            *(self.source, self.to, self.seq % 2**32, self.ack % 2**32),
            *(offset, self.flags, self.window, 0, 0),
        )
        whole = header + self.options + self.data
        whole = with_checksum(whole, 16, pseudo_header(source, to, TCP, len(whole)))
        return packet(TCP, whole, source, to)


def tcp_in(frame: bytes) -> tuple[str, str, Segment] | None:
    """Return the addresses and the TCP segment in a frame, if that is what it is."""
    kind, ip = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind == IPV4 and ip[9] == TCP:
        source, to = str(IPv4Address(ip[12:16])), str(IPv4Address(ip[16:20]))
        data = ip[20 : int.from_bytes(ip[2:4], "big")]
    elif kind == IPV6 and ip[6] == TCP:
        source, to = str(IPv6Address(ip[8:24])), str(IPv6Address(ip[24:40]))
        data = ip[40 : 40 + int.from_bytes(ip[4:6], "big")]
    else:
        return None
    assert checksum(pseudo_header(source, to, TCP, len(data)) + data) == 0
    ports_etc = struct.unpack(">HHIIBBH", data[:16])
    offset = (ports_etc[4] >> 4) * 4
    a, b, seq, ack, _, flags, window = ports_etc
    return source, to, Segment(a, b, seq, ack, flags, window, data[offset:], data[20:offset])


class Wire:
    """A tap, seen from the host's side: what is sent here, the guest receives."""

    def __init__(self, tap: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((tap, 0))

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def frames(self, timeout_s: float) -> Iterator[bytes]:
        """Yield what the guest sends, until nothing has come for so long in all."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                yield self._socket.recv(2048)
            except TimeoutError:
                return

    def answer(
        self, frame: bytes, wanted: Callable[[bytes], bool], timeout_s: float = 10
    ) -> bytes | None:
        """Send a frame and return the first wanted one that comes; None if none comes."""
        self.send(frame)
        return next(filter(wanted, self.frames(timeout_s)), None)


class Peer:
    """A TCP client that does only what it is told to."""

    def __init__(self, wire: Wire, port: int, address: str = PEER, guest: str = "10.0.0.2") -> None:
        self.wire, self.address, self.guest = wire, address, guest
        self.last = Segment(port, 80, seq=1000 + port * 7919)
        self.expected = 0  # the number of the next byte from the guest
        self.guest_expects = self.last.seq

    def send(self, flags: int = ACK, data: bytes = b"", ahead: int = 0, **fields: int) -> None:
        """Send a segment at our place in the stream, or `ahead` of it; our place does not move."""
        segment = replace(self.last, flags=flags, data=data, ack=self.expected)
        segment = replace(segment, **{"seq": self.last.seq + ahead, **fields})  # type: ignore[arg-type]
        self.wire.send(segment.frame(self.address, self.guest))

    def advance(self, by: int) -> None:
        self.last = replace(self.last, seq=(self.last.seq + by) % 2**32)

    def replies(self, timeout_s: float = 5) -> Iterator[Segment]:
        """Yield the guest's segments to us."""
        for frame in self.wire.frames(timeout_s):
            found = tcp_in(frame)
            if found and found[1] == self.address and found[2].to == self.last.source:
                self.guest_expects = found[2].ack
                yield found[2]

    def reply(self, timeout_s: float = 5) -> Segment | None:
        return next(self.replies(timeout_s), None)

    def reset(self) -> None:
        """End the connection, where the guest is now."""
        for _ in self.replies(0.05):
            pass
        self.wire.send(
            replace(self.last, flags=RST, seq=self.guest_expects).frame(self.address, self.guest)
        )

    def open(self) -> Segment:
        """Do the handshake, except for its last segment, and return the guest's answer."""
        self.send(SYN, ack=0)
        answer = self.reply()
        assert answer is not None
        assert answer.flags == SYN | ACK
        self.advance(1)
        assert answer.ack == self.last.seq
        self.expected = (answer.seq + 1) % 2**32
        return answer
