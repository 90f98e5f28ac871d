"""What people see and change of the network of the lab that runs, with back ends in memory."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork, NotInNetwork
from orchestrator.journal import Journal
from orchestrator.labfile import load_lab
from orchestrator.linux.records import Records
from orchestrator.live_network import Edit, LiveNetwork
from orchestrator.model import Lab, Link
from orchestrator.network import Network, Quality
from orchestrator.network_edits import LinkWish, link_named
from orchestrator.network_monitor import Monitors
from orchestrator.network_view import Standing
from orchestrator.networking import NetworkKeeper
from orchestrator.networks import Networks
from orchestrator.routers.base import Done
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.routers.memory_apps import MemoryApps
from orchestrator.store.memory import MemoryStore

FIVE = Path(__file__).parents[2] / "examples" / "five-routers.yaml"
LAB = load_lab(FIVE)


class World:
    """A running lab's network on a machine in memory."""

    def __init__(self, folder: Path) -> None:
        self.kernel, self.store, self.lab = MemoryKernel(), MemoryStore(), LAB
        self.journal = Journal(self.store)
        self.programs = MemoryApps(self.nodes, {"ping": lambda _argv: (b"pong\n", 0)})
        self.networks = Networks(
            Records(folder),
            lambda _name, machine: MemoryRouters("us", self.kernel, machine),
            lambda _name: self.programs,
        )
        self.keeper = NetworkKeeper(self.networks, self.journal, retry_s=3600)
        self.live = LiveNetwork(
            self.keeper,
            self.networks,
            Monitors(self.networks.seen),
            lambda: self.lab,
            self.journal,
        )

    def nodes(self) -> set[str]:
        found = MemoryRouters("us", self.kernel).found()
        return {*found.routers, *found.stubs}

    def apply(self, lab: Lab) -> None:
        self.lab = lab
        self.keeper.want(lab)

    def do(self, edit: Edit) -> Done:
        return self.live.carry_out(edit)

    def network(self) -> Network:
        return self.live.network()

    def path(self, a: str, b: str) -> tuple[str, ...]:
        return MemoryRouters("us", self.kernel).paths().path(a, b)

    def told(self) -> list[tuple[str, str, str]]:
        self.journal.close()
        return [(event.kind, event.subject, event.text) for event in self.store.events()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.apply(LAB)
    yield made
    made.keeper.close()
    made.journal.close()


def test_a_network_as_its_lab_wants_it(world: World) -> None:
    view = world.live.view()
    assert (view.name, view.runs, view.differs, view.why) == ("five-routers", True, False, "")
    first = view.routers[0]
    assert (first.name, str(first.address), first.state) == ("r1", "10.255.0.1", Standing.UP)
    assert first.populations == ("desk",)
    assert {port.peer for port in first.ports} == {"r2", "r5", "desk"}
    assert {link.state for link in view.links} == {Standing.UP}
    assert [(stub.name, state) for stub, state in view.stubs] == [("desk", "up"), ("yard", "up")]


def test_a_link_goes_down_until_the_lab_is_applied_again(world: World) -> None:
    assert world.path("r1", "r3") == ("r1", "r2", "r3")
    done = world.do(world.live.link_switch("r2--r1", up=False))
    assert done.changed == ("r1--r2",)
    assert world.path("r1", "r3") == ("r1", "r5", "r4", "r3")
    view = world.live.view()
    link = view.links[0]
    assert (link.name, link.state, link.up, link.differs) == ("r1--r2", "down", False, True)
    assert view.differs
    assert world.do(world.live.link_switch("r1--r2", up=False)) == Done(), "which is told to nobody"
    world.apply(LAB)
    assert not world.live.view().differs
    assert world.path("r1", "r3") == ("r1", "r2", "r3")
    assert world.told()[1:2] == [
        ("link-changed", "r1--r2", "down until the lab is applied again"),
    ]


def test_a_link_gets_what_is_wished_and_keeps_the_rest(world: World) -> None:
    world.do(world.live.link_edit("r4--r5", LinkWish(latency_ms=20, loss=0.25, weight=7)))
    link = link_named(world.network(), "r4--r5")
    assert link.quality == Quality(20, 1, 0.25, 100)
    assert (link.weight, link.up) == (7, True)


def test_a_link_is_made_and_removed(world: World) -> None:
    assert world.do(world.live.link_edit("r5--r2", LinkWish(latency_ms=1))).made == ("r2--r5",)
    assert link_named(world.network(), "r2--r5").quality == Quality(1)
    assert world.do(world.live.link_removal("r5--r2")).removed == ("r2--r5",)
    world.do(world.live.link_removal("r1--r2"))
    view = world.live.view()
    assert view.gone == ("r1--r2",)
    assert view.differs


def test_a_router_comes_with_addresses_that_are_free_and_goes_with_its_links(world: World) -> None:
    world.do(world.live.router_edit("r6"))
    world.do(world.live.link_edit("r6--r1", LinkWish(latency_ms=1)))
    made = next(each for each in world.network().routers if each.name == "r6")
    assert made.address in LAB.network.subnet
    assert made.address6 in LAB.network.subnet6
    assert len({each.address for each in world.network().routers}) == 6
    assert world.do(world.live.router_edit("r6")) == Done(), "it stays as it is"
    world.do(world.live.router_edit("r6", IPv4Address("10.9.9.9"), IPv6Address("fd09::9")))
    world.live.start("r6", "probe", "echo", {})
    world.do(world.live.router_removal("r6"))
    assert world.network() == world.networks.kept("five-routers").network  # type: ignore[union-attr]
    assert [link.name for link in world.network().links if "r6" in link.name] == []
    assert world.programs.all() == ()
    assert ("router-removed", "r6", "gone until the lab is applied again") in world.told()


@pytest.mark.parametrize(("pace_s", "told"), [(0.0, [1, 2, 3]), (float("inf"), [1])])
def test_how_far_a_change_is_is_told_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch, pace_s: float, told: list[int]
) -> None:
    monkeypatch.setattr("orchestrator.live_network.PACE_S", pace_s)
    steps: list[tuple[str, int, int]] = []
    world.live.carry_out(world.live.router_removal("r5"), lambda *step: steps.append(step))
    assert steps == [("routers, links and stubs", number, 3) for number in told]


