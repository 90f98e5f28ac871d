"""Routes become redirects: which instance gets the packets, when, and what is said about it."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import NoReturn

import pytest

from orchestrator.errors import CannotRedirect
from orchestrator.model import DnsSettings, Endpoint, Host, Lab, Public, Service, mac_of
from orchestrator.rules.parse import parse
from orchestrator.rules.spell import text
from orchestrator.steering.base import Route
from orchestrator.steering.redirect import services
from orchestrator.steering.redirect.base import Redirect
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.memory import MemoryKernel, MemoryRedirector
from orchestrator.steering.redirect.services import Redirects
from tests.world import a_host, a_service

WEB = replace(
    a_service("web"),
    public=Public(IPv4Address("203.0.113.10"), "eth1", parse("tcp and dst port 80")),
)
PLAIN = a_service("plain")
AT = IPv4Address("10.77.0.10")
SOON_S = 10.0


class Here:
    """One edgewake's redirects on a machine that is remembered, with instances behind ``tapN``."""

    def __init__(self) -> None:
        self.kernel = MemoryKernel({"eth1", "tap10", "tap11"})
        self.hosts = [
            replace(a_host("here"), uri="netns:///"),
            replace(a_host("far"), uri="qemu+ssh://x/"),
        ]
        self.silent: set[IPv4Address] = set()
        self.redirects = self.make()

    def make(self, *services: Service, patience_s: float = 0.0) -> Redirects:
        lab = Lab("t", DnsSettings(zone="t.test"), hosts=tuple(self.hosts), services=services)
        made = Redirects(
            lambda: lab,
            MemoryRedirector("us", self.kernel),
            find_port=self.port,
            patience_s=patience_s,
        )
        made.start()
        return made

    def port(self, host: Host, address: IPv4Address) -> str:
        return "" if address in self.silent else f"tap{address.packed[-1]}"

    def tell(self, *routes: Route) -> None:
        self.redirects.set(routes)
        assert self.redirects.settled(SOON_S)

    @property
    def there(self) -> Sequence[Redirect]:
        return [*self.kernel.standing.values()]


@pytest.fixture
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.redirects.close()
    here.redirects.close()


def route(*ends: tuple[str, int], service: Service = WEB) -> Route:
    return Route(
        service,
        tuple(
            Endpoint(service.name, f"ew-t-web-{last}", host, IPv4Address(f"10.77.0.{last}"), 10)
            for host, last in ends
        ),
    )


def test_an_instance_here_gets_what_is_for_the_public_address(here: Here) -> None:
    here.tell(route(("here", 10)), route(("here", 11), service=PLAIN))
    (redirect,) = here.there
    assert text(redirect.rule) == "dst host 203.0.113.10 and tcp and dst port 80"
    assert (redirect.interface, redirect.to_device) == ("eth1", "tap10")
    assert redirect.to_mac == mac_of(AT)
    assert [each.redirect.name for each in here.redirects.in_place()] == ["web"]


def test_the_redirect_goes_with_the_instance(here: Here) -> None:
    here.tell(route(("here", 10)))
    here.tell(route())
    assert here.there == []


def test_an_instance_elsewhere_gets_nothing_from_here(here: Here) -> None:
    here.tell(route(("far", 10)))
    assert here.there == []
    here.tell(route(("far", 10), ("here", 11)))
    assert [each.to_device for each in here.there] == ["tap11"]


def test_of_two_instances_the_first_by_name_gets_all(here: Here) -> None:
    here.tell(route(("here", 11), ("here", 10)))
    assert [each.to_device for each in here.there] == ["tap10"]


def test_one_that_is_silent_keeps_its_device(here: Here) -> None:
    here.tell(route(("here", 10)))
    here.silent.add(AT)
    here.tell(route(("here", 10)))
    assert [each.to_device for each in here.there] == ["tap10"]


def test_one_that_was_never_heard_is_looked_for_until_it_is(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    here.silent.add(AT)
    here.tell(route(("here", 10)))
    assert here.there == []
    assert "nobody knows yet behind which device ew-t-web-10 is" in caplog.text
    here.silent.clear()
    here.tell(route(("here", 10)))
    assert [each.to_device for each in here.there] == ["tap10"]


def test_what_cannot_be_is_said_once(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    here.kernel.devices.discard("eth1")
    for _ in range(3):
        here.tell(route(("here", 10)))
    told = [
        each
        for each in caplog.records
        if each.levelno == logging.WARNING and "eth1" in each.msg % each.args
    ]
    assert len(told) == 1
    assert "web: traffic for its public address flows on: there is no device eth1" in caplog.text


def test_without_public_addresses_nothing_is_touched(here: Here) -> None:
    here.kernel.touched.clear()
    here.redirects.set([route(("here", 10), service=PLAIN)])
    assert here.redirects.settled(0.0)
    assert here.kernel.touched == []


def test_redirects_stay_when_edgewake_ends_and_are_found_again(here: Here) -> None:
    here.tell(route(("here", 10)))
    here.redirects.close()
    before = list(here.kernel.touched)
    here.redirects = here.make(WEB, patience_s=SOON_S)
    here.redirects.set([route()])  # it was not found yet
    here.tell(route(("here", 10)))
    assert here.kernel.touched == before


def test_what_an_earlier_run_left_is_removed_when_nothing_comes(here: Here) -> None:
    here.tell(route(("here", 10)))
    here.redirects.close()
    here.redirects = here.make(WEB, patience_s=0.05)
    here.tell(route())
    assert here.there == []


def test_the_last_that_was_told_is_done_before_the_end(here: Here) -> None:
    here.tell(route(("here", 10)))
    here.redirects.set([route()])
    here.redirects.close()
    assert here.there == []


def test_a_machine_that_can_do_nothing_for_a_while_is_asked_again(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing at all works, not even looking at what is there."""

    def broken(*_: object) -> NoReturn:
        raise CannotRedirect("there is no program ip")

    monkeypatch.setattr(services, "_AGAIN_S", 0.01)
    redirects = here.make(WEB)
    with monkeypatch.context() as patched:
        patched.setattr(MemoryRedirector, "set", broken)
        patched.setattr(MemoryRedirector, "in_place", broken)
        redirects.set([route(("here", 10))])
        assert redirects.settled(SOON_S)
        assert "there is no program ip" in caplog.text
    redirects.set([route(("here", 10))])
    assert redirects.settled(SOON_S)
    assert [each.to_device for each in here.there] == ["tap10"]
    redirects.close()


def test_what_is_no_json_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Commands, "run", lambda *_, **__: "filter parent ffff: protocol ip")
    with pytest.raises(CannotRedirect, match="tc filter show: printed no JSON: 'filter parent"):
        Commands().ask("tc", "filter", "show")
