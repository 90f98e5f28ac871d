"""Guests' packets as the kernel sees them: on a tap device of ours the test plays every guest."""

import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator import frames, neighbours
from orchestrator.frames import Frames, segment_of
from orchestrator.model import GuestNetwork, Instance, InstanceState, mac_of
from orchestrator.trace import WakeTrace
from tests.waiting import eventually

DEVICE = "ewfrm0"
SUBNET = IPv4Network("198.18.78.0/24")  # RFC 2544: for tests of network devices, routed nowhere
OURS, GUEST, OTHER = (SUBNET[number] for number in (1, 2, 3))
ELSEWHERE = IPv4Network("198.18.79.0/24")
CLIENT = IPv4Address("192.0.2.9")

TUNSETIFF, IFF_TAP_NO_PI = 0x400454CA, 0x1002
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8916, 0x891C, 0x8914, 0x41

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
HOST_MAC = b"\x02\0\0\0\0\1"
ARP = b"\xff" * 6 + b"\x08\x06" + bytes(28)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making a network device needs root")


def mac(address: IPv4Address) -> bytes:
    return bytes.fromhex(mac_of(address).replace(":", ""))


def transport(ports: tuple[int, int], payload: bytes, flags: int | None) -> bytes:
    """Return UDP, or TCP if there are flags; with options where it is a SYN, as is usual."""
    if flags is None:
        return struct.pack("!4H", *ports, 8 + len(payload), 0) + payload
    options = bytes(20) if flags & SYN else b""
    header = struct.pack("!2H2I2B3H", *ports, 0, 0, (20 + len(options)) * 4, flags, 0, 0, 0)
    return header + options + payload


def ipv4(source: IPv4Address, target: IPv4Address, protocol: int, data: bytes) -> bytes:
    options = bytes(4)
    head = struct.pack("!2B3H2BH", 0x46, 0, 24 + len(data), 0, 0, 64, protocol, 0)
    return b"\x08\x00" + head + source.packed + target.packed + options + data


def to_guest(flags: int | None, payload: bytes = b"", *, port: int = 5000) -> bytes:
    data = transport((port, 80), payload, flags)
    protocol = UDP if flags is None else TCP
    return mac(GUEST) + HOST_MAC + ipv4(CLIENT, GUEST, protocol, data)


def from_guest(flags: int | None, payload: bytes = b"", *, port: int = 5000) -> bytes:
    data = transport((80, port), payload, flags)
    protocol = UDP if flags is None else TCP
    return HOST_MAC + mac(GUEST) + ipv4(GUEST, CLIENT, protocol, data)


# --- one packet -----------------------------------------------------------------------------------


def test_a_segment_says_who_talks_to_whom_and_how_much() -> None:
    asked = segment_of(to_guest(SYN), from_guest=False)
    said = segment_of(from_guest(ACK, b"page"), from_guest=True)
    assert asked is not None
    assert said is not None
    assert asked.flow == said.flow == (TCP, CLIENT.packed, 5000, 80)
    assert (asked.opens, asked.payload, said.opens, said.payload) == (True, 0, False, 4)
    told = segment_of(from_guest(None, b"datagram"), from_guest=True)
    assert told is not None
    assert (told.flow[0], told.payload, told.opens) == (UDP, 8, False)


def test_ipv6_is_understood_too() -> None:
    data = transport((80, 5000), b"page", ACK)
    head = struct.pack("!IH2B", 6 << 28, len(data), TCP, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
    said = segment_of(HOST_MAC + mac(GUEST) + b"\x86\xdd" + head + data, from_guest=True)
    assert said is not None
    assert (said.flow[1:], said.payload) == ((bytes(15) + b"\2", 5000, 80), 4)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        ARP,
        mac(GUEST) + HOST_MAC + ipv4(CLIENT, GUEST, 1, bytes(8)),
        from_guest(ACK)[:50],
        from_guest(None)[:40],
        from_guest(ACK, b"page")[:20] + b"\x00\x10" + from_guest(ACK, b"page")[22:],
    ],
    ids=["nothing", "ARP", "ICMP", "a cut TCP header", "a cut UDP header", "a later fragment"],
)
def test_other_packets_are_no_segments(frame: bytes) -> None:
    assert segment_of(frame, from_guest=True) is None


