"""The sockets: UDP and TCP on one port, held queries, limits, and what happens under pressure."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord

from dns_boot import server as server_module
from dns_boot import sockets as sockets_module
from dns_boot import tcp as tcp_module
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.errors import EdgewakeError
from orchestrator.steering.base import Route
from tests.waiting import eventually

PATIENCE_S = 30.0  # how long a test waits before it fails; nothing here takes that long


@pytest.fixture
def serve(resolver: Resolver) -> Iterator[Callable[..., DnsServer]]:
    """Return a maker of started servers for the resolver: `serve(listen="127.0.0.1", port=0)`."""
    with contextlib.ExitStack() as stack:

        def make(listen: str = "127.0.0.1", port: int = 0, **options: Any) -> DnsServer:
            server = DnsServer(resolver, listen, port, **options)
            server.start()
            stack.callback(server.stop)
            return server

        yield make


@contextlib.contextmanager
def udp_to(address: tuple[str, int]) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        yield sock


@contextlib.contextmanager
def tcp_to(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=PATIENCE_S) as sock:
        yield sock


def ask_udp(address: tuple[str, int], packet: bytes) -> bytes:
    with udp_to(address) as sock:
        sock.send(packet)
        return sock.recv(4096)


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def read_exactly(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = sock.recv(length - len(data))
        assert part, "the connection ended"
        data += part
    return data


def read_reply(sock: socket.socket) -> bytes:
    return read_exactly(sock, int.from_bytes(read_exactly(sock, 2), "big"))


def ended(sock: socket.socket) -> bool:
    """Wait until the server has closed a connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def send_for_ever(sock: socket.socket, data: bytes) -> None:
    """Send until that fails: with a TimeoutError if the other side neither reads nor closes."""
    while True:
        sock.sendall(data)


def addresses(reply: bytes) -> list[str]:
    return [str(rr.rdata) for rr in DNSRecord.parse(reply).rr]


# --- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_udp_and_tcp_answer_on_the_same_port(
    lab: SimpleNamespace, resolver: Resolver, serve: Callable[..., DnsServer], listen: str
) -> None:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    server = serve(listen)
    host, port = server.address
    assert host == listen
    assert port > 0
    address = ("::1" if ":" in listen else "127.0.0.1", port)
    for _ in range(2):  # slow, then packed
        assert addresses(ask_udp(address, lab.query())) == ["10.0.0.5"]
        with tcp_to(address) as sock:
            sock.sendall(framed(lab.query()))
            assert addresses(read_reply(sock)) == ["10.0.0.5"]
    assert len(resolver.packed) == 1


@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_a_reply_leaves_from_the_address_that_was_asked(
    lab: SimpleNamespace, resolver: Resolver, serve: Callable[..., DnsServer], listen: str
) -> None:
    _, port = serve(listen).address
    # A connected socket hears only the address it asked, which is not the machine's first one.
    assert addresses(ask_udp(("127.0.0.77", port), lab.query())) == ["10.0.0.5"]


