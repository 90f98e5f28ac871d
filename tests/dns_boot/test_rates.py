"""Response rate limiting: who is counted with whom, what happens beyond, and what it may cost."""

from collections.abc import Callable
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord

from dns_boot import rates as rates_module
from dns_boot.rates import DROP, SEND, TRUNCATE, Kind, Limiter, kind_of, truncated
from dns_boot.resolver import Resolver, Source
from orchestrator.steering.base import Route

FAR = "192.0.2.1"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the monotonic clock: `clock.now` (seconds)."""
    fake = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(rates_module, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


def judged(limiter: Limiter, count: int, address: str = FAR, kind: Kind = Kind.ANSWER) -> list[int]:
    return [limiter.judge(address, kind) for _ in range(count)]


def test_beyond_twice_the_rate_every_other_reply_is_truncated_and_the_rest_dropped(
    clock: SimpleNamespace,
) -> None:
    assert judged(Limiter(2), 8) == [SEND] * 4 + [DROP, TRUNCATE, DROP, TRUNCATE]


@pytest.mark.parametrize(
    ("slip", "beyond"),
    [(0, [DROP] * 6), (1, [TRUNCATE] * 6), (3, [TRUNCATE, DROP, DROP] * 2)],
)
def test_how_many_are_truncated(clock: SimpleNamespace, slip: int, beyond: list[int]) -> None:
    assert judged(Limiter(1, slip), 8) == [SEND] * 2 + beyond


def test_who_stays_at_the_rate_is_never_limited(clock: SimpleNamespace) -> None:
    limiter = Limiter(10)
    for _ in range(100):
        assert set(judged(limiter, 10)) == {SEND}
        clock.now += 1


def test_who_was_silent_starts_anew(clock: SimpleNamespace) -> None:
    limiter = Limiter(2, 0)
    assert judged(limiter, 5) == [SEND] * 4 + [DROP]
    clock.now += 2.5
    assert judged(limiter, 5) == [SEND] * 4 + [DROP]


def test_a_flood_that_goes_on_is_not_let_through_anew_every_second(clock: SimpleNamespace) -> None:
    limiter = Limiter(2, 0)
    for second in range(5):
        assert judged(limiter, 100).count(SEND) == (4 if second == 0 else 0)
        clock.now += 1
    for _ in range(10):  # at the rate again, replies come again
        last = judged(limiter, 2)
        clock.now += 1
    assert last == [SEND] * 2


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "::ffff:192.0.2.7", True),
        ("2001:db8:0:0::1", "2001:db8:0:ff::1", True),
        ("2001:db8:0:0::1", "2001:db8:0:100::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_who_is_counted_together(
    clock: SimpleNamespace, one: str, other: str, together: bool
) -> None:
    limiter = Limiter(1, 0)
    assert judged(limiter, 2, one) == [SEND] * 2
    assert judged(limiter, 1, other) == [DROP if together else SEND]


def test_each_kind_is_counted_for_itself(clock: SimpleNamespace) -> None:
    limiter = Limiter(1, 0)
    for kind in Kind:
        assert judged(limiter, 3, kind=kind) == [SEND, SEND, DROP]


@pytest.mark.parametrize(
    ("address", "limited"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("10.1.2.3", False),
        ("2001:db8::1", False),
        ("11.1.2.3", True),
        ("2001:db9::1", True),
    ],
)
def test_who_is_exempt(clock: SimpleNamespace, address: str, limited: bool) -> None:
    limiter = Limiter(1, 0, (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
    assert (DROP in judged(limiter, 5, address)) is limited


def test_no_rate_is_no_limit(clock: SimpleNamespace) -> None:
    assert set(judged(Limiter(0), 1000)) == {SEND}


def test_memory_is_bounded_and_newcomers_are_still_limited(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates_module, "MAX_COUNTED", 100)
    monkeypatch.setattr(rates_module, "MAX_REMEMBERED", 100)
    monkeypatch.setattr(rates_module, "SHARED", 8)
    limiter = Limiter(25, 0)
    for number in range(1000):
        limiter.judge(f"10.{number // 250}.{number % 250}.1", Kind.ANSWER)
    assert len(limiter._now[Kind.ANSWER]) <= 108
    assert len(limiter._buckets) <= 100
    assert DROP in judged(limiter, 51, "198.51.100.1")


# --- replies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "qtype", "kind"),
    [
        ("web.edge.test", 1, Kind.ANSWER),
        ("web.edge.test", 16, Kind.NODATA),
        ("nobody.edge.test", 1, Kind.NXDOMAIN),
        ("example.org", 1, Kind.ERROR),
    ],
)
@pytest.mark.parametrize("edns", [None, 1232])
def test_replies_of_each_kind_and_how_they_look_truncated(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    asker: Callable[..., Any],
    name: str,
    qtype: int,
    kind: Kind,
    edns: int | None,
) -> None:
    query = lab.query(name, qtype, edns=edns)
    reply = asker(resolver)(query)
    assert kind_of(reply) is kind
    short = truncated(reply)
    record = DNSRecord.parse(short)
    assert (record.header.id, record.header.tc, record.header.rcode) == (0x1234, 1, 0)
    assert (record.rr, record.auth) == ([], [])
    assert len(record.ar) == (edns is not None)
    assert short[12:].startswith(query[12 : len(query) - (11 if edns else 0)])


@pytest.mark.parametrize("options", [None, b"", b"\0\x0a\0\x08abcdefgh"])
def test_a_packed_reply_is_limited_like_any_other(
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    asker: Callable[..., Any],
    clock: SimpleNamespace,
    options: bytes | None,
) -> None:
    resolver = make_resolver()
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    query = lab.query(edns=None if options is None else 1232, options=options or b"")
    asker(resolver)(query)
    resolver.packed.limiter = Limiter(1)
    replies = [resolver.packed.reply(query, FAR, limited=True) for _ in range(4)]
    assert replies[0] == replies[1]
    assert replies[2] == b""
    assert replies[0] is not None
    assert replies[3] == truncated(replies[0])


def test_a_good_cookie_is_not_limited(
    lab: SimpleNamespace, resolver: Resolver, asker: Callable[..., Any], clock: SimpleNamespace
) -> None:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    resolver.packed.limiter = Limiter(1, 0)
    reply = asker(resolver)(lab.query(edns=1232, options=b"\0\x0a\0\x08abcdefgh"))
    query = lab.query(edns=1232, options=b"\0\x0a\0\x18" + reply[-24:])
    for _ in range(10):
        assert resolver.packed.reply(query, FAR, limited=True)
    bad = lab.query(edns=1232, options=b"\0\x0a\0\x18" + bytes(24))
    assert [bool(resolver.packed.reply(bad, FAR, limited=True)) for _ in range(3)] == [
        True,
        True,
        False,
    ]


def test_a_reply_without_a_question_is_as_short_as_can_be(resolver: Resolver) -> None:
    """A flood of what cannot be read is limited as any other, and not an error for each."""
    said: list[bytes | None] = []
    resolver.resolve(b"\x12\x34" + bytes(10), Source(FAR, 4000), said.append)
    assert said == [b"\x12\x34\x80\x01" + bytes(8)]
    assert said[0] is not None
    assert truncated(said[0]) == said[0]
