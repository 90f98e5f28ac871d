"""Several copies in packed answers: in turn or by weight, byte for byte as the slow path."""

import itertools
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dns_boot import answers
from dns_boot import front_messages as messages
from dns_boot.packed import Entry
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.model import AnswerOrder, Endpoint, Population
from orchestrator.ordering import ROUND, Copy, Turns, whole_round
from orchestrator.steering.base import Order, Route

ORDERED, WEIGHTED, ROTATED = AnswerOrder
COOKIE = b"\0\x0a\0\x08abcdefgh"


@dataclass
class Copies:
    """The copies of one service, behind a summoner that names them in turn."""

    lab: SimpleNamespace
    summoner: Any
    rule: AnswerOrder
    weights: Sequence[float]
    name: str = "web"
    ipv6: bool = False

    def __post_init__(self) -> None:
        self.copies = tuple(
            Copy(self.lab.endpoint(self.name, last, ipv6=self.ipv6), free_cpu=weight)
            for last, weight in enumerate(self.weights, 1)
        )
        self.turns = whole_round(self.rule, self.copies)
        self._taken = Turns()

    @property
    def route(self) -> Route:
        service = {"web": self.lab.WEB, "six": self.lab.SIX}[self.name]
        endpoints = tuple(copy.endpoint for copy in self.copies)
        return Route(service, endpoints, ipv6=self.ipv6, turns=self.turns)

    def next(self) -> Order:
        """Have the summoner name them in the order of the next turn."""
        return self.say(self._taken.order(self.name, self.rule, self.copies))

    def say(self, order: Order) -> Order:
        ended: Future[tuple[Endpoint, ...]] = Future()
        ended.set_result(order)
        self.summoner.futures[self.name] = ended
        return order


def firsts(replies: Sequence[bytes]) -> list[int]:
    """Return the last octet of the first address in each reply."""
    return [int(str(DNSRecord.parse(reply).rr[0].rdata).rpartition(".")[2]) for reply in replies]


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_turn_is_the_reply_of_the_slow_path_byte_for_byte(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    summoner: Any,
    asker: Callable[..., Any],
    data: st.DataObject,
) -> None:
    weights = data.draw(
        st.lists(st.sampled_from((0.0, 0.5, 1.0, 2.5, 4.0)), min_size=2, max_size=5)
    )
    rule = data.draw(st.sampled_from((ORDERED, WEIGHTED, ROTATED)))
    name, qtype = data.draw(
        st.sampled_from((("web.edge.test", 1), *(("six.deep.edge.test", t) for t in (1, 28, 65))))
    )
    copies = Copies(lab, summoner, rule, weights, name[:3], ipv6=name.startswith("six"))
    form = {
        "edns": data.draw(st.sampled_from((None, 512, 4096))),
        "do": data.draw(st.booleans()),
        "flags": data.draw(st.sampled_from((0, 0x0100, 0x0110))),
    }
    fast, slow = make_resolver(), make_resolver()
    fast.set((copies.route,))
    slow.set((Route(copies.route.service, copies.route.endpoints, ipv6=copies.ipv6),))
    asked = "".join(data.draw(st.sampled_from((c.lower(), c.upper()))) for c in name)
    copies.say(copies.turns[-1])
    asker(fast)(lab.query(name, qtype, **form))
    after = copies.turns.index(copies.turns[-1]) + 1
    replies = [fast.packed.reply(lab.query(asked, qtype, **form)) for _ in copies.turns]
    said = []
    for order in copies.turns:
        copies.say(order)
        said.append(asker(slow)(lab.query(asked, qtype, **form)))
    assert len(slow.packed) == 0
    # An order that comes several times in a round may be any of them.
    rounds = [said[turn:] + said[:turn] for turn in range(len(said))]
    assert replies in rounds
    if copies.turns.count(copies.turns[-1]) == 1:
        assert replies == said[after:] + said[:after]


