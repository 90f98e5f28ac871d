"""Several processes on one port: who answers, one flight, nobody led astray, and sudden ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord

from dns_boot import front_parent
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.errors import EdgewakeError
from orchestrator.retiring import WITHDRAW_GRACE_S
from orchestrator.steering.base import Route
from tests.waiting import eventually

PATIENCE_S = 30.0
ROOT = Path(__file__).parents[2]
Serve = Callable[..., DnsServer]


@pytest.fixture
def serve(resolver: Resolver) -> Iterator[Serve]:
    """Return a maker of started servers with two processes; the further one serves."""
    with contextlib.ExitStack() as stack:

        def make(listen: str = "127.0.0.1", processes: int = 2) -> DnsServer:
            server = DnsServer(resolver, listen, 0, processes=processes)
            server.start()
            stack.callback(server.stop)
            eventually(lambda: serving(server, processes - 1))
            return server

        yield make


def serving(server: DnsServer, count: int) -> bool:
    """Say whether that many further processes run and have taken over their sockets."""
    fronts = server._fronts
    assert fronts is not None
    idle = [place for place in fronts._places if place.door.fileno() in fronts._called]
    return len(server.front_pids) == count and not idle


def ask(address: tuple[str, int], packet: bytes) -> bytes:
    """Ask from a fresh port, so that the kernel chooses a process anew."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        sock.send(packet)
        return sock.recv(4096)


def last_octet(reply: bytes) -> int:
    return int(str(DNSRecord.parse(reply).rr[0].rdata).rpartition(".")[2])


