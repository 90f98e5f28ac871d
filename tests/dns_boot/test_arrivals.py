"""When a datagram came, by the kernel."""

import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dns_boot.arrivals import arrived_at, note_arrivals
from dns_boot.resolver import Resolver, Source
from dns_boot.server import DnsServer

WAIT_S = 0.2


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a bound UDP socket, and one that is connected to it."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        ours.settimeout(10)
        theirs.connect(ours.getsockname())
        note_arrivals(ours)
        for _ in range(100):  # the kernel begins to note times a moment later, from a work queue
            theirs.send(b"noted?")
            time.sleep(0.02)
            ours.recv(100)
            if time.monotonic() - arrived_at(ours) > 0.01:
                break
        yield ours, theirs


def test_the_time_is_when_it_came_and_not_when_it_was_read(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    before = time.monotonic()
    theirs.send(b"query")
    sent = time.monotonic()
    time.sleep(WAIT_S)
    ours.recv(100)
    slack = 0.05  # the two clocks are read one after the other
    assert before - slack <= arrived_at(ours) <= sent + slack


def test_a_clock_that_was_set_is_not_believed(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    theirs.send(b"query")
    ours.recv(100)
    real = time.time()
    for wrong in (real + 3600, real - 3600):
        monkeypatch.setattr("dns_boot.arrivals.time.time", lambda wrong=wrong: wrong)
        now = time.monotonic()
        assert now <= arrived_at(ours) <= time.monotonic()


def test_where_the_kernel_does_not_tell_it_is_now() -> None:
    ours, theirs = socket.socketpair()  # of another family, which has no such times
    with ours, theirs:
        note_arrivals(ours)
        now = time.monotonic()
        assert now <= arrived_at(ours) <= time.monotonic()


def test_a_wake_knows_when_its_query_came(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any
) -> None:
    resolver.set(lab.routes)
    server = DnsServer(resolver, "127.0.0.1", 0)
    server.start()
    before = time.monotonic()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect(server.address)
            client.send(lab.query())
            client.recv(4096)
        query = lab.query("six.deep.edge.test")
        with socket.create_connection(server.address, timeout=10) as stream:
            stream.send(len(query).to_bytes(2, "big") + query)
            stream.recv(4096)
    finally:
        server.stop()
    udp, tcp = summoner.asked_at
    assert before - 0.05 <= udp <= tcp <= time.monotonic()


def test_when_a_packet_came_is_no_part_of_whence() -> None:
    assert Source("192.0.2.1", 1, at=1.0) == Source("192.0.2.1", 1, at=2.0)
    assert hash(Source("192.0.2.1", 1, at=1.0)) == hash(Source("192.0.2.1", 1))