@pytest.mark.parametrize("form", [{}, {"edns": 1232}, {"edns": 1232, "options": COOKIE}], ids=str)
@pytest.mark.parametrize(
    ("rule", "weights", "wanted"),
    [
        (ROTATED, (9.0, 1.0, 0.0), {1: 40, 2: 40, 3: 40}),
        (ORDERED, (1.0, 1.0), {1: 60, 2: 60}),
        (WEIGHTED, (6.0, 3.0, 1.0), {1: 72, 2: 36, 3: 12}),
        (WEIGHTED, (3.0, 3.0), {1: 60, 2: 60}),
        (WEIGHTED, (2.5, 0.5), {1: 100, 2: 20}),
    ],
    ids=str,
)
def test_over_many_answers_each_is_first_by_its_share(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    asker: Callable[..., Any],
    rule: AnswerOrder,
    weights: tuple[float, ...],
    wanted: dict[int, int],
    form: dict[str, Any],
) -> None:
    copies = Copies(lab, summoner, rule, weights)
    resolver.set((copies.route,))
    copies.next()
    query = lab.query(**form)
    asker(resolver)(query)
    replies = [resolver.packed.reply(query, "192.0.2.1") for _ in range(120)]
    assert Counter(firsts([reply for reply in replies if reply])) == wanted
    assert summoner.asked["web"]