def gone(pid: int) -> bool:
    """Say whether a process has ended, whoever is to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# --- who answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [None, b"", b"\0\x0a\0\x08abcdefgh"])
def test_warm_answers_come_from_the_further_processes_only(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    options: bytes | None,
) -> None:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    reply, ours = resolver.packed.reply, []

    def counted(*args: Any, **more: Any) -> bytes | None:
        ours.append(args)
        return reply(*args, **more)

    monkeypatch.setattr(resolver.packed, "reply", counted)
    address = serve(processes=3).address
    query = lab.query(edns=None if options is None else 1232, options=options or b"")
    for _ in range(60):
        assert last_octet(ask(address, query)) == 5
    ours.clear()
    replies = [ask(address, query) for _ in range(200)]
    assert {last_octet(reply) for reply in replies} == {5}
    assert not ours
    if options:
        cookie, good = resolver.packed.cookies.answer(replies[0][-24:], "127.0.0.1")
        assert good
        assert {reply[-24:-16] for reply in replies} == {cookie[:8]}


def test_what_a_process_answered_is_reported(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Serve
) -> None:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    address = serve().address
    for _ in range(60):
        ask(address, lab.query())
    sent = 0.0

    def reported() -> bool:
        nonlocal sent
        sent = time.monotonic()
        ask(address, lab.query())
        time.sleep(0.15)  # more than between two reports
        return bool(summoner.asked["web"] >= sent)

    for _ in range(5):
        eventually(reported)


@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_a_reply_leaves_from_the_address_that_was_asked(
    lab: SimpleNamespace, resolver: Resolver, serve: Serve, listen: str
) -> None:
    _, port = serve(listen).address
    for number in range(40):  # handed on, packed here, packed there
        assert last_octet(ask(("127.0.0.77", port), lab.query(ident=number))) == 5
        nobody = ask(("127.0.0.78", port), lab.query("nobody.edge.test"))
        assert DNSRecord.parse(nobody).header.rcode == 3


def test_a_wake_asked_of_several_processes_is_held_in_one(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Serve
) -> None:
    server = serve(processes=3)
    wake = summoner.sleeping("web")
    with contextlib.ExitStack() as stack:
        sockets = []
        for number in range(60):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.settimeout(PATIENCE_S)
            sock.connect(server.address)
            sock.send(lab.query(ident=number))
            sockets.append(sock)
        eventually(lambda: resolver.held == 60)
        resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
        wake.set_result((lab.endpoint("web"),))
        for number, sock in enumerate(sockets):
            reply = sock.recv(4096)
            assert reply[:2] == number.to_bytes(2, "big")
            assert last_octet(reply) == 5


def test_a_second_edgewake_cannot_join_the_port(resolver: Resolver, serve: Serve) -> None:
    _, port = serve().address
    for processes in (1, 2):
        with pytest.raises(EdgewakeError, match="Address already in use"):
            DnsServer(resolver, "127.0.0.1", port, processes=processes).start()


# --- nobody is led astray ---------------------------------------------------------------------


class Flood:
    """Asks for one name from ever new ports; remembers (sent at, last octet)."""

    def __init__(self, address: tuple[str, int], packet: bytes) -> None:
        self.heard: list[tuple[float, int]] = []
        self._address = address
        self._packet = packet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> "Flood":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            sent = time.monotonic()
            octet = last_octet(ask(self._address, self._packet))
            self.heard.append((sent, octet))


def test_who_was_withdrawn_is_named_no_more_and_every_answer_is_known(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Serve
) -> None:
    """What putting a service to sleep rests on, while all processes are flooded."""
    server = serve()
    withdrawn: dict[int, tuple[float, float]] = {}  # octet: (when, asked by then)
    wake = summoner.sleeping("web")
    with Flood(server.address, lab.query()) as flood:
        for octet in range(1, 41):
            resolver.set((Route(lab.WEB, (lab.endpoint("web", octet),)),))
            wake.set_result((lab.endpoint("web", octet),))
            count = len(flood.heard)
            eventually(lambda count=count: len(flood.heard) > count + 20)
            del summoner.futures["web"]
            wake = summoner.sleeping("web")
            resolver.set((Route(lab.WEB),))
            when = time.monotonic()
            time.sleep(WITHDRAW_GRACE_S)
            withdrawn[octet] = (when, summoner.asked["web"])
        wake.set_result((lab.endpoint("web", 99),))
    answered = {octet for _, octet in flood.heard}
    assert answered >= set(withdrawn)
    for sent, octet in flood.heard:
        when, asked = withdrawn.get(octet, (float("inf"), float("inf")))
        assert sent < when, "named after it was withdrawn"
        assert asked >= sent, "an answer that nobody knew of"
    assert server.front_pids


def test_a_process_that_does_not_confirm_is_ended(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(front_parent, "CONFIRM_S", 0.2)
    monkeypatch.setattr(front_parent, "YOUNG_S", 0.0)
    server = serve()
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    for _ in range(60):
        ask(server.address, lab.query())
    (pid,) = server.front_pids
    summoner.asked.clear()
    os.kill(pid, signal.SIGSTOP)
    before = time.monotonic()
    resolver.set((Route(lab.WEB, (lab.endpoint("web", 6),)),))
    assert gone(pid)
    assert summoner.asked["web"] >= before  # whatever it said is taken as said
    assert "did not confirm" in caplog.text
    summoner.sleeping("web").set_result((lab.endpoint("web", 6),))
    eventually(lambda: serving(server, 1))
    assert server.front_pids != (pid,)
    assert {last_octet(ask(server.address, lab.query())) for _ in range(60)} == {6}


# --- sudden ends ------------------------------------------------------------------------------


def test_a_killed_process_is_started_anew_and_the_others_answer_meanwhile(
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve()
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    for _ in range(60):
        ask(server.address, lab.query())
    (pid,) = server.front_pids
    summoner.asked.clear()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: "web" in summoner.asked)
    for _ in range(60):
        assert last_octet(ask(server.address, lab.query())) == 5
    eventually(lambda: serving(server, 1))
    assert server.front_pids != (pid,)
    assert f"DNS process {pid} ended (exit status -9)" in caplog.text
    for _ in range(60):
        assert last_octet(ask(server.address, lab.query())) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_for_all_are_the_first_ones_business(
    lab: SimpleNamespace, resolver: Resolver, serve: Serve, number: signal.Signals
) -> None:
    server = serve()
    (pid,) = server.front_pids
    os.kill(pid, number)
    for _ in range(20):
        ask(server.address, lab.query())
    assert server.front_pids == (pid,)
    server.stop()
    assert gone(pid)


def test_stopping_ends_all_and_frees_the_port(
    lab: SimpleNamespace, resolver: Resolver, serve: Serve
) -> None:
    threads = threading.active_count()
    server = serve(processes=3)
    pids = server.front_pids
    assert len(pids) == 2
    server.stop()
    server.stop()
    assert all(gone(pid) for pid in pids)
    assert threading.active_count() == threads
    with DnsServerOn(resolver, server.address[1]) as address:
        assert last_octet(ask(address, lab.query())) == 5


class DnsServerOn:
    """A server with one process on a given port."""

    def __init__(self, resolver: Resolver, port: int) -> None:
        self._server = DnsServer(resolver, "127.0.0.1", port)

    def __enter__(self) -> tuple[str, int]:
        self._server.start()
        return self._server.address

    def __exit__(self, *_: object) -> None:
        self._server.stop()


ALONE = """
import signal
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.model import DnsSettings

class Nobody:
    asked = {}

server = DnsServer(Resolver(DnsSettings("edge.test"), tuple, Nobody()), "127.0.0.1", 0, processes=3)
server.start()
print(server.address[1], flush=True)
while len(server.front_pids) < 2:
    pass
print(*server.front_pids, flush=True)
signal.pause()
"""


def test_when_the_first_process_is_killed_all_others_end(
    lab: SimpleNamespace, resolver: Resolver
) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", ALONE], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    with first, first.stdout:
        port = int(first.stdout.readline())
        pids = [int(pid) for pid in first.stdout.readline().split()]
        assert DNSRecord.parse(ask(("127.0.0.1", port), lab.query())).header.rcode == 3
        first.kill()
        eventually(lambda: all(gone(pid) for pid in pids))
    with DnsServerOn(resolver, port) as address:
        assert last_octet(ask(address, lab.query())) == 5
