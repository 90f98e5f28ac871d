"""Lists of changes: how they read, and which are refused."""

from dataclasses import replace

import pytest

from orchestrator.changes import Announce, Boot, Change, Changes, Stop, Withdraw
from orchestrator.errors import EdgewakeError, UnsafeChanges
from orchestrator.model import Capacity, DnsSettings, Instance, InstanceState, Lab, mac_of
from orchestrator.moving import changes_for
from orchestrator.planner import Planner
from placement.problem import CPU, MEMORY, Demand, Host, Plan, Problem
from placement.rules import Split
from tests.world import a_host, a_service

BOOT, ANNOUNCE = Boot("web", "b"), Announce("web", "b")
WITHDRAW, STOP = Withdraw("web", "ew-t-web-0", "a"), Stop("web", "ew-t-web-0", "a")


def an_instance(service: str, host: str, index: int = 0) -> Instance:
    address = a_host(host).network.first
    return Instance(
        name=f"ew-t-{service}-{index}",
        service=service,
        host=host,
        address=address,
        mac=mac_of(address),
        state=InstanceState.READY,
        created_at=0.0,
    )


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ([BOOT, ANNOUNCE, WITHDRAW, STOP], ""),
        ([WITHDRAW, STOP], ""),
        ([], ""),
        ([STOP], "stopped while clients use it"),
        ([BOOT, WITHDRAW, ANNOUNCE, STOP], "withdrawn before web moved"),
        ([STOP, WITHDRAW], "stopped while clients use it"),
    ],
)
def test_breaking_before_making_is_refused(changes: list[Change], refusal: str) -> None:
    if not refusal:
        Changes(tuple(changes)).raise_if_unsafe()
        return
    with pytest.raises(UnsafeChanges, match=refusal):
        Changes(tuple(changes)).raise_if_unsafe()


def test_changes_read_well() -> None:
    assert str(Changes((BOOT, STOP))) == "boot      web on b\nstop      ew-t-web-0 on a"
    assert str(Changes()) == "nothing to change"


def a_problem(memory_mib: dict[str, float], room: dict[str, float]) -> Problem:
    """Return services that take so much memory, and hosts that have so much."""
    return Problem(
        hosts=tuple(Host(name, {CPU: 8, MEMORY: mib}) for name, mib in room.items()),
        demands=tuple(Demand(name, {CPU: 1, MEMORY: mib}) for name, mib in memory_mib.items()),
    )


WIDE = a_problem({"web": 1, "api": 1, "asleep": 1}, {"a": 9, "b": 9, "c": 9})


def test_a_move_is_made_before_it_is_broken() -> None:
    plan = Plan(hosts={"web": ("b",), "api": ("a",), "asleep": ("a",)}, value=1.0)
    awake = [an_instance("web", "a"), an_instance("api", "a")]
    assert list(changes_for(plan, awake, WIDE)) == [BOOT, ANNOUNCE, WITHDRAW, STOP]


def test_a_replica_that_is_where_it_should_be_stays() -> None:
    plan = Plan(hosts={"web": ("b", "c")}, value=1.0)
    awake = [an_instance("web", "a"), an_instance("web", "b", 1)]
    changes = changes_for(plan, awake, WIDE)
    assert [str(change).split()[0] for change in changes] == [
        "boot",
        "announce",
        "withdraw",
        "stop",
    ]
    assert [change.host for change in changes] == ["c", "c", "a", "a"]


def test_what_leaves_a_full_host_leaves_before_what_comes() -> None:
    """By name `api` would come first, and find no room."""
    problem = a_problem({"api": 6, "web": 6}, {"a": 10, "b": 10, "c": 10})
    awake = [an_instance("api", "a"), an_instance("web", "b")]
    changes = changes_for(Plan({"api": ("b",), "web": ("c",)}, 1.0), awake, problem)
    assert [str(change) for change in changes if isinstance(change, Boot)] == [
        "boot      web on c",
        "boot      api on b",
    ]
    changes.raise_if_unsafe()


def test_a_cycle_goes_by_way_of_a_spare_host() -> None:
    problem = a_problem({"api": 6, "web": 6}, {"a": 10, "b": 10, "c": 10})
    awake = [an_instance("api", "a"), an_instance("web", "b")]
    changes = changes_for(Plan({"api": ("b",), "web": ("a",)}, 1.0), awake, problem)
    assert [str(change) for change in changes] == [
        "boot      api on c: by way of c to end a cycle",
        "announce  api on c",
        "withdraw  ew-t-api-0 on a",
        "stop      ew-t-api-0 on a",
        "boot      web on a",
        "announce  web on a",
        "withdraw  ew-t-web-0 on b",
        "stop      ew-t-web-0 on b",
        "boot      api on b: from the spare host c on",
        "announce  api on b",
        "withdraw  api on c",
        "stop      api on c",
    ]
    changes.raise_if_unsafe()


def test_nothing_is_stopped_before_it_runs_elsewhere() -> None:
    """The cycle of `api` and `web` has no room, and stays; `other` moves all the same."""
    problem = a_problem({"api": 6, "other": 1, "web": 6}, {"a": 10, "b": 10})
    awake = [an_instance("api", "a"), an_instance("other", "a"), an_instance("web", "b")]
    plan = Plan({"api": ("b",), "other": ("b",), "web": ("a",)}, 1.0)
    changes = changes_for(plan, awake, problem)
    assert {change.service for change in changes} == {"other"}
    assert set(changes.left) == {"api", "web"}


def test_who_must_be_apart_leaves_before_the_other_comes() -> None:
    """The fleet would refuse `api` at b while `web` is still there."""
    apart = Split((frozenset({"api"}), frozenset({"web"})))
    awake = [an_instance("api", "a"), an_instance("web", "b")]
    plan = Plan({"api": ("b",), "web": ("c",)}, 1.0)
    changes = changes_for(plan, awake, replace(WIDE, rules=(apart,)))
    assert [change.service for change in changes] == ["web"] * 4 + ["api"] * 4


def test_what_others_hold_is_no_room() -> None:
    awake = [an_instance("web", "a")]
    full = {"b": Capacity(cpu=0, memory_mib=9)}
    changes = changes_for(Plan({"web": ("b",)}, 1.0), awake, WIDE, full)
    assert (len(changes), changes.left) == (0, ("web",))


def test_the_plan_says_which_image_each_host_would_boot() -> None:
    """Images are flavours: each host runs only the one it would boot."""
    service = a_service("web", images=("mirage", "linux"))
    hosts = (a_host("a"), a_host("b", 1))
    planner = Planner(Lab("t", DnsSettings("edge.test"), hosts=hosts, services=(service,)))
    for image in service.images:
        plan = planner.plan(planner.question([], {}, {"web": dict.fromkeys("ab", image)}))
        assert plan.flavours["web"] == (image,)
    assert planner.plan(planner.question([], {})).flavours["web"] == ("",)


def test_a_plan_that_cannot_be_says_whether_images_or_room_are_short() -> None:
    hosts = (a_host("a"), a_host("b", 1))
    services = (a_service("web"), a_service("large", resources=Capacity(cpu=999.0, memory_mib=64)))
    image = dict.fromkeys("ab", "its kernel is for Xen")
    for service, unfit, hint in (
        (services[0], {"web": image}, "see docs/images.md"),
        (services[1], {"large": {}}, "give hosts more capacity"),
    ):
        planner = Planner(Lab("t", DnsSettings("edge.test"), hosts=hosts, services=(service,)))
        with pytest.raises(EdgewakeError, match="no placement of all services exists") as caught:
            planner.plan(planner.question([], unfit))
        assert hint in caught.value.hint
