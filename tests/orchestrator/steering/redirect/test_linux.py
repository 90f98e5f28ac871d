"""Redirects in the kernel keep the contract, by every rung that it has; in a namespace."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest

from orchestrator.errors import CannotRedirect
from orchestrator.linux import namespaces
from orchestrator.rules.parse import parse
from orchestrator.steering.redirect.base import Redirector, Rung
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.ladder import LinuxRedirector
from orchestrator.steering.redirect.probe import Ability, probe
from tests.contracts.redirector import OWNER, RedirectorContract

ROOT = Path(__file__).parents[4]
NAME = f"ew-red-{os.getpid()}"
FOREIGN = (
    "filter add dev in ingress protocol all pref 7 u32 match u32 0 0 at 0 "
    "action mirred egress redirect dev two\n"
)
FOREIGN_TABLE = (
    "table netdev theirs { chain c { type filter hook ingress device in priority 3; }; }"
)

probed = cache(probe)


@pytest.fixture(autouse=True)
def commands() -> Iterator[Commands]:
    """Yield what runs commands in a namespace with the devices of the contract."""
    namespaces.make(NAME)
    commands = Commands(NAME)
    try:
        for device in ("in", "one", "two"):
            add_device(commands, device)
        yield commands
    finally:
        namespaces.remove(NAME)


def add_device(commands: Commands, device: str) -> None:
    pair = ("link", "add", "name", device, "type", "veth", "peer", "name", f"{device}-peer")
    commands.run("ip", *pair)
    for end in (device, f"{device}-peer"):
        commands.run("ip", "link", "set", end, "up")


class LinuxContract(RedirectorContract):
    rung: ClassVar[Rung]

    @pytest.fixture(autouse=True)
    def there(self, commands: Commands) -> None:
        self._commands = commands
        ability = probed()[self.rung]
        if ability.why_not:
            pytest.skip(f"this kernel has no {self.rung}: {ability.why_not}")

    def make(self, owner: str = OWNER) -> Redirector:
        return LinuxRedirector(owner, force=self.rung, namespace=NAME, probed=probed)

    def state(self) -> object:
        asked = (
            ("nft", "-a", "-s", "list", "ruleset"),
            ("ip", "rule"),
            ("ip", "-6", "rule"),
            ("tc", "qdisc"),
            *(("tc", "filter", "show", "dev", each, "ingress") for each in ("in", "one")),
        )
        return [self._commands.run(*each) for each in asked]

    def remake(self, device: str) -> None:
        self._commands.run("ip", "link", "del", device)
        add_device(self._commands, device)

    def test_what_is_foreign_is_left_alone(self) -> None:
        self._commands.run("tc", "qdisc", "add", "dev", "in", "clsact")
        self._commands.run("tc", "-batch", "-", text=FOREIGN)
        self._commands.run("nft", "-f", "-", text=FOREIGN_TABLE)
        before = self.state()
        redirector = self.make()
        assert redirector.set([self.web]) == ()
        assert self.state() != before
        redirector.set([])
        assert self.state() == before

    def test_an_ingress_hook_of_others_is_shared(self) -> None:
        self._commands.run("tc", "qdisc", "add", "dev", "in", "ingress")
        before = self.state()
        redirector = self.make()
        assert redirector.set([self.web]) == ()
        redirector.set([])
        assert self.state() == before

    def test_half_a_redirect_is_made_whole(self) -> None:
        redirector = self.make()
        redirector.set([self.web])
        self.break_one()
        assert redirector.in_place() == ()
        redirector.set([self.web])
        assert self.names(redirector) == ["web"]

    def break_one(self) -> None:
        """Do to a redirect what the end of a process in the middle of its making would."""
        raise NotImplementedError


class TcContract(LinuxContract):
    mac = ""

    def break_one(self) -> None:
        shown = self._commands.ask("tc", "-j", "filter", "show", "dev", "in", "ingress")
        handle = shown[-1]["options"].get("fh") or shown[-1]["options"]["handle"]
        where = f"filter del dev in ingress protocol ip pref {shown[-1]['pref']} handle {handle}"
        self._commands.run("tc", "-batch", "-", text=f"{where} {self.rung}\n")


class TestFlower(TcContract):
    rung = Rung.FLOWER
    mac = "02:00:00:00:00:07"


class TestU32(TcContract):
    rung = Rung.U32


class TestBpf(TcContract):
    rung = Rung.BPF


class TestNft(LinuxContract):
    rung = Rung.NFT

    def break_one(self) -> None:
        routes = self._commands.ask("ip", "-j", "route", "show", "table", "all", "protocol", "238")
        (table,) = {each["table"] for each in routes}
        self._commands.run("ip", "route", "del", "default", "table", table)


_CHANGES = """
import sys
from orchestrator.rules.parse import parse
from orchestrator.steering.redirect.base import Redirect
from orchestrator.steering.redirect.ladder import LinuxRedirector
from tests.contracts.redirector import OWNER, TIME, WEB
redirector = LinuxRedirector(OWNER, namespace=sys.argv[1])
redirector.rungs()
print("begun", flush=True)
while True:
    for mac in ("", "02:00:00:00:00:07"):
        one = Redirect("web", parse(WEB), "in", "one", mac)
        two = Redirect("time", parse(TIME), "in", "two", mac)
        for wanted in ([one], [one, two], [two], []):
            redirector.set(wanted)
