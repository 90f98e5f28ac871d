"""Guests behind this machine as their router: real packets, TCP and UDP, IPv4 and IPv6."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import CannotGuard
from orchestrator.guards import routed
from orchestrator.guards.base import Asked, Guard, Guarded
from orchestrator.guards.routed import RoutedGuard
from orchestrator.model import Port, Probe, ProbeKind
from orchestrator.readiness import Target, wait
from tests.contracts.guard import HoldingGuardContract
from tests.orchestrator.guards.wires import Server, Wires, get, ip, wired, within
from tests.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

NUMBER = 217
UDP_PORT = 9000


@pytest.fixture
def wires() -> Iterator[Wires]:
    with wired(NUMBER) as made:
        yield made


@contextmanager
def guarding(
    wires: Wires, listener: Callable[[Asked], None], *guarded: Guarded
) -> Iterator[RoutedGuard]:
    guard = RoutedGuard(wires.host, listener)
    try:
        guard.set(guarded)
        yield guard
    finally:
        guard.close()


class Datagrams:
    """Counts datagrams that come to a guest, by the address they were for."""

    def __init__(self, namespace: str) -> None:
        self.came: list[str] = []
        self.bodies: list[bytes] = []
        self._namespace = namespace
        self._socket = within(namespace, self._open).result(5)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        made.bind(("::", UDP_PORT))
        return made

    def _run(self) -> None:
        while True:
            try:
                body, ancillary, _, _ = self._socket.recvmsg(2048, 1024)
            except OSError:
                return
            if body == b"stop":
                return
            target = ancillary[0][2][:16]
            self.bodies.append(body)
            self.came.append(socket.inet_ntop(socket.AF_INET6, target).removeprefix("::ffff:"))

    def close(self) -> None:
        within(self._namespace, lambda: send("::1", b"stop")).result(5)
        self._thread.join(5)
        self._socket.close()


class TestRouted(HoldingGuardContract):
    """The contract, with a guest that is there all the time and datagrams of this machine."""

    @pytest.fixture(autouse=True)
    def rig(self) -> Iterator[None]:
        with wired(NUMBER) as self.wires:
            for number in (10, 11):
                self.wires.up(number)
            self.mac = mac(self.wires.guest)  # one card stands for both guests
            self.datagrams = Datagrams(self.wires.guest)
            yield
            self.datagrams.close()

    def make(self, listener: Callable[[Asked], None]) -> Guard:
        return RoutedGuard(self.wires.host, listener)

    def thing(self, number: int) -> Guarded:
        return self.wires.guarded(number, mac=self.mac)

    def send(self, guard: Guard, guarded: Guarded) -> None:
        send(str(guarded.address))

    def delivered(self, guard: Guard, guarded: Guarded) -> int:
        return self.datagrams.came.count(str(guarded.address))


def send(address: str, body: bytes = b"first") -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(body, (address, UDP_PORT))


def mac(namespace: str) -> str:
    def own() -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as card:
            card.bind(("eth0", 0))
            return str(card.getsockname()[4].hex(":"))

    return within(namespace, own).result(5)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("whence", ["client", "here"])
def test_a_tcp_client_waits_for_the_boot_and_is_served(
    wires: Wires, version: int, whence: str
) -> None:
    """The guest's network is up before its service, it announces itself, and we probe it."""
    woken: Future[float] = Future()

    def boot(asked: Asked) -> None:
        woken.set_result(asked.at)

    thing = wires.guarded()
    with guarding(wires, boot, thing) as guard:
        to = str(thing.address if version == 4 else thing.address6)
        began = time.monotonic()
        page = within(wires.client if whence == "client" else "", lambda: get(to))
        assert woken.result(2) - began < 1
        wires.up()
        within(wires.guest, lambda: send(str(wires.gateway)))  # so the host learns where it is
        server = Server(wires.guest, opens_after=0.4)
        wait(
            Probe(ProbeKind.TCP, port=80),
            Target(thing.address, thing.address6, thing.mac, bytes, device=guard.device),
            deadline=time.monotonic() + 5,
            cancelled=lambda: None,
        )
        ready = time.monotonic()
        guard.release(thing.address)
        assert page.result(5) == b"hello"
        assert time.monotonic() - ready < 0.9, "it came by the client's sending again after 1 s"
        assert server.stop() >= 1


@pytest.mark.parametrize("kind", [ProbeKind.ARP, ProbeKind.ICMP, ProbeKind.HTTP])
def test_a_guarded_guest_is_probed_past_the_guard(wires: Wires, kind: ProbeKind) -> None:
    """Our own probes neither are held nor wake; and what answers them is not ready otherwise."""
    asked: list[Asked] = []
    thing = wires.guarded()
    target = Target(thing.address, thing.address6, thing.mac, bytes, device=wires.name)
    wires.up()
    server = Server(wires.guest, page=b"HTTP/1.1 204 \r\n\r\n")
    server.wait_open()
    with guarding(wires, asked.append, thing):
        wait(
            Probe(kind, port=80, status=204),
            target,
            deadline=time.monotonic() + 5,
            cancelled=lambda: None,
        )
    assert not asked
    server.stop()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("whence", ["client", "here"])
def test_the_first_datagrams_are_delivered_in_order(
    wires: Wires, version: int, whence: str
) -> None:
    asked: list[Asked] = []
    thing = wires.guarded()
    with guarding(wires, asked.append, thing) as guard:
        to = str(thing.address if version == 4 else thing.address6)
        for number in range(5):
            within(
                wires.client if whence == "client" else "", lambda n=number: send(to, b"%d" % n)
            ).result(5)
        eventually(lambda: len(asked) == 1)
        wires.up()
        datagrams = Datagrams(wires.guest)
        guard.release(thing.address)
        eventually(lambda: len(datagrams.bodies) == 5)
        assert datagrams.bodies == [b"0", b"1", b"2", b"3", b"4"]
        datagrams.close()


