"""The networks of an installation: kept by name, changed link by link, found after a crash."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.labfile import load_lab
from orchestrator.linux.records import Records
from orchestrator.network import Found, LinkEngine, Machine, Network
from orchestrator.network_edits import LinkWish, with_link
from orchestrator.networks import (
    Kept,
    Networks,
    differences,
    link_between,
    router_at,
)
from orchestrator.routers.base import Done
from orchestrator.routers.memory import Killed, MemoryKernel, MemoryRouters
from orchestrator.wanted_network import network_of

FIVE = network_of(load_lab(Path(__file__).parents[2] / "examples" / "five-routers.yaml"))

Make = Callable[[], Networks]


@pytest.fixture
def kernel() -> MemoryKernel:
    return MemoryKernel()


@pytest.fixture
def networks(tmp_path: Path, kernel: MemoryKernel) -> Make:
    """Return what gives the installation's networks, anew each time as in another process."""

    def open_routers(name: str, machine: str) -> MemoryRouters:
        return MemoryRouters(f"us {name}", kernel, machine)

    return lambda: Networks(Records(tmp_path), open_routers)


def down(network: Network) -> Network:
    return with_link(network, "r1--r2", LinkWish(up=False))


def test_what_was_set_is_seen_by_other_processes(networks: Make) -> None:
    machines = (Machine("pc1", IPv4Address("192.0.2.1")),)
    wanted = Kept(replace(FIVE, engine=LinkEngine.USER, machines=machines))
    done = networks().set(wanted)
    assert len(done.made) == 13
    assert networks().kept("five-routers") == wanted
    assert networks().names() == ["five-routers"]
    view = networks().view("five-routers")
    assert view.engine(FIVE.links[0]) is LinkEngine.USER
    assert set(view.found.routers) == {"r1", "r2", "r3", "r4", "r5"}


def test_a_link_of_a_network_that_runs_is_changed(networks: Make) -> None:
    networks().set(Kept(FIVE))
    done = networks().change("five-routers", down)
    assert (done.made, done.changed, done.removed) == ((), ("r1--r2",), ())
    view = networks().view("five-routers")
    assert not link_between(view.kept.network, "r2", "r1").up
    assert not next(each for each in view.found.links if each.link.name == "r1--r2").link.up


def test_what_is_removed_is_forgotten(networks: Make) -> None:
    networks().set(Kept(FIVE))
    assert len(networks().remove("five-routers").removed) == 13
    assert networks().names() == []
    assert networks().found(Kept(FIVE)) == Found()
    assert networks().remove("five-routers") == Done()
    with pytest.raises(
        CannotNetwork, match="no network five-routers is set on this machine; known: none"
    ):
        networks().view("five-routers")


def test_what_is_refused_leaves_what_was_set(networks: Make, kernel: MemoryKernel) -> None:
    networks().set(Kept(FIVE))
    kernel.engines[LinkEngine.NETEM] = kernel.engines[LinkEngine.USER] = "not here"
    slower = LinkWish(latency_ms=77)
    with pytest.raises(CannotNetwork):
        networks().change("five-routers", lambda network: with_link(network, "r1--r2", slower))
    assert networks().kept("five-routers") == Kept(FIVE)


def test_what_was_never_set_is_not_kept_when_it_is_refused(
    networks: Make, kernel: MemoryKernel
) -> None:
    kernel.fail_in = 3
    with pytest.raises(CannotNetwork):
        networks().set(Kept(FIVE))
    assert networks().names() == []


def test_what_a_crash_leaves_is_found_by_its_name(networks: Make, kernel: MemoryKernel) -> None:
    kernel.die_in = 5
    with pytest.raises(Killed):
        networks().set(Kept(FIVE))
    # The end of a process takes nothing back; here, Python's own unwinding does, of the record.
    assert networks().found(Kept(FIVE)).routers
    networks().remove("five-routers")
    assert networks().found(Kept(FIVE)) == Found()


def test_a_file_of_another_version_is_said_and_can_be_replaced(
    networks: Make, tmp_path: Path
) -> None:
    Records(tmp_path).write("five-routers", '{"old": true}')
    with pytest.raises(CannotNetwork, match="is not one of this edgewake; set it again"):
        networks().kept("five-routers")
    networks().set(Kept(FIVE))
    assert networks().kept("five-routers") == Kept(FIVE)
    Records(tmp_path).write("five-routers", "{")
    networks().remove("five-routers")
    assert networks().names() == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, kernel: MemoryKernel) -> None:
    (tmp_path / "file").touch()
    broken = Networks(
        Records(tmp_path / "file" / "x"), lambda _name, _machine: MemoryRouters("us", kernel)
    )
    with pytest.raises(CannotNetwork, match="file/x: Not a directory"):
        broken.set(Kept(FIVE))


def test_differences_are_those_of_this_machine(networks: Make) -> None:
    assert len(differences(Kept(FIVE), Found()).made) == 13
    assert differences(Kept(FIVE, machine="elsewhere"), Found()) == Done()
    networks().set(Kept(FIVE))
    found = networks().found(Kept(FIVE))
    assert differences(Kept(FIVE), found) == Done()
    assert differences(Kept(down(FIVE)), found) == Done(changed=("r1--r2",))
    less = replace(FIVE, stubs=FIVE.stubs[:1])
    assert differences(Kept(less), found) == Done(removed=("yard",))


def test_names_stand_for_links_and_routers() -> None:
    assert link_between(FIVE, "r5", "r1").name == "r1--r5"
    assert (router_at(FIVE, "r2"), router_at(FIVE, "yard")) == ("r2", "r3")
    with pytest.raises(CannotNetwork, match="no link between r1 and r3; known: r1--r2, r2--r3"):
        link_between(FIVE, "r1", "r3")
    with pytest.raises(CannotNetwork, match="no router or clients 'r9'; known: r1, r2"):
        router_at(FIVE, "r9")
