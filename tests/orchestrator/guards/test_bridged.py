"""Clients on the guests' own bridge: they are answered when the guest is ready, or held for it."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestrator.errors import CannotGuard
from orchestrator.guards.base import Asked, Guard, Guarded
from orchestrator.guards.bridged import PATIENCE_S, BridgedGuard
from orchestrator.guards.ladder import open_guard
from tests.contracts.guard import GuardContract
from tests.orchestrator.guards.test_routed import Datagrams, mac, send
from tests.orchestrator.guards.wires import Server, Wires, get, ip, wired, within
from tests.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

NUMBER = 219


@pytest.fixture
def wires() -> Iterator[Wires]:
    with wired(NUMBER, routed=False) as made:
        yield made


@contextmanager
def guarding(wires: Wires, listener: Callable[[Asked], None], *guarded: Guarded) -> Iterator[Guard]:
    guard = BridgedGuard("box", wires.name, listener)
    try:
        guard.set(guarded)
        yield guard
    finally:
        guard.close()


def from_neighbour(wires: Wires, address: str, body: bytes = b"first") -> None:
    within(wires.neighbour, lambda: send(address, body)).result(5)


class TestBridged(GuardContract):
    """The contract, with the datagrams of a neighbour and a guest that answers nobody by itself."""

    @pytest.fixture(autouse=True)
    def rig(self) -> Iterator[None]:
        with wired(NUMBER, routed=False) as self.wires:
            for number in (10, 11):
                self.wires.up(number)
            self.mac = mac(self.wires.guest)
            ip(f"-n {self.wires.guest} link set eth0 arp off")
            self.datagrams = Datagrams(self.wires.guest)
            yield
            self.datagrams.close()

    def make(self, listener: Callable[[Asked], None]) -> Guard:
        return BridgedGuard("box", self.wires.name, listener)

    def thing(self, number: int) -> Guarded:
        return self.wires.guarded(number, mac=self.mac)

    def send(self, guard: Guard, guarded: Guarded) -> None:
        from_neighbour(self.wires, str(guarded.address))

    def delivered(self, guard: Guard, guarded: Guarded) -> int:
        return self.datagrams.came.count(str(guarded.address))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("boot_s", [0.3, PATIENCE_S + 1.2])
def test_a_neighbour_waits_for_the_boot_and_is_served(
    wires: Wires, version: int, boot_s: float
) -> None:
    asked: list[Asked] = []
    thing = wires.guarded()
    to = str(thing.address if version == 4 else thing.address6)
    with guarding(wires, asked.append, thing) as guard:
        began = time.monotonic()
        page = within(wires.neighbour, lambda: get(to))
        eventually(lambda: len(asked) == 1)
        assert asked[0].client.endswith(f"for {to}")
        time.sleep(boot_s)
        wires.up()
        server = Server(wires.guest)
        server.wait_open()
        ready = time.monotonic()
        guard.release(thing.address)
        assert page.result(9) == b"hello"
        assert time.monotonic() - ready < 0.9, "it came by the client's own asking again"
        assert time.monotonic() - began < boot_s + 2
        assert server.stop() == 1


def test_first_datagrams_are_delivered(wires: Wires) -> None:
    asked: list[Asked] = []
    thing = wires.guarded()
    with guarding(wires, asked.append, thing) as guard:
        for number in range(3):
            from_neighbour(wires, str(thing.address), b"%d" % number)
        eventually(lambda: len(asked) == 1)
        wires.up()
        datagrams = Datagrams(wires.guest)
        guard.release(thing.address)
        eventually(lambda: datagrams.bodies == [b"0", b"1", b"2"])
        datagrams.close()


def test_nobody_else_wakes_anybody(wires: Wires) -> None:
    """Not who wants another address, not the guest itself, not who looks for a free one."""
    asked: list[Asked] = []
    thing = wires.guarded()
    with guarding(wires, asked.append, thing):
        for last in range(11, 40):
            from_neighbour(wires, str(wires.network.subnet[last]))
        wires.up()
        within(wires.guest, lambda: announce(str(thing.address))).result(5)
        time.sleep(0.1)
    assert not asked


def announce(address: str) -> None:
    own = socket.inet_aton(address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as card:
        card.bind(("eth0", 0))
        mac = card.getsockname()[4]
        for source in (own, bytes(4)):
            arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, source, bytes(6), own)
            card.send(b"\xff" * 6 + mac + b"\x08\x06" + arp)


def test_a_bridge_that_is_made_anew_is_heard_again(wires: Wires) -> None:
    asked: list[Asked] = []
    thing = wires.guarded()
    with guarding(wires, asked.append, thing) as guard:
        ip(f"link del {wires.name}")
        with pytest.raises(CannotGuard):
            guard.set([thing])
        ip(f"link add {wires.name} type bridge forward_delay 0")
        ip(f"link set {wires.name} up")
        ip(f"link set {wires.neighbour} master {wires.name}")
        guard.set([thing])
        from_neighbour(wires, str(thing.address))
        eventually(lambda: len(asked) == 1)


def test_what_is_no_bridge_is_refused() -> None:
    with pytest.raises(CannotGuard, match="is no bridge"):
        BridgedGuard("box", "lo", lambda _: None)


def test_the_ladder_takes_what_there_is(wires: Wires) -> None:
    only_bridged = open_guard(wires.host, lambda _: None)
    assert (only_bridged.how, only_bridged.device) == ("bridged", "")
    only_bridged.close()
    ip(f"addr add {wires.gateway}/24 dev {wires.name}")
    both = open_guard(wires.host, lambda _: None)
    assert (both.how, both.device) == ("routed, bridged", wires.name)
    both.close()
    ip(f"addr flush dev {wires.name}")
    ip(f"link set {wires.name} name {wires.name}x")
    with pytest.raises(CannotGuard, match="no address on"):
        open_guard(wires.host, lambda _: None)
    ip(f"link set {wires.name}x name {wires.name}")


def test_who_asks_by_two_ways_is_told_once(wires: Wires) -> None:
    asked: list[Asked] = []
    thing = wires.guarded()
    ip(f"addr add {wires.gateway}/24 dev {wires.name}")
    guard = open_guard(wires.host, asked.append)
    try:
        guard.set([thing])
        from_neighbour(wires, str(thing.address))
        send(str(thing.address))
        eventually(lambda: len(asked) == 1)
        wires.up()
        datagrams = Datagrams(wires.guest)
        guard.release(thing.address)
        eventually(lambda: len(datagrams.bodies) == 2)
        assert len(asked) == 1
        datagrams.close()
    finally:
        guard.close()