# --- the kernel -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """An Ethernet on which the test plays every guest, and sends for this machine, too."""

    fd: int
    host: socket.socket

    def guest_says(self, frame: bytes) -> None:
        os.write(self.fd, frame)

    def host_says(self, frame: bytes) -> None:
        self.host.send(frame)


@pytest.fixture
def net() -> Iterator[Net]:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP_NO_PI))
        for request, address in ((SIOCSIFADDR, OURS), (SIOCSIFNETMASK, SUBNET.netmask)):
            data = struct.pack("16sHH4s16x", DEVICE.encode(), socket.AF_INET, 0, address.packed)
            fcntl.ioctl(any_socket, request, data)
        up = struct.pack("16sH22x", DEVICE.encode(), IFF_UP_RUNNING)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as host:
        host.bind((DEVICE, 0))
        yield Net(fd, host)
    os.close(fd)  # which removes the device


@pytest.fixture
def watcher() -> Iterator[Frames]:
    made = Frames()
    made.start()
    yield made
    made.close()


def network(subnet: IPv4Network = SUBNET) -> GuestNetwork:
    return GuestNetwork("net", subnet, subnet[1], subnet[2], subnet[99])


def instance(address: IPv4Address = GUEST) -> Instance:
    return Instance(
        name=f"ew-t-{address}",
        service="web",
        host="a",
        address=address,
        address6=None,
        mac=mac_of(address),
        state=InstanceState.BOOTING,
        created_at=0.0,
    )


def stages(trace: WakeTrace) -> list[str]:
    return [stage for stage, _ in trace.wake(1).stamps]


def listening(watcher: Frames) -> bool:
    return any(ear.socket is not None for ear in watcher._ears.values())


@needs_root
def test_the_first_packet_of_a_guest_is_stamped_and_a_clients_first_byte(
    net: Net, watcher: Frames
) -> None:
    trace = WakeTrace("web")
    watcher.watch(network(), instance(), trace)
    eventually(lambda: listening(watcher))
    net.guest_says(ARP[:6] + mac(OTHER) + ARP[6:])  # a neighbour, of whom nobody wants to know
    before = time.monotonic()
    net.guest_says(ARP[:6] + mac(GUEST) + ARP[6:])
    after = time.monotonic()
    eventually(lambda: "frame" in stages(trace))
    seen_at = trace.at("frame")
    assert seen_at is not None
    assert before - 0.05 <= seen_at <= after + 0.05
    net.host_says(to_guest(SYN, port=1))  # our own probe
    net.guest_says(from_guest(SYN_ACK, port=1))
    net.guest_says(from_guest(ACK, b"200 OK", port=1))
    trace.stamp("answer")
    trace.ended("ready")
    trace.replied()
    net.guest_says(from_guest(ACK, b"more", port=1))  # the probe's connection again
    net.guest_says(from_guest(None, b"what time is it?", port=123))
    net.host_says(to_guest(None, b"noon", port=123))
    net.guest_says(from_guest(None, b"thanks", port=123))
    net.host_says(to_guest(SYN, port=2))
    net.guest_says(from_guest(SYN_ACK, port=2))
    time.sleep(0.1)
    assert "client" not in stages(trace)
    net.guest_says(from_guest(ACK, b"<html>", port=2))
    eventually(lambda: "client" in stages(trace))
    eventually(lambda: not listening(watcher))
    assert stages(trace) == ["query", "frame", "answer", "reply", "client"]


@needs_root
def test_what_is_said_in_a_guests_name_is_not_its_first_packet(net: Net, watcher: Frames) -> None:
    trace = WakeTrace("web")
    watcher.watch(network(), instance(), trace)
    eventually(lambda: listening(watcher))
    net.host_says(b"\xff" * 6 + mac(GUEST) + ARP[6:])
    net.host_says(to_guest(SYN))
    trace.stamp("start")
    net.guest_says(b"\xff" * 6 + mac(GUEST) + ARP[6:])
    eventually(lambda: "frame" in stages(trace))
    assert stages(trace) == ["query", "start", "frame"]


