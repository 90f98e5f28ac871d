"""dig as the client: what people and their tools will really send."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dns_boot.rates import Limiter
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.errors import NotReady
from orchestrator.steering.base import Route

Dig = Callable[..., str]


@pytest.fixture
def dig_at() -> Iterator[Callable[[Resolver], Dig]]:
    """Return a maker of functions that run dig against a resolver and return what it printed."""
    program = shutil.which("dig")
    if program is None:
        pytest.fail("dig is missing: apt-get install dnsutils")
    with contextlib.ExitStack() as stack:

        def make(resolver: Resolver) -> Dig:
            server = DnsServer(resolver, "127.0.0.1", 0)
            server.start()
            stack.callback(server.stop)
            place = ["@127.0.0.1", "-p", str(server.address[1])]

            def run(*arguments: str) -> str:
                command = [program, *place, "+tries=1", "+time=30", *arguments]
                return subprocess.run(command, check=True, capture_output=True, text=True).stdout

            return run

        yield make


@pytest.fixture
def dig(resolver: Resolver, dig_at: Callable[[Resolver], Dig]) -> Dig:
    """Return a function that runs dig against the resolver."""
    return dig_at(resolver)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("+tcp",),
        ("+noedns",),
        ("+nocookie",),
        ("+cookie",),
        ("+cookie=6162636465666768",),
        ("+cookie=61626364656667680100000000000000aaaaaaaaaaaaaaaa",),
        ("+cookie", "+tcp"),
        ("+cookie", "+dnssec", "+nsid"),
        ("+bufsize=512",),
        ("+bufsize=4096",),
        ("+dnssec",),
        ("+norecurse",),
        ("+cdflag",),
        ("+noadflag",),
        ("+subnet=192.0.2.0/24",),
        ("+ednsopt=65001:cafe",),
        ("+nsid",),
        ("+ednsflags=0x40", "+noednsnegotiation"),
        ("+tcp", "+keepalive", "+keepopen"),
    ],
    ids=" ".join,
)
def test_dig_gets_the_address_whatever_its_options(
    lab: SimpleNamespace, resolver: Resolver, dig: Dig, options: tuple[str, ...]
) -> None:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    for _ in range(2):  # slow, then packed where the form allows
        output = dig("web.edge.test", "A", *options)
        assert "status: NOERROR" in output
        assert "web.edge.test.\t\t7\tIN\tA\t10.0.0.5" in output
        assert " aa" in output
        assert "WARNING: Messages" not in output
        assert "malformed" not in output


def test_dig_accepts_our_cookie_and_sends_it_again(
    lab: SimpleNamespace, resolver: Resolver, dig: Dig
) -> None:
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)),))
    cookie = "6162636465666768"
    for _ in range(3):  # slow, then packed, then packed with a cookie of ours
        output = dig("web.edge.test", f"+cookie={cookie}")
        assert "(good)" in output
        (given,) = re.findall(r"COOKIE: ([0-9a-f]{48})", output)
        assert len(cookie) == 16 or given == cookie
        cookie = given
    assert "COOKIE" not in dig("web.edge.test", "+nocookie")


def test_dig_comes_back_with_the_cookie_that_it_is_given(
    make_resolver: Callable[..., Resolver], dig_at: Callable[[Resolver], Dig]
) -> None:
    ask = dig_at(make_resolver(cookies="required"))
    output = ask("web.edge.test", "+cookie", "+qr")
    assert output.count("COOKIE") >= 4  # asked, told, asked again, answered
    assert "10.0.0.5" in output
    assert "status: BADCOOKIE" in ask("web.edge.test", "+cookie", "+nobadcookie")
    assert "10.0.0.5" in ask("web.edge.test", "+nocookie")
    assert "10.0.0.5" in ask("web.edge.test", "+cookie", "+tcp")


def test_who_asks_too_often_is_sent_to_tcp(
    lab: SimpleNamespace, resolver: Resolver, dig: Dig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dns_boot.rates.LOOPBACK", ())
    resolver.packed.limiter = Limiter(1, slip=1)
    outputs = [dig("web.edge.test", "+nocookie") for _ in range(5)]
    assert all("10.0.0.5" in output for output in outputs)
    assert "retrying in TCP mode" not in outputs[0]
    assert any("Truncated, retrying in TCP mode" in output for output in outputs[2:])


def test_the_case_of_the_question_comes_back(resolver: Resolver, dig: Dig) -> None:
    for name in ("wEb.EdGe.tEsT", "WEB.edge.test"):
        output = dig(name, "+noall", "+question", "+answer")
        assert output.count(name) == 2


@pytest.mark.parametrize("options", [(), ("+noedns",), ("+tcp",), ("+dnssec",)], ids=" ".join)
def test_dig_gets_copies_in_turn(
    *,
    lab: SimpleNamespace,
    resolver: Resolver,
    summoner: Any,
    dig: Dig,
    options: tuple[str, ...],
) -> None:
    one, two, three = (lab.endpoint("web", last) for last in (5, 6, 7))
    turns = (one, two, three), (two, three, one), (three, one, two)
    resolver.set((Route(lab.WEB, turns[0], turns=turns),))
    summoner.sleeping("web").set_result(turns[0])
    summoner.traces.clear()  # it is awake
    heard = [dig("wEb.edge.test", "+short", *options).split() for _ in range(7)]
    first, *rest = [tuple(address.rpartition(".")[2] for address in each) for each in heard]
    assert first == ("5", "6", "7")
    assert rest == [("6", "7", "5"), ("7", "5", "6"), first] * 2


def test_a_newer_version_of_edns_is_negotiated_down(dig: Dig) -> None:
    assert "status: BADVERS" in dig("web.edge.test", "+edns=1", "+noednsnegotiation")
    assert "10.0.0.5" in dig("web.edge.test", "+edns=1", "+ednsnegotiation")


def test_truncation_sends_dig_to_tcp(lab: SimpleNamespace, summoner: Any, dig: Dig) -> None:
    summoner.sleeping("web").set_result(tuple(lab.endpoint("web", n) for n in range(1, 100)))
    output = dig("web.edge.test")
    assert "Truncated, retrying in TCP mode" in output
    assert "ANSWER: 99" in output
    assert "flags: qr aa tc rd" in dig("web.edge.test", "+ignore")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("web.edge.test", "AAAA"), "NOERROR", "SOA"),
        (("web.edge.test", "TXT"), "NOERROR", "SOA"),
        (("web.edge.test", "MX"), "NOERROR", "SOA"),
        (("web.edge.test", "ANY", "+notcp"), "REFUSED", "EDE: 21"),
        (("web.edge.test", "ANY"), "REFUSED", "EDE: 21"),
        (("version.bind", "TXT", "CH"), "REFUSED", "EDE: 21"),
        (("nobody.edge.test",), "NXDOMAIN", "SOA"),
        (("edge.test", "SOA"), "NOERROR", "ns.edge.test. hostmaster.edge.test."),
        (("edge.test", "NS"), "NOERROR", "ns.edge.test.\t\t3600\tIN\tA\t127.0.0.1"),
        (("example.org",), "REFUSED", "EDE: 20 (Not Authoritative)"),
        (("web.edge.test", "+opcode=notify"), "NOTIMP", "opcode: NOTIFY"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_boots_nothing(
    *, summoner: Any, dig: Dig, arguments: tuple[str, ...], status: str, words: str
) -> None:
    output = dig(*arguments)
    assert f"status: {status}" in output
    assert words in output
    assert not summoner.calls


def test_a_service_binding_as_dig_reads_it(dig: Dig) -> None:
    output = dig("six.deep.edge.test", "HTTPS", "+short")
    wanted = '1 . alpn="h2,http/1.1" port=8443 ipv4hint=10.0.0.5 ipv6hint=fd00::5'
    assert output.strip() == wanted


def test_a_zone_transfer_is_refused(dig: Dig) -> None:
    assert "Transfer failed" in dig("edge.test", "AXFR")


def test_dig_reads_why_a_wake_failed(summoner: Any, dig: Dig) -> None:
    summoner.sleeping("web").set_exception(NotReady("web", "guest not ready within 10 s"))
    output = dig("web.edge.test")
    assert "status: SERVFAIL" in output
    assert "EDE: 14 (Not Ready): (web: guest not ready within 10 s)" in output
    assert "EDE" not in dig("web.edge.test", "+noedns")
