"""Lists of changes: how they read, and which are refused."""

import pytest

from orchestrator.changes import Announce, Boot, Change, Changes, Stop, Withdraw
from orchestrator.errors import EdgewakeError, UnsafeChanges
from orchestrator.model import Capacity, DnsSettings, Instance, InstanceState, Lab, mac_of
from orchestrator.planner import Planner, changes_for
from orchestrator.trace import OURS, STAGES, Wake, Wakes
from placement.problem import Plan
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


def test_a_move_is_made_before_it_is_broken() -> None:
    plan = Plan(hosts={"web": ("b",), "api": ("a",), "asleep": ("a",)}, value=1.0)
    awake = [an_instance("web", "a"), an_instance("api", "a")]
    assert list(changes_for(plan, awake)) == [BOOT, ANNOUNCE, WITHDRAW, STOP]


def test_a_replica_that_is_where_it_should_be_stays() -> None:
    plan = Plan(hosts={"web": ("b", "c")}, value=1.0)
    awake = [an_instance("web", "a"), an_instance("web", "b", 1)]
    moved = [str(change).split()[0] for change in changes_for(plan, awake)]
    assert moved == ["boot", "announce", "withdraw", "stop"]


def test_our_own_time_is_what_ends_in_our_stages() -> None:
    stamps = tuple((stage, float(index)) for index, stage in enumerate(STAGES))
    wake = Wake(id=1, service="web", started_at=0.0, stamps=stamps, outcome="ready")
    assert wake.own_s == len(OURS)
    assert wake.total_s == len(STAGES) - 1


def test_the_last_wakes_are_kept() -> None:
    wakes = Wakes()
    for number in range(1200):
        wakes.begin("even" if number % 2 == 0 else "odd").ended("ready")
    assert len(wakes.last(limit=5000)) == 1000
    assert [wake.id for wake in wakes.last("odd", limit=2)] == [1198, 1200]
    trace = wakes.begin("web")
    trace.replied()
    trace.replied()
    assert [stage for stage, _ in wakes.last("web")[0].stamps] == ["query", "reply"]


def test_the_plan_says_which_image_each_host_would_boot() -> None:
    """Images are flavours: each host runs only the one it would boot."""
    service = a_service("web", images=("mirage", "linux"))
    hosts = (a_host("a"), a_host("b", 1))
    planner = Planner(Lab("t", DnsSettings("edge.test"), hosts=hosts, services=(service,)))
    for image in service.images:
        plan = planner.plan([], {}, boots={"web": dict.fromkeys("ab", image)})
        assert plan.flavours["web"] == (image,)
    assert planner.plan([], {}).flavours["web"] == ("",)


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
            planner.plan([], unfit)
        assert hint in caught.value.hint