@needs_root
def test_one_socket_serves_all_wakes_of_a_network(net: Net, watcher: Frames) -> None:
    addresses = [SUBNET[number] for number in range(2, 60)]
    traces = {address: WakeTrace("web") for address in addresses}
    for address, trace in traces.items():
        watcher.watch(network(), instance(address), trace)
    eventually(lambda: [len(ear.watches) for ear in watcher._ears.values()] == [len(addresses)])
    for address in addresses[::2]:
        net.guest_says(ARP[:6] + mac(address) + ARP[6:])
    eventually(lambda: "frame" in stages(traces[addresses[-2]]))
    told = [address for address, trace in traces.items() if "frame" in stages(trace)]
    assert told == addresses[::2]
    for trace in traces.values():
        trace.ended("not-ready")
    eventually(lambda: not listening(watcher))


@needs_root
def test_a_filter_takes_as_many_guests_as_may_be_watched(net: Net) -> None:
    ear = frames._Ear(DEVICE)
    try:
        for number in range(frames.MOST_WATCHED + 5):
            ear.add(frames._Watch(DEVICE, number, WakeTrace("web"), time.monotonic()))
        assert len(ear.watches) == frames.MOST_WATCHED
    finally:
        ear.close()


@needs_root
def test_the_next_host_of_a_wake_takes_the_place_of_the_first(net: Net, watcher: Frames) -> None:
    trace = WakeTrace("web")
    for address in (GUEST, OTHER):
        watcher.watch(network(), instance(address), trace)
    eventually(lambda: [[*ear.watches] for ear in watcher._ears.values()] == [[int(OTHER)]])


@needs_root
def test_watching_ends_a_while_after_the_reply(
    net: Net, watcher: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LINGER_S", 0.05)
    trace = WakeTrace("web")
    watcher.watch(network(), instance(), trace)
    eventually(lambda: listening(watcher))
    time.sleep(3 * frames.TICK_S)
    assert listening(watcher), "given up while the guest boots"
    trace.replied()
    eventually(lambda: not listening(watcher))


@needs_root
def test_a_network_that_goes_away_is_no_error(
    watcher: Frames, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "AGAIN_S", 0.0)
    monkeypatch.setattr(neighbours, "interface_on", lambda *_: "ewfrm-gone")
    watcher.watch(network(), instance(), WakeTrace("web"))
    eventually(lambda: not watcher._new)
    monkeypatch.undo()
    watcher._places.clear()
    net = request.getfixturevalue("net")
    trace = WakeTrace("web")
    watcher.watch(network(), instance(), trace)
    eventually(lambda: listening(watcher))
    net.guest_says(ARP[:6] + mac(GUEST) + ARP[6:])
    eventually(lambda: "frame" in stages(trace))


def test_a_network_that_is_not_here_costs_nothing(watcher: Frames) -> None:
    trace = WakeTrace("web")
    watcher.watch(network(ELSEWHERE), instance(ELSEWHERE[2]), trace)
    eventually(lambda: ELSEWHERE in watcher._places)
    assert watcher._places[ELSEWHERE][0] == ""
    watcher.watch(network(ELSEWHERE), instance(ELSEWHERE[2]), trace)
    assert not watcher._new
    assert stages(trace) == ["query"]


def test_without_the_right_nobody_is_watched_and_it_is_told_once(
    watcher: Frames, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(neighbours, "interface_on", lambda *_: "lo")
    monkeypatch.setattr(frames._Ear, "add", refuse)
    with caplog.at_level("INFO", "orchestrator.frames"):
        watcher.watch(network(), instance(), WakeTrace("web"))
        eventually(lambda: watcher.trouble)
        watcher.watch(network(), instance(), WakeTrace("web"))
    assert not watcher._new
    (record,) = caplog.records
    assert "CAP_NET_RAW" in record.message


def test_it_can_be_closed_at_any_time() -> None:
    Frames().close()
    started = Frames()
    started.start()
    started.close()
    started.watch(network(), instance(), WakeTrace("web"))
