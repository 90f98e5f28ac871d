"""The packed answers: same bytes as the slow path, never stale, never without bound."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dns_boot.names import Query, parse_query
from dns_boot.packed import PackedAnswers
from dns_boot.resolver import Resolver
from orchestrator.model import Population
from orchestrator.steering.base import Route

NSID = b"\0\3\0\0"
STAMP_AND_HASH = bytes(12)  # what differs between two cookies of one client


def awake(lab: SimpleNamespace, resolver: Resolver, *, forgotten: bool = False) -> None:
    if forgotten:
        resolver.set(())
    resolver.set(
        (
            Route(lab.WEB, (lab.endpoint("web"),)),
            Route(lab.SIX, (lab.endpoint("six", ipv6=True),), ipv6=True),
        )
    )


def mixed_case(data: st.DataObject, name: str) -> str:
    return "".join(data.draw(st.sampled_from((c.lower(), c.upper()))) for c in name)


@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_packed_reply_is_the_reply_of_the_slow_path_byte_for_byte(
    lab: SimpleNamespace,
    resolver: Resolver,
    asker: Callable[..., Any],
    data: st.DataObject,
) -> None:
    name, qtype = data.draw(
        st.sampled_from(
            [("web.edge.test", 1), ("www.edge.test", 1), ("web.edge.test", 28)]
            + [("six.deep.edge.test", qtype) for qtype in (1, 28, 64, 65, 16)]
            + [("edge.test", 6), ("edge.test", 2), ("deep.edge.test", 1)]
        )
    )
    form = {
        "edns": data.draw(st.sampled_from((None, 0, 512, 1232, 4096))),
        "do": data.draw(st.booleans()),
    }
    awake(lab, resolver, forgotten=True)
    first = lab.query(name, qtype, ident=1, **form)
    assert resolver.packed.reply(first) is None
    asker(resolver)(first)
    again = lab.query(
        mixed_case(data, name),
        qtype,
        ident=data.draw(st.integers(0, 65535)),
        flags=data.draw(st.sampled_from((0, 0x0100, 0x0010, 0x0110, 0x0120, 0x0130))),
        **form,
    )
    fast = resolver.packed.reply(again)
    assert fast is not None
    assert fast == asker(resolver)(again)


def test_a_packed_answer_keeps_its_service_awake_and_wakes_nobody(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    awake(lab, resolver)
    asker(resolver)(lab.query())
    summoner.asked.clear()
    assert resolver.packed.reply(lab.query(ident=7)) is not None
    assert set(summoner.asked) == {"web"}
    assert len(summoner.calls) == 1


def test_a_packed_nodata_does_not_keep_a_service_awake(
    lab: SimpleNamespace, resolver: Resolver, summoner: Any, asker: Callable[..., Any]
) -> None:
    asker(resolver)(lab.query(qtype=28))
    assert resolver.packed.reply(lab.query(qtype=28)) is not None
    assert not summoner.asked
    assert not summoner.calls


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": 0x8100},  # a response
        {"flags": 0x2900},  # opcode UPDATE
        {"flags": 0x0140},  # the Z bit
        {"edns": 1232, "version": 1},
        {"edns": 1232, "options": b"\0\x0a\0\x08abcdefgh\0\x03\0\0"},  # a cookie and NSID
        {"edns": 1232, "options": b"\0\x0a\0\x10abcdefghabcdefgh"},  # a cookie not of ours
        {"edns": 1232, "options": b"\0\0\0\0"},
        {"qclass": 3},
        {"qtype": 2},
        {"name": "web2.edge.test"},
        {"name": "veb.edge.test"},
    ],
    ids=str,
)
def test_any_other_query_goes_to_the_slow_path(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any], changes: dict[str, Any]
) -> None:
    awake(lab, resolver)
    for edns in (None, 1232):
        asker(resolver)(lab.query(edns=edns))
    assert resolver.packed.reply(lab.query(edns=1232)) is not None
    assert resolver.packed.reply(lab.query(**changes)) is None


def test_type_97_is_not_taken_for_https(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any]
) -> None:
    # 65 is the letter A: a careless lower-casing of the question would make it 97.
    awake(lab, resolver)
    asker(resolver)(lab.query("six.deep.edge.test", 65))
    assert resolver.packed.reply(lab.query("SIX.deep.edge.test", 65)) is not None
    assert resolver.packed.reply(lab.query("six.deep.edge.test", 97)) is None


def test_a_change_of_routes_forgets_everything(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any]
) -> None:
    awake(lab, resolver)
    asker(resolver)(lab.query())
    assert len(resolver.packed) == 1
    resolver.set(lab.routes)
    assert len(resolver.packed) == 0
    assert resolver.packed.reply(lab.query()) is None


def test_random_names_take_no_room(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any]
) -> None:
    ask = asker(resolver)
    for number in range(200):
        ask(lab.query(f"r{number}.edge.test"))
        ask(lab.query(f"r{number}.elsewhere.test"))
        ask(lab.query("web.edge.test", 1000 + number))
    assert len(resolver.packed) == 0


def entry_for(lab: SimpleNamespace, name: str) -> tuple[Query, bytes]:
    query = parse_query(lab.query(name))
    assert isinstance(query, Query)
    return query, lab.query(name, flags=0x8500)


def test_a_reply_from_older_routes_is_not_kept(lab: SimpleNamespace) -> None:
    packed = PackedAnswers({})
    packed.forget(2)
    query, reply = entry_for(lab, "web.edge.test")
    packed.add(1, query, reply)
    assert len(packed) == 0
    packed.add(2, query, reply)
    assert len(packed) == 1


def test_a_truncated_or_long_reply_is_not_kept(lab: SimpleNamespace) -> None:
    packed = PackedAnswers({})
    query, reply = entry_for(lab, "web.edge.test")
    packed.add(0, query, lab.query(flags=0x8700))
    packed.add(0, query, reply + bytes(500))
    assert len(packed) == 0


def test_beyond_its_bound_the_oldest_goes(lab: SimpleNamespace) -> None:
    packed = PackedAnswers({}, limit=30)
    for number in range(50):
        packed.add(0, *entry_for(lab, f"web{number}.edge.test"))
    assert len(packed) == 10
    assert packed.reply(lab.query("web49.edge.test")) is not None
    assert packed.reply(lab.query("web0.edge.test")) is None


# --- service by service -----------------------------------------------------------------------


def test_a_change_of_one_service_leaves_the_others_warm(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any]
) -> None:
    six = Route(lab.SIX, (lab.endpoint("six", ipv6=True),), ipv6=True)
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)), six))
    ask = asker(resolver)
    for name, qtype in (("web.edge.test", 1), ("six.deep.edge.test", 1), ("edge.test", 6)):
        for edns in (None, 1232):
            ask(lab.query(name, qtype, edns=edns))
    ask(lab.query("www.edge.test"))
    assert len(resolver.packed) == 7
    resolver.set((Route(lab.WEB), six))
    assert len(resolver.packed) == 4
    for name in ("web.edge.test", "www.edge.test"):
        assert resolver.packed.reply(lab.query(name)) is None
        assert resolver.packed.reply(lab.query(name, edns=1232)) is None
    assert resolver.packed.reply(lab.query("six.deep.edge.test")) is not None
    assert resolver.packed.reply(lab.query("edge.test", 6)) is not None


@pytest.mark.parametrize("change", ["names", "alpn", "ipv6", "gone", "populations"])
def test_whatever_is_not_endpoints_empties_the_table(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    asker: Callable[..., Any],
    change: str,
) -> None:
    known: list[Population] = []
    resolver = make_resolver(populations=lambda: tuple(known))
    awake(lab, resolver)
    asker(resolver)(lab.query())
    asker(resolver)(lab.query(qtype=28))
    web, six = lab.WEB, Route(lab.SIX, (lab.endpoint("six", ipv6=True),), ipv6=True)
    ends = (lab.endpoint("web"),)
    routes = {
        "names": (Route(replace(web, names=("web.edge.test",)), ends), six),
        "alpn": (Route(replace(web, alpn=("h2",)), ends), six),
        "ipv6": (Route(web, ends, ipv6=True), six),
        "gone": (Route(web, ends),),
        "populations": (Route(web, ends), six),
    }
    if change == "populations":
        known.append(Population("all", (ip_network("0.0.0.0/0"),), "r1"))
    resolver.set(routes[change])
    assert len(resolver.packed) == 0


def test_a_reply_is_kept_if_its_own_service_did_not_change(lab: SimpleNamespace) -> None:
    packed = PackedAnswers({})
    packed.forget(1)
    packed.forget(5, ("other",))
    query, reply = entry_for(lab, "web.edge.test")
    packed.add(3, query, reply, service="other")
    assert len(packed) == 0
    packed.add(3, query, reply, service="web")
    assert len(packed) == 1
    packed.forget(6, ("web",))
    assert len(packed) == 0
    packed.add(5, query, reply, service="web")
    assert len(packed) == 0


def test_an_answer_for_one_client_only_is_not_kept(lab: SimpleNamespace) -> None:
    packed = PackedAnswers({})
    query = parse_query(lab.query(edns=1232))
    assert isinstance(query, Query)
    subnet = b"\0\x08\0\x07\0\1\x18\x18\x0a\0\0"
    packed.add(0, query, lab.query(flags=0x8500, edns=1232, options=subnet))
    assert len(packed) == 0
    packed.add(0, query, lab.query(flags=0x8500, edns=1232))
    assert len(packed) == 1


# --- cookies ----------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_packed_reply_carries_the_cookie_of_the_slow_path(
    lab: SimpleNamespace,
    resolver: Resolver,
    asker: Callable[..., Any],
    data: st.DataObject,
) -> None:
    awake(lab, resolver, forgotten=True)
    name, qtype = data.draw(st.sampled_from([("web.edge.test", 1), ("web.edge.test", 28)]))
    do = data.draw(st.booleans())
    ask = asker(resolver)
    address = ask.source.address
    client = data.draw(st.binary(min_size=8, max_size=8))
    cookie = data.draw(
        st.one_of(
            st.just(client),
            st.just(resolver.packed.cookies.answer(client, address)[0]),
            st.binary(min_size=24, max_size=24),
        )
    )
    ask(lab.query(name, qtype, edns=1232, do=do, options=data.draw(st.sampled_from((b"", NSID)))))
    option = b"\0\x0a" + len(cookie).to_bytes(2, "big") + cookie
    query = lab.query(mixed_case(data, name), qtype, edns=4096, do=do, options=option)
    fast = resolver.packed.reply(query, address)
    assert fast is not None
    slow = ask(query)
    assert fast[: -len(STAMP_AND_HASH)] == slow[: -len(STAMP_AND_HASH)]
    assert resolver.packed.cookies.answer(fast[-24:], address)[1]


def test_a_cookie_does_not_make_a_reply_too_long(lab: SimpleNamespace) -> None:
    packed = PackedAnswers({})
    query = parse_query(lab.query(edns=1232))
    assert isinstance(query, Query)
    reply = lab.query(flags=0x8500, edns=1232)
    for filling in range(380, 512):
        packed.forget(filling)
        packed.add(filling, query, reply[:-11] + bytes(filling) + reply[-11:])
        found = packed.reply(lab.query(edns=1232, options=b"\0\x0a\0\x08abcdefgh"))
        assert found is None or len(found) <= 512
    assert found is None
