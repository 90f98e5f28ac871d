"""From question to answer: what wakes, what is held, and what everything else is told."""

import threading
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import RCODE, DNSRecord

from dns_boot.resolver import Resolver, Source
from orchestrator.errors import NoCapacity, NotReady
from orchestrator.model import Population
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


def test_a_newer_edns_version_is_told_so(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Ask
) -> None:
    record = DNSRecord.parse(asker(resolver)(lab.query(edns=1232, version=1)))
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
        assert {rr.ttl for rr in record.rr} == {7}
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
        ((5, 6), (6, 5), False, 1),
        ((5, 6), (6, 5), True, 0),  # the order depends on who asks
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
