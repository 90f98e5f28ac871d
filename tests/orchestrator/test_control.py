"""Control in a world of memory: the use-cases, and the defects of the ancestor one by one."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.changes import Boot
from orchestrator.errors import (
    GuestDied,
    ImageUnusable,
    NoCapacity,
    NoHostReachable,
    NotReady,
    Overloaded,
    UnknownClients,
    UnknownService,
    UnsafeChanges,
)
from orchestrator.model import (
    Capacity,
    Client,
    Constraints,
    DnsSettings,
    Link,
    Population,
    Price,
    Router,
)
from orchestrator.trace import Owner, Wake
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]


def test_a_wake_boots_announces_and_answers(make_world: MakeWorld) -> None:
    world = make_world()
    (endpoint,) = world.ask("web")
    assert endpoint.host == "a"
    assert str(endpoint.address).startswith("10.9.0.")
    assert world.guests() == ["ew-t-web-0"]
    assert world.seen.hosts_of("web") == ["a"]
    assert [i.state for i in world.store.load().instances] == ["ready"]


def test_a_trace_has_every_stage_in_order(make_world: MakeWorld) -> None:
    world = make_world()
    summons = world.control.summon("web", Client())
    summons.endpoints.result(5)
    assert summons.trace is not None
    summons.trace.replied()
    (wake,) = world.control.wakes.last("web")
    assert [stage for stage, _ in wake.stamps] == [
        *("query", "taken", "decided", "claimed", "intent"),
        *("asked", "define", "start", "answer", "stored", "reply"),
    ]
    assert [at for _, at in wake.stamps] == sorted(at for _, at in wake.stamps)
    assert (wake.outcome, wake.instance, wake.host) == ("ready", "ew-t-web-0", "a")
    assert (wake.rung, wake.decided_by) == ("cold", "only host")
    assert 0 < wake.own_s < wake.total_s


def test_the_time_of_a_wake_runs_from_when_the_question_arrived(make_world: MakeWorld) -> None:
    world = make_world()
    world.control.summon("web", Client(), time.monotonic() - 0.2).endpoints.result(5)
    (wake,) = world.control.wakes.last("web")
    stages = dict(wake.stamps)
    assert 0.2 < stages["parsed"] <= stages["taken"] < stages["answer"]
    assert wake.started_at < time.time() - 0.2


def _last_wake(world: World) -> Wake:
    (wake,) = world.control.wakes.last("web", 1)
    return wake


def test_a_trace_says_who_chose_the_host(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    assert _last_wake(world).decided_by == "greedy-latency"
    world.control.release("web")
    world.control.rebalance()
    world.ask("web")
    assert _last_wake(world).decided_by.startswith("greedy-latency, which is where ")
    world.control.release("web")
    world.drivers["a"].fail = "the host refused"
    world.ask("web")
    wake = _last_wake(world)
    assert (wake.host, wake.decided_by) == ("b", "greedy-latency, after a failed")
    stages = [stage for stage, _ in wake.stamps]
    assert stages.count("claimed") == 2
    assert stages.index("failed") < stages.index("define")
    assert world.control.console("web")


def test_a_guest_that_stays_silent_is_not_the_hypervisors_fault(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", deadline_s=0.2))
    world.answer_s["web"] = None
    assert isinstance(world.summon("web").exception(5), NotReady)
    wake = _last_wake(world)
    assert [stage for stage, _ in wake.stamps][-2:] == ["start", "silent"]
    assert wake.spent_s(Owner.GUEST) > 0.1
    assert wake.spent_s(Owner.GUEST) > wake.spent_s(Owner.HYPERVISOR)


def test_waiting_for_a_service_to_be_stopped_is_not_our_own_time(make_world: MakeWorld) -> None:
    world = make_world()
    lock = world.control._waker.locks["web"]
    with lock:
        future = world.summon("web")
        world.eventually(lambda: len(_last_wake(world).stamps) == 2)
        time.sleep(0.2)
    future.result(5)
    (turn,) = (span for span in _last_wake(world).spans if span.stage == "turn")
    assert turn.took_s > 0.15
    assert turn.owner is not Owner.OURS


def test_a_query_while_booting_is_held_until_the_guest_answers(make_world: MakeWorld) -> None:
    world = make_world()
    world.answer_s["web"] = 0.3
    first = world.summon("web")
    world.eventually(lambda: world.guests() != [])
    second = world.summon("web")
    assert not second.done()
    time.sleep(0.1)
    assert not second.done(), "answered while the guest was still booting"
    assert second.result(5) == first.result(5)
    assert world.drivers["a"].starts == ["ew-t-web-0"]


def test_a_hundred_callers_share_one_boot(make_world: MakeWorld) -> None:
    world = make_world()
    world.answer_s["web"] = 0.05
    gate = threading.Barrier(100)
    answers = []

    def ask() -> None:
        gate.wait()
        answers.append(world.ask("web"))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 100
    assert len(set(answers)) == 1
    assert world.drivers["a"].starts == ["ew-t-web-0"]
    assert sum(wake.queries for wake in world.control.wakes.last("web")) <= 100


def test_cold_names_boot_in_parallel_as_far_as_memory_allows(make_world: MakeWorld) -> None:
    services = [a_service(f"s{n:02}") for n in range(20)]
    world = make_world(*services, hosts=[a_host("a", memory_mib=1024)])
    world.answer_s = {service.name: 0.2 for service in services}
    began = time.monotonic()
    futures = {service.name: world.summon(service.name) for service in services}
    outcomes = {name: future.exception(10) for name, future in futures.items()}
    took = time.monotonic() - began
    refused = [error for error in outcomes.values() if error]
    assert len(world.guests()) == 10
    assert len(refused) == 10
    assert all(isinstance(error, NoCapacity) and "memory" in str(error) for error in refused)
    assert took < 10 * 0.2, "they booted one after the other"


def test_an_unknown_service_is_refused_at_once(make_world: MakeWorld) -> None:
    world = make_world()
    assert isinstance(world.summon("nope").exception(0), UnknownService)


def test_too_many_wakes_are_refused(make_world: MakeWorld) -> None:
    services = [a_service(f"s{n}") for n in range(3)]
    world = make_world(*services, waiting_wakes=2)
    world.answer_s = {service.name: 0.2 for service in services}
    futures = [world.summon(service.name) for service in services]
    assert isinstance(futures[2].exception(0), Overloaded)
    assert [future.exception(5) for future in futures[:2]] == [None, None]
    world.summon("s2").result(5)


# --- failure --------------------------------------------------------------------------------------


def test_a_guest_that_never_answers_fails_at_the_deadline_and_leaves_nothing(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_service("web", deadline_s=0.1))
    world.answer_s["web"] = None
    error = world.summon("web").exception(5)
    assert isinstance(error, NotReady)
    assert "connection refused" in str(error)
    world.eventually(lambda: world.guests() == [])
    world.eventually(lambda: world.control.fleet.instances() == ())
    assert world.store.load().instances == ()
    assert world.control.fleet.used("a") == Capacity(0.0, 0)
    assert world.seen.hosts_of("web") == []


def test_after_a_failure_the_next_query_starts_afresh(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", deadline_s=0.1))
    world.answer_s["web"] = None
    assert world.summon("web").exception(5)
    world.answer_s["web"] = 0.0
    assert world.ask("web")


def test_the_next_best_host_is_tried(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    world.drivers["a"].fail = "out of luck"
    (endpoint,) = world.ask("web")
    assert endpoint.host == "b"
    (wake,) = world.control.wakes.last()
    assert "failed" in [stage for stage, _ in wake.stamps]


def test_when_every_host_fails_each_is_named(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    world.drivers["a"].fail = "out of luck"
    world.drivers["b"].fail = "on fire"
    error = world.summon("web").exception(5)
    assert isinstance(error, NoHostReachable)
    assert "out of luck" in str(error)
    assert "on fire" in str(error)


def test_an_unreachable_host_is_not_asked_again_until_it_is_back(make_world: MakeWorld) -> None:
    world = make_world()
    world.drivers["a"].unreachable("cable cut")
    world.eventually(lambda: world.control.fleet.lost() == {"a": "cable cut"})
    error = world.summon("web").exception(5)
    assert isinstance(error, NoHostReachable)
    assert "cable cut" in str(error)
    world.drivers["a"].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    assert world.ask("web")


def test_a_guest_that_dies_while_booting_sends_the_wake_elsewhere(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    world.answer_s["web"] = 0.5
    future = world.summon("web")
    world.eventually(lambda: world.guests("a") != [])
    world.drivers["a"].kill("ew-t-web-0", "crashed")
    (endpoint,) = future.result(5)
    assert endpoint.host == "b"


def test_the_journal_says_where_the_memory_of_a_crashed_guest_is(make_world: MakeWorld) -> None:
    world = make_world()
    world.ask("web")
    world.drivers["a"].kill("ew-t-web-0", dump="/dumps/x")

    def told() -> list[tuple[str, str]]:
        events = world.control.events()
        return [(each.subject, each.text) for each in events if each.kind == "core-dumped"]

    world.eventually(lambda: told() != [])
    assert told() == [("web", "ew-t-web-0 crashed; its memory is in /dumps/x on a")]


def test_a_guest_that_dies_everywhere_says_so(make_world: MakeWorld) -> None:
    world = make_world()
    world.answer_s["web"] = 1.0
    future = world.summon("web")
    world.eventually(lambda: world.guests("a") != [])
    world.drivers["a"].kill("ew-t-web-0", "crashed")
    error = future.exception(5)
    assert isinstance(error, GuestDied)
    assert "crashed" in str(error)


def test_a_missing_image_is_named_and_no_other_host_is_tried(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    kernel = world.lab.images[0].kernel
    kernel.unlink()
    error = world.summon("web").exception(5)
    assert isinstance(error, ImageUnusable)
    assert kernel.name in str(error)
    assert [driver.starts for driver in world.drivers.values()] == [[], []]
    assert world.store.load().instances == ()


def test_a_guest_that_dies_in_service_is_noticed_at_once(make_world: MakeWorld) -> None:
    world = make_world()
    world.ask("web")
    world.drivers["a"].kill("ew-t-web-0")
    world.eventually(lambda: world.seen.hosts_of("web") == [])
    assert world.ask("web")
    assert world.drivers["a"].starts == ["ew-t-web-0"] * 2


# --- sleep ----------------------------------------------------------------------------------------


def test_an_idle_service_goes_to_sleep(make_world: MakeWorld) -> None:
    world = make_world()
    world.ask("web")
    time.sleep(0.1)
    assert world.control.expire() == ("web",)
    assert world.guests() == []
    assert world.store.load().instances == ()
    assert world.control.status().services[0].state == "asleep"


def test_traffic_without_dns_keeps_a_service_awake(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=straight_to_cold(0.2)))
    world.ask("web")
    world.control.expire()
    for _ in range(8):
        time.sleep(0.05)
        world.drivers["a"].transfer("ew-t-web-0", rx_bytes=500, tx_bytes=50_000)
        assert world.control.expire() == ()
    time.sleep(0.3)
    assert world.control.expire() == ("web",)


def test_a_cached_answer_keeps_a_service_awake(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", ttl_s=1, idle=straight_to_cold(0.01)))
    world.ask("web")
    time.sleep(0.2)
    assert world.control.expire() == ()
    assert "cached" in world.control.status().services[0].idle
    time.sleep(0.9)
    assert world.control.expire() == ("web",)


def test_a_query_in_the_last_moment_keeps_the_service_up(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=straight_to_cold(0.5)))
    world.ask("web")
    time.sleep(0.6)

    class AsksAgain:
        def set(self, routes: object) -> None:
            """Hand out an answer just as the service is being withdrawn."""
            if world.seen.hosts_of("web") == []:
                world.control.asked["web"] = time.monotonic()

        def close(self) -> None:
            pass

    world.control._steering.use(world.seen, AsksAgain())
    assert world.control.expire() == ()
    assert world.seen.hosts_of("web") == ["a"]
    assert world.guests() == ["ew-t-web-0"]


def test_release_puts_to_sleep_at_once(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=straight_to_cold(None)))
    world.ask("web")
    time.sleep(0.1)
    assert world.control.expire() == ()
    assert world.control.release("web") == ("ew-t-web-0",)
    assert world.guests() == []
    with pytest.raises(UnknownService, match="the lab has: web"):
        world.control.release("nope")


def test_a_service_keeps_its_address_over_sleeps_and_others_do_not_get_it(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_service("web", ttl_s=60), a_service("api", ttl_s=60))
    (web,) = world.ask("web")
    world.control.release("web")
    (api,) = world.ask("api")
    assert api.address != web.address
    (again,) = world.ask("web")
    assert again.address == web.address


# --- replicas, moves, lab changes -----------------------------------------------------------------


def test_replicas_follow_the_first_answer(make_world: MakeWorld) -> None:
    world = make_world(
        a_service("web", replicas=3), hosts=[a_host("a"), a_host("b", 1), a_host("c", 2)]
    )
    assert len(world.ask("web")) == 1
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 3)
    assert sorted(world.seen.hosts_of("web")) == ["a", "b", "c"]


def test_rebalance_shows_by_default_and_moves_make_before_break(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    avoid = replace(world.lab.services[0], constraints=Constraints(avoid_hosts=frozenset({"a"})))
    world.control.fleet.use(replace(world.lab, services=(avoid,)))
    shown = world.control.rebalance()
    assert [str(change).split()[0] for change in shown.changes] == [
        "boot",
        "announce",
        "withdraw",
        "stop",
    ]
    assert world.guests("b") == []
    world.seen.history.clear()
    world.control.rebalance(dry_run=False)
    assert (world.guests("a"), len(world.guests("b"))) == ([], 1)
    hosts = [{end.host for end in r[0].endpoints} for r in world.seen.history]
    assert all(hosts), "for a moment clients were led nowhere"


def test_two_services_change_places_by_way_of_a_third_host(make_world: MakeWorld) -> None:
    """Each host has room for one of them, so one must go aside; both answer all the while."""
    services = [
        a_service(name, resources=Capacity(cpu=0.1, memory_mib=300)) for name in ("one", "other")
    ]
    hosts = [a_host(name, index, memory_mib=512) for index, name in enumerate("abc")]
    hosts[2] = replace(hosts[2], price=Price(host_hour=100.0))  # so that no plan stays there
    world = make_world(*services, hosts=hosts)
    for away in ({"one": "bc", "other": "ac"}, {"one": "a", "other": "b"}):
        lab = replace(
            world.lab,
            services=tuple(
                replace(each, constraints=Constraints(avoid_hosts=frozenset(away[each.name])))
                for each in services
            ),
        )
        world.control.fleet.use(lab)
        world.ask("one")
        world.ask("other")
    assert (world.seen.hosts_of("one"), world.seen.hosts_of("other")) == (["a"], ["b"])
    world.seen.history.clear()
    proposal = world.control.rebalance(dry_run=False)
    boots = [change.host for change in proposal.changes if isinstance(change, Boot)]
    assert (boots[0], len(boots)) == ("c", 3)
    assert (world.seen.hosts_of("one"), world.seen.hosts_of("other")) == (["b"], ["a"])
    assert [len(world.guests(host)) for host in "abc"] == [1, 1, 0]
    for routes in world.seen.history:
        assert all(route.endpoints for route in routes), "for a moment clients were led nowhere"


def test_apply_ends_what_changed_and_leaves_the_rest(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("api"))
    world.ask("web")
    world.ask("api")
    changed = replace(world.lab.services[0], config=(("greeting", "hi"),))
    new = replace(world.lab, services=(changed, world.lab.services[1]))
    assert len(world.control.apply(new, dry_run=True)) == 2
    assert len(world.guests()) == 2
    world.control.apply(new, text="the file", path="lab.yaml")
    assert world.guests() == ["ew-t-api-0"]
    assert world.store.load().lab_text == "the file"
    world.ask("web")
    guest = world.machines["a"].guests["ew-t-web-0"].guest
    assert "greeting=hi" in guest.boot.cmdline


def test_apply_takes_hosts_in_and_lets_them_go(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a")])
    world.ask("web")
    world.control.apply(replace(world.lab, hosts=(a_host("b", 1),)))
    assert world.guests() == []
    assert world.machines["a"].networks == {}
    (endpoint,) = world.ask("web")
    assert endpoint.host == "b"


def test_apply_refuses_another_zone_and_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    world.ask("web")
    with pytest.raises(UnsafeChanges, match=r"zone from edge\.test to other\.test"):
        world.control.apply(replace(world.lab, dns=DnsSettings(zone="other.test")))
    assert world.guests() == ["ew-t-web-0"]


def test_the_nearest_host_to_the_client_is_chosen(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)], start=False)
    world.lab = replace(
        world.lab,
        hosts=tuple(replace(h, router=f"r{h.name}") for h in world.lab.hosts),
        routers=(Router("ra"), Router("rb")),
        links=(Link("ra", "rb", latency_ms=20, bandwidth_mbps=100),),
        populations=(Population("near-b", (), router="rb"),),
    )
    control = world.start()
    future = control.summon("web", Client(population="near-b")).endpoints
    assert [end.host for end in future.result(5)] == ["b"]
    assert {each.host: each.distance_ms for each in control.explain("web", "near-b")} == {
        "a": 20.0,
        "b": 0.0,
    }
    with pytest.raises(UnknownClients, match="near-c: no such clients; the lab has: near-b"):
        control.explain("web", "near-c")
