"""dnsdist and Unbound in front of us, configured as docs/dns.md says: awake, asleep, failing."""

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dns_boot.query import Reply, ask
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.errors import EdgewakeError, NotReady
from orchestrator.labfile import parse_lab
from orchestrator.model import Population
from orchestrator.steering.base import Route
from tests.ports import free_port

DOCS = (Path(__file__).parents[2] / "docs" / "dns.md").read_text()
FRONT, OURS, ZONE = "192.0.2.53", "192.0.2.1", "edge.example"
PATIENCE_S = 12.0  # of the clients in here
CAMPUS = Population("campus", (ip_network("127.0.9.0/24"),), "r1")


def documented(language: str, sign: str) -> str:
    """Return the one example in the documentation that has a sign in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if sign in block]
    return str(block)


def dnsdist(folder: Path, text: str) -> list[str]:
    (folder / "dnsdist.conf").write_text(text)
    return [tool("dnsdist"), "--supervised", "-C", str(folder / "dnsdist.conf")]


def unbound(folder: Path, text: str) -> list[str]:
    here = f"""server:
    chroot: ""
    username: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    do-not-query-localhost: no
    local-zone: "test." nodefault
"""
    (folder / "unbound.conf").write_text(here + text.removeprefix("server:\n"))
    return [tool("unbound"), "-d", "-c", str(folder / "unbound.conf")]


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {name}")
    return found


PROGRAMS = {
    "dnsdist": (dnsdist, "lua", "newServer"),
    "unbound": (unbound, "text", "stub-zone"),
}


@dataclass
class Front:
    """A front that runs, and asks the resolver behind it."""

    name: str
    port: int
    resolver: Resolver

    def ask(self, name: str, qtype: str = "A") -> Reply:
        return ask(("127.0.0.1", self.port), name, qtype, timeout_s=PATIENCE_S)


@pytest.fixture(params=PROGRAMS)
def front(
    request: pytest.FixtureRequest,
    lab: SimpleNamespace,
    make_resolver: Callable[..., Resolver],
    tmp_path: Path,
) -> Iterator[Front]:
    program, language, sign = PROGRAMS[request.param]
    resolver = make_resolver(populations=(CAMPUS,), client_subnet=True)
    server = DnsServer(resolver, "127.0.0.1", 0)
    server.start()
    resolver.set((Route(lab.WEB, (lab.endpoint("web"),)), Route(lab.SIX, ipv6=True)))
    port = free_port()
    text = documented(language, sign).replace(ZONE, "edge.test")
    for address, here in ((FRONT, port), (OURS, server.address[1])):
        text = re.sub(rf"{address}([:@])53\b", rf"127.0.0.1\g<1>{here}", text)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(program(tmp_path, text), stdout=log, stderr=log)
        try:
            until_it_answers(port, process, tmp_path / "log")
            yield Front(request.param, port, resolver)
        finally:
            process.terminate()
            process.wait(30)
            server.stop()


def until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        try:
            if ask(("127.0.0.1", port), "edge.test", "SOA", timeout_s=1.0).rcode == "NOERROR":
                return
        except EdgewakeError:
            pass  # it is not up yet
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def test_what_is_awake_is_answered_and_cached(front: Front, summoner: Any) -> None:
    replies = [front.ask("web.edge.test") for _ in range(5)]
    assert {(reply.rcode, reply.addresses) for reply in replies} == {("NOERROR", ("10.0.0.5",))}
    assert all(0 < reply.ttl_s <= 7 for reply in replies)
    assert front.ask("nobody.edge.test").rcode == "NXDOMAIN"
    assert front.ask("web.edge.test", "TXT").rcode == "NOERROR"
    assert front.ask("six.deep.edge.test", "AAAA").addresses == ("fd00::5",)
    assert len([1 for name, _ in summoner.calls if name == "web"]) <= 2


def test_a_held_question_outlasts_the_fronts_own_patience(
    lab: SimpleNamespace, front: Front, summoner: Any
) -> None:
    wake = summoner.sleeping("six")
    threading.Timer(3.0, wake.set_result, [(lab.endpoint("six", 9),)]).start()
    replies: list[Reply] = []
    askers = [
        threading.Thread(target=lambda: replies.append(front.ask("six.deep.edge.test")))
        for _ in range(3)
    ]
    began = time.monotonic()
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert time.monotonic() - began >= 2.9
    assert [(reply.rcode, reply.addresses) for reply in replies] == [("NOERROR", ("10.0.0.9",))] * 3
    assert all(reply.ttl_s <= 2 for reply in replies)


def test_a_failure_is_not_kept_for_long(lab: SimpleNamespace, front: Front, summoner: Any) -> None:
    summoner.sleeping("six").set_exception(NotReady("six", "no answer"))
    assert front.ask("six.deep.edge.test").rcode == "SERVFAIL"
    del summoner.futures["six"]
    kept_s = {"dnsdist": 0.0, "unbound": 5.0}[front.name]
    end = time.monotonic() + kept_s + 3.0
    while (reply := front.ask("six.deep.edge.test")).rcode == "SERVFAIL":
        assert kept_s
        assert time.monotonic() < end, "the failure was kept"
        time.sleep(0.2)
    assert reply.addresses == ("10.0.0.5",)


def test_the_lab_file_that_goes_with_it_is_one() -> None:
    lab = parse_lab(documented("yaml", "client_subnet_from"), Path("front.yaml"))
    assert lab.dns.wake_budget.exempt == lab.dns.client_subnet_from == (ip_network(f"{FRONT}/32"),)


def test_dnsdist_says_whom_it_asks_for(front: Front, summoner: Any) -> None:
    where = ["-b", "127.0.9.7", "@127.0.0.1", "-p", str(front.port)]
    command = [tool("dig"), *where, "six.deep.edge.test", "A", "+short"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == "10.0.0.5\n"
    (population,) = {client.population for name, client in summoner.calls if name == "six"}
    assert population == {"dnsdist": "campus", "unbound": ""}[front.name]
