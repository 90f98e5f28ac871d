"""Packed answers whose order depends on who asks: as the slow path's, for each population."""

import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dns_boot.clients import REMEMBERED, Clients
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.model import AnswerOrder, Endpoint, Population
from orchestrator.ordering import Copy, rounds_by_population, whole_round
from orchestrator.steering.base import Order, Route

ORDERED, WEIGHTED, _ = AnswerOrder
NORTH = Population("north", (ip_network("10.1.0.0/16"), ip_network("2001:db8:1::/48")), "r1")
SOUTH = Population("south", (ip_network("10.1.2.0/24"), ip_network("2001:db8:1:2::/64")), "r2")
HERE = Population("here", (ip_network("127.0.1.0/24"),), "r3")
KNOWN = (NORTH, SOUTH, HERE)
SOURCES = {
    "10.1.1.1": "north",
    "10.1.2.1": "south",
    "::ffff:10.1.2.9": "south",
    "192.0.2.1": "",
    "2001:db8:1::1": "north",
    "2001:db8:1:2::1": "south",
    "2001:db8:9::1": "",
    "fe80::1%eth0": "",
}
DISTANCES_MS: dict[str, tuple[float, ...]] = {
    "north": (5.0, 1.0, 9.0),
    "south": (9.0, 5.0, 1.0),
    "here": (5.0, 9.0, 1.0),
}
STRANGER = "192.0.2.1"


@dataclass
class Site:
    """Copies of the service `web` or `six`, as control would lead clients to them."""

    lab: SimpleNamespace
    rule: AnswerOrder = ORDERED
    weights: Sequence[float] = (1.0, 1.0, 1.0)
    far: dict[str, tuple[float, ...]] = field(default_factory=DISTANCES_MS.copy)
    name: str = "web"

    @property
    def route(self) -> Route:
        six = self.name == "six"
        copies = tuple(
            Copy(self.lab.endpoint(self.name, last, ipv6=six), free_cpu=weight)
            for last, weight in enumerate(self.weights, 1)
        )
        return Route(
            self.lab.SIX if six else self.lab.WEB,
            tuple(copy.endpoint for copy in copies),
            ipv6=six,
            turns=whole_round(self.rule, copies),
            theirs=rounds_by_population(self.rule, copies, self.far),
        )


def say(summoner: Any, route: Route, order: Order) -> None:
    ended: Future[tuple[Endpoint, ...]] = Future()
    ended.set_result(order)
    summoner.futures[route.service.name] = ended


def octets(reply: bytes | None) -> list[int]:
    assert reply
    return [int(str(record.rdata).rpartition(".")[2]) for record in DNSRecord.parse(reply).rr]


@pytest.fixture
def known(make_resolver: Callable[..., Resolver]) -> Resolver:
    return make_resolver(populations=KNOWN)


@pytest.fixture
def learn(
    lab: SimpleNamespace, known: Resolver, summoner: Any, asker: Callable[..., Any]
) -> Callable[..., None]:
    """Return what has somebody's answer packed by asking once."""

    def learn(route: Route, *sources: str) -> None:
        for source in sources:
            say(summoner, route, route.turns_of(SOURCES[source])[-1])
            asker(known, source)(lab.query())

    return learn


@given(data=st.data())
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_client_gets_what_the_slow_path_says_to_it(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    summoner: Any,
    asker: Callable[..., Any],
    data: st.DataObject,
) -> None:
    weights = data.draw(st.lists(st.sampled_from((0.5, 1.0, 3.0)), min_size=2, max_size=4))
    far = {
        each.name: tuple(data.draw(st.sampled_from((1.0, 2.0, 9.0))) for _ in weights)
        for each in KNOWN
    }
    name, qtype = data.draw(
        st.sampled_from((("web.edge.test", 1), *(("six.deep.edge.test", t) for t in (1, 28, 65))))
    )
    rule = data.draw(st.sampled_from((ORDERED, WEIGHTED)))
    route = Site(lab, rule, weights, far, name[:3]).route
    form = {"edns": data.draw(st.sampled_from((None, 512, 4096))), "do": data.draw(st.booleans())}
    fast, slow = make_resolver(populations=KNOWN), make_resolver(populations=KNOWN)
    fast.set((route,))
    slow.set((replace(route, turns=(), theirs=()),))
    sources = data.draw(st.permutations(list(SOURCES)))
    for source in sources:
        say(summoner, route, route.turns_of(SOURCES[source])[-1])
        asker(fast, source)(lab.query(name, qtype, **form))
    assert len(fast.packed) == (len({*SOURCES.values()}) if route.theirs else 1)
    for source in sources:
        turns = route.turns_of(SOURCES[source])
        asked = lab.query(data.draw(st.sampled_from((name, name.upper()))), qtype, **form)
        said = []
        for order in turns:
            say(summoner, route, order)
            said.append(asker(slow, source)(asked))
        replies = [fast.packed.reply(asked, source) for _ in turns]
        assert replies in [said[turn:] + said[:turn] for turn in range(len(said))]
    assert len(slow.packed) == 0


