"""Routing daemons for real: five routers find their ways, lose a link, and leave nothing."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.labfile import load_lab
from orchestrator.linux import namespaces
from orchestrator.linux.probing import Probe
from orchestrator.network import LinkEngine, Network, Routing, VirtualLink
from orchestrator.routers import daemons
from orchestrator.routers.daemons import Daemons, OspfRouters
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.routers.names import namespace_of
from orchestrator.routers.netns import NetnsRouters
from orchestrator.wanted_network import network_of

FIVE = replace(
    network_of(load_lab(Path(__file__).parents[3] / "examples" / "five-routers.yaml")),
    name="ospf-test",
    routing=Routing.OSPF,
    engine=LinkEngine.USER,
)
STATIC = replace(FIVE, routing=Routing.STATIC)
CONVERGED_S = 40.0  # measured: 6 s


def namespace(router: str) -> str:
    return namespace_of(FIVE.name, router)


def changed(network: Network, a: str, b: str, **what: object) -> Network:
    def edit(link: VirtualLink) -> VirtualLink:
        return replace(link, **what) if (link.a, link.b) == (a, b) else link  # type: ignore[arg-type]

    return replace(network, links=tuple(map(edit, network.links)))


# --- without a kernel -----------------------------------------------------------------------------


def test_a_network_with_static_routes_needs_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "_WHERE", "")
    routers = OspfRouters(
        MemoryRouters("us", MemoryKernel()), Daemons("us", namespace_of, folder=tmp_path)
    )
    assert len(routers.set(STATIC).made) == 13
    assert routers.found().routers
    assert routers.counters()
    routers.close()


def test_a_daemon_that_is_not_installed_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "_WHERE", "")
    kernel = MemoryKernel()
    routers = OspfRouters(MemoryRouters("us", kernel), Daemons("us", namespace_of, folder=tmp_path))
    with pytest.raises(CannotNetwork, match="`bird` is not installed"):
        routers.set(FIVE)
    assert not MemoryRouters("us", kernel).found().routers


def test_a_network_whose_daemons_cannot_run_is_not_left_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = MemoryKernel()
    own = Daemons("us", namespace_of, folder=tmp_path)
    monkeypatch.setattr(own, "run", _fail)
    with pytest.raises(CannotNetwork, match="it was to fail"):
        OspfRouters(MemoryRouters("us", kernel), own).set(FIVE)
    assert not MemoryRouters("us", kernel).found().routers
    monkeypatch.undo()
    MemoryRouters("us", kernel).set(STATIC)
    monkeypatch.setattr(own, "run", _fail)
    with pytest.raises(CannotNetwork, match="it was to fail"):
        OspfRouters(MemoryRouters("us", kernel), own).set(FIVE)
    assert MemoryRouters("us", kernel).found().routers


def _fail(*_: object) -> None:
    raise CannotNetwork("it was to fail")


# --- for real -------------------------------------------------------------------------------------


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[OspfRouters]:
    kernel = NetnsRouters("ospf-test", tmp_path)
    made = OspfRouters(kernel, Daemons("ospf-test", namespace_of))
    yield made
    made.set(Network(FIVE.name))
    assert daemons_here() == []


def daemons_here() -> list[int]:
    """Return the process ids of the daemons in the test's namespaces, or in ones of no name."""
    folder = Daemons("ospf-test", namespace_of)._folder
    told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in told.stdout.splitlines() if str(folder) in line]


def ways(router: str, target: str) -> set[str]:
    """Return the neighbours over which a router's kernel sends what is for an address."""
    argv = ["ip", "-j", "-n", namespace(router), "route", "show", target]
    if ":" in target:
        argv.insert(1, "-6")
    (told,) = json.loads(subprocess.check_output(argv)) or [{}]
    return {each["dev"] for each in told.get("nexthops", [told]) if "dev" in each}


def await_ways(router: str, target: str, via: set[str]) -> None:
    began = time.monotonic()
    while ways(router, target) != via:
        assert time.monotonic() < began + CONVERGED_S, f"{router}: {ways(router, target)}"
        time.sleep(0.05)


@pytest.mark.real
@pytest.mark.timeout(240)
def test_routers_find_their_ways_by_themselves(routers: OspfRouters) -> None:
    double = changed(FIVE, "r2", "r4", weight=1.0)  # from r1 to r4 there are two ways then
    routers.set(double)
    for target in ("10.255.0.4", "fded:ed::4"):
        await_ways("r1", target, {"r2", "r5"})
    await_ways("r1", "10.251.2.0/24", {"r2"})
    await_ways("r1", "fded:ed:2::/64", {"r2"})

    source, destination = double.router("r1").address, double.router("r2").address
    time.sleep(5)  # RFC 2328, MinLSInterval: what has just been told is not told again at once
    with Probe(namespace("r1"), namespace("r2"), source, destination) as probe:
        assert probe.await_steady(CONVERGED_S)
        before = daemons_here()
        silent = replace(FIVE.links[0].quality, loss=1.0)  # both ends stay up: only BFD notices
        routers.set(changed(double, "r1", "r2", quality=silent))
        assert probe.await_steady(CONVERGED_S)
    assert daemons_here() == before
    assert 0 < probe.loss().lost < probe.loss().sent / 2


@pytest.mark.real
@pytest.mark.timeout(240)
def test_daemons_are_found_again_and_end_with_their_routers(
    routers: OspfRouters, tmp_path: Path
) -> None:
    routers.set(FIVE)
    first = daemons_here()
    assert len(first) == 5
    os.kill(first[0], signal.SIGKILL)
    namespaces.remove(namespace("r5"))  # its daemon is in a namespace of no name now
    again = OspfRouters(NetnsRouters("ospf-test", tmp_path), Daemons("ospf-test", namespace_of))
    again.set(FIVE)
    now = daemons_here()
    assert len(now) == 5
    assert len(set(now) & set(first)) == 3

    less = tuple(each for each in FIVE.routers if each.name != "r5")
    links = tuple(each for each in FIVE.links if "r5" not in {each.a, each.b})
    again.set(replace(FIVE, routers=less, links=links))
    assert len(daemons_here()) == 4
    with pytest.raises(CannotNetwork, match="link engine none"):
        again.set(replace(STATIC, engine=LinkEngine.NONE))
    assert len(daemons_here()) == 4
    again.set(STATIC)
    assert daemons_here() == []
    assert ways("r1", "10.255.0.4") == {"r5"}
