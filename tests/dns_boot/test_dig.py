"""dig as the client: what people and their tools will really send."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.errors import NotReady
from orchestrator.steering.base import Route

Dig = Callable[..., str]


@pytest.fixture
def dig(resolver: Resolver) -> Iterator[Dig]:
    """Return a function that runs dig against a server and returns what it printed."""
    program = shutil.which("dig")
    if program is None:
        pytest.fail("dig is missing: apt-get install dnsutils")
    server = DnsServer(resolver, "127.0.0.1", 0)
    server.start()
    _, port = server.address

    def run(*arguments: str) -> str:
        command = [program, "@127.0.0.1", "-p", str(port), "+tries=1", "+time=30", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    yield run
    server.stop()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("+tcp",),
        ("+noedns",),
        ("+nocookie",),
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


def test_the_case_of_the_question_comes_back(resolver: Resolver, dig: Dig) -> None:
    for name in ("wEb.EdGe.tEsT", "WEB.edge.test"):
        output = dig(name, "+noall", "+question", "+answer")
        assert output.count(name) == 2


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