@pytest.mark.parametrize(
    ("listen", "port", "hint"),
    [
        ("127.0.0.1", None, "another program has this port"),
        ("192.0.2.77", 0, "this machine has no such address"),
        ("2001:db8::77", 0, "this machine has no such address"),
        ("localhost", 0, "set dns.listen to an IP address"),
    ],
)
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_what_cannot_be_bound_is_said_with_a_way_out(
    *, resolver: Resolver, listen: str, port: int | None, hint: str, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        chosen = taken.getsockname()[1] if port is None else port
        with pytest.raises(EdgewakeError, match=f"cannot serve DNS on {listen} port") as caught:
            DnsServer(resolver, listen, chosen).start()
    assert hint in caught.value.hint


def test_a_low_port_without_the_right_says_what_it_takes(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sockets_module, "bind_all", refuse)  # tests may run as root
    with pytest.raises(EdgewakeError) as caught:
        DnsServer(resolver, "127.0.0.1", 53).start()
    assert "CAP_NET_BIND_SERVICE" in caught.value.hint


def test_a_port_that_is_taken_for_tcp_only_is_not_chosen(
    resolver: Resolver, serve: Callable[..., DnsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    bind, tries = sockets_module.bind_all, []

    def taken_twice(*args: Any) -> Any:
        tries.append(args)
        if len(tries) < 3:
            raise OSError(98, "Address already in use")
        return bind(*args)

    monkeypatch.setattr(sockets_module, "bind_all", taken_twice)
    assert serve().address[1] > 0
    assert len(tries) == 3


def test_stopping_frees_the_port_and_the_threads(
    lab: SimpleNamespace, resolver: Resolver, serve: Callable[..., DnsServer]
) -> None:
    before = threading.active_count()
    server = serve()
    with tcp_to(server.address):
        assert threading.active_count() == before + 3
        server.stop()
    server.stop()
    assert threading.active_count() == before
    again = serve(port=server.address[1])
    assert addresses(ask_udp(again.address, lab.query())) == ["10.0.0.5"]


# --- UDP --------------------------------------------------------------------------------------


def test_a_hundred_sockets_wait_for_one_wake_and_all_are_answered(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    wake = summoner.sleeping("web")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(udp_to(server.address)) for _ in range(100)]
        threads = threading.active_count()
        for number, sock in enumerate(sockets):
            sock.send(lab.query(ident=number))
        eventually(lambda: resolver.held == 100)
        assert threading.active_count() == threads  # nobody waits in a thread
        resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
        wake.set_result((lab.endpoint("web"),))
        for number, sock in enumerate(sockets):
            reply = sock.recv(4096)
            assert reply[:2] == number.to_bytes(2, "big")
            assert addresses(reply) == ["10.0.0.5"]


def test_warm_names_are_answered_while_others_wait(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    summoner.sleeping("web")
    with udp_to(server.address) as waiting:
        waiting.send(lab.query())
        eventually(lambda: resolver.held == 1)
        for _ in range(3):
            assert addresses(ask_udp(server.address, lab.query("six.deep.edge.test"))) == [
                "10.0.0.5"
            ]
        assert resolver.held == 1


def test_a_slow_summoner_does_not_hold_up_warm_answers(
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    serve: Callable[..., DnsServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve()
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)), Route(lab.SIX, ipv6=True)))
    ask_udp(server.address, lab.query())
    asked, go_on = threading.Event(), threading.Event()

    def stuck(service: str, client: object, asked_at: float) -> Any:
        asked.set()
        assert go_on.wait(PATIENCE_S)
        raise KeyError(service)

    monkeypatch.setattr(summoner, "summon", stuck)
    with udp_to(server.address) as cold:
        cold.send(lab.query("six.deep.edge.test"))
        assert asked.wait(PATIENCE_S)
        assert addresses(ask_udp(server.address, lab.query())) == ["10.0.0.5"]
        go_on.set()
        assert DNSRecord.parse(cold.recv(4096)).header.rcode == 2


def test_names_that_exist_go_before_a_flood_of_others(
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    serve: Callable[..., DnsServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "BACKLOG", 50)
    server = serve()
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)), Route(lab.SIX, ipv6=True)))
    ask_udp(server.address, lab.query())
    entered, go_on = threading.Event(), threading.Event()
    resolve, order = resolver.resolve, []

    def slow(packet: bytes, *rest: Any) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        order.append(packet)
        resolve(packet, *rest)

    monkeypatch.setattr(resolver, "resolve", slow)
    with udp_to(server.address) as flood, udp_to(server.address) as honest:
        flood.send(lab.query("r0.edge.test"))
        assert entered.wait(PATIENCE_S)
        for number in range(1, 200):
            flood.send(lab.query(f"r{number}.edge.test"))
        eventually(lambda: server.dropped == 149)  # one is being worked on, 50 wait
        assert addresses(ask_udp(server.address, lab.query())) == ["10.0.0.5"]  # warm, at once
        honest.send(lab.query("six.deep.edge.test"))
        eventually(lambda: bool(server._backlog._known))
        go_on.set()
        assert addresses(honest.recv(4096)) == ["10.0.0.5"]
    eventually(lambda: len(order) == 52)
    assert order[1] == lab.query("six.deep.edge.test")


