"""What a lab should keep warm: rates, memory and abilities in, lines and targets out."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.errors import EdgewakeError
from orchestrator.model import (
    Capacity,
    Constraints,
    DnsSettings,
    IdlePolicy,
    Lab,
    Link,
    Population,
    Router,
    Rung,
    Service,
)
from orchestrator.planner import Planner
from orchestrator.warming import DEFAULTS, LabFacts, WakeCosts, aims_of, warm_problem, warming_of
from placement.warm import (
    COLD,
    PAUSED,
    POOLED,
    READY,
    SAVED,
    Place,
    WarmOptions,
    WarmTarget,
)
from tests.world import a_host, a_service

Make = Callable[..., Lab]


def a_lab(*services: Service, mib: int = 1024, rate: float = 0.01) -> Lab:
    """Return hosts a (near the clients) and b, with so much memory each."""
    capacity = Capacity(cpu=4.0, memory_mib=mib)
    return Lab(
        name="t",
        dns=DnsSettings(zone="edge.test"),
        hosts=(
            replace(a_host("a"), router="r1", capacity=capacity),
            replace(a_host("b", 1), router="r2", capacity=capacity),
        ),
        routers=(Router("r1"), Router("r2")),
        links=(Link("r1", "r2", latency_ms=50.0, bandwidth_mbps=100.0),),
        populations=(Population("home", (ip_network("192.0.2.0/24"),), "r1", requests_s=rate),),
        services=services,
    )


def service(name: str, mib: int = 100, **more: Any) -> Service:
    given: dict[str, Any] = {"idle": IdlePolicy(after_s=60.0)} | more
    return replace(a_service(name), resources=Capacity(cpu=0.1, memory_mib=mib), **given)


def test_idle_services_are_kept_where_they_are_near_and_fit() -> None:
    """Room for one beside what a wake needs: 100 MiB are kept free on a."""
    only_a = Constraints(hosts=frozenset("a"))
    some = [service(name, constraints=only_a) for name in ("web", "api")]
    found = warming_of(Planner(a_lab(*some, mib=210)))
    assert {line.host for line in found.lines} == {"a"}
    assert sorted(line.rung for line in found.lines) == [PAUSED, SAVED]
    assert found.memory_mib == 100.0
    assert found.room_mib == 110.0 + 210.0
    assert found.after < found.before
    assert sorted(target.rung for target in found.targets) == [PAUSED, SAVED]


def test_measured_wakes_count_and_are_told() -> None:
    """An image that is slow to restore rests cold rather than saved."""
    lab = a_lab(service("web"), mib=0)
    image = lab.services[0].images[0]
    costs = WakeCosts({(image, "a", SAVED): 9.0, (image, "a", COLD): 0.5, ("web", "a", COLD): 0.25})
    (line,) = warming_of(Planner(lab), LabFacts(), costs).lines
    assert (line.host, line.rung, line.measured) == ("a", COLD, True)
    assert line.before_s == line.after_s == pytest.approx(0.25 * 2.718281828**-0.6)  # idle for 60 s
    (line,) = warming_of(Planner(lab)).lines
    assert (line.rung, line.measured) == (SAVED, False)


def test_rungs_that_an_image_does_not_survive_are_left_out() -> None:
    lab = a_lab(service("web"))
    known = LabFacts(rungs={("web", "a"): frozenset({COLD}), ("web", "b"): frozenset({PAUSED})})
    (web,) = warm_problem(Planner(lab), known, WakeCosts()).services
    assert {h: [rest.rung for rest in rests] for h, rests in web.rests.items()} == {
        "a": [COLD],
        "b": [COLD, PAUSED],
    }


@pytest.mark.parametrize(
    ("idle", "rungs"),
    [
        (IdlePolicy(after_s=None), [READY]),
        (IdlePolicy(pin=True), [READY]),
        (IdlePolicy(), [COLD, SAVED, PAUSED]),
        (IdlePolicy(paused_s=0.0), [COLD, SAVED]),
        (IdlePolicy(deepest=Rung.PAUSED), [PAUSED]),
        (IdlePolicy(deepest=Rung.PAUSED, paused_s=0.0), [READY]),
    ],
)
def test_only_who_may_not_sleep_is_asked_to_be_ready(idle: IdlePolicy, rungs: list[str]) -> None:
    (web,) = warm_problem(
        Planner(a_lab(service("web", idle=idle))), LabFacts(), WakeCosts()
    ).services
    assert [rest.rung for rest in web.rests["a"]] == rungs


def test_rates_that_were_seen_count_before_the_labs() -> None:
    lab = a_lab(service("web"), service("api"), rate=0.04)
    more = replace(lab.populations[0], name="away", requests_s=0.01)
    lab = replace(lab, populations=(*lab.populations, more))
    web, api = warm_problem(Planner(lab), LabFacts(rates={"web": 0.5}), WakeCosts()).services
    assert web.rates == pytest.approx({"home": 0.4, "away": 0.1})
    assert api.rates == {"home": 0.04, "away": 0.01}


def test_what_is_used_is_kept_warm_though_the_lab_expects_nobody() -> None:
    bound = service("web", latency_bound_ms=1.0), service("api")
    found = warming_of(Planner(a_lab(*bound, rate=0.0)), LabFacts(rates={"web": 0.01}))
    assert {line.name: line.rung for line in found.lines} == {"web": PAUSED, "api": COLD}


def test_a_service_stays_where_it_is_if_it_may() -> None:
    planner = Planner(a_lab(service("web"), service("api"), service("db")))
    homes = {"web": frozenset("b"), "api": frozenset("b")}
    known = LabFacts(unfit={"api": {"b": "is being drained"}}, homes=homes)
    hosts = {line.name: line.host for line in warming_of(planner, known).lines}
    assert hosts == {"web": "b", "api": "a", "db": "a"}


def test_aims_are_what_is_to_be_kept_and_what_stays_free() -> None:
    some = service("web"), service("big", 300), service("db", idle=IdlePolicy(after_s=None))
    aims = aims_of(Planner(a_lab(*some)), LabFacts(), WakeCosts())
    assert {each.name: each.rung for each in aims.targets} == {
        "web": PAUSED,
        "big": PAUSED,
        "db": READY,
    }
    assert aims.free["a"] == Capacity(cpu=0.1, memory_mib=300)


def test_who_never_sleeps_is_ready_and_constraints_hold() -> None:
    lab = a_lab(
        service("db", idle=IdlePolicy(after_s=None), constraints=Constraints(hosts=frozenset("b"))),
        service("web", constraints=Constraints(avoid_hosts=frozenset("a"))),
        service("api"),
    )
    found = warming_of(Planner(lab), LabFacts(unfit={"api": {"a": "its kernel is for Xen"}}))
    assert {(line.name, line.host) for line in found.lines} == {
        ("db", "b"),
        ("web", "b"),
        ("api", "b"),
    }
    assert found.plan.places["db"] == Place("b", READY)


def test_anonymous_instances_are_for_images_that_take_an_address_late() -> None:
    some = [service(f"s{i}") for i in range(12)]
    other = service("other", config=(("greeting", "hi"),))
    lab = a_lab(*some, other, mib=210, rate=0.002)
    planner = Planner(lab)
    assert not warm_problem(planner, LabFacts(), WakeCosts()).recipes
    known = LabFacts(late=frozenset({lab.services[0].images[0]}))
    assert [len(recipe.at) for recipe in warm_problem(planner, known, WakeCosts()).recipes] == [
        2,
        2,
    ]
    settled = replace(known, settled=frozenset(each.name for each in some))
    (recipe,) = warm_problem(planner, settled, WakeCosts()).recipes
    assert [each.recipe for each in warm_problem(planner, settled, WakeCosts()).services] == [
        *[""] * 12,
        recipe.name,
    ]
    costs = WakeCosts(defaults={**DEFAULTS, SAVED: 1.0})
    found = warming_of(planner, known, costs)
    (pool,) = [line for line in found.lines if line.anonymous and line.host == "a"]
    assert (pool.count, pool.memory_mib, pool.rung) == (1, 100.0, PAUSED)
    assert pool.after_s < pool.before_s / 5
    assert pool.value > 0
    assert WarmTarget(pool.name, "a", PAUSED, 1, anonymous=True) in found.targets
    assert sum(line.rung == POOLED for line in found.lines) >= 11


def test_room_is_what_is_left() -> None:
    lab = a_lab(service("web"))
    known = LabFacts(room={"a": Capacity(cpu=4.0, memory_mib=150)})
    hosts = warm_problem(Planner(lab), known, WakeCosts()).hosts
    assert [host.room["memory_mib"] for host in hosts] == [50.0, 924.0]


@pytest.mark.parametrize(
    ("lab", "options", "said"),
    [
        (a_lab(service("far", latency_bound_ms=0.0)), WarmOptions(), ""),
        (a_lab(service("web")), WarmOptions(algorithm="magic"), "cannot be planned: algorithm"),
        (
            a_lab(service("db", 9999, idle=IdlePolicy(after_s=None))),
            WarmOptions(),
            "no warm plan exists: db: no host has room",
        ),
    ],
)
def test_what_cannot_be_planned_is_told(lab: Lab, options: WarmOptions, said: str) -> None:
    if not said:
        assert warming_of(Planner(lab), options=options).plan.places["far"].host == "a"
        return
    with pytest.raises(EdgewakeError, match=said):
        warming_of(Planner(lab), options=options)
