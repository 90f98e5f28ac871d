"""A seed decides the list of events; every event makes sense when its time comes."""

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import LabError
from orchestrator.network import Network
from orchestrator.scenario.chance import Duration, Lifetimes, Picker, Shape, pick
from orchestrator.scenario.checks import joined
from orchestrator.scenario.generate import events_of, start_of
from orchestrator.scenario.happenings import (
    AddRouter,
    Event,
    RemoveRouter,
    Request,
    SetLink,
    after,
)
from orchestrator.scenario.results import event_lines
from orchestrator.scenario.spec import Arrivals, Failures, Scenario, load_scenario, parse_scenario

GOLDEN = Path(__file__).parents[2] / "golden" / "scenario"
SOON = Duration(Shape.EXPONENTIAL, 0.5)


def scenario(**more: object) -> Scenario:
    plain = Scenario("s", Path("s.yaml"), seed=1, duration_s=30.0, routers=6)
    return replace(plain, **more)  # type: ignore[arg-type]


def arrivals(picker: Picker = Picker.RANDOM, most: int = 100) -> Arrivals:
    return Arrivals(SOON, Duration(Shape.UNIFORM, 1, 6), picker, 2, most)


def made(wanted: Scenario) -> tuple[Event, ...]:
    return events_of(wanted, start_of(wanted))


def test_the_same_seed_gives_the_same_events_always() -> None:
    """The golden file: UPDATE_GOLDEN=1 writes it anew."""
    golden = GOLDEN / "churn.events"
    found = event_lines(made(load_scenario(GOLDEN / "churn.yaml")))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_another_seed_gives_others() -> None:
    one, two = (made(scenario(seed=seed, requests=arrivals())) for seed in (1, 2))
    assert one
    assert one != two


def test_what_one_source_does_does_not_change_another() -> None:
    """Requests come at the same times whatever links do."""
    quiet = scenario(requests=arrivals())
    busy = replace(quiet, failures=Failures(3, 1))
    some, all_ = made(quiet), made(busy)
    requests = [(e.at_s, e.what) for e in all_ if isinstance(e.what, Request)]
    assert requests == [(e.at_s, e.what) for e in some]
    assert len(all_) > len(requests)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    routers=st.sampled_from([None, *(arrivals(each, 12) for each in Picker)]),
    links=st.sampled_from([None, *(arrivals(each, 20) for each in Picker)]),
    failures=st.sampled_from([None, Failures(5, 1)]),
)
def test_every_event_makes_sense_when_it_comes(
    seed: int, routers: Arrivals | None, links: Arrivals | None, failures: Failures | None
) -> None:
    wanted = scenario(seed=seed, router_arrivals=routers, link_arrivals=links, failures=failures)
    network, before = start_of(wanted), 0.0
    for number, event in enumerate(events_of(wanted, network), 1):
        assert event.number == number
        assert before <= event.at_s <= wanted.duration_s
        before, old = event.at_s, network
        network = after(network, event.what)  # which raises `Impossible` otherwise
        assert network != old
        assert len({router.address for router in network.routers}) == len(network.routers)
        assert len(network.routers) <= 12 or routers is None
    assert made(wanted) == events_of(wanted, start_of(wanted))


def test_a_start_is_one_tree() -> None:
    for picker in Picker:
        network = start_of(scenario(routers=40, picker=picker))
        assert (len(network.routers), len(network.links)) == (40, 39)
        assert set(joined(network).values()) == {0}


def test_preferential_attachment_makes_hubs() -> None:
    def largest(picker: Picker) -> int:
        network = start_of(scenario(routers=300, picker=picker))
        ends = [end for link in network.links for end in (link.a, link.b)]
        return max(ends.count(router.name) for router in network.routers)

    assert largest(Picker.PREFERENTIAL) > 2 * largest(Picker.RANDOM)