def test_nobody_is_told_what_was_packed_for_others(
    lab: SimpleNamespace, known: Resolver, learn: Callable[..., None]
) -> None:
    route = Site(lab).route
    known.set((route,))
    learn(route, "10.1.1.1")
    assert octets(known.packed.reply(lab.query(), "10.1.99.99")) == [2, 1, 3]
    assert octets(known.packed.reply(lab.query(), "2001:db8:1:ff::1")) == [2, 1, 3]
    for source in ("10.1.2.1", STRANGER, "", "2001:db8:1:2::1"):
        assert known.packed.reply(lab.query(), source) is None
    learn(route, STRANGER, "10.1.2.1")
    assert octets(known.packed.reply(lab.query(), "10.1.2.1")) == [3, 2, 1]
    assert [octets(known.packed.reply(lab.query(), "192.0.2.77"))[0] for _ in range(3)] == [1, 2, 3]


def test_no_address_is_the_same_for_everybody(
    lab: SimpleNamespace, known: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    route = replace(Site(lab).route, ipv6=True)
    known.set((route,))
    say(summoner, route, route.turns_of("north")[0])
    asker(known, "10.1.1.1")(lab.query(qtype=28))
    for source in SOURCES:
        assert octets(known.packed.reply(lab.query(qtype=28), source)) == []


def test_who_names_a_subnet_is_answered_by_it_and_nothing_is_kept(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    summoner: Any,
    asker: Callable[..., Any],
) -> None:
    resolver, route = make_resolver(populations=KNOWN, client_subnet=True), Site(lab).route
    resolver.set((route,))
    say(summoner, route, route.turns_of("south")[0])
    query = lab.query(edns=1232, options=b"\0\x08\0\x07\0\1\x18\0\x0a\1\2")
    assert octets(asker(resolver, "10.1.1.1")(query)) == [3, 2, 1]
    assert summoner.calls[-1][1].population == "south"
    assert len(resolver.packed) == 0


def test_spoofed_sources_fill_neither_the_replies_nor_the_cache(
    lab: SimpleNamespace, known: Resolver, learn: Callable[..., None]
) -> None:
    route = Site(lab).route
    known.set((route,))
    learn(route, STRANGER, "10.1.1.1")
    clients = known.packed.clients
    assert clients is not None
    for number in range(REMEMBERED + 500):
        source = f"10.{1 + number % 2}.{number >> 8 & 255}.{number & 255}"
        known.packed.reply(lab.query(), source)
    assert clients.of.cache_info().currsize == REMEMBERED
    assert len(known.packed) == 2
    assert octets(known.packed.reply(lab.query(), "10.1.1.1")) == [2, 1, 3]


def test_other_names_do_not_ask_who_it_is(
    lab: SimpleNamespace, known: Resolver, learn: Callable[..., None], asker: Callable[..., Any]
) -> None:
    known.set((Site(lab).route, Route(lab.SIX, (lab.endpoint("six", ipv6=True),), ipv6=True)))
    learn(Site(lab).route, STRANGER)
    asker(known)(lab.query("six.deep.edge.test"))
    known.packed.clients = None
    assert octets(known.packed.reply(lab.query("six.deep.edge.test"), STRANGER)) == [5]
    assert known.packed.reply(lab.query("nobody.edge.test"), STRANGER) is None


# --- forgetting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"far": DISTANCES_MS | {"north": (1.0, 5.0, 9.0)}},
        {"rule": WEIGHTED, "weights": (1.0, 3.0, 1.0)},
        {"weights": (1.0, 1.0)},
    ],
    ids=str,
)
def test_a_change_of_any_round_forgets_those_of_all_and_of_no_other_service(
    *,
    lab: SimpleNamespace,
    known: Resolver,
    learn: Callable[..., None],
    asker: Callable[..., Any],
    change: dict[str, Any],
) -> None:
    six = Route(lab.SIX, (lab.endpoint("six", ipv6=True),), ipv6=True)
    known.set((Site(lab).route, six))
    learn(Site(lab).route, *SOURCES)
    asker(known)(lab.query("six.deep.edge.test"))
    known.set((Site(lab).route, six))
    assert len(known.packed) == 4
    weights = change.get("weights", (1.0,) * 3)
    far = {who: ms[: len(weights)] for who, ms in change.get("far", DISTANCES_MS).items()}
    after = Site(lab, **{**change, "far": far}).route
    known.set((after, six))
    assert [known.packed.reply(lab.query(), source) for source in SOURCES] == [None] * len(SOURCES)
    assert known.packed.reply(lab.query("six.deep.edge.test"))
    learn(after, *SOURCES)
    for source, population in SOURCES.items():
        first = octets(known.packed.reply(lab.query(), source))[0]
        assert first in {order[0].address.packed[-1] for order in after.turns_of(population)}


