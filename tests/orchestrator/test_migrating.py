"""Live migration in a drain: when, where to, and whatever may happen in the middle of it."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from images.bootspec import Disk, HostTraits, Image, Platform
from images.facts import Architecture
from images.families.linux import Linux
from images.inspect import Inspector
from orchestrator.boot import HostParts
from orchestrator.drain import DrainReport
from orchestrator.errors import ImageUnusable, StartFailed
from orchestrator.hypervisors.memory import MemoryHypervisor
from orchestrator.library import Library, Place
from orchestrator.migrating import obstacle
from orchestrator.model import (
    Constraints,
    DnsSettings,
    GuestNetwork,
    GuestState,
    Host,
    IdlePolicy,
    Instance,
    InstanceState,
    Lab,
    Migrate,
    OnHostLoss,
    Rung,
    Service,
    apart,
)
from orchestrator.reconcile import Outcome, Seen, outcome
from orchestrator.store.base import Drain
from orchestrator.store.sql import SqlStore
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]

NAME = "ew-t-web-0"
LAN = IPv4Network("10.9.0.0/24")
RUNS, RESTS, GONE, UNKNOWN = Seen.RUNS, Seen.RESTS, Seen.GONE, Seen.UNKNOWN


def a_live(name: str = "web", **changes: object) -> Service:
    usual = {"idle": straight_to_cold(None), "migrate": Migrate.LIVE}
    return a_service(name, **{**usual, **changes})


def on_lan(name: str, index: int, *, pool: int = 10, **changes: object) -> Host:
    """Return a host whose guests are on the network of all such hosts, with a pool of its own."""
    first = LAN[10 + 20 * index]
    network = GuestNetwork("lan", LAN, LAN[1], first, first + pool - 1)
    return replace(a_host(name), network=network, **changes)  # type: ignore[arg-type]


TWO = (on_lan("a", 0), on_lan("b", 1))


@pytest.fixture(name="make_world")
def _make_impatient_world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr("orchestrator.retiring.LAST_REQUEST_S", 0.05)
    return make_world


def report_of(world: World, host: str) -> DrainReport:
    report = next(h.drain for h in world.control.status().hosts if h.host.name == host)
    assert report is not None, f"{host} is not being drained"
    return report


def drained(world: World, host: str = "a") -> Callable[[], bool]:
    return lambda: report_of(world, host).state == "drained"


def state_of(world: World) -> tuple[InstanceState, str] | None:
    instance = world.control.fleet.get(NAME)
    return instance and (instance.state, instance.host)


def on_its_way(world: World) -> World:
    """Drain a host, and return when its guest is being sent, which then takes long."""
    world.ask("web")
    world.drivers["b"].migrate_s = 60.0
    world.control.drain("a")
    world.eventually(lambda: bool(report_of(world, "a").migrating))
    world.eventually(lambda: NAME in world.guests("b"))
    return world


# --- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        (RUNS, GONE, Outcome.STAYED),
        (RUNS, RESTS, Outcome.STAYED),
        (RUNS, UNKNOWN, Outcome.STAYED),
        (RUNS, RUNS, Outcome.ARRIVED),  # never seen; one of them has to go
        (RESTS, GONE, Outcome.STAYED),
        (RESTS, RESTS, Outcome.STAYED),
        (RESTS, RUNS, Outcome.ARRIVED),
        (RESTS, UNKNOWN, Outcome.OPEN),
        (GONE, RUNS, Outcome.ARRIVED),
        (GONE, RESTS, Outcome.ARRIVED),
        (GONE, GONE, Outcome.LOST),
        (GONE, UNKNOWN, Outcome.OPEN),
        (UNKNOWN, RUNS, Outcome.OPEN),
        (UNKNOWN, GONE, Outcome.OPEN),
        (UNKNOWN, UNKNOWN, Outcome.OPEN),
    ],
)
def test_what_became_of_a_migration_that_was_cut_off(
    here: Seen, there: Seen, found: Outcome
) -> None:
    assert outcome(here, there) is found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"subnet": IPv4Network("10.9.0.0/23")}, "different subnets"),
        ({"gateway": LAN[2]}, "different gateways"),
        ({"dhcp": True}, "only one of a and b has DHCP"),
        ({"create": True}, ""),
    ],
)
def test_hosts_whose_guests_are_on_one_network(changes: dict[str, object], why: str) -> None:
    a, b = TWO
    b = replace(b, network=replace(b.network, **changes))  # type: ignore[arg-type]
    assert why in apart(a, b)
    assert bool(why) is bool(apart(a, b)) is bool(apart(b, a))


def test_two_hosts_that_make_a_network_each_do_not_share_one() -> None:
    a, b = (replace(each, network=replace(each.network, create=True)) for each in TWO)
    assert "both make a network of their own" in apart(a, b)


QEMU, XEN, SPT = (HostTraits(platform) for platform in (Platform.QEMU, Platform.XEN, Platform.SPT))
ARM = replace(QEMU, architecture=Architecture.AARCH64)


@pytest.mark.parametrize(
    ("here", "there", "disk", "why"),
    [
        (QEMU, QEMU, None, ""),
        (QEMU, XEN, None, "guests run by xen there, and by qemu here"),
        (SPT, SPT, None, "solo5-spt has no live migration"),
        (QEMU, replace(QEMU, kvm=True), None, "by KVM on one of the two"),
        (QEMU, ARM, None, "its processors are aarch64 there, and x86_64 here"),
        (QEMU, QEMU, Disk(Path("x")), ""),
        (QEMU, QEMU, Disk(Path("x"), read_only=False), "its disk stays on its host"),
    ],
)
def test_why_a_guest_cannot_be_migrated(
    image: Image, here: HostTraits, there: HostTraits, disk: Disk | None, why: str
) -> None:
    kernel = image.kernel
    assert kernel is not None
    disks = (replace(disk, path=kernel),) if disk else ()
    places = [Place(host, traits) for host, traits in zip(TWO, (here, there), strict=True)]
    library = Library(Inspector())
    service, dns = a_live(), DnsSettings("edge.test")
    lab = Lab("t", dns, TWO, images=(replace(image, disks=disks),), services=(service,))
    fit = library.fit(lab, service, Place(TWO[0], QEMU))
    assert why in obstacle(*places, {"a": fit, "b": fit})
    assert bool(why) is bool(obstacle(*places, {"a": fit, "b": fit}))
    if not why:
        other = replace(fit, known=replace(fit.known, image=replace(fit.image, name="other")))
        assert "another image" in obstacle(*places, {"a": fit, "b": other})
        bad = ImageUnusable("web", "too old")
        assert "too old" in obstacle(*places, {"a": fit, "b": bad})


def test_a_family_whose_guests_do_not_survive_it_says_so(image: Image) -> None:
    lab = Lab("t", DnsSettings("edge.test"), TWO, images=(image,), services=(a_live(),))
    places = [Place(host, QEMU) for host in TWO]
    fit = Library(Inspector()).fit(lab, a_live(), places[0])
    traits = replace(fit.known.family.traits, no_migration={Platform.QEMU: "its clock stops"})

    frail = replace(fit, known=replace(fit.known, family=Linux(traits)))
    assert obstacle(*places, {"a": frail, "b": frail}) == "its clock stops"


# --- whole migrations -----------------------------------------------------------------------------


def test_an_instance_goes_on_elsewhere_with_its_address_and_clients_are_led_to_it_throughout(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_live(), hosts=TWO)
    (before,) = world.ask("web")
    assert before.host == "a"
    started_at = world.drivers["a"].started_at(NAME)
    world.seen.history.clear()
    world.control.drain("a")
    world.sweep_until(drained(world))
    (after,) = world.control.fleet.endpoints("web")
    assert after == replace(before, host="b")
    assert world.drivers["b"].starts == []
    assert world.drivers["b"].started_at(NAME) == started_at
    assert world.guests("a") == []
    led = [route.endpoints for now in world.seen.history for route in now]
    assert led
    assert {tuple(end.address for end in ends) for ends in led} == {(before.address,)}
    (stored,) = world.store.load().instances
    assert (stored.host, stored.to, stored.state) == ("b", "", InstanceState.READY)
    assert world.told("migrating") == [f"{NAME} from a to b"]
    assert world.told("migrated") == [f"{NAME} is on b"]
    assert report_of(world, "a").booted == ()


def test_its_address_is_nobody_elses_while_it_lives_and_rests_afterwards(
    make_world: MakeWorld,
) -> None:
    one = (on_lan("a", 0, pool=1), on_lan("b", 1))
    only_a = Constraints(hosts=frozenset({"a"}))
    world = make_world(a_live(ttl_s=60), a_service("late", constraints=only_a), hosts=one)
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(drained(world))
    world.control.undrain("a")
    assert "no free address" in str(world.summon("late").exception(5))
    world.crash()
    world.start()
    world.eventually(lambda: world.seen.hosts_of("web") == ["b"])
    assert "no free address" in str(world.summon("late").exception(5))
    world.control.release("web")
    assert "0 are in use and 1 rest" in str(world.summon("late").exception(5))


def test_what_it_needs_is_held_on_both_hosts_while_it_is_sent(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(), hosts=TWO))
    fleet = world.control.fleet
    assert fleet.used("a").memory_mib == fleet.used("b").memory_mib == 100
    world.control.undrain("a")
    world.eventually(lambda: state_of(world) == (InstanceState.READY, "a"))
    assert (fleet.used("a").memory_mib, fleet.used("b").memory_mib) == (100, 0)


def test_how_far_it_is_can_be_seen_and_the_service_is_awake(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(), hosts=TWO))
    world.eventually(lambda: report_of(world, "a").migrating[0].percent is not None)
    (migration,) = report_of(world, "a").migrating
    assert (migration.instance, migration.to) == (NAME, "b")
    assert 0 < migration.sent.left <= migration.sent.total
    (status,) = world.control.status().services
    assert status.state == "awake"
    assert status.instances[0].to == "b"
    assert world.ask("web")[0].host == "a"
    world.control.undrain("a")


def test_undone_it_stays_where_it_was(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(), hosts=TWO))
    world.control.undrain("a")
    world.eventually(lambda: state_of(world) == (InstanceState.READY, "a"))
    world.eventually(lambda: world.guests("b") == [])
    for _ in range(3):
        world.control.expire()
    assert (world.guests("a"), world.guests("b")) == ([NAME], [])
    assert world.seen.hosts_of("web") == ["a"]
    assert world.drivers["b"].starts == []
    assert "called off" in world.told("not-migrated")[0]


def test_edgewake_does_not_wait_for_a_migration_when_it_stops(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(), hosts=TWO))
    began = time.monotonic()
    world.crash()
    assert time.monotonic() - began < 30
    assert (world.guests("a"), world.guests("b")) == ([NAME], [])
    world.start()
    world.sweep_until(drained(world))
    assert world.drivers["b"].starts == []


def test_what_has_arrived_is_not_sent_back_because_edgewake_stops(make_world: MakeWorld) -> None:
    world = make_world(a_live(deadline_s=5.0), hosts=TWO)
    world.ask("web")
    world.answer_s["web"] = 4.0
    world.control.drain("a")
    world.eventually(lambda: (world.guests("a"), world.guests("b")) == ([], [NAME]))
    world.crash()
    assert (world.guests("a"), world.guests("b")) == ([], [NAME])
    assert [event.text for event in world.store.events() if event.kind == "not-migrated"] == []
    world.start()
    world.sweep_until(lambda: state_of(world) == (InstanceState.READY, "b"))


def test_replicas_are_migrated_one_by_one(make_world: MakeWorld) -> None:
    hosts = (*TWO, on_lan("c", 2))
    world = make_world(a_live(replicas=2), hosts=hosts)
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    host = world.seen.hosts_of("web")[0]
    world.seen.history.clear()
    world.control.drain(host)
    world.sweep_until(drained(world, host))
    assert sorted(world.seen.hosts_of("web")) == sorted({"a", "b", "c"} - {host})
    assert min(len(route.endpoints) for now in world.seen.history for route in now) == 2
    assert sum(len(driver.starts) for driver in world.drivers.values()) == 2


# --- when it cannot be ----------------------------------------------------------------------------


def test_without_a_common_network_a_copy_is_booted_and_that_is_said(make_world: MakeWorld) -> None:
    world = make_world(a_live(), hosts=(on_lan("a", 0), a_host("b", 1)))
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(drained(world))
    assert world.drivers["b"].starts == ["ew-t-web-1"]
    (booted,) = report_of(world, "a").booted
    assert (booted.instance, booted.why) == (NAME, "b: a and b have different subnets")
    assert world.told("not-migrated") == [f"{NAME}: b: a and b have different subnets"]


def test_a_service_that_says_boot_is_booted(make_world: MakeWorld) -> None:
    world = make_world(a_live(migrate=Migrate.BOOT), hosts=TWO)
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(drained(world))
    assert world.drivers["b"].starts == ["ew-t-web-1"]
    assert world.told("not-migrated") == []


def test_a_full_host_is_none_to_go_to(make_world: MakeWorld) -> None:
    small = replace(TWO[1], capacity=replace(TWO[1].capacity, memory_mib=50))
    world = make_world(a_live(), hosts=(TWO[0], small))
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: report_of(world, "a").stuck != ())
    assert "memory" in world.told("not-migrated")[0]
    assert state_of(world) == (InstanceState.READY, "a")


def test_where_it_fails_it_runs_on_and_a_copy_is_booted(make_world: MakeWorld) -> None:
    world = make_world(a_live(), hosts=(*TWO, a_host("c", 2)))
    world.ask("web")
    world.drivers["b"].fail = "out of luck"
    world.control.drain("a")
    world.sweep_until(drained(world))
    assert world.drivers["c"].starts == ["ew-t-web-1"]
    assert "out of luck" in report_of(world, "a").booted[0].why
    assert all(route.endpoints for now in world.seen.history[2:] for route in now)


def test_live_only_it_stays_rather_than_be_booted_unless_forced(make_world: MakeWorld) -> None:
    hosts = (TWO[0], a_host("b", 1))
    world = make_world(a_live(migrate=Migrate.LIVE_ONLY), hosts=hosts)
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: report_of(world, "a").stuck != ())
    (stuck,) = report_of(world, "a").stuck
    assert stuck.why == "it cannot be migrated: b: a and b have different subnets"
    assert world.guests("b") == []
    world.control.drain("a", force=True)
    world.sweep_until(drained(world))
    assert world.drivers["b"].starts == ["ew-t-web-1"]


def test_the_instances_of_a_lost_host_are_booted_elsewhere(make_world: MakeWorld) -> None:
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    world.drivers["a"].unreachable("power cut")
    world.eventually(lambda: "a" in world.control.fleet.lost())
    world.control.drain("a")
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    assert "a cannot be reached: power cut" in world.told("not-migrated")[0]
    world.drivers["a"].reachable()


def test_a_guest_that_is_silent_at_its_destination_is_sent_back(make_world: MakeWorld) -> None:
    """As when the two networks are not one after all."""
    world = make_world(a_live(deadline_s=0.2), hosts=(*TWO, a_host("c", 2)))
    world.ask("web")
    world.answer_s["web"] = None
    world.control.drain("a")
    world.eventually(lambda: bool(world.told("not-migrated")))
    assert world.told("not-migrated")[0].endswith(
        "it did not answer on b within 0.2 s of its arrival, so it was sent back"
    )
    assert world.told("migrating") == [f"{NAME} from a to b", f"{NAME} from b to a"]
    assert world.guests("a") == [NAME]
    assert NAME not in world.guests("b")
    world.answer_s["web"] = 0.0
    world.sweep_until(drained(world))
    assert len(world.seen.hosts_of("web")) == 1


# --- bad moments ----------------------------------------------------------------------------------


def test_a_guest_that_ends_while_it_is_sent_is_gone_as_any_other(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(), hosts=TWO))
    world.drivers["b"].migrate_s = 0.0
    world.drivers["a"].kill(NAME)
    world.sweep_until(drained(world))
    assert world.seen.hosts_of("web") == []
    assert world.ask("web")[0].host == "b"
    assert "it ended meanwhile" in world.told("not-migrated")[0]


def test_a_destination_that_is_lost_leaves_the_guest_where_it_was(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(), hosts=TWO))
    world.drivers["b"].unreachable("cable pulled")
    world.eventually(lambda: state_of(world) == (InstanceState.READY, "a"))
    assert world.guests("a") == [NAME]
    assert world.seen.hosts_of("web") == ["a"]
    world.drivers["b"].migrate_s = 0.0
    world.drivers["b"].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    world.sweep_until(lambda: drained(world)() and world.seen.hosts_of("web") == ["b"])


def test_a_source_that_is_lost_is_asked_when_it_is_back(make_world: MakeWorld) -> None:
    world = on_its_way(make_world(a_live(on_host_loss=OnHostLoss.KEEP), hosts=TWO))
    world.drivers["a"].unreachable("cable pulled")
    world.eventually(lambda: world.guests("b") == [])
    world.eventually(lambda: bool(world.told("not-migrated")))
    assert state_of(world) == (InstanceState.MIGRATING, "a")
    world.drivers["b"].migrate_s = 0.0
    world.drivers["a"].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    world.sweep_until(drained(world))
    assert world.seen.hosts_of("web") == ["b"]
    assert world.drivers["b"].starts == []


def test_putting_a_service_to_sleep_waits_for_its_migration_and_ends_it_once(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    world.drivers["b"].migrate_s = 0.3
    world.control.drain("a")
    world.eventually(lambda: bool(report_of(world, "a").migrating))
    assert world.control.release("web") == (NAME,)
    assert world.guests() == []
    assert world.store.load().instances == ()
    assert world.control.fleet.used("a") == world.control.fleet.used("b")


def test_a_lab_without_the_destination_ends_what_went_there(make_world: MakeWorld) -> None:
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    world.drivers["b"].migrate_s = 0.3
    world.control.drain("a")
    world.eventually(lambda: bool(report_of(world, "a").migrating))
    world.control.apply(replace(world.lab, hosts=(TWO[0],)))
    assert world.control.fleet.instances() == ()
    assert world.guests() == []


def arrived_beside_a_lost_host(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Restart in the middle of a migration: the guest runs at its destination, its host is away."""
    world.ask("web")
    ready = world.control.fleet.get(NAME)
    assert ready is not None
    world.crash()
    world.machines["a"].guests.pop(NAME)
    half(world, "b", ready, RUNNING)
    world.store.save(ready.migrating("b"))
    open_host = world.open_host

    def without_a(host: Host) -> HostParts:
        parts = open_host(host)
        if host.name == "a":
            world.drivers["a"].unreachable("power cut")
        return parts

    monkeypatch.setattr(world, "open_host", without_a)
    world.start()
    return world


