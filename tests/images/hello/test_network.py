"""Hello below HTTP: who it answers, what it refuses, and what it survives."""

import random
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address

import pytest

from tests.images.hello.conftest import ADDRESS, ADDRESS6, Fetch, Guest
from tests.images.hello.frames import (
    ACK,
    ARP,
    FIN,
    GUEST_MAC,
    ICMP,
    ICMPV6,
    PEER,
    PEER6,
    PEER_MAC,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    Segment,
    Wire,
    checksum,
    ethernet,
    icmpv6,
    packet,
    pseudo_header,
    tcp_in,
    udp,
    with_checksum,
)

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("guest")]

BROADCAST = b"\xff" * 6
LINK_LOCAL = "fe80::ff:fe00:2"
ALL_NODES = "ff02::1"
ROUNDS = 15_000


@pytest.fixture
def wire(guest: Guest) -> Iterator[Wire]:
    with Wire("tap0") as wire:
        yield wire


def echo(size: int, kind: int) -> bytes:
    return struct.pack(">BBHHH", kind, 0, 0, 7, size) + bytes(n % 251 for n in range(size))


def solicitation(target: str) -> bytes:
    return struct.pack(">BBHI", 135, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target)


def arp_request(target: str, source: str = PEER) -> bytes:
    addresses = PEER_MAC + socket.inet_aton(source) + bytes(6) + socket.inet_aton(target)
    return ethernet(ARP, bytes.fromhex("0001 0800 06 04 0001") + addresses, to=BROADCAST)


def is_arp_reply(frame: bytes) -> bool:
    return frame[:6] == PEER_MAC and frame[12:22] == bytes.fromhex("0806 0001 0800 06 04 0002")


def is_icmp(kind: int) -> Callable[[bytes], bool]:
    """Return a check for an ICMP message of that type to our peer, with right checksums."""

    def check(frame: bytes) -> bool:
        if frame[:6] != PEER_MAC or frame[12:14] != b"\x08\0" or frame[23] != ICMP:
            return False
        message = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
        assert checksum(frame[14:34]) == checksum(message) == 0
        return message[0] == kind

    return check


def is_icmpv6(kind: int, to_mac: bytes = PEER_MAC) -> Callable[[bytes], bool]:
    def check(frame: bytes) -> bool:
        if frame[:6] != to_mac or frame[12:14] != b"\x86\xdd" or frame[20] != ICMPV6:
            return False
        message = frame[54 : 54 + int.from_bytes(frame[18:20], "big")]
        source, to = (str(IPv6Address(frame[at : at + 16])) for at in (22, 38))
        assert checksum(pseudo_header(source, to, ICMPV6, len(message)) + message) == 0
        return message[0] == kind

    return check


def test_a_scan_of_all_ports_shows_one(wire: Wire) -> None:
    """A SYN to each port, twice if need be: one is accepted, all others are refused."""
    answers: dict[int, int] = {}
    for first in (*range(1, 65536, 128), *range(1, 65536, 128)):
        ports = {port for port in range(first, min(first + 128, 65536)) if port not in answers}
        for port in ports:
            wire.send(Segment(40000, port, seq=5, flags=SYN).frame())
        for found in filter(None, map(tcp_in, wire.frames(1) if ports else ())):
            answers[found[2].source] = found[2].flags
            ports.discard(found[2].source)
            if not ports:
                break
    assert {port for port, flags in answers.items() if flags == SYN | ACK} == {80}
    assert {flags for port, flags in answers.items() if port != 80} == {RST | ACK}
    assert len(answers) == 65535