def test_a_router_of_the_file_comes_back_as_the_file_has_it(world: World) -> None:
    world.do(world.live.router_removal("r5"))
    assert set(world.live.view().gone) == {"r5", "r4--r5", "r1--r5"}
    world.do(world.live.router_edit("r5"))
    assert world.live.view().gone == ("r4--r5", "r1--r5")
    assert not next(each for each in world.live.view().routers if each.name == "r5").differs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda live: live.router_removal("r1"), "router r1: desk would be cut off"),
        (lambda live: live.link_removal("r1--r3"), "network five-routers has no link r1--r3"),
        (lambda live: live.link_switch("r1--r3", up=True), "has no link r1--r3"),
        (lambda live: live.link_edit("r1--r9", LinkWish()), "r1--r9 does not join two routers"),
        (lambda live: live.link_edit("r1--r1", LinkWish()), "r1--r1 does not join two routers"),
        (lambda live: live.router_removal("r9"), "has no router r9"),
        (lambda live: live.router_edit("r9", IPv4Address("10.255.0.1")), "r1 has that address"),
        (lambda live: live.router_edit("r9", IPv4Address("10.251.1.7")), "where desk is"),
        (lambda live: live.router_edit("r9", IPv4Address("127.0.0.1")), "cannot be a router's"),
        (lambda live: live.router_edit("desk"), "clients or a host have that name"),
        (lambda live: live.router_edit("r9", machine="pc2"), "none of network.machines"),
        (lambda live: live.link_edit("r1--r2", LinkWish(jitter_ms=9)), "before it left"),
        (lambda live: live.link_edit("r1--r2", LinkWish(bandwidth_mbps=0)), "carries nothing"),
        (lambda live: live.start("r9", "x", "echo", {}), "no router or clients 'r9'"),
        (lambda live: live.start("r1", "x", "ehco", {}), "there is no program 'ehco'"),
        (lambda live: live.stop("r1", "x"), "r1 has no program x"),
        (lambda live: live.remove("r1", "x"), "r1 has no program x"),
        (lambda live: live.console("r1", "x"), "r1 has no program x"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    world: World, change: object, message: str
) -> None:
    before = world.network()
    with pytest.raises(CannotNetwork) as raised:
        change(world.live)  # type: ignore[operator]
    assert message in str(raised.value)
    assert world.network() == before
    assert not world.live.view().differs


