"""The rule language: both spellings, every error with its column, and the way back."""

from ipaddress import ip_network

import pytest
from hypothesis import given

from orchestrator.errors import RuleError
from orchestrator.rules.parse import MOST_CHARACTERS, MOST_DEPTH, MOST_TESTS, parse
from orchestrator.rules.spell import text
from orchestrator.rules.tree import (
    ANY,
    Address,
    And,
    Dscp,
    Fragment,
    Not,
    Or,
    Port,
    Protocol,
    Rule,
    Side,
    Version,
)
from tests.orchestrator.rules.near import rules

WEB = And((Version(4), Protocol(6), Or((Port(Side.DST, 80, 80), Port(Side.DST, 8080, 8080)))))


@given(rules)
def test_a_rule_is_read_back_as_it_was_written(rule: Rule) -> None:
    assert parse(text(rule)) == rule


@pytest.mark.parametrize(
    ("spelling", "rule"),
    [
        ("ip version 4 and tcp and (dst port 80 or dst port 8080)", WEB),
        ("4==ip_version && proto==TCP && (80==dst_port || 8080==dst_port)", WEB),
        (" <4==ip_version && proto==TCP && (80==dst_port || 8080==dst_port)> ", WEB),
        ("IP AND tcp && (dst_port == 80 or dst port 8080)", WEB),
        ("any", ANY),
        ("not any", Not(ANY)),
        ("ip6", Version(6)),
        ("proto 47", Protocol(47)),
        ("proto sctp", Protocol(132)),
        ("icmp6", Protocol(58)),
        ("fragment", Fragment()),
        ("dscp 46", Dscp(46)),
        ("not not tcp", Not(Not(Protocol(6)))),
        ("! udp", Not(Protocol(17))),
        ("dst 10.0.0.1", Address(Side.DST, ip_network("10.0.0.1"))),
        ("src net 10.0.0.0/8", Address(Side.SRC, ip_network("10.0.0.0/8"))),
        ("dst ::1", Address(Side.DST, ip_network("::1"))),
        ("dst_ip == 2001:db8::/32", Address(Side.DST, ip_network("2001:db8::/32"))),
        ("src_ip != 10.0.0.1", Not(Address(Side.SRC, ip_network("10.0.0.1")))),
        ("tcp dst port 80", And((Protocol(6), Port(Side.DST, 80, 80)))),
        ("port 53", Or((Port(Side.SRC, 53, 53), Port(Side.DST, 53, 53)))),
        ("src portrange 1-9", Port(Side.SRC, 1, 9)),
        ("dst_port >= 1024", Port(Side.DST, 1024, 65535)),
        ("1024 > dst_port", Port(Side.DST, 0, 1023)),
        ("< dst_port>80 >", Port(Side.DST, 81, 65535)),
        ("tcp or udp and ip", Or((Protocol(6), And((Protocol(17), Version(4)))))),
    ],
)
def test_spellings(spelling: str, rule: Rule) -> None:
    assert parse(spelling) == rule


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("", "column 1: expected a test, such as 'tcp'"),
        ("<>", "column 2: expected a test"),
        ("tpc", "column 1: expected a test, such as .*, found 'tpc'"),
        ("tcp and", "column 8: expected a test, .* found the end"),
        ("tcp udp", "column 5: expected 'and', 'or' or the end, found 'udp'"),
        ("(tcp", r"column 5: expected '\)', 'and' or 'or', found the end"),
        ("tcp)", r"column 4: expected 'and', 'or' or the end, found '\)'"),
        ("ip version 5", "column 12: expected 4 or 6, found '5'"),
        ("dst port http", "column 10: expected a port or a range such as 8000-8080"),
        ("dst port 70000", "column 10: expected a range from 0 to 65535"),
        ("dst port 9-8", "column 10: .* the smaller port first, found '9-8'"),
        ("dscp 64", "column 6: expected a number from 0 to 63, found '64'"),
        ("proto 256", "column 7: expected a number from 0 to 255"),
        ("proto gre", "column 7: expected icmp, tcp, udp, icmp6, sctp or a number"),
        ("src", "column 4: expected 'port', 'host', 'net' or an address, found the end"),
        ("dst net 10.0.0.1/8", r"column 9: expected .*, found '10.0.0.1/8' \(.*host bits set\)"),
        ("tcp @ udp", "column 5: '@' means nothing in a rule"),
        ("<proto==TCP &&\tdport==80>", "column 16: expected one of ip_version, proto, .*'dport'"),
        ("proto > 6", "column 9: expected '==' or '!=' before it"),
        ("dst_port < 0", "column 12: expected a port that"),
        ("80 ==", "column 6: expected one of ip_version"),
        ("== 80", "column 1: expected a test"),
        ("not", "column 4: expected a test"),
    ],
)
def test_errors_say_where_and_what(spelling: str, message: str) -> None:
    with pytest.raises(RuleError, match=f"^{message}"):
        parse(spelling)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("tcp" + " " * MOST_CHARACTERS, "at most 4096 characters"),
        ("(" * (MOST_DEPTH + 1) + "tcp", "column 34: nested more than 32 deep"),
        ("not " * (MOST_DEPTH + 1) + "tcp", "nested more than 32 deep"),
        (" or ".join(["tcp"] * (MOST_TESTS + 1)), "more than 128 tests"),
    ],
)
def test_bounds(spelling: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        parse(spelling)


def test_values_that_cannot_be_are_refused() -> None:
    for make in (
        lambda: Version(5),
        lambda: Protocol(256),
        lambda: Port(Side.SRC, 2, 1),
        lambda: Port(Side.SRC, 0, 65536),
        lambda: Dscp(-1),
    ):
        with pytest.raises(ValueError, match=r"\d"):
            make()