@pytest.mark.parametrize("port", [1, 53, 68, 123, 65535])
@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
def test_no_udp_port_is_open(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect((address, port))
        client.send(b"hello?" * 200)
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def test_an_unknown_protocol_is_refused(wire: Wire) -> None:
    frame = wire.answer(packet(132, b"x" * 40), is_icmp(3))
    assert frame
    assert frame[35] == 2
    assert frame[42:70] == packet(132, b"x" * 40)[14:42]  # the header and 8 bytes: RFC 792
    assert wire.answer(packet(132, b"x" * 40, PEER6, ADDRESS6), is_icmpv6(4))


@pytest.mark.parametrize("size", [0, 1, 56, 1471, 1472])
def test_ping(wire: Wire, size: int) -> None:
    request = with_checksum(echo(size, 8), 2)
    frame = wire.answer(packet(ICMP, request), is_icmp(0))
    assert frame
    assert frame[38:42] == request[4:8]
    assert frame[42 : 42 + size] == request[8:]


@pytest.mark.parametrize("size", [0, 1, 56, 1452])
@pytest.mark.parametrize("address", [ADDRESS6, LINK_LOCAL, ALL_NODES])
def test_ping6(wire: Wire, address: str, size: int) -> None:
    source = "fe80::77" if address != ADDRESS6 else PEER6
    frame = wire.answer(icmpv6(echo(size, 128), source, address, 64), is_icmpv6(129))
    assert frame
    assert frame[22:38] == IPv6Address(ADDRESS6 if address == ADDRESS6 else LINK_LOCAL).packed
    assert frame[62 : 62 + size] == echo(size, 128)[8:]


def test_the_hosts_own_stack_gets_through(fetch: Fetch) -> None:
    assert fetch(address=ADDRESS).status == fetch(address=ADDRESS6).status == 200


def test_arp_is_answered_for_its_address_only(wire: Wire) -> None:
    frame = wire.answer(arp_request(ADDRESS), is_arp_reply)
    assert frame
    assert frame[22:32] == GUEST_MAC + socket.inet_aton(ADDRESS)
    assert wire.answer(arp_request(ADDRESS, source="0.0.0.0"), is_arp_reply)  # a probe: RFC 5227
    assert not wire.answer(arp_request("10.0.0.3"), is_arp_reply, timeout_s=0.3)


@pytest.mark.parametrize("target", [ADDRESS6, LINK_LOCAL])
def test_neighbours_find_its_addresses(wire: Wire, target: str) -> None:
    group = f"ff02::1:ff{IPv6Address(target).exploded[-7:]}"
    frame = wire.answer(icmpv6(solicitation(target), to=group), is_icmpv6(136))
    assert frame
    advertisement = frame[54:86]
    assert advertisement[4] & 0x60 == 0x60  # solicited, override
    assert advertisement[8:24] == IPv6Address(target).packed
    assert advertisement[24:32] == b"\2\1" + GUEST_MAC


def test_an_address_is_defended(wire: Wire) -> None:
    """Duplicate address detection (RFC 4862, 5.4.3): the one who asks has no address yet."""
    probe = icmpv6(solicitation(ADDRESS6), source="::", to="ff02::1:ff00:2")
    assert wire.answer(probe, is_icmpv6(136, bytes.fromhex("333300000001")))


@pytest.mark.parametrize("hops", [1, 64, 254])
def test_a_solicitation_from_another_link_is_ignored(wire: Wire, hops: int) -> None:
    frame = icmpv6(solicitation(ADDRESS6), hops=hops)
    assert not wire.answer(frame, is_icmpv6(136), timeout_s=0.3)


def test_a_switch_that_asks_hears_of_its_groups(wire: Wire) -> None:
    """RFC 2710: without a report, a switch that snoops would keep solicitations from it."""
    query = icmpv6(struct.pack(">BBHHH", 130, 0, 0, 1000, 0) + bytes(16), "fe80::77", ALL_NODES, 1)
    groups: list[str] = []
    wire.send(query)
    for frame in wire.frames(5):
        if frame[20:21] == b"\0" and frame[54:62] == bytes.fromhex("3a00 0502 0000 0100"):
            assert frame[62] == 131
            assert frame[21] == 1  # hops
            groups.append(str(IPv6Address(frame[70:86])))
            if len(groups) == 2:
                break
    assert groups == ["ff02::1:ff00:2"] * 2  # both addresses have the same


def wrapped(protocol: int, message: bytes, headers: bytes) -> bytes:
    """Put IPv6 extension headers before an ICMPv6 message with its checksum."""
    whole = icmpv6(message)[54:]
    return packet(protocol, headers + whole, PEER6, ADDRESS6)


OPTIONS, FRAGMENT = bytes.fromhex("01 04 00000000"), bytes.fromhex("00 000001 00000009")
EXTENSIONS = [
    (0, b"\x3a\0" + OPTIONS, True),
    (60, b"\x3a\0" + OPTIONS, True),
    (0, b"\x3c\0" + OPTIONS + b"\x3a\1" + OPTIONS + bytes(8), True),
    (43, bytes.fromhex("3a 00 04 00 00000000"), True),
    (43, bytes.fromhex("3a 00 04 01 00000000"), False),
    (44, b"\x3a" + FRAGMENT[1:], False),
    (0, b"\x3a\xff" + OPTIONS, False),
]


@pytest.mark.parametrize(("protocol", "headers", "answered"), EXTENSIONS)
def test_extension_headers(wire: Wire, protocol: int, headers: bytes, answered: bool) -> None:
    frame = wrapped(protocol, echo(8, 128), headers)
    assert bool(wire.answer(frame, is_icmpv6(129), 5 if answered else 0.3)) == answered


PING = packet(ICMP, with_checksum(echo(8, 8), 2))
NOT_FOR_US = {
    "another MAC address": b"\2\0\0\0\0\x09" + PING[6:],
    "another IP address": packet(ICMP, with_checksum(echo(8, 8), 2), to="10.0.0.3"),
    "broadcast": packet(ICMP, with_checksum(echo(8, 8), 2), to="255.255.255.255"),
    "from a group": PING[:6] + b"\1\0\x5e\0\0\1" + PING[12:],
    "from a multicast address": packet(ICMP, with_checksum(echo(8, 8), 2), source="224.0.0.1"),
    "from loopback": packet(ICMP, with_checksum(echo(8, 8), 2), source="127.0.0.1"),
    "wrong ICMP checksum": packet(ICMP, echo(8, 8)),
    "wrong IP checksum": PING[:24] + b"\0\0" + PING[26:],
    "a fragment": PING[:20] + b"\x20\0" + PING[22:],
    "cut off": PING[:40],
    "a header longer than the packet": PING[:14] + b"\x4f" + PING[15:],
    "version 5": PING[:14] + b"\x55" + PING[15:],
}


@pytest.mark.parametrize("frame", NOT_FOR_US.values(), ids=NOT_FOR_US)
def test_what_is_damaged_or_for_others_is_ignored(wire: Wire, frame: bytes) -> None:
    assert not wire.answer(frame, is_icmp(0), timeout_s=0.15)


def fix_checksums(frame: bytes) -> bytes:
    """Make a mutated frame get further: past the IP header's checksum and the transport's."""
    ip = frame[14:]
    if frame[12:14] == b"\x08\0" and len(ip) >= 20:
        ip = with_checksum(ip[:20], 10) + ip[20:]
        source, to = socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20])
        protocol, start = ip[9], 20
    elif frame[12:14] == b"\x86\xdd" and len(ip) >= 40:
        source, to = str(IPv6Address(ip[8:24])), str(IPv6Address(ip[24:40]))
        protocol, start = ip[6], 40
    else:
        return frame
    at = {ICMP: 2, ICMPV6: 2, TCP: 16, UDP: 6}.get(protocol)
    payload = ip[start:]
    if at is None or len(payload) < at + 2:
        return frame[:14] + ip
    pseudo = b"" if protocol == ICMP else pseudo_header(source, to, protocol, len(payload))
    return frame[:14] + ip[:start] + with_checksum(payload, at, pseudo)


