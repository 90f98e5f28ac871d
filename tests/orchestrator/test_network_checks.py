"""What the doctor says of virtual networks: of link engines and routing daemons."""

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.model import DnsSettings, Lab, NetworkSettings
from orchestrator.network import LinkEngine, Routing
from orchestrator.network_checks import check_networks
from orchestrator.routers import daemons
from orchestrator.routers.netns import NetnsRouters
from orchestrator.verdicts import Check, Verdict

ALL = dict.fromkeys(LinkEngine, "")


def checks(
    monkeypatch: pytest.MonkeyPatch,
    engines: dict[LinkEngine, str] | CannotNetwork,
    settings: NetworkSettings | None = None,
) -> tuple[Check, ...]:
    """Return the checks of a machine with these engines, without a lab or with such a one."""

    def found(_self: NetnsRouters) -> dict[LinkEngine, str]:
        if isinstance(engines, CannotNetwork):
            raise engines
        return engines

    monkeypatch.setattr(NetnsRouters, "engines", found)
    lab = Lab("t", DnsSettings("t.test"), network=settings) if settings else None
    return tuple(check_networks(lab))


def test_engines_that_work_and_why_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    links, _ = checks(monkeypatch, {**ALL, LinkEngine.NETEM: "no sch_netem"})
    assert links.verdict is Verdict.OK
    assert links.what == "links can be made by none, shaper, user, not netem (no sch_netem)"


RUN = NetworkSettings(run=True)
NO_SLOW = {**ALL, LinkEngine.NETEM: "no", LinkEngine.USER: "no"}
FORCED = NetworkSettings(run=True, engine=LinkEngine.NETEM)
NO_ROOT = CannotNetwork("namespaces take root", hint="run as root")


@pytest.mark.parametrize(
    ("engines", "settings", "verdict", "what"),
    [
        (NO_SLOW, None, Verdict.WARN, "none can be slow or lossy"),
        (NO_SLOW, RUN, Verdict.FAIL, "none can be slow or lossy"),
        (NO_SLOW, FORCED, Verdict.FAIL, "the lab asks for netem"),
        (ALL, FORCED, Verdict.OK, "netem"),
        (NO_ROOT, None, Verdict.WARN, "namespaces take root"),
        (NO_ROOT, RUN, Verdict.FAIL, "namespaces take root"),
    ],
)
def test_only_a_lab_that_runs_its_network_can_fail(
    monkeypatch: pytest.MonkeyPatch,
    engines: dict[LinkEngine, str] | CannotNetwork,
    settings: NetworkSettings | None,
    verdict: Verdict,
    what: str,
) -> None:
    links, _ = checks(monkeypatch, engines, settings)
    assert (links.verdict, what in links.what) == (verdict, True)
    assert bool(links.to_do) == (verdict is not Verdict.OK)


def test_a_routing_daemon_is_only_needed_for_ospf(monkeypatch: pytest.MonkeyPatch) -> None:
    _, routing = checks(monkeypatch, ALL)
    assert (routing.verdict, routing.what[-5:]) == (Verdict.OK, "/bird")
    monkeypatch.setattr(daemons, "_WHERE", "")
    _, routing = checks(monkeypatch, ALL, RUN)
    assert (routing.verdict, routing.what) == (
        Verdict.OK,
        "bird is not there, and only needed for OSPF",
    )
    _, routing = checks(monkeypatch, ALL, NetworkSettings(run=True, routing=Routing.OSPF))
    assert routing.verdict is Verdict.FAIL
    assert "apt install bird2" in routing.to_do


@pytest.mark.real
def test_this_machine_can_make_links_slow() -> None:
    links, _ = check_networks(None)
    assert links.verdict is Verdict.OK, links
