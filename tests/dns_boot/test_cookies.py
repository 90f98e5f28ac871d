"""DNS Cookies: made, checked and renewed; on the slow path and in packed replies."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from dns_boot import answers
from dns_boot import cookies as cookies_module
from dns_boot.cookies import AHEAD_S, LIFE_S, RENEW_S, ROTATION_S, Cookies
from dns_boot.names import Query, parse_query
from dns_boot.resolver import Resolver
from orchestrator.steering.base import Route

CLIENT = b"abcdefgh"
ME = "192.0.2.1"  # the address of an asker
NOON = 1_800_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the time of day: `clock.now` (seconds)."""
    fake = SimpleNamespace(now=NOON)
    monkeypatch.setattr(cookies_module, "time", SimpleNamespace(time=lambda: fake.now))
    return fake


def option(cookie: bytes) -> bytes:
    return b"\0\x0a" + len(cookie).to_bytes(2, "big") + cookie


def cookie_of(reply: bytes) -> bytes | None:
    found = [
        bytes(each.data)
        for record in DNSRecord.parse(reply).ar
        if record.rtype == 41
        for each in record.rdata
        if each.code == 10
    ]
    assert len(found) <= 1
    return found[0] if found else None


def rcode_of(reply: bytes) -> int:
    upper = [record.ttl >> 24 for record in DNSRecord.parse(reply).ar if record.rtype == 41]
    return reply[3] & 0xF | sum(upper) << 4


# --- what a cookie is -------------------------------------------------------------------------


def test_a_cookie_is_laid_out_as_rfc_9018_has_it(clock: SimpleNamespace) -> None:
    cookie, good = Cookies().answer(CLIENT, ME)
    assert not good
    assert cookie[:16] == CLIENT + b"\1\0\0\0" + NOON.to_bytes(4, "big")
    assert len(cookie) == 24


def test_a_good_cookie_comes_back_until_it_is_half_an_hour_old(clock: SimpleNamespace) -> None:
    cookies = Cookies()
    cookie, _ = cookies.answer(CLIENT, ME)
    clock.now += RENEW_S - 1
    assert cookies.answer(cookie, ME) == (cookie, True)
    clock.now += 1
    newer, good = cookies.answer(cookie, ME)
    assert good
    assert newer != cookie
    assert cookies.answer(newer, ME) == (newer, True)


@pytest.mark.parametrize(
    ("later_s", "good"),
    [(LIFE_S, True), (LIFE_S + 1, False), (-AHEAD_S, True), (-AHEAD_S - 1, False)],
)
def test_a_cookie_is_good_for_a_time(clock: SimpleNamespace, later_s: int, good: bool) -> None:
    cookies = Cookies()
    cookie, _ = cookies.answer(CLIENT, ME)
    clock.now += later_s
    assert cookies.answer(cookie, ME)[1] is good


def test_a_cookie_outlives_the_change_of_the_days_key(clock: SimpleNamespace) -> None:
    clock.now = NOON // ROTATION_S * ROTATION_S - 1
    cookies = Cookies()
    cookie, _ = cookies.answer(CLIENT, ME)
    for _ in range(3):
        clock.now += 1
        assert cookies.answer(cookie, ME)[1]
    for day in range(5):  # keys of old days are not kept
        clock.now += ROTATION_S
        cookies.answer(CLIENT, ME)
        assert len(cookies._days) <= 2, day


def test_two_days_have_different_keys(clock: SimpleNamespace) -> None:
    cookies = Cookies()
    hashes = set()
    for day in range(2):
        clock.now = NOON + day * ROTATION_S
        hashes.add(cookies.answer(CLIENT, ME)[0][16:])
    assert len(hashes) == 2


@given(place=st.integers(0, 23), bit=st.integers(0, 7))
def test_any_other_bit_makes_it_bad(place: int, bit: int) -> None:
    cookies = Cookies()
    cookie, _ = cookies.answer(CLIENT, ME)
    changed = bytearray(cookie)
    changed[place] ^= 1 << bit
    assert not cookies.answer(bytes(changed), ME)[1]


def test_it_is_good_for_one_address_and_one_secret() -> None:
    cookies, same, other = Cookies(), Cookies(), Cookies()
    same.master = cookies.master
    cookie, _ = cookies.answer(CLIENT, ME)
    assert not cookies.answer(cookie, "192.0.2.2")[1]
    assert not other.answer(cookie, ME)[1]
    assert same.answer(cookie, ME)[1]


