"""What a lab wants of hosts on other machines, and will not get."""

from dataclasses import replace

import pytest

from orchestrator.model import DnsSettings, Lab, Reply, Service
from orchestrator.unguarded import unguarded
from tests.world import a_host, a_service

QUIET = a_service("quiet", wake_on_traffic=False)
HERE = a_host("here")
FAR = replace(a_host("far", 1), uri="qemu+ssh://root@far.example/system")


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (QUIET, ()),
        (a_service("web"), ("`wake_on_traffic`",)),
        (a_service("web", reply=Reply.EARLY), ("`wake_on_traffic`", "`reply: early` (web)")),
        (a_service("web", reply=Reply.EARLY, wake_on_traffic=False), ("`reply: early` (web)",)),
    ],
)
def test_what_will_not_happen_on_another_machine(service: Service, told: tuple[str, ...]) -> None:
    lab = Lab("t", DnsSettings(zone="t.test"), hosts=(HERE, FAR), services=(QUIET, service))
    found = unguarded(lab)
    assert list(found) == (["far"] if told else [])
    for words in told:
        assert words in found["far"]
    assert ("`wake_on_traffic`" in found.get("far", "")) is ("`wake_on_traffic`" in told)
