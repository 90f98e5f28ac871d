"""What the DNS processes say to each other comes out as it went in."""

import socket
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_boot import front_messages as messages
from dns_boot.clients import Clients
from dns_boot.cookies import Cookies
from dns_boot.packed import Entry
from dns_boot.rates import Limiter
from orchestrator.model import Population

NAMES = st.text(min_size=1, max_size=63)
KNOWN = (Population("campus", (ip_network("10.0.0.0/8"), ip_network("fd00::/64")), "r1"),)
V4, V6 = ("192.0.2.1", 5300), ("fe80::1%eth0", 5300, 7, 2)
INFO4 = [(socket.IPPROTO_IP, 8, bytes(range(12)))]
INFO6 = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, bytes(range(20)))]


@pytest.mark.parametrize(
    ("family", "peer", "with_info"),
    [
        (socket.AF_INET, V4, False),
        (socket.AF_INET6, V6, False),
        (socket.AF_INET, (V4, INFO4), True),
        (socket.AF_INET6, (V6, INFO6), True),
        (socket.AF_INET, (V4, []), True),
    ],
)
@pytest.mark.parametrize("packet", [b"", b"a query", bytes(4096)], ids=len)
def test_a_query_and_its_peer(*, family: int, peer: Any, with_info: bool, packet: bytes) -> None:
    message = messages.pack_query(packet, peer)
    assert messages.read_query(message, family, with_info=with_info) == (packet, peer)


@given(
    form=st.integers(0, 2),
    question=st.binary(max_size=300),
    service=st.text(max_size=60),
    kind=st.integers(0, 3),
    headers=st.lists(st.binary(min_size=10, max_size=10), min_size=4, max_size=4),
    tails=st.lists(st.binary(max_size=512), min_size=1, max_size=4),
)
def test_an_entry(
    *,
    form: int,
    question: bytes,
    service: str,
    kind: int,
    headers: list[bytes],
    tails: list[bytes],
) -> None:
    entry = Entry(service, kind, tuple(headers), tuple(tails))
    message = messages.pack_entry(form, question, entry)
    assert message[:1] == messages.KEEP
    assert messages.read_entry(message) == (form, question, entry)


@given(number=st.integers(0, 1 << 63), services=st.lists(NAMES, max_size=20))
def test_what_to_forget(number: int, services: list[str]) -> None:
    for clients in (None, Clients(KNOWN)):
        told = messages.read_forget(messages.pack_forget(number, services, clients))
        assert told == (number, tuple(services), None)
    told = messages.read_forget(messages.pack_forget(number, None, None))
    assert told == (number, None, None)
    assert messages.read_forgotten(messages.pack_forgotten(number)) == number


def test_very_many_services_are_everything_and_fit_into_a_message() -> None:
    long = [f"{number:0>63}" for number in range(messages.FORGOTTEN_AT_ONCE)]
    message = messages.pack_forget(1, long, None)
    assert messages.read_forget(message) == (1, tuple(long), None)
    assert len(message) <= messages.MAX_BYTES
    told = messages.read_forget(messages.pack_forget(1, [*long, "one"], Clients(KNOWN)))
    assert told[:2] == (1, None)
    assert told[2] is not None
    assert told[2].of("10.2.3.4").population == "campus"


@pytest.mark.parametrize(("count", "known"), [(1000, True), (5000, False)])
def test_populations_go_along_while_they_fit_into_a_message(*, count: int, known: bool) -> None:
    subnets = (ip_network((0x0A000000 + (number << 8), 24)) for number in range(count))
    clients = Clients([Population(f"site-{n}", (s,), "r") for n, s in enumerate(subnets)])
    setup = messages.pack_setup(Cookies(), Limiter(), clients)
    clear = messages.pack_forget(1, None, clients)
    assert max(len(setup), len(clear)) <= messages.MAX_BYTES
    for theirs in (messages.read_setup(setup)[2], messages.read_forget(clear)[2]):
        assert (theirs is not None) is known
        if theirs is not None:
            assert theirs.of("10.0.7.1").population == "site-7"


@given(asked=st.dictionaries(NAMES, st.floats(0, 1e9), max_size=50))
def test_what_was_asked_for(asked: dict[str, float]) -> None:
    reports = list(messages.pack_asked(asked))
    assert dict(pair for report in reports for pair in messages.read_asked(report)) == asked


def test_very_many_reports_are_several_messages() -> None:
    asked = {f"{number:0>63}": float(number) for number in range(2000)}
    reports = list(messages.pack_asked(asked))
    assert max(map(len, reports)) <= messages.MAX_BYTES
    assert dict(pair for report in reports for pair in messages.read_asked(report)) == asked


def test_a_child_answers_by_the_same_rules() -> None:
    cookies, limiter = Cookies("required"), Limiter(7, 3, (ip_network("10.0.0.0/8"),))
    setup = messages.pack_setup(cookies, limiter, Clients(KNOWN), 7)
    theirs, their_limiter, clients, room = messages.read_setup(setup)
    cookie, _ = cookies.answer(b"abcdefgh", "192.0.2.1")
    assert theirs.answer(cookie, "192.0.2.1") == (cookie, True)
    assert theirs.required
    assert (their_limiter.per_second, their_limiter.slip) == (7, 3)
    assert their_limiter.exempt == limiter.exempt
    assert room == 7
    assert clients is not None
    for address, population in (("10.9.9.9", "campus"), ("fd00::9", "campus"), ("192.0.2.1", "")):
        assert clients.of(address).population == population