# --- queries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 24, 40])
@pytest.mark.parametrize("name", ["web.edge.test", "nobody.edge.test", "example.org"])
def test_every_reply_carries_a_cookie_that_is_good_next_time(
    *, lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any], size: int, name: str
) -> None:
    ask = asker(resolver)
    for _ in range(2):
        reply = ask(lab.query(name, edns=1232, options=option((CLIENT * 5)[:size])))
        cookie = cookie_of(reply)
        assert cookie is not None
        assert cookie[:8] == CLIENT
        assert resolver.packed.cookies.answer(cookie, ME)[1]
    assert cookie_of(ask(lab.query(name, edns=1232, options=option(cookie)))) == cookie


@pytest.mark.parametrize("size", [0, 1, 7, 9, 15, 41, 100])
def test_a_cookie_of_a_wrong_length_is_formerr(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any], size: int
) -> None:
    reply = asker(resolver)(lab.query(edns=1232, options=option(bytes(size))))
    assert rcode_of(reply) == 1


def test_of_two_cookies_the_first_counts(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any]
) -> None:
    both = option(CLIENT) + option(b"ABCDEFGH")
    cookie = cookie_of(asker(resolver)(lab.query(edns=1232, options=both)))
    assert cookie is not None
    assert cookie[:8] == CLIENT


def test_cookies_can_be_off(
    lab: SimpleNamespace, make_resolver: Callable[..., Resolver], asker: Callable[..., Any]
) -> None:
    resolver = make_resolver(cookies="off")
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    query = lab.query(edns=1232, options=option(CLIENT))
    slow = asker(resolver)(query)
    assert cookie_of(slow) is None
    assert resolver.packed.reply(query, ME) == slow


def test_where_they_are_required_a_bad_one_gets_a_good_one(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    asker: Callable[..., Any],
    summoner: Any,
) -> None:
    resolver = make_resolver(cookies="required")
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    ask = asker(resolver)
    bad = ask(lab.query(edns=1232, options=option(CLIENT)))
    assert rcode_of(bad) == 23
    assert not summoner.calls
    cookie = cookie_of(bad)
    assert cookie is not None
    good = lab.query(edns=1232, options=option(cookie))
    assert rcode_of(ask(good)) == 0
    assert resolver.packed.reply(good, ME, limited=True) is not None
    again = lab.query(edns=1232, options=option(CLIENT))
    assert resolver.packed.reply(again, ME, limited=True) is None  # for the resolver to refuse
    assert rcode_of(ask(lab.query())) == 0
    assert rcode_of(ask(lab.query(edns=1232))) == 0
    assert rcode_of(asker(resolver, udp=False)(again)) == 0


def test_whose_address_is_proven_is_passed_on(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any], summoner: Any
) -> None:
    ask = asker(resolver)
    cookie = cookie_of(ask(lab.query("nobody.edge.test", edns=1232, options=option(CLIENT))))
    assert cookie is not None
    ask(lab.query())
    ask(lab.query(edns=1232, options=option(CLIENT)))
    ask(lab.query(edns=1232, options=option(CLIENT * 3)))
    ask(lab.query(edns=1232, options=option(cookie)))
    asker(resolver, udp=False)(lab.query())
    assert [client.proven for _, client in summoner.calls] == [False, False, False, True, True]


# --- replies of other servers -----------------------------------------------------------------


@pytest.mark.parametrize("theirs", [b"", b"\0\x03\0\x02id"])
def test_a_forwarded_reply_carries_our_cookie(lab: SimpleNamespace, theirs: bytes) -> None:
    query = parse_query(lab.query("example.org", edns=1232, options=option(CLIENT * 3)))
    assert isinstance(query, Query)
    reply = lab.query("example.org", flags=0x8180, edns=4096, options=theirs)
    ours = answers.with_cookie(query, reply)
    assert cookie_of(ours) == CLIENT * 3
    assert theirs in ours
    after = ours + lab.query()[12:] + bytes(6)  # something behind the OPT record stays where it is
    assert answers.with_cookie(query, after[:11] + b"\2" + after[12:])[-6:] == bytes(6)


@pytest.mark.parametrize("edns", [None, 1232])
def test_a_forwarded_reply_is_left_alone_if_nothing_was_asked_for(
    lab: SimpleNamespace, edns: int | None
) -> None:
    query = parse_query(lab.query("example.org", edns=edns))
    assert isinstance(query, Query)
    for reply in (
        lab.query(flags=0x8180),
        lab.query(flags=0x8180, edns=1232),
        lab.query(flags=0x8180, edns=1232)[:-3],
    ):
        assert answers.with_cookie(query, reply) == reply
        assert answers.with_cookie(replace(query, edns=None), reply) == reply
