"""The log of queries: what became of each, exact counts, whose addresses are kept, odd names."""

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from dns_boot import front_messages
from dns_boot import log as log_module
from dns_boot.log import DnsLog
from dns_boot.log_rates import Rates
from dns_boot.query_text import answers_of, shown
from dns_boot.resolver import Resolver
from dns_boot.samples import Sample
from dns_boot.server import DnsServer
from orchestrator.errors import NotReady
from orchestrator.model import RateLimit
from orchestrator.queries import Chosen, LoggedQuery, Outcome
from orchestrator.steering.base import Route
from tests.waiting import eventually

PATIENCE_S = 30.0
SUBNET = struct.pack("!HHHBB4s", 8, 8, 1, 32, 0, bytes((203, 0, 113, 9)))


def told(query: LoggedQuery) -> tuple[str, str, str, str]:
    return query.name, query.qtype, query.rcode, str(query.outcome)


def counts(log: DnsLog) -> dict[tuple[str, ...], int]:
    return {tuple(word for _, word in labels): number for labels, number in log.counts()[0].items()}


@pytest.fixture
def serve(
    make_resolver: Callable[..., Resolver], lab: SimpleNamespace
) -> Iterator[Callable[..., DnsServer]]:
    """Return a maker of servers that run: `serve(processes=1, **settings)`."""
    with contextlib.ExitStack() as stack:

        def make(processes: int = 1, **settings: Any) -> DnsServer:
            resolver = make_resolver(**settings)
            resolver.set([Route(lab.WEB, (lab.endpoint("web"),))])
            server = DnsServer(resolver, "127.0.0.1", 0, processes=processes)
            server.start()
            stack.callback(server.stop)
            return server

        yield make


def ask(server: DnsServer, packet: bytes, *, reply: bool = True) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(server.address)
        sock.send(packet)
        if reply:
            sock.recv(4096)


def log_of(server: DnsServer) -> DnsLog:
    return server._resolver.log


# --- what became of each --------------------------------------------------------------------------


def test_each_query_is_told_with_what_became_of_it(
    resolver: Resolver, lab: SimpleNamespace, asker: Callable[..., Any]
) -> None:
    client = asker(resolver, "192.0.2.7", 4321)
    client(lab.query("web.edge.test"))
    client(lab.query("no.edge.test", 28))
    client(lab.query("web.edge.test", 255))
    client(lab.query("example.org", 65))
    client(lab.query(b"\x3f" + b"a" * 9))
    client(lab.query("web.edge.test", flags=0x8100))  # a response
    client(lab.query("web.edge.test", edns=1232, version=1))
    newest_first = [told(each) for each in resolver.log.last(10)]
    assert newest_first[::-1] == [
        ("web.edge.test", "A", "NOERROR", "warm"),
        ("no.edge.test", "AAAA", "NXDOMAIN", "warm"),
        ("web.edge.test", "ANY", "REFUSED", "refused"),
        ("example.org", "HTTPS", "REFUSED", "refused"),
        ("?", "?", "FORMERR", "malformed"),
        ("web.edge.test", "A", "", "dropped"),
        ("web.edge.test", "A", "BADVERS", "refused"),
    ]
    first = resolver.log.last(10)[-1]
    assert (first.client, first.port, first.transport) == ("192.0.2.7", 4321, "udp")
    assert (first.answers, first.service, first.of) == (("10.0.0.5",), "web", 1)
    assert counts(resolver.log)["ANY", "REFUSED", "refused"] == 1
    assert sum(counts(resolver.log).values()) == 7


def test_a_held_query_says_for_which_wake_and_how_long(
    make_resolver: Callable[..., Resolver],
    summoner: Any,
    lab: SimpleNamespace,
    asker: Callable[..., Any],
) -> None:
    resolver = make_resolver(client_subnet=True)
    wake = summoner.sleeping("web")
    summoner.traces["web"].id = 17
    client = asker(resolver)
    client.send(lab.query("web.edge.test", edns=1232, options=SUBNET))
    client(lab.query("web.edge.test", edns=1232, options=SUBNET))  # the same, sent again
    wake.set_result((lab.endpoint("web"),))
    cold, again = resolver.log.last(10)
    assert told(again) == ("web.edge.test", "A", "", "dropped")
    assert told(cold) == ("web.edge.test", "A", "NOERROR", "cold")
    assert (cold.wake, cold.subnet, cold.latency_s > 0) == (17, "203.0.113.9/32", True)
    over = resolver.log.rates()[0]
    assert (over.held, len(over.held_s)) == (1, 3)
    assert over.services.keys() == {"web"}
    (labels,) = resolver.log.counts()[1]
    assert labels == (("outcome", "cold"),)