"""


def test_whoever_is_killed_leaves_nothing_that_the_next_cannot_mend(commands: Commands) -> None:
    nobody = LinuxRedirector(OWNER, namespace=NAME, probed=probed)
    web = RedirectorContract().web
    for delay_s in (0.05, 0.2):
        command = [sys.executable, "-c", _CHANGES, NAME]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as changing:
            assert changing.stdout is not None
            changing.stdout.readline()
            time.sleep(delay_s)
            changing.kill()
        time.sleep(0.1)  # what it had just started may still be at it
        assert nobody.set([web]) == ()
        assert [each.redirect for each in nobody.in_place()] == [web]
        nobody.set([])
        assert "edgewake" not in commands.run("nft", "list", "ruleset")
        assert "mirred" not in commands.run("tc", "filter", "show", "dev", "in", "ingress")
        assert "238" not in commands.run("ip", "rule")


def test_the_first_rung_that_can_is_taken(commands: Commands) -> None:
    redirector = LinuxRedirector(OWNER, namespace=NAME, probed=probed)
    fits, needs_mac = replace(RedirectorContract().web, to_mac=""), RedirectorContract().time
    assert redirector.set([fits, needs_mac]) == ()
    usable = [rung for rung, ability in probed().items() if not ability.why_not]
    with_mac = [rung for rung, ability in probed().items() if not ability.why_no_mac]
    assert [each.rung for each in redirector.in_place()] == [usable[0], with_mac[0]]


def test_a_probe_that_could_not_tell_is_asked_again(commands: Commands) -> None:
    answers = [CannotRedirect("no namespace"), probed()]

    def probe_again() -> dict[Rung, Ability]:
        answer = answers.pop(0)
        if isinstance(answer, CannotRedirect):
            raise answer
        return answer

    redirector = LinuxRedirector(OWNER, namespace=NAME, probed=probe_again)
    with pytest.raises(CannotRedirect, match="no namespace"):
        redirector.set([RedirectorContract().web])
    assert redirector.set([RedirectorContract().web]) == ()


def test_a_rung_that_is_forced_and_cannot_says_why(commands: Commands) -> None:
    nothing = {rung: Ability("not here", "not here") for rung in Rung}
    redirector = LinuxRedirector(OWNER, force=Rung.U32, namespace=NAME, probed=lambda: nothing)
    (refused,) = redirector.set([RedirectorContract().web])
    assert refused.why == "u32: not here"
    assert redirector.rungs()[Rung.U32] == "not here"


def test_a_rule_that_means_nothing_is_refused(commands: Commands) -> None:
    redirector = LinuxRedirector(OWNER, namespace=NAME, probed=probed)
    never = replace(RedirectorContract().web, rule=parse("ip and ip6"))
    (refused,) = redirector.set([never])
    assert refused.why == "its rule means no packet at all"


def test_a_port_without_ipv6_is_steered_to_by_ipv4(commands: Commands) -> None:
    """As ports of guests' bridges are; a route for IPv6 cannot lead there."""
    commands.run("sysctl", "-qw", "net.ipv6.conf.one.disable_ipv6=1")
    redirector = LinuxRedirector(OWNER, force=Rung.NFT, namespace=NAME, probed=probed)
    web = RedirectorContract().web
    assert redirector.set([web]) == ()
    assert [each.redirect for each in redirector.in_place()] == [web]
    six = replace(web, rule=parse("dst 2001:db8::11"))
    (refused,) = redirector.set([six])
    assert "IPv6 is disabled" in refused.why
    assert redirector.in_place() == ()


def test_names_of_devices_are_no_way_to_say_more(commands: Commands) -> None:
    redirector = LinuxRedirector(OWNER, namespace=NAME, probed=probed)
    odd = replace(RedirectorContract().web, interface='in" priority 0; } }')
    (refused,) = redirector.set([odd])
    assert "no device" in refused.why
