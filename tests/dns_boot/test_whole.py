"""The DNS server with a whole control behind it, hosts in memory: one flight, sleep, bad days."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from dnslib import DNSRecord

from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.model import DnsSettings, IdlePolicy, Lab, Service, WakeBudget
from orchestrator.store.sql import SqlStore
from tests.world import World, a_host, a_service, an_image, straight_to_cold

PATIENCE_S = 60.0
AS_MANY = WakeBudget(client_rate_s=1e6, client_burst=10**6, total_rate_s=1e6, total_burst=10**6)
SETTINGS = DnsSettings("edge.test", wake_budget=AS_MANY)
AT_ONCE = 10_000
Query = Callable[..., bytes]


@pytest.fixture
def query(lab: Any) -> Query:
    return lab.query  # type: ignore[no-any-return]


class Whole:
    """A world with a DNS server in front of it."""

    def __init__(self, folder: Path, services: tuple[Service, ...], processes: int) -> None:
        host = a_host("h1", memory_mib=1 << 16)
        lab = Lab("t", SETTINGS, (host,), images=(an_image(folder),), services=services)
        self.world = World(lab, SqlStore(f"sqlite:///{folder / 'state.db'}"))
        self.world.boot_s = 0.05
        self.control = self.world.start()
        self.resolver = Resolver(SETTINGS, lambda: self.control.lab.populations, self.control)
        self.control._steering.use(self.resolver)
        self.control._steering.steer()
        self.server = DnsServer(self.resolver, "127.0.0.1", 0, processes=processes)
        self.server.start()

    @property
    def starts(self) -> list[str]:
        """Every instance that was ever built."""
        return self.world.drivers["h1"].starts

    def close(self) -> None:
        self.server.stop()
        self.control.close()
        self.world.store.close()

    def ask(self, packet: bytes, timeout_s: float = PATIENCE_S) -> DNSRecord:
        with self.client(timeout_s) as sock:
            sock.send(packet)
            return DNSRecord.parse(sock.recv(4096))

    @contextlib.contextmanager
    def client(self, timeout_s: float = PATIENCE_S) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(self.server.address)
            yield sock


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Callable[..., Whole]]:
    """Return a maker of worlds with a DNS server: `whole(*services, processes=1)`."""
    with contextlib.ExitStack() as stack:

        def make(*services: Service, processes: int = 1) -> Whole:
            made = Whole(tmp_path, services, processes)
            stack.callback(made.close)
            return made

        yield make


def test_a_wake_asked_of_three_processes_boots_once(
    query: Query, whole: Callable[..., Whole]
) -> None:
    here = whole(a_service("web"), processes=3)
    here.world.answer_s["web"] = 0.3
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(here.client()) for _ in range(60)]
        for number, client in enumerate(clients):
            client.send(query(ident=number))
        replies = [DNSRecord.parse(client.recv(4096)) for client in clients]
    assert len({str(reply.rr[0].rdata) for reply in replies}) == 1
    assert len(here.starts) == 1


def test_who_was_named_is_there_for_as_long_as_the_answer_lives(
    query: Query, whole: Callable[..., Whole]
) -> None:
    """It falls asleep after every silence, in the very moment in which everybody asks again."""
    web = a_service("web", ttl_s=1, idle=straight_to_cold(0.0))
    here = whole(web, processes=2)
    for _ in range(60):
        here.ask(query())
    slept = 0
    for pause_s in (0.0, 0.005, 0.02, 0.04, 0.06, 0.1):
        time.sleep(1.1)
        before = len(here.starts)
        with ThreadPoolExecutor(4) as pool:
            falling = pool.submit(here.control.expire)
            time.sleep(pause_s)
            asked = [pool.submit(here.ask, query()) for _ in range(40)]
            for each in asked:
                (record,) = each.result().rr
                assert here.world.service_at(IPv4Address(str(record.rdata))) == "web"
            falling.result()
            for each in asked:
                (record,) = each.result().rr
                assert here.world.service_at(IPv4Address(str(record.rdata))) == "web"
        slept += len(here.starts) - before
    assert slept  # else nothing was tried


@pytest.mark.parametrize(
    ("processes", "exist"), [(1, True), (2, False)], ids=["cold names", "no such names"]
)
def test_ten_thousand_names_in_a_second(
    *, query: Query, whole: Callable[..., Whole], processes: int, exist: bool
) -> None:
    """Warm names are answered all along, nobody runs out of anything, and it is over when it is."""
    never = IdlePolicy(after_s=None, min_up_s=0.0)
    warm = replace(a_service("web", ttl_s=60), idle=never)
    cold = (a_service(f"s{number}") for number in range(AT_ONCE if exist else 0))
    here = whole(warm, *cold, a_service("late", deadline_s=PATIENCE_S), processes=processes)
    here.ask(query())
    threads = threading.active_count()
    waited, stop = [], threading.Event()

    def asks() -> None:
        while not stop.is_set():
            before = time.monotonic()
            assert here.ask(query()).rr
            waited.append(time.monotonic() - before)
            time.sleep(0.01)

    honest = threading.Thread(target=asks)
    honest.start()
    before = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(here.client()) for _ in range(10)]
        for number in range(AT_ONCE):
            clients[number % 10].send(query(f"s{number}.edge.test", ident=number))
            if number % 100 == 99:
                time.sleep(max(0.0, before + number / AT_ONCE - time.monotonic()))
        assert here.resolver.held <= AT_ONCE
        here.world.eventually(lambda: not here.resolver.held, PATIENCE_S)
    stop.set()
    honest.join()
    assert len(waited) > 10
    assert max(waited) < PATIENCE_S / 10  # a lost one would have taken all of it
    assert threading.active_count() <= threads + here.control.settings.parallel_boots + 1
    here.control.expire()  # makes room
    assert here.ask(query("late.edge.test")).rr
