"""A short scenario in real namespaces: packets, programs and checks are real, nothing is left."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.linux import echo, namespaces
from orchestrator.network import Found
from orchestrator.routers.apps import NetnsApps
from orchestrator.routers.names import namespace_of
from orchestrator.routers.netns import NetnsRouters
from orchestrator.scenario.generate import events_of, start_of
from orchestrator.scenario.ground import NetnsGround
from orchestrator.scenario.play import Player
from orchestrator.scenario.spec import parse_scenario

pytestmark = pytest.mark.real

NAME = f"s{os.getpid() % 10_000}"
STRANGER = f"ewstranger-{os.getpid()}"
NOBODY = 2**22 + 1  # more than any process id (proc(5), pid_max)
RUN = """\
seed: 4
duration: 3 s
routers: 5
links: {latency: 0 ms, bandwidth: 1 Gbit/s}
router_arrivals: {every: {exponential: 600 ms}, lifetime: {uniform: [500 ms, 2 s]}, links: 2}
link_failures: {mtbf: 5 s, mttr: 500 ms}
requests: {every: {fixed: 1 s}}
events:
  - {at: 1 ms, start_app: {app: r1/in, run: receive, parameters: {every: 50 ms}}}
  - {at: 2 ms, start_app: {app: r2/out, run: send, parameters: {to: r1, rate: 200}}}
  - {at: 2900 ms, remove_router: r2}
"""


def there() -> list[str]:
    return [name for name in namespaces.names() if name.startswith(f"ew-{NAME}")]


def test_churn_in_namespaces(tmp_path: Path) -> None:
    scenario = parse_scenario(f"name: {NAME}\n{RUN}", tmp_path / "run.yaml")
    start = start_of(scenario)
    events = events_of(scenario, start)

    def namespace(node: str) -> str:
        return namespace_of(NAME, node)

    routers = NetnsRouters(NAME, tmp_path)
    apps = NetnsApps(NAME, folder=tmp_path / "apps", namespace_of=namespace)
    namespaces.make(f"ewstranger-{NOBODY}")
    ground = NetnsGround(routers, apps, namespace)
    try:
        assert f"ewstranger-{NOBODY}" not in namespaces.names(), "of a player that was killed"
        with pytest.raises(CannotNetwork, match="File exists"):
            NetnsGround(routers, apps, namespace)
        rows = []
        for row in Player(ground, start, events, seed=1).play(lambda _at: None):
            rows.append(row)
            assert len(there()) == row.routers
        assert [row.broken for row in rows if row.broken] == []
        assert len(rows) == len(events) + 2
        assert [row.lost is None for row in rows] == [True, *[False] * len(events), True]
        assert True in {row.answered for row in rows}
    finally:
        ground.close()
    assert (routers.found(), apps.all(), there()) == (Found(), (), [])
    assert STRANGER not in namespaces.names()


def test_who_does_not_answer() -> None:
    for address in ("127.0.0.1", "::1"):
        assert echo.answers(ip_address(address), 2.0)
    namespaces.make(STRANGER)
    try:
        for address in ("127.0.0.1", "192.0.2.1", "2001:db8::1"):
            assert not namespaces.inside(
                STRANGER, lambda address=address: echo.answers(ip_address(address), 0.05)
            )
    finally:
        namespaces.remove(STRANGER)