def test_threads_take_turns_and_none_is_lost(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    copies = Copies(lab, summoner, ROTATED, (1.0, 1.0, 1.0))
    resolver.set((copies.route,))
    copies.next()
    asker(resolver)(lab.query())

    def ask_often(_: int) -> list[bytes]:
        return [resolver.packed.reply(lab.query()) or b"" for _ in range(1500)]

    with ThreadPoolExecutor(4) as pool:
        said = Counter(itertools.chain.from_iterable(pool.map(ask_often, range(4))))
    assert sorted(said.values()) == [2000, 2000, 2000]


def test_other_turns_forget_what_is_packed_of_that_service_only(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    before, after = (Copies(lab, summoner, WEIGHTED, (2.0, weight)) for weight in (2.0, 1.0))
    six = Route(lab.SIX, (lab.endpoint("six", ipv6=True),), ipv6=True)
    resolver.set((before.route, six))
    before.next()
    for name in ("web.edge.test", "six.deep.edge.test"):
        asker(resolver)(lab.query(name))
    assert len(resolver.packed) == 2
    resolver.set((before.route, six))
    assert len(resolver.packed) == 2
    resolver.set((after.route, six))
    assert resolver.packed.reply(lab.query("six.deep.edge.test"))
    assert resolver.packed.reply(lab.query()) is None
    after.next()
    asker(resolver)(lab.query())
    replies = [resolver.packed.reply(lab.query()) or b"" for _ in range(30)]
    assert Counter(firsts(replies)) == {1: 20, 2: 10}


def test_where_the_order_depends_on_who_asks_nothing_is_packed(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    summoner: Any,
    asker: Callable[..., Any],
) -> None:
    known = Population("campus", (ip_network("10.0.0.0/8"),), "r1")
    resolver = make_resolver(populations=(known,), client_subnet=True)
    copies = Copies(lab, summoner, ROTATED, (1.0, 1.0))
    resolver.set((Route(lab.WEB, copies.route.endpoints),))
    copies.next()
    asker(resolver)(lab.query())
    assert len(resolver.packed) == 0
    resolver.set((copies.route,))
    subnet = b"\0\x08\0\x07\0\1\x18\0\x0a\0\0"
    asker(resolver)(lab.query(edns=1232, options=subnet))
    assert len(resolver.packed) == 0
    asker(resolver)(lab.query(edns=1232))
    assert len(resolver.packed) == 1
    assert resolver.packed.reply(lab.query(edns=1232, options=subnet)) is None


def test_what_control_says_of_other_endpoints_is_not_packed(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    resolver.set((Copies(lab, summoner, ROTATED, (1.0, 1.0)).route,))
    Copies(lab, summoner, ROTATED, (1.0, 1.0, 1.0)).next()
    asker(resolver)(lab.query())
    assert len(resolver.packed) == 0


def test_an_order_that_is_no_turn_of_the_round_begins_it_anywhere(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    copies = Copies(lab, summoner, ROTATED, (1.0, 1.0, 1.0))
    resolver.set((copies.route,))
    one, two, three = copies.turns[0]
    copies.say((three, two, one))
    asker(resolver)(lab.query())
    replies = [resolver.packed.reply(lab.query()) or b"" for _ in range(6)]
    assert firsts(replies) in [[1, 2, 3] * 2, [2, 3, 1] * 2, [3, 1, 2] * 2]
    assert all(len(DNSRecord.parse(reply).rr) == 3 for reply in replies)


def test_too_many_copies_for_512_bytes_stay_with_the_slow_path(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    copies = Copies(lab, summoner, ROTATED, [1.0] * 40)
    resolver.set((copies.route,))
    copies.next()
    for edns in (None, 1232):
        asker(resolver)(lab.query(edns=edns))
    assert len(resolver.packed) == 0


def test_odd_questions_do_not_encode_a_round_again(
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    asker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack, packed = answers.pack, []

    def counted(*args: Any, **more: Any) -> bytes:
        packed.append(args)
        return pack(*args, **more)

    monkeypatch.setattr(answers, "pack", counted)
    copies = Copies(lab, summoner, ROTATED, (1.0, 1.0, 1.0))
    resolver.set((copies.route,))
    for _ in range(30):
        copies.next()
        asker(resolver)(lab.query(edns=1232, options=b"\0\3\0\0"))  # NSID
    assert len(packed) == 3 + 3  # the round, then each order as the slow path keeps it


def test_no_address_is_the_same_in_every_turn(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    copies = Copies(lab, summoner, ROTATED, (1.0, 1.0), "six")
    resolver.set((Route(lab.SIX, copies.route.endpoints, ipv6=True, turns=copies.turns),))
    copies.next()
    query = lab.query("six.deep.edge.test", 28)
    slow = asker(resolver)(query)
    assert {resolver.packed.reply(query) for _ in range(4)} == {slow}


# --- in other processes -----------------------------------------------------------------------


def test_a_process_begins_the_round_anywhere_and_keeps_its_order() -> None:
    tails = tuple(bytes((number,)) for number in range(8))
    entry = Entry("web", 0, (bytes(10),) * 4, tails)
    begun = {entry.begun_anywhere().tails for _ in range(400)}
    assert begun == {tails[first:] + tails[:first] for first in range(8)}
    copy = entry.begun_anywhere()
    assert [next(copy.turn) for _ in range(16)] == [*copy.tails, *copy.tails]


def test_the_longest_round_fits_into_a_message(lab: SimpleNamespace, summoner: Any) -> None:
    most = 512 // 16
    weights = [1.0 + 0.01 * number for number in range(most)]
    turns = Copies(lab, summoner, WEIGHTED, weights).turns
    assert most <= len(turns) <= ROUND + most // 2 + most
    entry = Entry("w" * 63, 0, (bytes(10),) * 4, (bytes(512),) * (ROUND + most // 2 + most))
    assert len(messages.pack_entry(1, bytes(259), entry)) <= messages.MAX_BYTES


def test_over_sockets_of_several_processes_all_copies_come_first_alike(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any
) -> None:
    copies = Copies(lab, summoner, ROTATED, (1.0, 1.0, 1.0))
    resolver.set((copies.route,))
    copies.next()
    server = DnsServer(resolver, "127.0.0.1", 0, processes=3)
    server.start()
    try:
        for count, least in ((100, 0), (600, 190)):  # first until both have it
            replies = []
            for _ in range(count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.settimeout(30.0)
                    sock.connect(server.address)
                    sock.send(lab.query())
                    replies.append(sock.recv(4096))
            heard = Counter(firsts(replies))
            assert len(heard) == 3
            assert min(heard.values()) >= least
    finally:
        server.stop()