def test_what_arrived_is_ended_though_the_host_it_came_from_is_lost(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = arrived_beside_a_lost_host(make_world(a_live(), hosts=TWO), monkeypatch)
    world.control.release("web")
    assert world.guests("b") == []
    assert state_of(world) == (InstanceState.STOPPING, "a")  # until that host has said so, too
    world.drivers["a"].reachable()
    world.sweep_until(lambda: world.control.fleet.instances() == ())


def test_a_lab_without_the_lost_host_leaves_no_guest_that_nobody_knows_of(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = arrived_beside_a_lost_host(make_world(a_live(), hosts=TWO), monkeypatch)
    world.control.apply(replace(world.lab, hosts=TWO[1:]))
    assert world.control.fleet.instances() == ()
    assert world.guests("b") == []
    assert world.ask("web")[0].host == "b"


def test_a_lost_destination_does_not_count_as_the_host_that_was_left(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    ready = world.control.fleet.get(NAME)
    assert ready is not None
    world.control.fleet.put(ready.migrating("b"))
    world.drivers["b"].unreachable("cable pulled")
    world.eventually(lambda: world.control.fleet.lost() == {"b": "cable pulled"})
    world.control.release("web")
    assert world.control.fleet.lost().keys() == {"b"}
    world.drivers["b"].reachable()
    world.sweep_until(lambda: world.control.fleet.instances() == ())


def test_a_source_that_loses_its_power_is_woken_elsewhere(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.settler.LOST_PROBE_S", 0.05)
    world = on_its_way(make_world(a_live(), hosts=TWO))
    world.answer_s[""] = None  # at the address of no guest, nobody answers
    world.drivers["a"].unreachable("power cut")
    world.eventually(lambda: world.guests("b") == [])
    world.machines["a"].guests.clear()
    world.sweep_until(lambda: world.seen.hosts_of("web") == [])
    assert f"{NAME} does not answer and a is lost" in world.told("withdrawn")
    assert world.ask("web")[0].host == "b"
    world.drivers["a"].reachable()
    world.sweep_until(lambda: len(world.control.fleet.instances()) == 1)


def test_what_arrived_beside_a_lost_host_is_led_to_until_it_ends(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.settler.LOST_PROBE_S", 0.05)
    world = arrived_beside_a_lost_host(make_world(a_live(), hosts=TWO), monkeypatch)
    world.sweep_until(lambda: len(world.seen.hosts_of("web")) == 1)
    assert world.drivers["b"].starts == []
    world.answer_s[""] = None
    world.drivers["b"].kill(NAME)
    world.sweep_until(lambda: world.seen.hosts_of("web") == [])
    assert world.ask("web")[0].host == "b"
    assert world.drivers["b"].starts == ["ew-t-web-1"]
    world.drivers["a"].reachable()
    world.sweep_until(lambda: len(world.control.fleet.instances()) == 1)


def test_a_lab_without_the_host_that_is_left_spares_what_has_moved(make_world: MakeWorld) -> None:
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    world.drivers["b"].migrate_s = 0.3
    world.control.drain("a")
    world.eventually(lambda: bool(report_of(world, "a").migrating))
    world.control.apply(replace(world.lab, hosts=TWO[1:]))
    assert state_of(world) == (InstanceState.READY, "b")
    assert world.guests("b") == [NAME]
    assert world.seen.hosts_of("web") == ["b"]


def test_a_copy_that_dies_while_another_is_sent_is_told_of_once(make_world: MakeWorld) -> None:
    world = make_world(a_live(replicas=2), hosts=(*TWO, on_lan("c", 2)))
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    leaving, staying = world.seen.hosts_of("web")
    for driver in world.drivers.values():
        driver.migrate_s = 60.0
    world.control.drain(leaving)
    world.eventually(lambda: bool(report_of(world, leaving).migrating))
    (dead,) = world.guests(staying)
    world.machines[staying].guests.pop(dead)
    for _ in range(5):
        world.control.expire()
    assert world.told("ended") == [f"{dead}: its guest does not run any more"]
    world.control.undrain(leaving)


def test_endings_that_wait_for_a_migration_hold_up_no_others(make_world: MakeWorld) -> None:
    hosts = tuple(on_lan(f"h{number}", number) for number in range(11))
    services = a_live(replicas=9), a_service("late", idle=straight_to_cold(None))
    world = make_world(*services, hosts=hosts)
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 9)
    leaving, *others = world.seen.hosts_of("web")
    for driver in world.drivers.values():
        driver.migrate_s = 60.0
    world.control.drain(leaving)
    world.eventually(lambda: bool(report_of(world, leaving).migrating))
    world.ask("late")
    for host in others:
        for guest in world.guests(host):
            if "-web-" in guest:
                world.machines[host].guests.pop(guest)
    world.control.expire()
    (home,) = world.seen.hosts_of("late")
    world.machines[home].guests.pop("ew-t-late-0")
    world.sweep_until(lambda: world.control.fleet.get("ew-t-late-0") is None)
    assert report_of(world, leaving).migrating, "it goes on"
    world.control.undrain(leaving)


# --- a crash at each instant ----------------------------------------------------------------------


def half(world: World, host: str, instance: Instance, state: GuestState) -> None:
    """Put a guest of an instance on a host, as a migration that was cut off leaves it."""
    service = world.control.fleet.service("web")
    assert service is not None
    guest = world.control._boots.guest(instance, service, host)
    driver = MemoryHypervisor(world.lab.host(host), "tests", machine=world.machines[host])
    with suppress(StartFailed):
        driver.start(guest, lambda _stage: None)
    driver.machine.guests[NAME].state = state
    driver.close()


RUNNING, HELD = GuestState.RUNNING, GuestState.HELD
MOMENTS: dict[str, tuple[GuestState | None, GuestState | None, str]] = {
    "stored": (RUNNING, None, "a"),
    "being sent": (RUNNING, HELD, "a"),
    "paused here, not yet running there": (HELD, HELD, "a"),
    "paused here, gone there": (HELD, None, "a"),
    "runs there, paused here": (HELD, RUNNING, "b"),
    "runs there": (None, RUNNING, "b"),
    "whole there, gone here": (None, HELD, "b"),
    "gone from both": (None, None, ""),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("still_wanted", [False, True])
def test_a_restart_finds_the_guest_and_leaves_one(
    make_world: MakeWorld, tmp_path: Path, moment: str, still_wanted: bool
) -> None:
    here, there, found = MOMENTS[moment]
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    world = make_world(a_live(), hosts=TWO, store=store)
    (before,) = world.ask("web")
    ready = world.control.fleet.get(NAME)
    assert ready is not None
    world.crash()
    for host, state in (("a", here), ("b", there)):
        if state is None:
            world.machines[host].guests.pop(NAME, None)
        else:
            half(world, host, ready, state)
    world.store.save(ready.migrating("b"))
    if still_wanted:
        world.store.save_drain(Drain("a", 1.0))
    world.store.close()
    world.store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    world.start()
    if not found:
        world.sweep_until(lambda: world.store.load().instances == ())
        assert world.guests() == []
        assert world.ask("web")
        return
    host = "b" if still_wanted else found
    world.sweep_until(lambda: state_of(world) == (InstanceState.READY, host))
    world.sweep_until(lambda: world.seen.hosts_of("web") == [host])
    assert world.ask("web") == (replace(before, host=host),)
    assert (world.guests("a"), world.guests("b")) == (([NAME], []) if host == "a" else ([], [NAME]))
    assert world.drivers["a"].starts == world.drivers["b"].starts == []
    assert world.machines[host].guests[NAME].state is RUNNING


def test_a_query_right_after_a_restart_is_led_to_what_was_being_migrated(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    ready = world.control.fleet.get(NAME)
    assert ready is not None
    world.crash()
    world.store.save(ready.migrating("b"))
    # So that nobody but the query finds out.
    monkeypatch.setattr("orchestrator.settler.Settler._resolve_in_turn", lambda *_: None)
    world.start()
    assert world.seen.hosts_of("web") == []
    assert world.ask("web")[0].host == "a"
    assert world.guests() == [NAME]
    assert world.drivers["a"].starts == []


def test_a_host_that_is_not_open_yet_is_waited_for(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a half would be left there, which nobody would look for any more."""
    world = make_world(a_live(), hosts=TWO)
    world.ask("web")
    ready = world.control.fleet.get(NAME)
    assert ready is not None
    world.crash()
    half(world, "b", ready, HELD)
    world.store.save(ready.migrating("b"))
    open_host = world.open_host

    def slowly(host: Host) -> HostParts:
        time.sleep(0.3 if host.name == "b" else 0.0)
        return open_host(host)

    monkeypatch.setattr(world, "open_host", slowly)
    world.start()
    world.sweep_until(lambda: state_of(world) == (InstanceState.READY, "a"))
    assert (world.guests("a"), world.guests("b")) == ([NAME], [])


def test_a_migrated_guest_whose_record_was_lost_is_adopted(make_world: MakeWorld) -> None:
    world = make_world(a_live(), hosts=TWO)
    (before,) = world.ask("web")
    world.control.drain("a")
    world.sweep_until(drained(world))
    instance = world.control.fleet.get(NAME)
    assert instance is not None
    world.crash()
    world.store.remove(instance, rest_until=0.0)
    world.store.remove_drain("a")
    world.start()
    world.eventually(lambda: world.seen.hosts_of("web") == ["b"])
    assert world.ask("web")[0].address == before.address == IPv4Address(instance.address)


def test_what_sleeps_on_a_drained_host_can_be_woken_and_then_leaves(make_world: MakeWorld) -> None:
    resting = IdlePolicy(after_s=60.0, min_up_s=0.0, paused_s=None, saved_s=None)
    world = make_world(a_live(migrate=Migrate.LIVE_ONLY, idle=resting), hosts=TWO)
    (before,) = world.ask("web")
    started = world.drivers[before.host].started_at(NAME)
    world.control.release("web", Rung.SAVED)
    world.control.drain(before.host)
    world.sweep_until(lambda: "drain-stuck" in [each.kind for each in world.control.events()])
    world.ask("web")
    world.sweep_until(drained(world, before.host))
    other = "b" if before.host == "a" else "a"
    assert world.drivers[other].started_at(NAME) == started, "it is the same guest, as it was"