def test_a_wake_that_fails_and_one_that_is_not_begun_differ(
    resolver: Resolver, summoner: Any, lab: SimpleNamespace, asker: Callable[..., Any]
) -> None:
    client = asker(resolver)
    summoner.sleeping("web").set_exception(NotReady("web", "no answer"))
    client(lab.query())  # it was over before it was asked for
    wake = summoner.sleeping("six")
    client.send(lab.query("six.deep.edge.test"))
    wake.set_exception(NotReady("six", "no answer"))
    assert [told(each)[2:] for each in resolver.log.last(10)] == [
        ("SERVFAIL", "cold"),
        ("SERVFAIL", "refused"),
    ]


def test_what_the_rate_limit_takes_is_told(serve: Callable[..., DnsServer], lab: Any) -> None:
    server = serve(rate_limit=RateLimit(per_second=1, slip=1))
    server._resolver.packed.limiter._buckets["127.0.0.1"] = b"abc"  # loopback is exempt else
    log = log_of(server)
    log.collect()
    for _ in range(6):
        ask(server, lab.query())
    eventually(lambda: sum(counts(log).values()) == 6)
    by_outcome = Counter(key[2] for key in Counter(counts(log)).elements())
    assert by_outcome["limited"] >= 3
    assert {each.outcome for each in log.last(10)} == {Outcome.WARM, Outcome.LIMITED}


# --- packed answers -------------------------------------------------------------------------------


def test_warm_answers_are_counted_exactly_and_sampled(
    serve: Callable[..., DnsServer], lab: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "ROOM", 5)
    server = serve()
    log = log_of(server)
    log.collect()
    for number in range(40):
        ask(server, lab.query(qtype=(1, 28)[number % 2], ident=number))
    expected = {("A", "NOERROR", "warm"): 20, ("AAAA", "NOERROR", "warm"): 20}
    eventually(lambda: counts(log) == expected)
    eventually(lambda: sum(each.of for each in log.last(1000)) == 40)
    assert {each.name for each in log.last(1000)} == {"web.edge.test"}
    assert all(each.port and each.client == "127.0.0.1" for each in log.last(1000))
    assert len(log.last(1000)) < 40
    assert all(each.latency_s < PATIENCE_S for each in log.last(1000))


def test_what_further_processes_answer_is_counted_and_told(
    serve: Callable[..., DnsServer], lab: SimpleNamespace
) -> None:
    server = serve(processes=2)
    log = log_of(server)
    asked = 0

    def front_has_told() -> bool:
        nonlocal asked
        asked += 1
        ask(server, lab.query(ident=asked))
        return any(each.process in server.front_pids for each in log.last(1000))

    eventually(front_has_told)
    eventually(lambda: counts(log) == {("A", "NOERROR", "warm"): asked})
    eventually(lambda: sum(each.of for each in log.last(1000)) == asked)


def test_what_further_processes_say_of_queries_survives_the_way() -> None:
    counted = Counter({(1, 0, "warm", f"{n:0>60}"): n for n in range(1, 500)})
    reports = list(front_messages.pack_counted(counted))
    assert max(map(len, reports)) <= front_messages.MAX_BYTES
    assert sum((front_messages.read_counted(each) for each in reports), Counter()) == counted
    samples = [
        Sample(1.5, 0.25, b"q" * 512, b"r" * 512, "2001:db8::1%eth0", number)
        for number in range(25)
    ]
    reports = list(front_messages.pack_noted(samples, 1001))
    assert max(map(len, reports)) <= front_messages.MAX_BYTES
    told = [front_messages.read_noted(each) for each in reports]
    assert [sample for some, _ in told for sample in some] == samples
    assert sum(answers for _, answers in told) == 1001


