"""Moving a service to a host that somebody names; going over to a plan that was shown before."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.errors import EdgewakeError, Outdated, UnknownHost, UnknownService
from orchestrator.model import Constraints, Migrate
from orchestrator.operations import Job, Progress
from tests.orchestrator.test_migrating import on_lan
from tests.orchestrator.test_replanning import about_to_move
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]

TWO = (a_host("a"), a_host("b", 1))
ON_ONE_LAN = (on_lan("a", 0), on_lan("b", 1))
AWAKE = straight_to_cold(None)


def _awake_on(world: World, host: str, service: str = "web") -> str:
    """Wake a service on a host by draining the other for a moment; return its instance."""
    other = "b" if host == "a" else "a"
    world.control.drain(other)
    (end,) = world.ask(service)
    world.control.undrain(other)
    assert end.host == host
    return end.instance


def _job(said: list[Progress]) -> Job:
    return Job("op-1", "ann", said.append)


def test_a_service_answers_at_its_new_host_before_it_ends_at_the_old(
    make_world: MakeWorld,
) -> None:
    world = make_world(hosts=TWO)
    old, said = _awake_on(world, "a"), list[Progress]()
    changes = world.control.move("web", "b", _job(said))
    assert [type(each).__name__ for each in changes] == ["Boot", "Announce", "Withdraw", "Stop"]
    assert (world.guests("a"), len(world.guests("b"))) == ([], 1)
    led = [[end.host for route in seen for end in route.endpoints] for seen in world.seen.history]
    assert [] not in led[led.index(["a"]) :]
    assert [(each.done, each.total) for each in said] == [(n, 4) for n in range(5)]
    assert said[3].text == f"stop {old} on a"
    (listed,) = [each for each in world.control.change_log.last(9) if each.by == "move"]
    assert (listed.actor, listed.operation, listed.applied) == ("ann", "op-1", True)
    assert listed.changes == changes


@pytest.mark.parametrize("how", [Migrate.LIVE, Migrate.LIVE_ONLY])
def test_a_service_is_migrated_if_it_says_so(make_world: MakeWorld, how: Migrate) -> None:
    world = make_world(a_service("web", migrate=how, idle=AWAKE), hosts=ON_ONE_LAN)
    instance = _awake_on(world, "a")
    (change,) = world.control.move("web", "b")
    assert str(change).split() == f"migrate {instance} from a to b".split()
    assert (world.guests("a"), world.guests("b")) == ([], [instance])
    assert world.seen.hosts_of("web") == ["b"]


def test_what_cannot_be_migrated_is_booted_there_or_stays(make_world: MakeWorld) -> None:
    """Hosts without a common network cannot send guests to each other."""
    stays = a_service("state", migrate=Migrate.LIVE_ONLY)
    world = make_world(a_service("web", migrate=Migrate.LIVE), stays, hosts=TWO)
    web, state = (_awake_on(world, "a", name) for name in ("web", "state"))
    assert len(world.control.move("web", "b")) == 4
    assert web not in world.guests()
    with pytest.raises(EdgewakeError, match="different subnets"):
        world.control.move("state", "b")
    assert world.guests("a") == [state]


def test_a_migration_that_fails_leaves_it_where_it_is(make_world: MakeWorld) -> None:
    service = a_service("web", migrate=Migrate.LIVE_ONLY, idle=AWAKE)
    world = make_world(service, hosts=ON_ONE_LAN)
    instance = _awake_on(world, "a")
    world.drivers["b"].fail = "out of luck"
    with pytest.raises(EdgewakeError, match="out of luck"):
        world.control.move("web", "b")
    assert world.guests("a") == [instance]
    assert world.seen.hosts_of("web") == ["a"]


def test_who_is_asleep_or_there_or_unknown_is_not_moved(make_world: MakeWorld) -> None:
    world = make_world(hosts=TWO)
    with pytest.raises(EdgewakeError, match="not awake"):
        world.control.move("web", "b")
    instance = _awake_on(world, "a")
    with pytest.raises(EdgewakeError, match=f"{instance} is on a already"):
        world.control.move("web", "a")
    with pytest.raises(UnknownHost):
        world.control.move("web", "nowhere")
    with pytest.raises(UnknownService):
        world.control.move("nothing", "a")
    assert world.guests() == [instance]


def test_a_host_that_cannot_take_it_is_refused_with_the_reason(make_world: MakeWorld) -> None:
    shy = a_service("shy", constraints=Constraints(avoid_hosts=frozenset({"b"})))
    world = make_world(a_service("web"), shy, hosts=TWO)
    before = [_awake_on(world, "a", name) for name in ("web", "shy")]
    with pytest.raises(EdgewakeError, match=r"b cannot take shy: .*avoid"):
        world.control.move("shy", "b")
    world.control.drain("b")
    with pytest.raises(EdgewakeError, match=r"b cannot take web: .*drained"):
        world.control.move("web", "b")
    assert world.guests() == sorted(before)


def test_a_boot_that_fails_leaves_the_old_one_and_is_noted(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", deadline_s=0.2), hosts=TWO)
    instance = _awake_on(world, "a")
    world.answer_s["web"] = None
    with pytest.raises(EdgewakeError, match=r"did not answer|not ready|connection refused"):
        world.control.move("web", "b")
    assert world.seen.hosts_of("web") == ["a"]
    assert world.guests("a") == [instance]
    assert "connection refused" in world.control.change_log.last(1)[0].failed


def test_a_list_that_a_defect_broke_off_is_not_noted_as_done(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(hosts=TWO)
    _awake_on(world, "a")

    def broken(*_: object) -> None:
        raise AttributeError("no defect that we know of")

    monkeypatch.setattr(world.control._carrier, "do", broken)
    with pytest.raises(AttributeError):
        world.control.move("web", "b")
    assert world.control.change_log.last(1)[0].failed == "internal error"


# --- plans that are carried out later -------------------------------------------------------------


def test_a_plan_is_carried_out_just_as_it_was_shown(make_world: MakeWorld) -> None:
    world = about_to_move(make_world, "web")
    shown = world.control.rebalance(job=Job("op-1"))
    done = world.control.carry_out("op-1", Job("op-2", "ann"))
    assert done == shown
    assert (len(world.guests("a")), len(world.guests("b"))) == (0, 1)
    listed = world.control.change_log.last(2)
    assert [(each.operation, each.applied) for each in listed] == [("op-1", False), ("op-2", True)]
    assert [each.number for each in world.control.change_log.last(1, before=2)] == [1]


@pytest.mark.parametrize("meanwhile", ["slept", "applied"])
def test_a_plan_for_what_was_is_refused(make_world: MakeWorld, meanwhile: str) -> None:
    world = about_to_move(make_world, "web")
    world.control.rebalance(job=Job("op-1"))
    if meanwhile == "slept":
        world.control.release("web")
    else:
        world.control.apply(replace(world.control.lab))
    before = world.guests()
    with pytest.raises(EdgewakeError, match="not any more what this plan was made for"):
        world.control.carry_out("op-1")
    assert world.guests() == before


def test_only_what_was_proposed_can_be_carried_out(make_world: MakeWorld) -> None:
    world = make_world()
    with pytest.raises(EdgewakeError, match="op-9: no plan"):
        world.control.carry_out("op-9")


# --- versions of the lab --------------------------------------------------------------------------


def test_a_lab_is_applied_only_instead_of_the_one_that_was_seen(make_world: MakeWorld) -> None:
    world = make_world()
    lab = world.control.lab
    world.control.apply(lab, text="one", path="/x", instead_of=0, job=Job("op-1", "ann"))
    with pytest.raises(Outdated, match="version 1 by now, not 0"):
        world.control.apply(lab, text="two", path="/x", instead_of=0)
    world.control.apply(lab, text="two", path="/x", instead_of=1)
    versions = world.control.versions()
    assert [(each.number, each.text, each.actor) for each in versions] == [
        (1, "one", "ann"),
        (2, "two", "local"),
    ]


def test_stopping_ends_what_is_under_way(make_world: MakeWorld) -> None:
    world = make_world(start=False)
    control = world.start()
    begun, go_on = threading.Event(), threading.Event()

    def work(_job: Job) -> dict[str, str]:
        begun.set()
        assert go_on.wait(5.0)
        return {}

    operation = control.operations.begin("plan", "t", "ann", work)
    assert begun.wait(5.0)
    go_on.set()
    world.crash()
    assert control.operations.get(operation.id).ended
