"""From question to answer: what wakes, what is held, and what everything else is told."""

import struct
import threading
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import RCODE, DNSRecord

from dns_boot.resolver import Resolver, Source
from orchestrator.errors import NoCapacity, NotReady
from orchestrator.model import AnswerOrder, Population
from orchestrator.steering.base import Route

A, NS, SOA, MX, TXT, AAAA, SVCB, HTTPS, ANY = 1, 2, 6, 15, 16, 28, 64, 65, 255
CH = 3
Ask = Callable[..., Any]

# name, type, class, rcode, answers, SOA in authority, service woken, Extended DNS Error
RULES = [
    ("web.edge.test", A, 1, "NOERROR", 1, False, "web", None),
    ("www.edge.test", A, 1, "NOERROR", 1, False, "web", None),
    ("WEB.EDGE.TEST", A, 1, "NOERROR", 1, False, "web", None),
    ("six.deep.edge.test", A, 1, "NOERROR", 1, False, "six", None),
    ("six.deep.edge.test", AAAA, 1, "NOERROR", 1, False, "six", None),
    ("six.deep.edge.test", HTTPS, 1, "NOERROR", 1, False, "six", None),
    ("six.deep.edge.test", SVCB, 1, "NOERROR", 1, False, "six", None),
    # what boots nothing
    ("web.edge.test", AAAA, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", HTTPS, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", SVCB, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", TXT, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", MX, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", NS, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", SOA, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", 43, 1, "NOERROR", 0, True, None, None),
    ("web.edge.test", ANY, 1, "REFUSED", 0, False, None, 21),
    ("web.edge.test", 252, 1, "REFUSED", 0, False, None, 21),
    ("web.edge.test", A, CH, "REFUSED", 0, False, None, 21),
    ("web.edge.test", A, 255, "REFUSED", 0, False, None, 21),
    ("version.bind", TXT, CH, "REFUSED", 0, False, None, 21),
    # the zone itself
    ("edge.test", SOA, 1, "NOERROR", 1, False, None, None),
    ("edge.test", NS, 1, "NOERROR", 1, False, None, None),
    ("edge.test", A, 1, "NOERROR", 0, True, None, None),
    ("edge.test", ANY, 1, "REFUSED", 0, False, None, 21),
    ("ns.edge.test", A, 1, "NOERROR", 1, False, None, None),
    ("ns.edge.test", AAAA, 1, "NOERROR", 0, True, None, None),
    # names above, below and beside
    ("deep.edge.test", A, 1, "NOERROR", 0, True, None, None),
    ("other.deep.edge.test", A, 1, "NXDOMAIN", 0, True, None, None),
    ("a.web.edge.test", A, 1, "NXDOMAIN", 0, True, None, None),
    ("nobody.edge.test", A, 1, "NXDOMAIN", 0, True, None, None),
    ("test", A, 1, "REFUSED", 0, False, None, 20),
    (".", NS, 1, "REFUSED", 0, False, None, 20),
    ("notedge.test", A, 1, "REFUSED", 0, False, None, 20),
    ("example.org", A, 1, "REFUSED", 0, False, None, 20),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}-{rule[1]}-{rule[2]}")
@pytest.mark.parametrize("edns", [None, 1232])
def test_every_question_gets_what_the_rules_say(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    asker: Ask,
    rule: tuple[Any, ...],
    edns: int | None,
) -> None:
    name, qtype, qclass, rcode, count, soa, woken, ede = rule
    packet = lab.query(name, qtype, qclass, edns=edns)
    reply = asker(resolver)(packet)
    record = DNSRecord.parse(reply)
    assert record.header.id == 0x1234
    assert record.header.qr
    assert record.header.rd
    assert not record.header.ra
    assert RCODE[record.header.rcode] == rcode
    assert bool(record.header.aa) is (rcode in {"NOERROR", "NXDOMAIN"})
    assert len(record.rr) == count
    assert [rr.rtype for rr in record.auth] == ([SOA] if soa else [])
    assert [service for service, _ in summoner.calls] == ([woken] if woken else [])
    assert set(summoner.asked) == ({woken} if woken else set())
    assert lab.ede(reply)[0] == ede if edns and ede else lab.ede(reply) is None
    assert sum(rr.rtype == 41 for rr in record.ar) == (edns is not None)
    assert reply[12 : 12 + len(packet)].startswith(packet[12 : len(packet) - (11 if edns else 0)])


@pytest.mark.parametrize("options", [b"", b"\0\x0a\0\3abc", b"\xff"])
def test_a_newer_edns_version_is_told_so_whatever_its_options_are(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask, options: bytes
) -> None:
    query = lab.query(edns=1232, version=1, options=options)
    record = DNSRecord.parse(asker(resolver)(query))
    (opt,) = record.ar
    assert (record.header.rcode, opt.ttl >> 24, opt.ttl >> 16 & 0xFF) == (0, 1, 0)
    assert not record.rr
    assert not summoner.calls


@pytest.mark.parametrize("do", [False, True])
def test_the_do_bit_comes_back(
    lab: SimpleNamespace, resolver: Resolver, asker: Ask, do: bool
) -> None:
    (opt,) = DNSRecord.parse(asker(resolver)(lab.query(edns=4096, do=do))).ar
    assert (opt.rclass, opt.ttl, opt.rdata) == (1232, 0x8000 if do else 0, [])


def test_a_service_may_live_at_the_apex(
    lab: SimpleNamespace, resolver: Resolver, asker: Ask
) -> None:
    resolver.set((Route(lab.service("top", names=("edge.test",))),))
    ask = asker(resolver)
    for qtype, answer in ((A, "10.0.0.5"), (NS, "ns.edge.test.")):
        assert str(DNSRecord.parse(ask(lab.query("edge.test", qtype))).rr[0].rdata) == answer


def test_a_name_that_was_taken_away_is_gone(
    lab: SimpleNamespace, resolver: Resolver, asker: Ask
) -> None:
    ask = asker(resolver)
    assert DNSRecord.parse(ask(lab.query())).header.rcode == 0
    resolver.set(())
    assert DNSRecord.parse(ask(lab.query())).header.rcode == 3


def test_the_source_address_decides_the_population(
    lab: SimpleNamespace, make_resolver: Ask, summoner: Any, asker: Ask
) -> None:
    resolver = make_resolver(
        populations=(Population("campus", (ip_network("10.1.0.0/16"),), "r1"),)
    )
    asker(resolver, "10.1.2.3")(lab.query())
    asker(resolver, "10.2.2.3")(lab.query())
    assert [client.population for _, client in summoner.calls] == ["campus", ""]
    assert summoner.calls[0][1].address == ip_address("10.1.2.3")


# --- held queries -----------------------------------------------------------------------------


def test_a_query_is_held_until_the_wake_is_over(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    wake = summoner.sleeping("web")
    first, second = asker(resolver, port=1), asker(resolver, port=2)
    first.send(lab.query(ident=1))
    second.send(lab.query(ident=2))  # while it boots: held as well, not answered early
    assert (first.replies, second.replies, resolver.held) == ([], [], 2)
    assert not summoner.asked
    wake.set_result((lab.endpoint("web", 8), lab.endpoint("web", 9)))
    assert resolver.held == 0
    for asked, ident in ((first, 1), (second, 2)):
        (reply,) = asked.replies
        record = DNSRecord.parse(reply)
        assert record.header.id == ident
        assert [str(rr.rdata) for rr in record.rr] == ["10.0.0.8", "10.0.0.9"]
        assert {rr.ttl for rr in record.rr} == {2}  # it waited; 7 when warm
    assert "web" in summoner.asked
    assert [stage for stage, _ in summoner.traces["web"].wake(1).stamps] == ["query", "reply"]


def test_a_hundred_sockets_get_the_same_answer(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    wake = summoner.sleeping("web")
    askers = [asker(resolver, port=port) for port in range(1, 101)]
    for number, asked in enumerate(askers):
        asked.send(lab.query(ident=number))
    route = Route(lab.WEB, (lab.endpoint("web"),))
    resolver.set((route,))  # control announces first, then the wake ends
    wake.set_result((lab.endpoint("web"),))
    for number, asked in enumerate(askers):
        (reply,) = asked.replies
        record = DNSRecord.parse(reply)
        assert record.header.id == number
        assert [str(rr.rdata) for rr in record.rr] == ["10.0.0.5"]
    assert len(resolver.packed) == 0  # what waited is short-lived
    del summoner.futures["web"]
    warm = DNSRecord.parse(askers[0](lab.query()))
    assert [rr.ttl for rr in warm.rr] == [7]
    assert len(resolver.packed) == 1


def test_a_retransmission_is_answered_once(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    wake = summoner.sleeping("web")
    asked = asker(resolver)
    for _ in range(3):
        asked.send(lab.query())
    assert asked.replies == [None, None]
    assert len(summoner.calls) == 1
    asked.send(lab.query(ident=2))  # another id is another query
    wake.set_result((lab.endpoint("web"),))
    assert len([reply for reply in asked.replies if reply]) == 2


@pytest.mark.parametrize("edns", [None, 1232])
def test_a_failed_wake_is_a_servfail_with_its_reason(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask, edns: int | None
) -> None:
    wake = summoner.sleeping("web")
    asked = asker(resolver)
    asked.send(lab.query(edns=edns))
    wake.set_exception(NoCapacity("web", "no host has 64 MiB free"))
    (reply,) = asked.replies
    assert DNSRecord.parse(reply).header.rcode == 2
    assert lab.ede(reply) == ((0, "web: no host has 64 MiB free") if edns else None)
    assert not summoner.asked
    assert [stage for stage, _ in summoner.traces["web"].wake(1).stamps] == ["query", "reply"]


def test_a_failure_is_not_remembered(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    summoner.sleeping("web").set_exception(NotReady("web", "too slow"))
    ask = asker(resolver)
    assert DNSRecord.parse(ask(lab.query())).header.rcode == 2
    del summoner.futures["web"]
    assert DNSRecord.parse(ask(lab.query())).header.rcode == 0


def test_a_wake_that_never_ends_is_given_up(
    lab: SimpleNamespace, make_resolver: Ask, summoner: Any
) -> None:
    resolver = make_resolver(grace_s=0.05)
    resolver.set((Route(lab.service("web", deadline_s=0.05)), Route(lab.service("slow"))))
    replied = threading.Event()
    replies: list[bytes] = []

    def respond(reply: bytes) -> None:
        replies.append(reply)
        replied.set()

    wake = summoner.sleeping("web")
    summoner.sleeping("slow")
    resolver.resolve(lab.query("slow.edge.test"), Source("192.0.2.1", 1), respond)
    resolver.resolve(lab.query(edns=1232), Source("192.0.2.1", 1), respond)
    assert replied.wait(30)
    assert lab.ede(replies[0]) == (14, "web: no answer within its deadline of 0.05 s")
    assert DNSRecord.parse(replies[0]).header.rcode == 2
    assert resolver.held == 1  # the other one has time left
    wake.set_result((lab.endpoint("web"),))  # too late: nothing more is said
    assert len(replies) == 1


def test_an_alarm_for_an_old_query_leaves_a_new_one_alone(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    asked = asker(resolver)
    wake = summoner.sleeping("web")
    asked.send(lab.query())
    (old,) = resolver._held.values()
    wake.set_result((lab.endpoint("web"),))
    del summoner.futures["web"]
    summoner.sleeping("web")
    asked.send(lab.query())  # same source, same id, same question
    resolver._expire(old)
    assert resolver.held == 1
    assert len(asked.replies) == 1


def test_beyond_the_bound_queries_are_told_so_at_once(
    lab: SimpleNamespace, make_resolver: Ask, summoner: Any, asker: Ask
) -> None:
    resolver = make_resolver(held_limit=2)
    summoner.sleeping("web")
    asked = asker(resolver)
    for ident in (1, 2):
        asked.send(lab.query(ident=ident))
    reply = asked(lab.query(ident=3, edns=1232))
    assert DNSRecord.parse(reply).header.rcode == 2
    assert lab.ede(reply) == (0, "web: 2 queries are waiting already")
    assert len(summoner.calls) == 2


def test_closing_tells_those_who_wait(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    summoner.sleeping("web")
    asked = asker(resolver)
    asked.send(lab.query(edns=1232))
    resolver.close()
    assert lab.ede(asked.replies[0])[0] == 14
    assert resolver.held == 0


@pytest.mark.parametrize("kind", ["summon raises", "wake raises", "cancelled", "no endpoints"])
def test_a_defect_of_control_is_a_servfail_and_is_logged(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    asker: Ask,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    if kind == "summon raises":
        summoner.error = KeyError("secret")
    elif kind == "wake raises":
        summoner.sleeping("web").set_exception(KeyError("secret"))
    elif kind == "cancelled":
        summoner.sleeping("web").cancel()
    else:
        summoner.sleeping("web").set_result(())
    reply = asker(resolver)(lab.query(edns=1232))
    assert DNSRecord.parse(reply).header.rcode == 2
    assert "secret" not in lab.ede(reply)[1]
    assert bool(caplog.records) is (kind != "cancelled")


# --- packing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("announced", "given", "populations", "packed"),
    [
        ((5,), (5,), False, 1),
        ((5,), (5,), True, 1),
        ((5, 6), (6, 5), False, 0),  # the order changes from one answer to the next
        ((5, 6), (6, 5), True, 0),  # or depends on who asks
        ((), (5,), False, 0),  # control knows more than it announced
        ((6,), (5,), False, 0),  # control is behind what it announced
        ((5, 6), (5,), False, 0),
    ],
)
def test_only_answers_that_the_routes_bear_out_are_packed(
    *,
    lab: SimpleNamespace,
    make_resolver: Ask,
    summoner: Any,
    asker: Ask,
    announced: tuple[int, ...],
    given: tuple[int, ...],
    populations: bool,
    packed: int,
) -> None:
    everyone = (Population("everyone", (ip_network("0.0.0.0/0"),), "r1"),)
    resolver = make_resolver(populations=everyone if populations else ())
    resolver.set((Route(lab.WEB, tuple(lab.endpoint("web", last) for last in announced)),))
    summoner.sleeping("web").set_result(tuple(lab.endpoint("web", last) for last in given))
    del summoner.traces["web"]  # it was awake before
    reply = asker(resolver)(lab.query())
    assert [str(rr.rdata) for rr in DNSRecord.parse(reply).rr] == [f"10.0.0.{n}" for n in given]
    assert len(resolver.packed) == packed


def test_an_answer_made_before_a_change_is_not_packed_after_it(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask, monkeypatch: Any
) -> None:
    route = Route(lab.WEB, (lab.endpoint("web"),))
    resolver.set((route,))
    pack = resolver._pack

    def pack_and_change(*args: Any) -> bytes:
        reply = pack(*args)
        # In the very moment between making the reply and keeping it.
        resolver.set((Route(lab.WEB, (lab.endpoint("web", 6),)),))
        return reply

    monkeypatch.setattr(resolver, "_pack", pack_and_change)
    asker(resolver)(lab.query())
    assert len(resolver.packed) == 0


def test_set_may_be_called_while_questions_come(
    lab: SimpleNamespace, resolver: Resolver, asker: Ask
) -> None:
    """Many changes at once with many questions: every reply is one that was true at the time."""
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
            resolver.set(())

    thread = threading.Thread(target=change)
    thread.start()
    ask = asker(resolver)
    try:
        rcodes = {DNSRecord.parse(ask(lab.query())).header.rcode for _ in range(300)}
    finally:
        stop.set()
        thread.join()
    assert rcodes <= {0, 3}
    resolver.set(())
    assert resolver.packed.reply(lab.query()) is None


def test_knows_tells_existing_names_from_others(lab: SimpleNamespace, resolver: Resolver) -> None:
    for name, known in (
        ("WEB.edge.test", True),
        ("edge.test", True),
        ("deep.edge.test", True),
        ("r1.edge.test", False),
        ("example.org", False),
    ):
        assert resolver.knows(lab.query(name, edns=1232, options=b"\0\x0a\0\x01x")) is known
    assert not resolver.knows(b"")
    assert not resolver.knows(b"\xff" * 40)


# --- how long an answer lives -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl_s", "ttl_waking_s", "waited", "warm"),
    [(7, 2, 2, 7), (7, 9, 7, 7), (1, 2, 1, 1), (5, 0, 0, 5)],
)
def test_what_waited_for_a_wake_lives_shorter(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    asker: Ask,
    ttl_s: int,
    ttl_waking_s: int,
    waited: int,
    warm: int,
) -> None:
    service = lab.service("web", ttl_s=ttl_s, ttl_waking_s=ttl_waking_s)
    endpoint = lab.endpoint("web", ttl_s=ttl_s)
    wake = summoner.sleeping("web")
    asked = asker(resolver)
    resolver.set((Route(service),))
    asked.send(lab.query())
    resolver.set((Route(service, (endpoint,)),))
    wake.set_result((endpoint,))
    del summoner.traces["web"]
    asked.send(lab.query(ident=2))
    ttls = [DNSRecord.parse(reply).rr[0].ttl for reply in asked.replies]
    assert ttls == [waited, warm]


def test_those_who_waited_get_what_they_asked_for_each_in_its_form(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    wake = summoner.sleeping("six")
    packets = [
        lab.query(name, qtype, ident=ident, flags=flags, edns=edns, do=do)
        for name in ("six.deep.edge.test", "SIX.deep.edge.test")
        for qtype in (A, AAAA, HTTPS)
        for flags in (0, 0x100, 0x110)
        for edns, do in ((None, False), (1232, False), (1232, True))
        for ident in (1, 2)
    ]
    askers = [asker(resolver, port=port) for port in range(len(packets))]
    for asked, packet in zip(askers, packets, strict=True):
        asked.send(packet)
    wake.set_result((lab.endpoint("six", ipv6=True),))
    for asked, packet in zip(askers, packets, strict=True):
        (reply,) = asked.replies
        question, record = DNSRecord.parse(packet), DNSRecord.parse(reply)
        assert record.header.id == question.header.id
        assert (record.header.rd, record.header.cd) == (question.header.rd, question.header.cd)
        assert reply[12:].startswith(packet[12 : 12 + 24])
        assert [rr.rtype for rr in record.rr] == [question.q.qtype]
        assert [opt.ttl for opt in record.ar] == [opt.ttl for opt in question.ar]


# --- whom a resolver asks for -----------------------------------------------------------------

CAMPUS = Population("campus", (ip_network("10.1.0.0/16"), ip_network("fd01::/32")), "r1")


def ecs(network: str, scope: int = 0) -> bytes:
    net = ip_network(network)
    data = net.network_address.packed[: (net.prefixlen + 7) // 8]
    family = 1 if net.version == 4 else 2
    return struct.pack("!HHHBB", 8, 4 + len(data), family, net.prefixlen, scope) + data


def ecs_of(reply: bytes) -> bytes | None:
    for record in DNSRecord.parse(reply).ar:
        for option in record.rdata if record.rtype == 41 else ():
            if option.code == 8:
                return struct.pack("!HH", 8, len(option.data)) + bytes(option.data)
    return None


@pytest.fixture
def two(lab: SimpleNamespace, make_resolver: Ask, summoner: Any) -> Ask:
    """Return a maker of resolvers for which web is awake, twice."""
    both = (lab.endpoint("web", 5), lab.endpoint("web", 6))
    summoner.sleeping("web").set_result(both)
    del summoner.traces["web"]

    def make(**changes: Any) -> Resolver:
        resolver: Resolver = make_resolver(populations=(CAMPUS,), **changes)
        resolver.set((Route(lab.WEB, both), Route(lab.SIX, ipv6=True)))
        return resolver

    return make


@pytest.mark.parametrize(
    ("network", "population", "scope"),
    [
        ("10.1.2.0/24", "campus", 16),
        ("10.1.0.0/16", "campus", 16),
        ("10.0.0.0/8", "", 16),  # too short to tell
        ("10.2.0.0/16", "", 15),  # all that is told from 10.1
        ("192.0.2.0/24", "", 1),
        ("fd01:0:1::/48", "campus", 32),
        ("0.0.0.0/0", "", 0),  # asks us not to look
    ],
)
def test_the_population_of_whom_a_resolver_asks_for_decides(
    *,
    lab: SimpleNamespace,
    two: Ask,
    summoner: Any,
    asker: Ask,
    network: str,
    population: str,
    scope: int,
) -> None:
    resolver = two(client_subnet=True)
    reply = asker(resolver)(lab.query(edns=1232, options=ecs(network)))
    assert summoner.calls[-1][1].population == population
    assert summoner.calls[-1][1].address == ip_address("192.0.2.1")  # who pays for a wake
    assert ecs_of(reply) == ecs(network, scope)
    assert len(resolver.packed) == 0


def test_an_answer_that_everybody_gets_has_no_scope(
    lab: SimpleNamespace, make_resolver: Ask, summoner: Any, asker: Ask
) -> None:
    resolver = make_resolver(populations=(CAMPUS,), client_subnet=True)
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    for name, qtype in (
        ("web.edge.test", A),
        ("web.edge.test", TXT),
        ("edge.test", SOA),
        ("nobody.edge.test", A),
        ("example.org", A),
    ):
        reply = asker(resolver)(lab.query(name, qtype, edns=1232, options=ecs("10.1.0.0/16")))
        assert ecs_of(reply) == ecs("10.1.0.0/16")
    assert len(resolver.packed) == 0
    asker(resolver)(lab.query(edns=1232))
    packed = resolver.packed.reply(lab.query(edns=1232))
    assert packed is not None
    assert ecs_of(packed) is None


def test_a_rotated_answer_has_no_scope(
    lab: SimpleNamespace, two: Ask, summoner: Any, asker: Ask
) -> None:
    resolver = two(client_subnet=True)
    web = lab.service("web", answer=AnswerOrder.ROTATED)
    resolver.set((Route(web, (lab.endpoint("web", 5), lab.endpoint("web", 6))),))
    reply = asker(resolver)(lab.query(edns=1232, options=ecs("10.1.0.0/16")))
    assert ecs_of(reply) == ecs("10.1.0.0/16")


@pytest.mark.parametrize(
    ("changes", "believed"),
    [
        ({}, False),
        ({"client_subnet": True}, True),
        ({"client_subnet": True, "client_subnet_from": (ip_network("192.0.2.0/24"),)}, True),
        ({"client_subnet": True, "client_subnet_from": (ip_network("fd00::/8"),)}, False),
    ],
)
def test_only_who_is_trusted_is_believed(
    *,
    lab: SimpleNamespace,
    two: Ask,
    summoner: Any,
    asker: Ask,
    changes: dict[str, Any],
    believed: bool,
) -> None:
    resolver = two(**changes)
    reply = asker(resolver)(lab.query(edns=1232, options=ecs("10.1.0.0/16")))
    assert summoner.calls[-1][1].population == ("campus" if believed else "")
    assert bool(ecs_of(reply)) is believed
    odd = asker(resolver)(lab.query(edns=1232, options=ecs("10.1.0.0/16", scope=1)))
    assert DNSRecord.parse(odd).header.rcode == (1 if believed else 0)
