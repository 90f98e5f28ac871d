"""Wake budgets: a scan of all names boots only so many, and costs what is awake nothing."""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.budget import KEPT_REFUSED, TELL_EVERY_S, Budgets, TokenBuckets, client_of
from orchestrator.control import ControlSettings
from orchestrator.errors import Overloaded
from orchestrator.model import Client, DnsSettings, Lab, WakeBudget
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, an_image

SCANNED = 10_000
HOME, AWAY = ip_address("192.0.2.1"), ip_address("198.51.100.7")


# --- buckets ----------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = TokenBuckets(2.0, 3)
    assert [buckets.take("a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    assert buckets.take("b", 10.0)
    assert [buckets.take("a", 10.5) for _ in range(2)] == [True, False]
    assert [buckets.take("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_rate_of_nothing_gives_the_burst_once() -> None:
    buckets = TokenBuckets(0.0, 1)
    assert [buckets.take("a", now) for now in (0.0, 1e6)] == [True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = TokenBuckets(1.0, 1)
    assert [buckets.take("a", now) for now in (10.0, 5.0, 10.5, 11.0)] == [True, False, False, True]


def test_what_is_put_back_can_be_taken_again() -> None:
    buckets = TokenBuckets(0.0, 2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    buckets.put_back("a")
    buckets.put_back("nobody")
    assert [buckets.take("a", 0.0) for _ in range(2)] == [True, False]


def test_full_buckets_are_forgotten_and_there_are_never_too_many() -> None:
    buckets = TokenBuckets(1.0, 5, limit=100)
    for key in range(1000):
        buckets.take(key, 0.0)
        assert len(buckets) <= 100
    for key in range(60):
        buckets.take(("later", key), 10.0)
    assert len(buckets) <= 60


@given(
    st.floats(0, 10),
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=80),
)
def test_nobody_ever_gets_more_than_burst_and_rate(
    rate_s: float, burst: int, takes: list[tuple[str, float]]
) -> None:
    buckets = TokenBuckets(rate_s, burst, limit=8)
    given_at: dict[str, list[float]] = defaultdict(list)
    now = 0.0
    for key, later in takes:
        now += later
        if buckets.take(key, now):
            given_at[key].append(now)
    for times in given_at.values():
        for first, begin in enumerate(times):
            for last, end in enumerate(times[first:], first):
                assert last - first + 1 <= burst + (end - begin) * rate_s + 1e-6


# --- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ],
)
def test_what_counts_as_one_client(address: str, client: str) -> None:
    assert client_of(ip_address(address)) == ip_network(client)


def test_one_client_cannot_use_up_what_others_may() -> None:
    budgets = Budgets(WakeBudget(client_rate_s=0, client_burst=2, total_rate_s=0, total_burst=3))
    assert [bool(budgets.refusal(HOME, 0.0)) for _ in range(9)] == [False] * 2 + [True] * 7
    assert not budgets.refusal(AWAY, 0.0)
    assert "all clients together" in budgets.refusal(AWAY, 0.0)
    assert "all clients together" in budgets.refusal(AWAY, 0.0)  # its own token was put back


def test_who_forges_addresses_does_not_use_up_what_others_may() -> None:
    """Neither by the address of somebody in particular, nor by any, until there is no total."""
    budgets = Budgets(WakeBudget(0.0, 2, 0.0, 10))
    assert [bool(budgets.refusal(HOME, 0.0)) for _ in range(3)] == [False, False, True]
    assert not budgets.refusal(HOME, 0.0, proven=True)
    for last in range(20):
        budgets.refusal(ip_address(f"203.0.113.{last}"), 0.0)
    assert budgets.refusal(AWAY, 0.0)
    assert not budgets.refusal(AWAY, 0.0, proven=True)
    others = (ip_address(f"10.0.0.{last}") for last in range(20))
    assert sum(not budgets.refusal(each, 0.0, proven=True) for each in others) == 4, "half of 10"


def test_a_resolver_of_ours_counts_in_the_total_only() -> None:
    budgets = Budgets(
        WakeBudget(0, 1, 0, 4, exempt=(ip_network("fd00::/8"), ip_network("192.0.2.0/24")))
    )
    assert [bool(budgets.refusal(HOME, 0.0)) for _ in range(6)] == [False] * 4 + [True] * 2


def test_the_news_come_once_a_minute_and_say_who() -> None:
    budgets = Budgets(WakeBudget(0, 1, 0, 1))
    assert not budgets.news(0.0)
    for _ in range(4):
        budgets.refusal(HOME, 0.0)
    budgets.refusal(AWAY, 0.0)
    news = budgets.news(1.0)
    assert news == (
        "4 wakes were refused, beyond the budget: 3 of 192.0.2.1/32, 1 of 198.51.100.7/32"
    )
    budgets.refusal(HOME, 2.0)
    assert not budgets.news(TELL_EVERY_S)
    assert budgets.news(1.0 + TELL_EVERY_S).startswith("1 wakes")


def test_who_was_refused_is_counted_in_bounded_memory() -> None:
    budgets = Budgets(WakeBudget(0, 1, 0, 1))
    for number in range(3 * KEPT_REFUSED):
        budgets.refusal(ip_address(number), 0.0)
    assert len(budgets._refused) <= KEPT_REFUSED + 1
    news = budgets.news(1.0)
    assert news.startswith(f"{3 * KEPT_REFUSED - 1} wakes")
    assert "of others" in news
    budgets.refusal(HOME, 2.0)
    assert "of others" not in budgets.news(1.0 + TELL_EVERY_S)


# --- a scan of the zone -----------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    services = tuple(a_service(f"s{n}", deadline_s=20.0) for n in range(SCANNED))
    budget = WakeBudget(client_rate_s=1.0, client_burst=20, total_rate_s=5.0, total_burst=50)
    lab = Lab(
        "lab",
        DnsSettings("edge.test", wake_budget=budget),
        hosts=(a_host("h1", memory_mib=1 << 20, cpu=1e6),),
        images=(an_image(tmp_path),),
        services=(
            *(replace(s, resources=replace(s.resources, cpu=0.01)) for s in services),
            a_service("warm"),
        ),
    )
    world = World(lab, MemoryStore(), settings=ControlSettings(sweep_s=3600))
    world.start()
    yield world
    world.control.close()


@pytest.mark.parametrize("clients", [1, 1000], ids=["one-client", "many-clients"])
def test_a_scan_of_ten_thousand_names_boots_no_more_than_the_budget(
    world: World, clients: int
) -> None:
    control = world.control
    world.ask("warm")
    began = time.monotonic()
    summons = []
    for number in range(SCANNED):
        client = Client(ip_address(int(HOME) + number % clients))
        summons.append(control.summon(f"s{number}", client).endpoints)
        if number % 100 == 0:
            warm = control.summon("warm", client).endpoints
            assert warm.done()
            assert warm.result()
    took_s = time.monotonic() - began
    refused = [each for each in summons if each.done() and isinstance(each.exception(), Overloaded)]
    budget = control.lab.dns.wake_budget
    allowed = budget.client_burst + took_s * budget.client_rate_s
    if clients > 1:
        allowed = budget.total_burst + took_s * budget.total_rate_s
    assert 20 <= SCANNED - len(refused) <= allowed + 1
    for each in summons:
        if not each.done():
            each.result(30)
    assert len(world.guests()) <= allowed + 2  # and the warm one
    assert len(control.wakes.last(limit=SCANNED)) <= allowed + 2
    control.expire()
    control.expire()
    world.eventually(lambda: any(e.kind == "wake-budget" for e in control.events(1000)))
    (told,) = [event for event in control.events(1000) if event.kind == "wake-budget"]
    assert f"{len(refused)} wakes were refused" in told.text
    assert "192.0.2." in told.text


def test_to_join_a_wake_costs_nothing_and_we_ourselves_have_no_budget(world: World) -> None:
    world.answer_s["s0"] = 0.3
    control = world.control
    first = control.summon("s0", Client(HOME))
    joined = [control.summon("s0", Client(HOME)) for _ in range(100)]
    assert {each.endpoints for each in joined} == {first.endpoints}
    assert first.endpoints.result(10)
    assert [control.summon("s0", Client(HOME)).endpoints.done() for _ in range(100)] == [True] * 100
    wakes = [control.summon(f"s{n}", Client(HOME)).endpoints for n in range(1, 25)]
    assert sum(each.done() and bool(each.exception()) for each in wakes) in range(1, 6)
    ours = [control.summon(f"s{n}", Client()).endpoints for n in range(100, 130)]
    assert all(each.result(30) for each in ours)
