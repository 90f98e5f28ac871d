"""What a packet to a guest that sleeps is about: from whom, to whom, and whether it wakes.

Pure. Reads only what a guard decides by, of packets that may lie: IPv4 (RFC 791), IPv6 with its
extension headers (RFC 8200), and the first bytes of TCP (RFC 9293), UDP and ICMP.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from orchestrator.guards.base import Guarded

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp6"}

_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_ECHO_REQUESTS = {ICMP: 8, ICMP6: 128}
_SKIPPED = frozenset({0, 43, 60, 135})  # hop-by-hop, routing, destination options, mobility
_FRAGMENT = 44
_MOST_HEADERS = 8


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. `port` is the one it is for, 0 where there are none.

    `begins` says that it may be the first of an exchange, `ends` that it only ends one.
    """

    source: IPv4Address | IPv6Address
    target: IPv4Address | IPv6Address
    protocol: int
    port: int
    begins: bool
    ends: bool

    def __str__(self) -> str:
        """Return who asks for what, such as ``10.0.0.5 for 10.9.0.10 tcp/80``."""
        name = NAMES.get(self.protocol, f"protocol {self.protocol}")
        port = f"/{self.port}" if self.port else ""
        return f"{self.source} for {self.target} {name}{port}"


def read(packet: bytes) -> Packet | None:
    """Return what a packet is about; None if it is no whole IP packet to one machine."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return _read4(packet)
    if version == 6 and len(packet) >= 40:
        return _read6(packet)
    return None


def wakes(packet: Packet, guarded: Guarded) -> bool:
    """Say whether a packet to a guarded address is a reason to wake what sleeps there."""
    if packet.ends or not (packet.begins or guarded.remembers):
        return False
    name = NAMES.get(packet.protocol)
    if not guarded.ports or packet.protocol not in (TCP, UDP):
        return True
    return any((port.protocol, port.number) == (name, packet.port) for port in guarded.ports)


def _read4(packet: bytes) -> Packet | None:
    source, target = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    start = (packet[0] & 15) * 4
    later = bool(int.from_bytes(packet[6:8]) & 0x1FFF)  # a later fragment has no ports
    return _about(source, target, packet[9], b"" if later else packet[start:])


def _read6(packet: bytes) -> Packet | None:
    source, target = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    protocol, rest = packet[6], packet[40:]
    for _ in range(_MOST_HEADERS):
        if len(rest) < 8:
            break
        if protocol in _SKIPPED:
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        elif protocol == _FRAGMENT:
            later = int.from_bytes(rest[2:4]) & 0xFFF8
            protocol, rest = rest[0], b"" if later else rest[8:]
        else:
            break
    return _about(source, target, protocol, rest)


def _about(
    source: IPv4Address | IPv6Address,
    target: IPv4Address | IPv6Address,
    protocol: int,
    rest: bytes,
) -> Packet | None:
    if target.is_multicast:
        return None
    port, begins, ends = 0, False, False
    if protocol in (TCP, UDP) and len(rest) >= 8:
        port = int.from_bytes(rest[2:4])
    if protocol == TCP and len(rest) >= 14:
        flags = rest[13]
        begins, ends = flags & (_SYN | _ACK) == _SYN, bool(flags & _RST)
    elif protocol in _ECHO_REQUESTS:
        begins = rest[:1] == bytes((_ECHO_REQUESTS[protocol],))
        ends = not begins  # an error message, or neighbour discovery
    elif protocol != TCP:
        begins = bool(rest)
    return Packet(source, target, protocol, port, begins, ends)
