"""Datagrams in batches are served as they are one by one, whatever they are mixed with."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dns_boot import udp_batch
from dns_boot.rates import Limiter
from dns_boot.resolver import Resolver
from dns_boot.udp import DRAIN, UdpDoor
from dns_boot.udp_batch import BATCHES, BatchDoor, door_of
from orchestrator.steering.base import Route

Handed = list[tuple[bytes, Any]]


class Rig:
    """A door on a loopback address, and clients that ask it."""

    def __init__(self, address: str, resolver: Resolver, *, plain: bool = False) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.handed: Handed = []
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.udp.bind((address, 0))
        self.udp.setblocking(False)
        self.clients = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(4)]
        for client in self.clients:
            client.bind((address, 0))
            client.connect(self.udp.getsockname())
            client.setblocking(False)
        make = UdpDoor if plain else door_of
        self.door = make(self.udp, resolver.packed, self._hand)

    def _hand(self, door: UdpDoor, packet: bytes, peer: Any) -> None:
        assert door is self.door
        self.handed.append((packet, peer))

    def close(self) -> None:
        for sock in (self.udp, *self.clients):
            sock.close()

    def heard(self) -> list[list[bytes]]:
        return [list(_all(client)) for client in self.clients]


def _all(client: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield client.recv(4096)


@pytest.fixture
def awake(lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any]) -> Resolver:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    asker(resolver)(lab.query())
    asker(resolver)(lab.query(edns=1232))
    return resolver


@pytest.fixture
def rig(awake: Resolver) -> Iterator[Callable[..., Rig]]:
    """Return a maker of rigs: `rig(address, plain=False)`."""
    with contextlib.ExitStack() as stack:

        def make(address: str = "127.0.0.1", *, plain: bool = False) -> Rig:
            made = Rig(address, awake, plain=plain)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_each_gets_its_own_reply_and_the_rest_is_handed_on(
    lab: SimpleNamespace, rig: Callable[..., Rig], address: str
) -> None:
    here = rig(address)
    assert isinstance(here.door, BatchDoor)
    for number in range(40):
        here.clients[number % 4].send(lab.query(ident=number, edns=1232 if number % 3 else None))
        if number % 5 == 0:
            here.clients[number % 4].send(lab.query("nobody.edge.test", ident=number))
    here.door.drain()
    for place, replies in enumerate(here.heard()):
        assert [int.from_bytes(reply[:2], "big") for reply in replies] == [*range(place, 40, 4)]
    assert [packet for packet, _ in here.handed] == [
        lab.query("nobody.edge.test", ident=number) for number in range(0, 40, 5)
    ]
    assert [peer[:2] for _, peer in here.handed] == [
        here.clients[number % 4].getsockname()[:2] for number in range(0, 40, 5)
    ]
    packet, peer = here.handed[0]
    here.door.reply(packet, peer, b"a reply")
    assert here.heard()[0] == [b"a reply"]


def test_more_than_a_batch_takes_several(lab: SimpleNamespace, rig: Callable[..., Rig]) -> None:
    here = rig()
    for number in range(BATCHES * DRAIN + 3):
        here.clients[number % 4].send(lab.query(ident=number))
    here.door.drain()
    assert sum(map(len, here.heard())) == BATCHES * DRAIN
    here.door.drain()
    assert sum(map(len, here.heard())) == 3
    here.door.drain()


def test_the_limited_are_dropped_out_of_the_middle(
    lab: SimpleNamespace, rig: Callable[..., Rig], awake: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = rig()
    monkeypatch.setattr("dns_boot.rates.LOOPBACK", ())
    awake.packed.limiter = Limiter(2)
    for number in range(10):
        here.clients[0].send(lab.query(ident=number))
    here.door.drain()
    replies = here.heard()[0]
    assert [reply[1] for reply in replies] == [0, 1, 2, 3, 5, 7, 9]
    assert [bool(reply[2] & 2) for reply in replies] == [False] * 4 + [True] * 3


def test_a_reply_that_cannot_be_sent_does_not_keep_the_others(
    lab: SimpleNamespace, rig: Callable[..., Rig]
) -> None:
    here = rig()
    assert isinstance(here.door, BatchDoor)
    for number in range(6):
        here.clients[number % 2].send(lab.query(ident=number))
    send, calls = here.door._send_many, []

    def fails_once(descriptor: int, messages: Any, count: int, flags: int) -> int:
        calls.append(count)
        if len(calls) == 2:
            return -1
        return int(send(descriptor, messages, 2 if len(calls) == 1 else count, flags))

    here.door._send_many = fails_once
    here.door.drain()
    assert calls == [6, 4, 3]
    assert sorted(reply[1] for replies in here.heard() for reply in replies) == [0, 1, 3, 4, 5]


def test_packets_of_any_length_come_through(lab: SimpleNamespace, rig: Callable[..., Rig]) -> None:
    here, sizes = rig(), (0, 1, 12, 512, 4096)
    for size in (*sizes, 9000):
        here.clients[0].send(b"\xff" * size)
    here.door.drain()
    assert [len(packet) for packet, _ in here.handed] == [*sizes, 4096]


@given(
    packets=st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.tuples(st.integers(0, 65535), st.booleans(), st.booleans()),
        ),
        max_size=DRAIN,
    )
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_loops_say_the_same(
    lab: SimpleNamespace, rig: Callable[..., Rig], packets: list[Any]
) -> None:
    rigs = [rig(), rig(plain=True)]
    for number, packet in enumerate(packets):
        if isinstance(packet, tuple):
            ident, known, edns = packet
            name = "web.edge.test" if known else "nobody.edge.test"
            packet = lab.query(name, ident=ident, edns=1232 if edns else None)  # noqa: PLW2901
        for here in rigs:
            here.clients[number % 4].send(packet)
    for here in rigs:
        here.door.drain()
    batch, plain = rigs
    assert batch.heard() == plain.heard()
    assert [packet for packet, _ in batch.handed] == [packet for packet, _ in plain.handed]
    for here in rigs:
        here.close()


def test_without_the_calls_there_is_the_plain_loop(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_batch, "_calls", lambda: None)
    assert type(rig().door) is UdpDoor


def test_a_socket_on_all_addresses_has_the_plain_loop(rig: Callable[..., Rig]) -> None:
    assert type(rig("0.0.0.0").door) is UdpDoor
