"""Names that are not ours: who is asked, what counts as an answer, and what happens without one."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from dns_boot.forward import Forwarder
from dns_boot.names import Query, parse_query
from dns_boot.resolver import Resolver, Source

TIMEOUT_S = 0.5
Behaviour = Callable[[bytes], list[bytes]]


def good(query: bytes, address: str = "192.0.2.80") -> bytes:
    record = DNSRecord.parse(query)
    reply = record.reply()
    reply.add_answer(RR(record.q.qname, QTYPE.A, ttl=60, rdata=A(address)))
    for extra in record.ar:
        reply.add_ar(extra)
    return bytes(reply.pack())


def with_rcode(rcode: int) -> Behaviour:
    def behave(query: bytes) -> list[bytes]:
        reply = DNSRecord.parse(query).reply()
        reply.header.rcode = rcode
        return [bytes(reply.pack())]

    return behave


def long_answer(query: bytes) -> bytes:
    record = DNSRecord.parse(good(query))
    for number in range(100):
        record.add_answer(RR(record.q.qname, QTYPE.A, ttl=60, rdata=A(f"192.0.2.{number}")))
    return bytes(record.pack())


def cut_answer(query: bytes) -> list[bytes]:
    record = DNSRecord.parse(query).reply()
    record.header.tc = 1
    return [bytes(record.pack())]


def liars_first(query: bytes) -> list[bytes]:
    """Say all that a forger could say before the truth."""
    truth = good(query)
    lie = good(query, "203.0.113.66")
    other_id = bytes((lie[0] ^ 1,)) + lie[1:]
    other_name = lie.replace(b"\x03www", b"\x03wwv")
    no_response = lie[:2] + bytes((lie[2] & 0x7F,)) + lie[3:]
    other_type = good(query[:-4] + b"\0\x1c\0\1", "203.0.113.66")
    return [b"", b"short", other_id, other_name, no_response, other_type, lie[:14], truth]


class Upstream:
    """A resolver that behaves as it is told, over UDP and TCP on one port."""

    def __init__(self, behave: Behaviour, over_tcp: Callable[[bytes], bytes]) -> None:
        self.seen: list[bytes] = []
        self._behave = behave
        self._over_tcp = over_tcp
        while True:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind(("127.0.0.1", 0))
            self.target: tuple[str, int] = self._udp.getsockname()
            self._tcp = socket.socket()
            try:
                self._tcp.bind(self.target)
                break
            except OSError:  # somebody else's TCP port: try another
                self._udp.close()
                self._tcp.close()
        self._tcp.listen()
        self._threads = [threading.Thread(target=run) for run in (self._run_udp, self._run_tcp)]
        for thread in self._threads:
            thread.start()

    def _run_udp(self) -> None:
        while True:
            query, peer = self._udp.recvfrom(4096)
            if query == b"stop":
                return
            self.seen.append(query)
            for reply in self._behave(query):
                self._udp.sendto(reply, peer)

    def _run_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection, contextlib.suppress(OSError):
                data = connection.recv(4096)
                if not data:
                    return
                reply = self._over_tcp(data[2:])
                connection.sendall(len(reply).to_bytes(2, "big") + reply[:20])
                connection.sendall(reply[20:])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"stop", self.target)
        socket.create_connection(self.target).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()


@pytest.fixture
def upstream() -> Iterator[Callable[..., Upstream]]:
    made = []

    def make(behave: Behaviour, over_tcp: Callable[[bytes], bytes] = good) -> Upstream:
        made.append(Upstream(behave, over_tcp))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask(targets: list[tuple[str, int]], packet: bytes) -> bytes | None:
    """Forward one query and wait for what comes of it."""
    query = parse_query(packet)
    assert isinstance(query, Query)
    ended = threading.Event()
    replies: list[bytes | None] = []
    forwarder = Forwarder(targets, timeout_s=TIMEOUT_S)
    forwarder.ask(query, lambda reply: (replies.append(reply), ended.set()))  # type: ignore[func-returns-value]
    assert ended.wait(30)
    forwarder.close()
    assert len(replies) == 1
    return replies[0]


def address(reply: bytes | None) -> str:
    assert reply is not None
    return str(DNSRecord.parse(reply).rr[0].rdata)


def silent(_query: bytes) -> list[bytes]:
    return []


def truthful(query: bytes) -> list[bytes]:
    return [good(query)]


def test_an_answer_comes_back_with_the_id_and_case_of_the_client(
    lab: SimpleNamespace, upstream: Callable[..., Upstream]
) -> None:
    server = upstream(lambda query: [good(query[:12] + query[12:].lower())])
    packet = lab.query("wWw.Example.org", ident=0xBEEF)
    reply = ask([server.target], packet)
    assert address(reply) == "192.0.2.80"
    assert reply is not None
    assert reply[:2] == b"\xbe\xef"
    assert reply[12 : len(packet)] == packet[12:]
    header = DNSRecord.parse(reply).header
    assert (header.qr, header.rd, header.ra) == (1, 1, 1)


def test_ids_are_our_own_and_edns_is_what_we_support(
    lab: SimpleNamespace, upstream: Callable[..., Upstream]
) -> None:
    server = upstream(truthful)
    cookie = b"\0\x0a\0\x08abcdefgh"
    for _ in range(8):
        ask(
            [server.target],
            lab.query("www.example.org", ident=7, edns=4096, do=True, options=cookie),
        )
    ask([server.target], lab.query("www.example.org", ident=7))
    *with_edns, plain = [DNSRecord.parse(query) for query in server.seen]
    assert len({query.header.id for query in with_edns}) > 1
    for query in with_edns:
        (opt,) = query.ar
        assert (opt.rclass, opt.ttl, opt.rdata) == (1232, 0x8000, [])
    assert not plain.ar


def test_only_a_true_answer_counts(lab: SimpleNamespace, upstream: Callable[..., Upstream]) -> None:
    server = upstream(liars_first)
    assert address(ask([server.target], lab.query("www.example.org"))) == "192.0.2.80"


@pytest.mark.parametrize("first", [silent, with_rcode(2), with_rcode(5)])
def test_the_next_server_is_asked_when_one_does_not_help(
    lab: SimpleNamespace, upstream: Callable[..., Upstream], first: Behaviour
) -> None:
    targets = [upstream(first).target, upstream(truthful).target]
    assert address(ask(targets, lab.query("www.example.org"))) == "192.0.2.80"


def test_a_closed_port_is_no_answer(lab: SimpleNamespace) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        closed = sock.getsockname()
    assert ask([closed], lab.query("www.example.org")) is None


@pytest.mark.parametrize("target", [("no such host.invalid", 53), ("a" * 70 + ".test", 53)])
def test_a_server_that_cannot_be_found_is_no_answer(
    lab: SimpleNamespace, target: tuple[str, int]
) -> None:
    assert ask([target], lab.query("www.example.org")) is None


@pytest.mark.parametrize(("rcode", "kept"), [(3, True), (2, True), (5, True)])
def test_what_the_last_server_says_is_passed_on(
    lab: SimpleNamespace, upstream: Callable[..., Upstream], rcode: int, kept: bool
) -> None:
    reply = ask([upstream(with_rcode(rcode)).target], lab.query("www.example.org"))
    assert (reply is not None) is kept
    assert reply is not None
    assert DNSRecord.parse(reply).header.rcode == rcode


def test_a_truncated_answer_is_fetched_over_tcp(
    lab: SimpleNamespace, upstream: Callable[..., Upstream]
) -> None:
    server = upstream(cut_answer, long_answer)
    reply = ask([server.target], lab.query("www.example.org"))
    assert reply is not None
    assert len(DNSRecord.parse(reply).rr) == 101


@pytest.mark.parametrize(
    "over_tcp", [lambda _query: b"", lambda query: good(bytes((query[0] ^ 1,)) + query[1:])]
)
def test_a_wrong_answer_over_tcp_is_none(
    lab: SimpleNamespace, upstream: Callable[..., Upstream], over_tcp: Callable[[bytes], bytes]
) -> None:
    server = upstream(cut_answer, over_tcp)
    assert ask([server.target], lab.query("www.example.org")) is None


def test_a_closed_forwarder_says_none_at_once(lab: SimpleNamespace) -> None:
    forwarder = Forwarder([("127.0.0.1", 9)])
    forwarder.close()
    query = parse_query(lab.query("www.example.org"))
    assert isinstance(query, Query)
    replies: list[bytes | None] = []
    forwarder.ask(query, replies.append)
    assert replies == [None]


# --- through the resolver ---------------------------------------------------------------------


def through(resolver: Resolver, packet: bytes, *, udp: bool = True) -> bytes:
    ended = threading.Event()
    replies: list[bytes | None] = []

    def respond(reply: bytes | None) -> None:
        replies.append(reply)
        ended.set()

    resolver.resolve(packet, Source("192.0.2.1", 4000, udp), respond)
    assert ended.wait(30)
    (reply,) = replies
    assert reply is not None
    return reply


def test_the_resolver_forwards_what_is_not_ours_if_asked_to_recurse(
    lab: SimpleNamespace, upstream: Callable[..., Upstream], make_resolver: Callable[..., Resolver]
) -> None:
    server = upstream(truthful)
    resolver = make_resolver(forward_to=(server.target,))
    assert address(through(resolver, lab.query("www.example.org"))) == "192.0.2.80"
    ours = DNSRecord.parse(through(resolver, lab.query("nobody.edge.test")))
    assert (ours.header.rcode, ours.header.ra) == (3, 1)
    for refused in (
        lab.query("www.example.org", flags=0),
        lab.query("www.example.org", 255),
        lab.query("www.example.org", qclass=3),
    ):
        assert DNSRecord.parse(through(resolver, refused)).header.rcode == 5
    assert len(server.seen) == 1
    assert len(resolver.packed) == 0


def test_a_forwarded_answer_is_cut_to_what_the_client_takes(
    lab: SimpleNamespace, upstream: Callable[..., Upstream], make_resolver: Callable[..., Resolver]
) -> None:
    resolver = make_resolver(forward_to=(upstream(cut_answer, long_answer).target,))
    over_udp = through(resolver, lab.query("www.example.org"))
    assert DNSRecord.parse(over_udp).header.tc
    assert len(over_udp) <= 512
    over_tcp = DNSRecord.parse(through(resolver, lab.query("www.example.org"), udp=False))
    assert not over_tcp.header.tc
    assert len(over_tcp.rr) == 101


def test_no_resolver_to_forward_to_is_a_servfail_with_its_reason(
    lab: SimpleNamespace, make_resolver: Callable[..., Resolver], monkeypatch: Any
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        closed = sock.getsockname()
    resolver = make_resolver(forward_to=(closed,))
    reply = through(resolver, lab.query("www.example.org", edns=1232))
    record = DNSRecord.parse(reply)
    assert (record.header.rcode, record.header.ra, record.header.aa) == (2, 1, 0)
    assert lab.ede(reply)[0] == 22