def mutated(frame: bytes, chance: random.Random) -> bytes:
    data = bytearray(frame)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(data))
        data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    if chance.random() < 0.3:
        data = data[: chance.randrange(14, len(data) + 1)]
    if chance.random() < 0.1:
        data += chance.randbytes(chance.randrange(1, 1500 - len(data)))
    return fix_checksums(bytes(data)) if chance.random() < 0.7 else bytes(data)


def test_random_and_mutated_frames_do_not_disturb_it(
    wire: Wire, guest: Guest, fetch: Fetch
) -> None:
    chance = random.Random(20261121)  # noqa: S311 - a seed, so that a failure comes again
    samples = [
        PING, arp_request(ADDRESS), icmpv6(solicitation(ADDRESS6)), icmpv6(echo(40, 128), hops=64),
        udp(b"x" * 30, (67, 68), PEER, ADDRESS), udp(b"x" * 30, (9, 9), PEER6, ADDRESS6),
        wrapped(0, echo(8, 128), b"\x3a\0" + OPTIONS),
        Segment(5, 80, 7, 0, SYN, options=b"\2\4\5\xb4\1\3\3\7").frame(),
        Segment(5, 80, 8, 9, ACK | PSH, data=b"GET / HTTP/1.1\r\n\r\n").frame(),
        Segment(5, 80, 8, 9, ACK | FIN).frame(PEER6, ADDRESS6),
    ]  # fmt: skip
    before = fetch("/info").json["frames"]["received"]
    for number in range(ROUNDS):
        wire.send(mutated(chance.choice(samples), chance))
        if number % 200 == 0:
            wire.send(GUEST_MAC + chance.randbytes(chance.randrange(8, 1400)))
            assert fetch().status == 200
    info = fetch("/info").json
    assert info["frames"]["received"] - before > ROUNDS * 0.9
    assert info["connections"] == 1
    assert "exception" not in guest.console
