"""What packets are about, what is held of them, and frames that ask and answer: pure."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.guards import frames, packets
from orchestrator.guards.base import Guarded
from orchestrator.guards.held import HeldPackets
from orchestrator.model import Port, mac_of

HOST4, WEB4 = IPv4Address("10.0.0.5"), IPv4Address("10.9.0.10")
HOST6, WEB6 = IPv6Address("fd00::5"), IPv6Address("fd00:9::a")
WEB = Guarded("web", WEB4, mac_of(WEB4), WEB6)
SYN, ACK, SYN_ACK, RST, FIN_ACK = 0x02, 0x10, 0x12, 0x04, 0x11


def ipv4(protocol: int, body: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 20 + len(body), 1, fragment, 64, protocol, 0)
    return head + HOST4.packed + WEB4.packed + options + body


def ipv6(protocol: int, body: bytes, *headers: tuple[int, bytes]) -> bytes:
    chain = b""
    for number, (_, header) in enumerate(headers):
        after = headers[number + 1][0] if number + 1 < len(headers) else protocol
        chain += bytes((after,)) + header[1:]
    first = headers[0][0] if headers else protocol
    head = struct.pack("!IHBB", 6 << 28, len(chain) + len(body), first, 64)
    return head + HOST6.packed + WEB6.packed + chain + body


def tcp(port: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, flags, 1000, 0, 0)


def udp(port: int) -> bytes:
    return struct.pack("!HHHH", 40000, port, 9, 0) + b"x"


@pytest.mark.parametrize(
    ("packet", "wakes", "words"),
    [
        (ipv4(6, tcp(80, SYN)), True, "10.0.0.5 for 10.9.0.10 tcp/80"),
        (ipv4(6, tcp(80, SYN), options=bytes(8)), True, "10.0.0.5 for 10.9.0.10 tcp/80"),
        (ipv4(6, tcp(80, SYN_ACK)), False, "10.0.0.5 for 10.9.0.10 tcp/80"),
        (ipv4(6, tcp(80, ACK)), False, "10.0.0.5 for 10.9.0.10 tcp/80"),
        (ipv4(6, tcp(80, RST)), False, "10.0.0.5 for 10.9.0.10 tcp/80"),
        (ipv4(17, udp(53)), True, "10.0.0.5 for 10.9.0.10 udp/53"),
        (ipv4(17, udp(53), fragment=185), False, "10.0.0.5 for 10.9.0.10 udp"),
        (ipv4(1, bytes((8, 0, 0, 0, 0, 0, 0, 0))), True, "10.0.0.5 for 10.9.0.10 icmp"),
        (ipv4(1, bytes((3, 1, 0, 0, 0, 0, 0, 0))), False, "10.0.0.5 for 10.9.0.10 icmp"),
        (ipv4(132, bytes(12)), True, "10.0.0.5 for 10.9.0.10 protocol 132"),
        (ipv6(6, tcp(80, SYN)), True, "fd00::5 for fd00:9::a tcp/80"),
        (ipv6(17, udp(5683)), True, "fd00::5 for fd00:9::a udp/5683"),
        (ipv6(6, tcp(80, SYN), (0, bytes(8)), (60, bytes(8))), True, None),
        (ipv6(17, udp(53), (44, bytes(8))), True, None),
        (ipv6(17, udp(53), (44, struct.pack("!BBHI", 0, 0, 8, 1))), False, None),
        (ipv6(58, bytes((128, 0, 0, 0, 0, 0, 0, 0))), True, "fd00::5 for fd00:9::a icmp6"),
        (ipv6(58, bytes((135, 0, 0, 0, 0, 0, 0, 0))), False, "fd00::5 for fd00:9::a icmp6"),
    ],
)
def test_what_wakes_and_what_is_told(packet: bytes, wakes: bool, words: str | None) -> None:
    found = packets.read(packet)
    assert found is not None
    assert packets.wakes(found, WEB) is wakes
    if words is not None:
        assert str(found) == words


@pytest.mark.parametrize(
    ("packet", "wakes"),
    [
        (ipv4(6, tcp(80, SYN)), True),
        (ipv4(6, tcp(81, SYN)), False),
        (ipv4(17, udp(80)), False),
        (ipv4(17, udp(53)), True),
        (ipv4(1, bytes((8, 0, 0, 0, 0, 0, 0, 0))), True),
    ],
)
def test_only_ports_of_the_service_wake(packet: bytes, wakes: bool) -> None:
    ports = (Port(80), Port(53, "udp"))
    found = packets.read(packet)
    assert found is not None
    assert packets.wakes(found, Guarded("web", WEB4, WEB.mac, ports=ports)) is wakes


@pytest.mark.parametrize(("flags", "wakes"), [(ACK, True), (FIN_ACK, True), (RST, False)])
def test_what_remembers_its_connections_wakes_for_them(flags: int, wakes: bool) -> None:
    found = packets.read(ipv4(6, tcp(80, flags)))
    assert found is not None
    assert packets.wakes(found, Guarded("web", WEB4, WEB.mac, remembers=True)) is wakes


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for head in (b"", b"\x45", b"\x4f", b"\x60"):
        packets.read(head + data)
        frames.question(head + data)


def test_what_is_held_is_bounded_and_in_order() -> None:
    held = HeldPackets(each_packets=3, each_bytes=10, all_bytes=12)
    assert [held.keep("a", bytes(3)) for _ in range(4)] == [True, True, True, False]
    assert not held.keep("b", bytes(4)), "too much in all"
    assert held.keep("b", bytes(3))
    assert held.take("a") == [bytes(3)] * 3
    assert held.take("a") == []
    assert held.keep("c", b"1")
    assert held.keep("c", b"2")
    assert held.take("c") == [b"1", b"2"]
    assert not held.keep("d", bytes(11)), "too much for one"


def test_so_many_packets_are_held_and_no_more() -> None:
    held = HeldPackets(each_packets=2, all_packets=3)
    assert [held.keep(key, b"1") for key in "aaabb"] == [True, True, False, True, False]
    held.take("a")
    assert [held.keep("b", b"1") for _ in range(2)] == [True, False]
    assert len(held.take("b")) == 2


CARD, GUEST = bytes.fromhex("020000000001"), bytes.fromhex(WEB.mac.replace(":", ""))


def arp(source: IPv4Address, operation: int = 1) -> bytes:
    body = struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, CARD, source.packed, bytes(6), WEB4.packed
    )
    return b"\xff" * 6 + CARD + b"\x08\x06" + body


def solicitation(source: IPv6Address) -> bytes:
    body = struct.pack("!BBHI", 135, 0, 0, 0) + WEB6.packed + bytes((1, 1)) + CARD
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255)
    to = IPv6Address("ff02::1:ff00:a").packed
    return bytes.fromhex("3333ff00000a") + CARD + b"\x86\xdd" + head + source.packed + to + body


def test_an_arp_request_is_a_question_and_is_answered() -> None:
    asked = frames.question(arp(HOST4))
    assert asked == frames.Question(CARD, HOST4, WEB4)
    answer = asked.answer(GUEST)
    assert answer[:14] == CARD + GUEST + b"\x08\x06"
    operation, *ends = struct.unpack("!H6s4s6s4s", answer[20:])
    assert (operation, *ends) == (2, GUEST, WEB4.packed, CARD, HOST4.packed)


def test_a_solicitation_is_a_question_and_is_answered_with_a_true_checksum() -> None:
    asked = frames.question(solicitation(HOST6))
    assert asked == frames.Question(CARD, HOST6, WEB6)
    answer = asked.answer(GUEST)
    assert answer[:14] == CARD + GUEST + b"\x86\xdd"
    assert answer[22:54] == WEB6.packed + HOST6.packed
    body = answer[54:]
    assert (body[0], body[8:24], body[26:]) == (136, WEB6.packed, GUEST)
    total = sum(
        struct.unpack(
            f"!{(40 + len(body)) // 2}H", answer[22:54] + struct.pack("!II", len(body), 58) + body
        )
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@pytest.mark.parametrize(
    "frame",
    [
        arp(IPv4Address("0.0.0.0")),  # who looks for a free address (RFC 5227)
        arp(WEB4),  # who announces its own
        arp(HOST4, operation=2),
        solicitation(IPv6Address("::")),
        b"",
        arp(HOST4)[:30],
    ],
)
def test_what_is_no_question(frame: bytes) -> None:
    assert frames.question(frame) is None


def passes(frame: bytes, *cards: bytes) -> bool:
    """Run a program as the kernel does (linux/filter.h), for the instructions that we use."""
    program, at, accumulator = frames.program(cards), 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x06:
            return bool(value)
        if code == 0x15:
            at += if_true if accumulator == value else if_false
            continue
        size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
        if value + size > len(frame):
            return False
        accumulator = int.from_bytes(frame[value : value + size])


def test_the_filter_passes_questions_and_frames_to_held_cards() -> None:
    other = bytes.fromhex("02ed0a090063")
    data = GUEST + CARD + b"\x08\x00" + ipv4(6, tcp(80, SYN))
    for cards in ((), (other,), (other, GUEST)):
        assert passes(arp(HOST4), *cards)
        assert passes(solicitation(HOST6), *cards)
        assert not passes(arp(HOST4, operation=2), *cards)
        assert passes(data, *cards) is (GUEST in cards)