def test_what_is_forgotten_is_counted_and_what_is_counted_twice_is_not(
    resolver: Resolver, lab: SimpleNamespace, asker: Callable[..., Any]
) -> None:
    resolver.set([Route(lab.WEB, (lab.endpoint("web"),))])
    asker(resolver)(lab.query())
    packed = resolver.packed
    for _ in range(3):
        assert packed.reply(lab.query())
    entry = next(iter(packed._tables[0].values()))
    resolver.set(())
    entry.given += 1  # by a thread that had it in hand
    assert packed.counted() == {(1, 0, "warm", "web"): 4}
    entry.given += 1
    assert packed.counted() == {(1, 0, "warm", "web"): 1}
    assert packed.counted() == {}


def test_a_flood_is_counted_and_the_log_keeps_what_waited(
    resolver: Resolver,
    summoner: Any,
    lab: SimpleNamespace,
    asker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_module, "ROOM", 5)
    resolver.log.collect()
    wake = summoner.sleeping("web")
    client = asker(resolver)
    for number in range(100):
        client(lab.query(f"x{number}.edge.test"))
    client.send(lab.query())
    wake.set_result((lab.endpoint("web"),))
    assert [told(each)[3] for each in resolver.log.last(10)] == ["cold"] + ["warm"] * 5
    client(lab.query("y.edge.test"))
    assert resolver.log.last(1)[0].of == 96
    assert sum(counts(resolver.log).values()) == 102


# --- who looks ------------------------------------------------------------------------------------


def test_the_log_is_read_in_pages_and_by_what_is_chosen(
    resolver: Resolver, lab: SimpleNamespace, asker: Callable[..., Any]
) -> None:
    for last in range(1, 4):
        asker(resolver, f"192.0.2.{last}")(lab.query())
        asker(resolver, f"2001:db8::{last}")(lab.query("no.edge.test"))
    log = resolver.log
    numbers = [each.number for each in log.last(10)]
    assert numbers == [6, 5, 4, 3, 2, 1]
    assert [each.number for each in log.last(2, before=3)] == [2, 1]
    assert [each.number for each in log.last(9, chosen=Chosen(service="web"))] == [5, 3, 1]
    assert [each.number for each in log.last(9, chosen=Chosen(rcode="NXDOMAIN"))] == [6, 4, 2]
    here = Chosen(client=ip_network("192.0.2.2/31"))
    assert [each.number for each in log.last(9, chosen=here)] == [5, 3]


def test_news_are_what_was_asked_since_and_bounded(
    resolver: Resolver,
    lab: SimpleNamespace,
    asker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_module, "MOST_NEWS", 2)
    assert resolver.log.news() == []
    for name in "abc":
        asker(resolver)(lab.query(f"{name}.edge.test"))
    assert [[each.name for each in news] for news in resolver.log.news()] == [
        ["b.edge.test", "c.edge.test"]
    ]
    assert resolver.log.news() == []


@pytest.mark.parametrize(
    ("mode", "told_of"),
    [
        ("on", ("192.0.2.77", 4000, "203.0.113.9/32")),
        ("anonymous", ("192.0.2.0/24", 0, "203.0.113.0/24")),
    ],
)
def test_whose_addresses_are_kept_is_up_to_the_lab(
    make_resolver: Callable[..., Resolver],
    lab: SimpleNamespace,
    asker: Callable[..., Any],
    mode: str,
    told_of: tuple[str, int, str],
) -> None:
    resolver = make_resolver(log=mode, client_subnet=True)
    query = lab.query("no.edge.test", edns=1232, options=SUBNET)
    asker(resolver, "192.0.2.77")(query)
    (seen,) = resolver.log.last(9)
    assert (seen.client, seen.port, seen.subnet) == told_of
    packets = [each.packet for each in resolver.log._kept]
    assert not any(bytes((203, 0, 113)) in packet for packet in packets), "it is in the query too"
    asker(resolver, "::ffff:192.0.2.1")(query)
    asker(resolver, "2001:db8:1:2ff::1")(query)
    networks = [each.client for each in resolver.log.last(2)]
    if mode == "anonymous":
        assert networks == ["2001:db8:1:200::/56", "192.0.2.0/24"]
    one = Chosen(client=ip_network("192.0.2.77/32"))
    assert resolver.log.last(9, chosen=one)[-1].number == seen.number