def test_failures_come_and_go_with_their_mean_times() -> None:
    wanted = scenario(routers=2, duration_s=100_000.0, failures=Failures(30.0, 10.0))
    changes = [e for e in made(wanted) if isinstance(e.what, SetLink)]
    assert [e.what.up for e in changes[:4] if isinstance(e.what, SetLink)] == [False, True] * 2
    down = sum(
        up.at_s - failed.at_s for failed, up in zip(changes[::2], changes[1::2], strict=False)
    )
    assert down / wanted.duration_s == pytest.approx(10 / 40, rel=0.1)


def test_routers_stay_as_long_as_they_live() -> None:
    events = made(scenario(router_arrivals=arrivals()))
    came = {e.what.name: e.at_s for e in events if isinstance(e.what, AddRouter)}
    gone = {e.what.name: e.at_s for e in events if isinstance(e.what, RemoveRouter)}
    assert gone
    assert all(1 <= gone[name] - came[name] <= 6.000001 for name in gone)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("link_down: r1--r9", "s.yaml:4: events.0.link_down: there is no link r1--r9 at 1 s"),
        ("add_router: {name: r1}", "events.0.add_router: there is a router r1 already at 1 s"),
        ("add_router: {name: x, links: [y]}", "there is no router y"),
        ("remove_router: y", "there is no router y"),
        ("add_link: {link: r1--r2}", "there is a link r1--r2 already"),
        ("start_app: {app: y/a, run: echo}", "there is no router or stub y"),
        ("request: {source: r1, target: y}", "there is no router or stub y"),
    ],
)
def test_a_scripted_event_that_makes_no_sense_is_an_error_of_the_file(
    written: str, message: str
) -> None:
    text = f"duration: 2 s\nrouters: 2\nevents:\n  - {{at: 1 s, {written}}}\n"
    with pytest.raises(LabError) as caught:
        made(parse_scenario(text, Path("s.yaml")))
    assert message in str(caught.value)


def test_a_router_takes_its_links_along() -> None:
    network = start_of(scenario(routers=3))
    left = after(network, RemoveRouter("r1"))
    assert [router.name for router in left.routers] == ["r2", "r3"]
    assert all("r1" not in {link.a, link.b} for link in left.links)


# --- chance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "mean"),
    [
        (Duration(Shape.FIXED, 3), 3),
        (Duration(Shape.UNIFORM, 2, 6), 4),
        (Duration(Shape.EXPONENTIAL, 5), 5),
    ],
)
def test_durations_have_their_mean(duration: Duration, mean: float) -> None:
    chance = Random(1)  # noqa: S311 - a seed
    drawn = [duration.draw(chance) for _ in range(5000)]
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.05)
    assert min(drawn) > 0


def test_picking_follows_the_weights_and_takes_nobody_twice() -> None:
    chance = Random(1)  # noqa: S311 - a seed
    first = [pick({"a": 1, "b": 3}, 1, chance)[0] for _ in range(4000)]
    assert first.count("b") / len(first) == pytest.approx(0.75, abs=0.03)
    assert sorted(pick({"a": 1, "b": 3}, 5, chance)) == ["a", "b"]
    assert pick({}, 2, chance) == []


def test_expected_life_is_learnt_from_the_dead_and_the_living() -> None:
    lifetimes = Lifetimes()
    assert lifetimes.remaining({"a": 5.0}) == {"a": 5.0}, "nobody has gone: as long again"
    for seconds in (1.0, 3.0):
        lifetimes.add(seconds)
    # All reach 1 s, where one of two goes; half live 2 s more.
    assert lifetimes.remaining({"a": 0.0})["a"] == pytest.approx(1 + 2 / 2)
    assert lifetimes.remaining({"a": 0.5})["a"] == pytest.approx(0.5 + 2 / 2)
    assert lifetimes.remaining({"a": 2.5})["a"] == pytest.approx(0.5)
    # One that is still there at 2 s makes it two of three who live on after 1 s.
    assert lifetimes.remaining({"a": 0.0, "b": 2.0})["a"] == pytest.approx(1 + 2 * 2 / 3)
    assert lifetimes.remaining({"a": 10.0})["a"] == 10.0
    assert start_of(scenario(routers=0)) == Network("s")
