"""What the DNS processes say to each other comes out as it went in."""

import socket
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_boot import front_messages as messages
from dns_boot.cookies import Cookies
from dns_boot.packed import Entry
from dns_boot.rates import Limiter

NAMES = st.text(min_size=1, max_size=63)
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
    tail=st.binary(max_size=512),
)
def test_an_entry(
    *, form: int, question: bytes, service: str, kind: int, headers: list[bytes], tail: bytes
) -> None:
    entry = Entry(service, kind, tuple(headers), tail)
    message = messages.pack_entry(form, question, entry)
    assert message[:1] == messages.KEEP
    assert messages.read_entry(message) == (form, question, entry)


@given(number=st.integers(0, 1 << 63), services=st.lists(NAMES, max_size=20))
def test_what_to_forget(number: int, services: list[str]) -> None:
    assert messages.read_forget(messages.pack_forget(number, services)) == (
        number,
        tuple(services),
    )
    assert messages.read_forget(messages.pack_forget(number, None)) == (number, None)
    assert messages.read_forgotten(messages.pack_forgotten(number)) == number


def test_very_many_services_are_everything_and_fit_into_a_message() -> None:
    long = [f"{number:0>63}" for number in range(messages.FORGOTTEN_AT_ONCE)]
    message = messages.pack_forget(1, long)
    assert messages.read_forget(message) == (1, tuple(long))
    assert len(message) <= messages.MAX_BYTES
    assert messages.read_forget(messages.pack_forget(1, [*long, "one"])) == (1, None)


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
    theirs, their_limiter = messages.read_setup(messages.pack_setup(cookies, limiter))
    cookie, _ = cookies.answer(b"abcdefgh", "192.0.2.1")
    assert theirs.answer(cookie, "192.0.2.1") == (cookie, True)
    assert theirs.required
    assert (their_limiter.per_second, their_limiter.slip) == (7, 3)
    assert their_limiter.exempt == limiter.exempt