def test_only_what_begins_something_on_a_port_of_the_service_wakes(wires: Wires) -> None:
    asked: list[Asked] = []
    thing = replace(wires.guarded(), ports=(Port(80), Port(UDP_PORT + 1, "udp")))
    with guarding(wires, asked.append, thing) as guard:
        send(str(thing.address))
        with pytest.raises(TimeoutError):
            get(str(thing.address), port=81, timeout_s=0.2)
        assert not asked
        guard.set([replace(thing, ports=(Port(UDP_PORT, "udp"),))])
        send(str(thing.address))
        eventually(lambda: len(asked) == 1)
        assert asked[0].client.endswith(f"for {thing.address} udp/{UDP_PORT}")


def test_an_address_that_is_not_guarded_wakes_nobody(wires: Wires) -> None:
    asked: list[Asked] = []
    with guarding(wires, asked.append, wires.guarded()):
        for last in range(11, 60):
            send(str(wires.guarded(last).address))
        time.sleep(0.1)
    assert not asked


def test_a_flood_keeps_neither_the_wake_nor_the_release_waiting(
    wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []
    thing = wires.guarded()
    ends = time.monotonic() + 20  # so that a guard that never ends does not stay behind
    with guarding(wires, asked.append, thing) as guard:
        read = guard._tun.read
        first: list[bytes] = []

        def flood() -> bytes | None:
            if not first and (packet := read()):
                first.append(packet)
            return first[0] if first and time.monotonic() < ends else None

        monkeypatch.setattr(guard._tun, "read", flood)
        send(str(thing.address))
        eventually(lambda: len(asked) == 1)
        released = threading.Thread(target=guard.release, args=(thing.address,), daemon=True)
        released.start()
        released.join(5)
        assert not released.is_alive()
        ends = 0.0


def test_what_was_changed_here_is_put_back(wires: Wires) -> None:
    strict = Path(f"/proc/sys/net/ipv4/conf/{wires.name}/rp_filter")
    strict.write_text("1")
    with guarding(wires, lambda _: None, wires.guarded()) as guard:
        assert strict.read_text().strip() == "2"
        assert "ewguard" in routes(wires)
        assert guard.device == wires.name
    assert strict.read_text().strip() == "1"
    assert "ewguard" not in routes(wires)
    assert threading.active_count() < 10


def routes(wires: Wires) -> str:
    words = ["ip", "route", "show", "root", str(wires.network.subnet)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_bridge_that_is_made_anew_is_guarded_again(wires: Wires) -> None:
    thing = wires.guarded()
    asked: list[Asked] = []
    with guarding(wires, asked.append, thing) as guard:
        ip(f"addr flush dev {wires.name}")
        with pytest.raises(CannotGuard, match="network"):
            guard.set([thing])
        ip(f"link del {wires.name}")
        ip(f"link add {wires.name} type bridge")
        ip(f"link set {wires.name} up")
        ip(f"addr add {wires.gateway}/24 dev {wires.name}")
        guard.set([thing])
        send(str(thing.address))
        eventually(lambda: len(asked) == 1)


def test_a_route_that_could_not_be_taken_back_is_with_the_next_list(
    wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else packets for a guest that is awake would come to us for ever."""
    thing = wires.guarded()
    with guarding(wires, lambda _: None, thing) as guard:
        with monkeypatch.context() as failing:

            def fails(*_: object) -> None:
                raise OSError(24, "Too many open files")

            failing.setattr(routed, "remove_route", fails)
            guard.release(thing.address)
            send(str(thing.address))
            time.sleep(0.1)
            began = time.monotonic()
            guard.refuse(thing.address)
            assert time.monotonic() - began < 2, "the packet went round and round"
        assert str(thing.address) in routes(wires)
        guard.set([])
        assert str(thing.address) not in routes(wires)


def test_a_network_that_changes_leaves_no_route_behind(wires: Wires) -> None:
    first, second = wires.guarded(10), wires.guarded(11)
    with guarding(wires, lambda _: None, first, second) as guard:
        guard._source = {4: guard._source[4]}  # as before its IPv6 address came
        guard.set([second])
        assert str(first.address) not in routes(wires)
        assert str(second.address) in routes(wires)


@pytest.mark.parametrize("how", ["link set {} down", "link del {}"])
def test_a_device_that_somebody_takes_away_is_replaced(wires: Wires, how: str) -> None:
    strict = Path(f"/proc/sys/net/ipv4/conf/{wires.name}/rp_filter")
    strict.write_text("1")
    thing = [wires.guarded()]
    asked: list[Asked] = []
    with guarding(wires, asked.append) as guard:
        guard.set(thing)
        ip(how.format(guard._tun.name))
        guard.set(thing)
        send(str(thing[0].address))
        eventually(lambda: len(asked) == 1)
        assert routes(wires).count("ewguard") == 1
    assert strict.read_text().strip() == "1"


def test_without_the_rights_it_says_what_it_needs(
    wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted", "/dev/net/tun")

    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    monkeypatch.setattr(routed, "Tun", refuse)
    with pytest.raises(CannotGuard, match=r"not permitted.*CAP_NET_ADMIN") as caught:
        RoutedGuard(wires.host, lambda _: None)
    assert caught.value.message.startswith("box: ")
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_machine_that_is_not_the_router_says_so() -> None:
    with wired(NUMBER, routed=False) as wires, pytest.raises(CannotGuard, match="no address on"):
        RoutedGuard(wires.host, lambda _: None)