def test_an_order_that_no_longer_depends_on_who_asks_is_one_for_all_and_back(
    lab: SimpleNamespace, known: Resolver, learn: Callable[..., None]
) -> None:
    for _ in range(2):
        known.set((Site(lab).route,))
        learn(Site(lab).route, "10.1.1.1", STRANGER)
        assert known.packed.reply(lab.query(), "10.1.2.1") is None
        alike = replace(Site(lab).route, theirs=())
        known.set((alike,))
        learn(alike, "10.1.2.1")
        assert len(known.packed) == 1
        assert {octets(known.packed.reply(lab.query(), source))[0] for source in SOURCES} == {
            1,
            2,
            3,
        }


# --- other processes, and another lab ---------------------------------------------------------


@pytest.fixture
def populations() -> list[Population]:
    return [*KNOWN]


@pytest.fixture
def ours() -> list[str]:
    """Who asked the first process, of `served`."""
    return []


@pytest.fixture
def served(
    make_resolver: Callable[..., Resolver],
    populations: list[Population],
    ours: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Resolver, DnsServer]]:
    resolver = make_resolver(populations=lambda: tuple(populations))
    reply = resolver.packed.reply

    def counted(packet: bytes, address: str = "", *, limited: bool = False) -> bytes | None:
        ours.append(address)
        return reply(packet, address, limited=limited)

    monkeypatch.setattr(resolver.packed, "reply", counted)
    server = DnsServer(resolver, "127.0.0.1", 0, processes=2)
    server.start()
    yield resolver, server
    server.stop()


def test_further_processes_tell_clients_apart_and_learn_of_another_lab(
    lab: SimpleNamespace,
    served: tuple[Resolver, DnsServer],
    populations: list[Population],
    summoner: Any,
    ours: list[str],
) -> None:
    resolver, server = served
    route = Site(lab).route
    resolver.set((route,))

    def heard(source: str, population: str, count: int) -> set[int]:
        say(summoner, route, route.turns_of(population)[0])
        replies = []
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(30.0)
                sock.bind((source, 0))
                sock.connect(server.address)
                sock.send(lab.query())
                replies.append(octets(sock.recv(4096))[0])
        return set(replies)

    def all_hear(here: str, first: Collection[int] = (3,)) -> None:
        assert heard(here, "here", 30) == {*first}
        assert heard("127.0.0.1", "", 30) == {1, 2, 3}
        ours.clear()
        assert heard(here, "here", 30) == {*first}
        assert heard("127.0.0.1", "", 30) == {1, 2, 3}
        assert not ours, "the further process did not answer by itself"

    end = time.monotonic() + 30.0
    ours.append("")
    while ours:  # until the process serves, and has the answer
        assert time.monotonic() < end, "the further process does not serve"
        ours.clear()
        heard("127.0.0.1", "", 5)
    all_hear("127.0.1.1")
    populations[-1] = replace(HERE, subnets=(ip_network("127.0.2.0/24"),))
    resolver.set((route,))
    all_hear("127.0.2.1")
    assert heard("127.0.1.1", "", 30) == {1, 2, 3}
    assert not ours
    route = replace(route, theirs=())  # and back to one order for all
    resolver.set((route,))
    all_hear("127.0.2.1", {1, 2, 3})


def test_further_processes_that_have_no_answer_yet_learn_of_another_lab(known: Resolver) -> None:
    told: list[Sequence[str] | None] = []

    class Copies:
        def forget(self, services: Collection[str] | None) -> Callable[[], None]:
            told.append(None if services is None else [*services])
            return lambda: None

    known.packed.copies = Copies()
    known.packed.forget(100)
    assert told == []
    known.packed.forget(101, clients=Clients(()))
    assert told == [None]
