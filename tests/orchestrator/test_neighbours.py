"""ARP against the kernel itself: a tap device of ours is the network, the test is the guest."""

import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import neighbours
from orchestrator.model import Probe, ProbeKind
from orchestrator.neighbours import ArpSocket, arp_sender
from orchestrator.readiness import Target, wait

DEVICE = b"ewarp0"
OURS = IPv4Address("198.18.77.1")  # RFC 2544: for tests of network devices, routed nowhere
GUEST = IPv4Address("198.18.77.2")
MAC = "02:ed:c6:12:4d:02"
TIMEOUT_S = 5.0

TUNSETIFF, IFF_TAP_NO_PI = 0x400454CA, 0x1002
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8916, 0x891C, 0x8914, 0x41

ARP, IPV4 = 0x0806, 0x0800

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making a network device needs root")


@dataclass(frozen=True)
class Tap:
    """An Ethernet whose only other station is the test."""

    fd: int

    def frames(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (type, destination, payload) of what the kernel sends, until time is up."""
        deadline = time.monotonic() + TIMEOUT_S
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                frame = os.read(self.fd, 2048)
                yield int.from_bytes(frame[12:14]), frame[:6], frame[14:]

    def answer_arp(self) -> None:
        """Be a guest that answers the first ARP request for its address."""
        mac = bytes.fromhex(MAC.replace(":", ""))
        for kind, _, payload in self.frames():
            if kind == ARP and payload[24:28] == GUEST.packed:
                asker, asking = payload[8:14], payload[14:18]
                reply = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + mac + GUEST.packed
                os.write(self.fd, asker + mac + b"\x08\x06" + reply + asker + asking)
                return


@pytest.fixture
def tap() -> Iterator[Tap]:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE, IFF_TAP_NO_PI))
        for request, address in ((SIOCSIFADDR, OURS), (SIOCSIFNETMASK, "255.255.255.0")):
            packed = IPv4Address(address).packed
            data = struct.pack("16sHH4s16x", DEVICE, socket.AF_INET, 0, packed)
            fcntl.ioctl(any_socket, request, data)
        up = struct.pack("16sH22x", DEVICE, IFF_UP_RUNNING)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)
    yield Tap(fd)
    os.close(fd)  # which removes the device


def send_something() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (str(GUEST), 9))


def first_sent(tap: Tap) -> tuple[int, bytes]:
    """Return type and destination MAC of the first frame that is about the guest."""
    for kind, destination, payload in tap.frames():
        if (kind == ARP and payload[24:28] == GUEST.packed) or (
            kind == IPV4 and payload[16:20] == GUEST.packed
        ):
            return kind, destination
    pytest.fail("the kernel sent nothing to the guest")


@needs_root
def test_without_a_hint_the_kernel_asks_first(tap: Tap) -> None:
    send_something()
    assert first_sent(tap) == (ARP, b"\xff" * 6)


@needs_root
def test_with_a_hint_the_first_packet_leaves_at_once(tap: Tap) -> None:
    assert neighbours.hint(GUEST, MAC)
    send_something()
    assert first_sent(tap) == (IPV4, bytes.fromhex(MAC.replace(":", "")))


@needs_root
def test_a_hint_may_be_given_twice_and_forgotten(tap: Tap) -> None:
    assert neighbours.hint(GUEST, MAC)
    assert neighbours.hint(GUEST, MAC)
    assert neighbours.forget(GUEST)
    send_something()
    assert first_sent(tap)[0] == ARP


def test_a_hint_that_cannot_be_given_is_no_error() -> None:
    assert not neighbours.hint(IPv4Address("240.0.0.1"), MAC)
    assert not neighbours.forget(IPv4Address("240.0.0.1"))


@needs_root
def test_the_arp_probe_hears_a_guest_that_answers(tap: Tap) -> None:
    guest = Thread(target=tap.answer_arp)
    guest.start()
    target = Target(GUEST, None, MAC, bytes)
    wait(
        Probe(ProbeKind.ARP),
        target,
        deadline=time.monotonic() + TIMEOUT_S,
        cancelled=lambda: None,
    )
    guest.join()


@needs_root
def test_arp_needs_an_ethernet() -> None:
    with pytest.raises(OSError, match="not an Ethernet"):
        ArpSocket(IPv4Address("127.0.0.1"))


REPLY = bytes.fromhex("0001 0800 06 04 0002 02edc6124d02 c6124d02 020000000001 c6124d01")


def test_the_sender_of_an_arp_packet() -> None:
    assert arp_sender(REPLY) == GUEST
    assert arp_sender(REPLY[:27]) is None
    assert arp_sender(b"\0\6" + REPLY[2:]) is None, "not an Ethernet's"


@given(st.binary(max_size=64))
def test_no_packet_upsets_it(packet: bytes) -> None:
    sender = arp_sender(packet)
    assert sender is None or packet[14:18] == sender.packed


@needs_root
def test_a_guest_that_has_moved_is_called_by_broadcast_although_its_mac_is_known(tap: Tap) -> None:
    assert neighbours.hint(GUEST, MAC)
    assert neighbours.call(GUEST)
    kind, destination, payload = next(f for f in tap.frames() if f[0] == ARP)
    assert (kind, destination) == (ARP, b"\xff" * 6)
    assert payload[24:28] == GUEST.packed


def test_who_is_on_no_network_of_ours_cannot_be_called() -> None:
    assert not neighbours.call(IPv4Address("127.0.0.9"))
