"""u32 and flower say what the evaluator says, as far as their modules promise."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CannotSay
from orchestrator.rules.evaluate import ETHERNET_HEADER, ETHERTYPES, evaluate
from orchestrator.rules.flower import Keys, to_flower
from orchestrator.rules.lower import prefixes
from orchestrator.rules.parse import parse
from orchestrator.rules.tree import Rule
from orchestrator.rules.u32 import Selector, Word, to_u32
from tests.orchestrator.rules.near import packets, rules

RACS = "<4==ip_version && proto==TCP && (80==dst_port || 8080==dst_port)>"


def passes(selectors: Sequence[Selector], frame: bytes) -> bool:
    """Say whether cls_u32 finds a selector: net/sched/cls_u32.c, u32_classify, of one table."""
    version = ETHERTYPES.get(int.from_bytes(frame[12:14]))
    packet = frame[ETHERNET_HEADER:]
    for selector in selectors:
        if selector.version != version:
            continue
        for word in selector.words:
            octets = packet[word.offset : word.offset + 4]
            if len(octets) < 4:
                return False  # the kernel gives up the whole table
            if (int.from_bytes(octets) ^ word.value) & word.mask:
                break
        else:
            return True
    return False


@given(rules, st.lists(packets(sound=True), min_size=1, max_size=20))
def test_u32_and_the_evaluator_agree(rule: Rule, frames: list[bytes]) -> None:
    try:
        selectors = to_u32(rule)
    except CannotSay:
        return
    for frame in frames:
        assert passes(selectors, frame) == evaluate(rule, frame)


@given(rules, st.lists(packets(), min_size=1, max_size=20))
def test_u32_takes_no_packet_that_the_rule_does_not(rule: Rule, frames: list[bytes]) -> None:
    try:
        selectors = to_u32(rule)
    except CannotSay:
        return
    for frame in frames:
        assert evaluate(rule, frame) or not passes(selectors, frame)


def test_the_racs_rule_as_u32() -> None:
    selectors = to_u32(parse(RACS))
    assert len(selectors) == 2 * len(range(5, 16))
    assert selectors[0] == Selector(
        4,
        (
            Word(0, 0x0F000000, 0x05000000),
            Word(4, 0x1FFF, 0),
            Word(8, 0x00FF0000, 0x00060000),
            Word(20, 0xFFFF, 80),
        ),
    )
    assert selectors[-1].words[-1] == Word(60, 0xFFFF, 8080)


def test_too_many_selectors_are_refused() -> None:
    with pytest.raises(CannotSay, match="more than 512"):
        to_u32(parse("not src port 1 and not dst port 1"))


def test_too_many_boxes_are_refused() -> None:
    sides = (" or ".join(f"{side} port {each}" for each in range(8)) for side in ("src", "dst"))
    with pytest.raises(CannotSay, match="more than 128"):
        to_u32(parse("({}) and ({})".format(*sides)))


@given(st.integers(0, 255), st.integers(0, 255))
def test_prefixes_make_a_range(one: int, other: int) -> None:
    low, high = sorted((one, other))
    found = [
        value + each for value, given in prefixes(low, high, 8) for each in range(1 << (8 - given))
    ]
    assert found == list(range(low, high + 1))


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [
        (
            RACS,
            [
                "ip_proto tcp ip_flags nofrag dst_port 80",
                "ip_proto tcp ip_flags nofrag dst_port 8080",
            ],
        ),
        ("ip and dst 203.0.113.10", ["dst_ip 203.0.113.10/32"]),
        ("ip and udp src port 8000-8080", ["ip_proto udp ip_flags nofrag src_port 8000-8080"]),
        ("ip6 and dst net 2001:db8::/32", ["dst_ip 2001:db8::/32"]),
        ("ip and fragment", ["ip_flags frag"]),
        ("ip and not fragment", ["ip_flags nofrag"]),
        ("ip and dscp 46", ["ip_tos 0xb8/0xfc"]),
        ("ip and not net 0.0.0.0/1 and src 200.0.0.0", ["src_ip 200.0.0.0/32 dst_ip 128.0.0.0/1"]),
    ],
)
def test_flower_keys(rule: str, pairs: list[str]) -> None:
    versions = {6 if "ip6" in rule else 4}
    found = to_flower(parse(rule))
    assert {keys.version for keys in found} == versions
    assert [" ".join(" ".join(pair) for pair in keys.pairs) for keys in found] == pairs


def test_flower_refuses_what_it_would_see_otherwise() -> None:
    with pytest.raises(CannotSay, match="extension headers"):
        to_flower(parse("ip6 and tcp"))
    assert to_flower(parse("ip6")) == (Keys(6, ()),)