def test_nonsense_leaves_the_server_in_good_health(
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    serve: Callable[..., DnsServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve()
    with udp_to(server.address) as sock:
        for nonsense in (b"", b"x", b"\0" * 12, b"\xff" * 600, bytes(9000), lab.query()[:-1]):
            sock.send(nonsense)
    with tcp_to(server.address) as sock:
        sock.sendall(b"\0\0" + framed(b"x") + framed(lab.query(ident=9)))
        assert read_reply(sock)[:2] == b"\0\x09"
    assert addresses(ask_udp(server.address, lab.query())) == ["10.0.0.5"]
    assert not caplog.records
    summoner.error = KeyError("a defect")
    assert DNSRecord.parse(ask_udp(server.address, lab.query())).header.rcode == 2
    summoner.error = None
    assert addresses(ask_udp(server.address, lab.query())) == ["10.0.0.5"]
    assert [record.exc_info is not None for record in caplog.records] == [True]


# --- TCP --------------------------------------------------------------------------------------


def test_queries_of_one_connection_are_answered_as_they_get_ready(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    wake = summoner.sleeping("web")
    with tcp_to(server.address) as sock:
        sock.sendall(
            framed(lab.query(ident=1))
            + framed(lab.query(ident=1))  # the same again gets no reply of its own
            + framed(lab.query("six.deep.edge.test", ident=2))
            + framed(lab.query("nobody.edge.test", ident=3))
        )
        assert {read_reply(sock)[1] for _ in range(2)} == {2, 3}
        wake.set_result((lab.endpoint("web"),))
        assert read_reply(sock)[1] == 1
        sock.sendall(framed(lab.query(ident=4)))
        assert read_reply(sock)[1] == 4


def test_many_pipelined_queries_are_all_answered(
    lab: SimpleNamespace, resolver: Resolver, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    count = 4 * tcp_module.PIPELINED
    with tcp_to(server.address) as sock:
        for ident in range(count):
            sock.sendall(framed(lab.query(f"r{ident}.edge.test", ident=ident)))
        found = {int.from_bytes(read_reply(sock)[:2], "big") for _ in range(count)}
    assert found == set(range(count))


def test_a_query_may_come_in_single_bytes(
    lab: SimpleNamespace, resolver: Resolver, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    with tcp_to(server.address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(lab.query()):
            sock.send(bytes((byte,)))
        assert addresses(read_reply(sock)) == ["10.0.0.5"]


def test_who_shuts_its_side_still_gets_its_reply(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    wake = summoner.sleeping("web")
    with tcp_to(server.address) as sock:
        sock.sendall(framed(lab.query()))
        sock.shutdown(socket.SHUT_WR)
        eventually(lambda: resolver.held == 1)
        wake.set_result((lab.endpoint("web"),))
        assert addresses(read_reply(sock)) == ["10.0.0.5"]
        assert ended(sock)


def test_an_answer_too_long_for_udp_comes_over_tcp(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve()
    summoner.sleeping("web").set_result(tuple(lab.endpoint("web", n) for n in range(1, 200)))
    assert DNSRecord.parse(ask_udp(server.address, lab.query())).header.tc
    with tcp_to(server.address) as sock:
        sock.sendall(framed(lab.query()))
        assert len(addresses(read_reply(sock))) == 199


@pytest.mark.parametrize("started", [b"", b"\0", b"\0\x20half a query"])
def test_an_idle_connection_is_closed_and_a_waiting_one_is_not(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    serve: Callable[..., DnsServer],
    started: bytes,
) -> None:
    server = serve(idle_s=0.3)
    wake = summoner.sleeping("web")
    with tcp_to(server.address) as waiting, tcp_to(server.address) as idle:
        waiting.sendall(framed(lab.query()))
        idle.sendall(started)
        assert ended(idle)
        wake.set_result((lab.endpoint("web"),))
        assert addresses(read_reply(waiting)) == ["10.0.0.5"]


def test_single_bytes_do_not_keep_a_connection_alive(
    lab: SimpleNamespace, resolver: Resolver, serve: Callable[..., DnsServer]
) -> None:
    server = serve(idle_s=0.3)
    with tcp_to(server.address) as sock:
        sock.settimeout(0.05)
        sock.send(b"\xff\xff")
        deadline = time.monotonic() + PATIENCE_S
        closed = False
        while not closed and time.monotonic() < deadline:
            try:
                sock.send(b"x")
                closed = sock.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
    assert closed


def test_beyond_the_limit_the_longest_idle_connection_goes(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve(connections=3)
    wake = summoner.sleeping("web")
    with contextlib.ExitStack() as stack:
        waiting, first, second = (stack.enter_context(tcp_to(server.address)) for _ in range(3))
        waiting.sendall(framed(lab.query()))
        eventually(lambda: resolver.held == 1)
        for sock in (first, second):
            sock.sendall(framed(lab.query("nobody.edge.test")))
            read_reply(sock)
        newcomer = stack.enter_context(tcp_to(server.address))
        assert ended(first)
        for sock in (second, newcomer):
            sock.sendall(framed(lab.query("nobody.edge.test")))
            read_reply(sock)
        wake.set_result((lab.endpoint("web"),))
        assert addresses(read_reply(waiting)) == ["10.0.0.5"]


def test_when_all_connections_wait_a_newcomer_is_turned_away(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve(connections=1)
    wake = summoner.sleeping("web")
    with tcp_to(server.address) as waiting:
        waiting.sendall(framed(lab.query()))
        eventually(lambda: resolver.held == 1)
        with tcp_to(server.address) as newcomer:
            assert ended(newcomer)
        wake.set_result((lab.endpoint("web"),))
        assert addresses(read_reply(waiting)) == ["10.0.0.5"]


def test_one_network_with_all_connections_does_not_keep_out_others(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve(connections=4)
    wake = summoner.sleeping("web")
    with contextlib.ExitStack() as stack:
        other = ("127.0.1.1", 0)
        connect = partial(socket.create_connection, server.address, PATIENCE_S)
        greedy = [stack.enter_context(connect()) for _ in range(4)]
        for number, sock in enumerate(greedy):
            sock.sendall(framed(lab.query()))
            eventually(lambda number=number: resolver.held == number + 1)
        for count in (1, 2):  # until both have as many
            newcomer = stack.enter_context(connect(source_address=other))
            assert ended(greedy[-count])
            newcomer.sendall(framed(lab.query()))
            eventually(lambda count=count: len(resolver._held) == 4 + count)
        assert ended(stack.enter_context(connect(source_address=other)))
        wake.set_result((lab.endpoint("web"),))
        for sock in (*greedy[:2], newcomer):
            assert addresses(read_reply(sock)) == ["10.0.0.5"]


def test_who_never_reads_is_closed(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, serve: Callable[..., DnsServer]
) -> None:
    server = serve(idle_s=0.3)
    summoner.sleeping("web").set_result(tuple(lab.endpoint("web", n % 250) for n in range(3000)))
    with tcp_to(server.address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            send_for_ever(sock, framed(lab.query()))