def test_a_log_that_is_off_keeps_numbers_only(
    make_resolver: Callable[..., Resolver], lab: SimpleNamespace, asker: Callable[..., Any]
) -> None:
    resolver = make_resolver(log="off")
    resolver.log.collect()
    asker(resolver)(lab.query("no.edge.test"))
    assert resolver.log.last(9) == []
    assert resolver.packed.samples.room == 0
    assert counts(resolver.log) == {("A", "NXDOMAIN", "warm"): 1}
    assert resolver.log.rates()[0].rcodes.keys() == {"NXDOMAIN"}


# --- bytes of anybody -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ((), "."),
        ((b"web", b"edge"), "web.edge"),
        ((b"a.b", b'"\\;()@$'), r"a\.b.\"\\\;\(\)\@\$"),
        ((b"\n\x1b[31m", b"\xff \x00"), r"\010\027[31m.\255\032\000"),
        ((b"\0" * 63,) * 4, r"\000" * 63 + ".\\00..."),
    ],
)
def test_names_are_escaped_and_cut(name: tuple[bytes, ...], text: str) -> None:
    assert shown(name) == text if len(name) < 4 else shown(name).endswith("...")
    assert len(shown(name)) <= 263
    assert shown(name).isprintable()


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_replies_that_were_cut_show_what_is_there(lab: SimpleNamespace, cut: int) -> None:
    question = lab.query()[12:]
    record = b"\xc0\x0c" + struct.pack("!HHIH4s", 1, 1, 7, 4, bytes((10, 0, 0, 5)))
    reply = struct.pack("!6H", 1, 0x8400, 1, 2, 0, 0) + question + record * 2
    shown_answers = answers_of(reply[: len(reply) - cut])
    assert set(shown_answers) <= {"10.0.0.5", "A"}
    assert len(shown_answers) <= 2


def test_odd_types_are_counted_together(
    resolver: Resolver, lab: SimpleNamespace, asker: Callable[..., Any]
) -> None:
    for qtype in range(1000, 1100):
        asker(resolver)(lab.query("no.edge.test", qtype))
    assert counts(resolver.log) == {("other", "NXDOMAIN", "warm"): 100}
    assert resolver.log.last(1)[0].qtype == "TYPE1049", "as many as there was room for"


def test_samples_of_nothing_readable_do_no_harm(resolver: Resolver) -> None:
    resolver.log.take([Sample(0.0, 0.0, b"", b"", "192.0.2.1", 1)], 7, 3)
    (seen,) = resolver.log.last(9)
    assert (seen.name, seen.rcode, seen.outcome, seen.of) == ("?", "", Outcome.LIMITED, 3)


# --- rates ----------------------------------------------------------------------------------------


def test_rates_are_of_their_window() -> None:
    rates = Rates(0.0)
    for second in range(1, 1001):
        rates.add(second + 0.5, {(1, 0, "warm", "web"): 10, (28, 3, "warm", ""): 5})
    rates.add(1001.0, {})
    for window in (10, 60, 600):
        over = rates.over(1001.0, window)
        assert over.total == pytest.approx(15, rel=0.1)
        assert over.types["A"] == pytest.approx(10, rel=0.1)
        assert over.rcodes["NXDOMAIN"] == pytest.approx(5, rel=0.1)
        assert list(over.services) == ["web"]
    assert len(rates._fine) <= 61
    assert len(rates._coarse) <= 61
    rates.add(1100.0, {})
    assert rates.over(1100.0, 60).total == 0
    assert rates.over(1100.0, 600).total == pytest.approx(15 * 500 / 600, rel=0.05)


def test_rates_of_a_young_log_are_since_its_start() -> None:
    rates = Rates(100.0)
    rates.add(102.0, {(1, 0, "warm", "web"): 10})
    assert rates.over(104.0, 600).total == pytest.approx(2.5)


def test_percentiles_are_of_those_that_waited() -> None:
    rates = Rates(0.0)
    for number in range(1, 101):
        rates.held(100.0, number / 100)
    rates.held(50.0, 99.0)
    assert rates.over(105.0, 10).held_s == (0.5, 0.95, 0.99)
    assert rates.over(105.0, 10).held == 100
    assert rates.over(105.0, 60).held_s[2] == 1.0
