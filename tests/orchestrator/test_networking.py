"""The network of the lab that edgewake runs: set when applied, tried again, removed."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.daemon import Daemon
from orchestrator.journal import Journal
from orchestrator.labfile import load_lab
from orchestrator.linux.records import Records
from orchestrator.network import Found
from orchestrator.networking import NetworkKeeper
from orchestrator.networks import Networks
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.state_dir import StateDir
from orchestrator.store.memory import MemoryStore
from tests.ports import free_port
from web.client import Client

FIVE = Path(__file__).parents[2] / "examples" / "five-routers.yaml"
LAB = load_lab(FIVE)


class World:
    """A keeper over a machine in memory, and its journal."""

    def __init__(self, folder: Path) -> None:
        self.kernel, self.store = MemoryKernel(), MemoryStore()
        self.journal = Journal(self.store)
        self.networks = Networks(
            Records(folder), lambda _name, machine: MemoryRouters("us", self.kernel, machine)
        )
        self.keeper = NetworkKeeper(self.networks, self.journal, retry_s=0.01)

    def told(self) -> list[tuple[str, str]]:
        self.journal.close()
        return [(event.kind, event.text) for event in self.store.events()]

    def await_set(self) -> None:
        deadline = time.monotonic() + 10
        while "five-routers" not in self.networks.names():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.keeper.close()


def test_a_network_is_there_when_its_lab_is_applied_and_stays(world: World) -> None:
    world.keeper.want(LAB)
    assert world.networks.names() == ["five-routers"]
    world.keeper.close()
    assert world.networks.view("five-routers").found.routers
    ((kind, text),) = world.told()
    assert kind == "network"
    assert text.startswith("made desk, r1, ")


def test_a_lab_without_one_removes_only_its_own(world: World) -> None:
    world.keeper.want(LAB)
    world.keeper.want(replace(LAB, name="another", network=replace(LAB.network, run=False)))
    assert world.networks.names() == ["five-routers"]
    world.keeper.want(replace(LAB, network=replace(LAB.network, run=False)))
    assert world.networks.names() == []
    assert [kind for kind, _ in world.told()] == ["network", "network"]


def test_what_cannot_be_made_is_said_once_and_tried_again(world: World) -> None:
    world.kernel.foreign.add(("five-routers", "r1"))
    world.keeper.want(LAB)
    assert world.networks.names() == []
    time.sleep(0.1)  # some attempts, of which nothing more is said
    world.kernel.foreign.clear()
    world.await_set()
    world.keeper.close()
    assert [kind for kind, _ in world.told()] == ["network-failed", "network"]


def test_a_network_that_cannot_be_removed_is_journaled(world: World) -> None:
    world.keeper.want(LAB)
    world.kernel.fail_in = 2
    world.keeper.remove("five-routers")
    assert [kind for kind, _ in world.told()] == ["network", "network-failed"]


def test_closing_ends_the_attempts(world: World) -> None:
    world.kernel.foreign.add(("five-routers", "r1"))
    world.keeper.want(LAB)
    world.keeper.close()
    world.keeper.close()
    assert not [each for each in threading.enumerate() if each.name == "network"]


def test_a_network_may_end_with_edgewake(world: World) -> None:
    world.keeper.want(LAB)
    world.keeper.remove("five-routers")
    assert world.networks.names() == []
    world.keeper.remove("five-routers")
    world.keeper.close()


def test_edgewake_up_sets_the_network_of_each_lab_that_is_applied(tmp_path: Path) -> None:
    kernel, lab = MemoryKernel(), tmp_path / "lab.yaml"
    lab.write_text(f'{FIVE.read_text()}dns: {{listen: "127.0.0.1:{free_port()}"}}\n')

    def open_networks(state: StateDir) -> Networks:
        records = Records(state.path / "network")
        return Networks(records, lambda _name, machine: MemoryRouters("us", kernel, machine))

    def found() -> Found:
        return MemoryRouters("us", kernel).found()

    daemon = Daemon(tmp_path / "state", lab, open_networks=open_networks)
    daemon.start()
    try:
        assert found().routers == ("r1", "r2", "r3", "r4", "r5")
        metrics = Client(tmp_path / "state" / "control.sock").text("/metrics")
        assert 'edgewake_link_up{network="five-routers",link="r1--r2",engine=' in metrics
        lab.write_text(lab.read_text().replace("between: [r1, r2],", "between: [r1, r3],"))
        daemon.reload()
        assert "r1--r3" in {state.link.name for state in found().links}
    finally:
        daemon.stop()
    assert found().routers
    lab.write_text(lab.read_text().replace("run: true", "run: false"))
    daemon.start()
    daemon.stop()
    assert found() == Found()
    lab.write_text(lab.read_text().replace("run: false", "run: true"))
    daemon.ephemeral = True
    daemon.start()
    assert found().routers
    daemon.stop()
    assert found() == Found()
