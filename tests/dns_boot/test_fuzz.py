"""Packets nobody should send: no exception, and a reply that is well-formed or none at all."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import RCODE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dns_boot import cookies as cookies_module
from dns_boot.names import opt_of
from dns_boot.resolver import Resolver
from orchestrator.steering.base import Route

CORPUS = Path(__file__).parent / "corpus" / "packets.txt"
BADVERS = 16
FUZZ = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])


def corpus() -> list[tuple[str, bytes, str]]:
    lines = [line for line in CORPUS.read_text().splitlines() if not line.startswith("#")]
    parts = [line.split(maxsplit=2) for line in lines]
    return [(rcode, bytes.fromhex(data.strip("-")), words) for rcode, data, words in parts]


def walk_name(message: bytes, offset: int) -> int:
    """Return where a name ends, following its pointers, all of which must lead backwards."""
    end = 0
    while (length := message[offset]) != 0:
        if length >= 0xC0:
            target = int.from_bytes(message[offset : offset + 2], "big") & 0x3FFF
            assert target < offset
            end, offset = end or offset + 2, target
        else:
            assert length <= 63
            offset += 1 + length
    return end or offset + 1


def walk(message: bytes) -> int:
    """Check that a message is all there and no more; return its rcode, extended or not."""
    assert len(message) >= 12
    rcode = message[3] & 0xF
    questions, *records = (int.from_bytes(message[n : n + 2], "big") for n in (4, 6, 8, 10))
    offset = 12
    for _ in range(questions):
        offset = walk_name(message, offset) + 4
    for _ in range(sum(records)):
        offset = walk_name(message, offset)
        if int.from_bytes(message[offset : offset + 2], "big") == 41:
            rcode |= message[offset + 4] << 4
        offset += 10 + int.from_bytes(message[offset + 8 : offset + 10], "big")
    assert offset == len(message)
    return rcode


def check(packet: bytes, reply: bytes | None) -> int | None:
    """Check a reply against its query; return its rcode, or None if there was no reply."""
    if reply is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return None
    assert reply[:2] == packet[:2]
    assert reply[2] & 0x80
    assert len(reply) <= 1232
    if reply[4:6] == b"\0\1":
        end = walk_name(reply, 12) + 4
        assert reply[12:end] == packet[12:end]
    return walk(reply)


@pytest.fixture
def awake(lab: SimpleNamespace, resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> Resolver:
    # A cookie says when it was made: the same query gets the same reply only within a second.
    monkeypatch.setattr(cookies_module, "time", SimpleNamespace(time=lambda: 1.8e9))
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)), Route(lab.SIX, ipv6=True)))
    return resolver


@pytest.mark.parametrize(("rcode", "packet", "words"), corpus(), ids=lambda value: str(value)[:50])
@pytest.mark.parametrize("udp", [True, False], ids=["udp", "tcp"])
def test_the_corpus_is_answered_as_it_says(
    *,
    awake: Resolver,
    asker: Callable[..., Any],
    rcode: str,
    packet: bytes,
    words: str,
    udp: bool,
) -> None:
    for _ in range(2):  # the second time, the packed answers are there too
        assert awake.packed.reply(packet) is None or rcode == "NOERROR"
        said = check(packet, asker(awake, udp=udp)(packet))
        wanted = {"drop": None, "BADVERS": BADVERS}.get(rcode)
        assert said == (getattr(RCODE, rcode) if rcode not in {"drop", "BADVERS"} else wanted), (
            words
        )


@given(packet=st.binary(max_size=600))
@FUZZ
def test_any_bytes(awake: Resolver, asker: Callable[..., Any], packet: bytes) -> None:
    awake.knows(packet)
    assert awake.packed.reply(packet) is None
    check(packet, asker(awake)(packet))


@given(data=st.data(), packet=st.sampled_from([packet for _, packet, _ in corpus()]))
@FUZZ
def test_queries_with_some_bytes_changed(
    awake: Resolver, asker: Callable[..., Any], data: st.DataObject, packet: bytes
) -> None:
    changed = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(changed)))
        kind = data.draw(st.sampled_from(("set", "insert", "cut", "drop")))
        some = data.draw(st.binary(min_size=1, max_size=12))
        if kind == "set":
            changed[place : place + 1] = some[:1]
        elif kind == "insert":
            changed[place:place] = some
        elif kind == "cut":
            del changed[place:]
        else:
            del changed[place : place + len(some)]
    mutant = bytes(changed)
    awake.knows(mutant)
    ask = asker(awake)
    fast = awake.packed.reply(mutant, ask.source.address)
    reply = ask(mutant)
    check(mutant, reply)
    assert fast in {None, reply}


@given(data=st.data())
@FUZZ
def test_queries_with_any_options(
    awake: Resolver, lab: SimpleNamespace, asker: Callable[..., Any], data: st.DataObject
) -> None:
    """Cookies of any length among other options; what is packed says what the slow path says."""
    option = st.tuples(st.sampled_from((3, 8, 10, 10, 10, 15, 65001)), st.binary(max_size=42))
    options = data.draw(st.lists(option, max_size=3))
    encoded = b"".join(
        code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for code, value in options
    )
    cookies = [value for code, value in options if code == 10]
    wrong = bool(cookies) and len(cookies[0]) not in {8, *range(16, 41)}
    packet = lab.query(edns=data.draw(st.sampled_from((0, 512, 4096))), options=encoded)
    ask = asker(awake)
    ask(lab.query(edns=1232))
    fast = awake.packed.reply(packet, ask.source.address)
    reply = ask(packet)
    rcode = check(packet, reply)
    assert rcode == (1 if wrong else 0)
    assert fast in {None, reply}
    if rcode == 0 and cookies:
        assert b"\0\x0a\0\x18" + cookies[0][:8] in reply


@given(message=st.binary(max_size=300))
@FUZZ
def test_any_message_is_looked_through_for_its_opt_record(message: bytes) -> None:
    header = bytes(4) + b"\0\1\0\1\0\1\0\2"
    span = opt_of(header + message)
    assert span is None or 12 <= span[0] < span[1] <= 12 + len(message)