def test_programs_on_routers_and_among_clients(world: World) -> None:
    world.live.start("desk", "ask", "ping", {"to": "yard"})
    state = world.live.start("r1", "answer", "echo", {"port": "6000"})
    assert state.running
    assert world.live.console("desk", "ask") == b"pong\n"
    assert [each.app.name for each in world.live.apps("r1")] == ["answer"]
    assert world.live.app("desk", "ask").exit_code == 0
    view = world.live.view()
    assert view.apps_differ == {("desk", "ask"), ("r1", "answer")}
    assert [each.app.name for each in view.routers[0].apps] == ["answer"]
    assert not world.live.stop("r1", "answer").running
    world.live.remove("r1", "answer")
    with pytest.raises(NotInNetwork):
        world.live.app("r1", "answer")
    world.live.execute("r2", "any", ("/bin/true", "--help"), rights=("net_raw",))
    assert world.live.app("r2", "any").app.argv == ("/bin/true", "--help")
    kinds = [kind for kind, _, _ in world.told()]
    assert kinds[1:] == ["app-started"] * 2 + ["app-stopped", "app-removed", "app-started"]


def test_ways_between_places(world: World) -> None:
    found = world.live.ways("desk", "r4")
    assert (found.by, found.cost, found.more) == ("weight", 2.0, False)
    assert [(way.hops, way.latency_ms) for way in found.ways] == [(("r1", "r5", "r4"), 6.0)]
    for name in ("r1--r2", "r1--r5"):
        world.do(world.live.link_switch(name, up=False))
    assert world.live.ways("desk", "r4").cost is None
    with pytest.raises(NotInNetwork, match="no router, clients or host 'r9'"):
        world.live.ways("desk", "r9")
    world.apply(replace(LAB, network=replace(LAB.network, run=False)))
    found = world.live.ways("desk", "yard")
    assert (found.by, found.cost, found.ways[0].hops[0]) == ("latency", 4.0, "desk")
    with pytest.raises(NotInNetwork, match="no router, clients or host 'r9'"):
        world.live.ways("desk", "r9")


def test_a_lab_that_does_not_run_its_network_is_shown_and_not_changed(world: World) -> None:
    twice = (*LAB.links, Link("r2", "r1", latency_ms=50, bandwidth_mbps=1))
    world.apply(replace(LAB, network=replace(LAB.network, run=False), links=twice))
    view = world.live.view()
    assert (view.runs, view.differs) == (False, False)
    assert {each.state for each in view.routers} == {Standing.PLANNED}
    assert [link.name for link in view.links if "r1" in link.name] == [
        *("r1--r2", "r1--r5", "r1--r2~2"),
    ]
    for change in (
        lambda: world.live.router_edit("r9"),
        lambda: world.live.link_removal("r1--r2"),
        lambda: world.live.start("r1", "x", "echo", {}),
    ):
        with pytest.raises(CannotNetwork) as raised:
            change()  # type: ignore[no-untyped-call]
        assert "write `network: {run: true}` into the lab file" in raised.value.hint


def test_nothing_is_changed_while_the_network_is_not_as_its_lab_wants(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.kernel.foreign.add(("five-routers", "r1"))
    world.apply(LAB)
    view = world.live.view()
    assert "r1: there is one that is not this edgewake's" in view.why
    assert {each.state for each in view.routers} <= {Standing.MISSING, Standing.UNKNOWN}
    with pytest.raises(CannotNetwork, match="is not there yet"):
        world.do(world.live.link_edit("r1--r2", LinkWish(weight=3)))
    world.keeper.close()
    world.journal.close()


def test_a_record_that_nobody_can_read_is_said(world: World, tmp_path: Path) -> None:
    (tmp_path / "five-routers.json").write_text("{}")
    view = world.live.view()
    assert "is not one of this edgewake" in view.why
    assert {each.state for each in view.links} == {Standing.UNKNOWN}


def test_what_somebody_removes_by_hand_is_missing(world: World) -> None:
    MemoryRouters("us", world.kernel).set(Network("five-routers"))
    view = world.live.view()
    assert {each.state for each in (*view.routers,)} == {Standing.MISSING}
    assert view.routers[0].why == "somebody has removed it: apply the lab again"
