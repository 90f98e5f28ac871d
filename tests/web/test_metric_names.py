"""Names, units and labels of metrics: by convention, and as docs/metrics.md has them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from orchestrator.event_counts import EventMetrics
from orchestrator.metrics import DnsCounts, Histogram, WakeMetrics, WebhookCounts
from orchestrator.model import Energy, Event
from orchestrator.network import App, AppState, Found, LinkEngine, LinkState, PortCounters, Quality
from orchestrator.network import VirtualLink as Link
from orchestrator.network_monitor import Sample
from orchestrator.plan_metrics import PlanMetrics
from orchestrator.readings import Reading
from orchestrator.trace import Wake
from placement.problem import Plan
from tests.world import World
from web.families import Family, openmetrics, text
from web.metrics import families

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.+) \|$", re.MULTILINE)
NOT_BASE_UNITS = re.compile(
    r"_(ms|millis\w*|micros\w*|us|nanos\w*|ns|minutes?|hours?|days?|bits?|"
    r"kb|mb|mib|gb|gib|kilo\w*|mega\w*|giga\w*|percent|mbps|watt_hours|kwh)(_|$)"
)
TYPES = r"_(sum|count|bucket|created|gauge|counter|histogram)(_|$)"
NETWORK = Sample(
    "lab",
    at=5.0,
    found=Found(
        links=(LinkState(Link("r1", "r2", Quality(bandwidth_mbps=8)), LinkEngine.USER),),
    ),
    counters=(PortCounters("r1", "r2", 1, 2, 3, 4, 5),),
    apps=(AppState(App("probe", "r1", ("ping",)), running=True, cpu_s=0.5, memory_mib=2),),
    cpu_s={"r1": 1.5},
)


@dataclass(frozen=True)
class Told:
    """What is said of a family, by its page or by itself."""

    kind: str
    labels: frozenset[str]


@pytest.fixture
def whole(world: World) -> list[Family]:
    """Return every family there can be, with samples in it."""
    world.ask("web")
    wakes, plans, events = WakeMetrics(), PlanMetrics(), EventMetrics()
    wakes(Wake(1, "web", 0.0, (("query", 0.0), ("reply", 0.1)), "ready", host="a", rung="cold"))
    with plans.counting("plan"):
        plans.made(Plan({}, value=1.0, bound=0.5, gap=0.5))
    events(Event(0.0, "boot-failed", "web", "no", (("host", "a"),)))
    status = world.control.status()
    first = replace(status.hosts[0], host=replace(status.hosts[0].host, energy=Energy(5.0, 20.0)))
    reading = Reading(
        replace(status, hosts=(first, *status.hosts[1:])),
        wakes.counts({"web"}, {"a"}),
        networks=[NETWORK],
        plans=plans.counts(),
        events=events.counts({"a"}),
        dns=DnsCounts(
            queries={(("type", "A"), ("rcode", "NOERROR"), ("outcome", "warm")): 1},
            query_s={(("outcome", "cold"),): Histogram()},
        ),
        answers={(("route", "/x"), ("method", "GET"), ("code", "2xx")): 1},
        webhooks=WebhookCounts(
            {(("hook", "chat"), ("outcome", "failed")): 1}, {(("hook", "chat"),): 0}
        ),
    )
    return list(families(reading))


def labels_of(family: Family) -> frozenset[str]:
    return frozenset(key for _, labels, _ in family.samples for key, _ in labels) - {"le"}


def faults(family: Family) -> Iterator[str]:
    """Return what is missing, by the conventions that `promtool check metrics` has, and more."""
    name, kind, about = family.name, family.kind, family.about
    labels = labels_of(family)
    told = {(end, labels) for end, labels, _ in family.samples}
    rules = {
        "a snake_case name of ours": re.fullmatch(r"(edgewake|process)(_[a-z][a-z0-9]*)+", name),
        "a sentence of help": about.endswith(".") and "\n" not in about,
        "_total for counters, and no others": (kind == "counter") == name.endswith("_total"),
        "a type": kind in {"counter", "gauge", "histogram"},
        "no type in the name": not re.search(TYPES, name),
        "base units": not NOT_BASE_UNITS.search(name),
        "a unit for histograms": kind != "histogram" or name.endswith("_seconds"),
        "samples": family.samples,
        "labels in lower case": all(re.fullmatch("[a-z][a-z_]*", key) for key in labels),
        "each sample once": len(told) == len(family.samples),
    }
    return (rule for rule, kept in rules.items() if not kept)


def test_every_family_keeps_the_conventions(whole: list[Family]) -> None:
    assert {family.name: found for family in whole if (found := [*faults(family)])} == {}


def test_no_family_is_told_twice_nor_hides_another(whole: list[Family]) -> None:
    names = [family.name for family in whole]
    assert len(names) == len(set(names))
    bases = [re.sub(r"_total$", "", name) for name in names]
    assert len(bases) == len(set(bases)), "OpenMetrics has no _total"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("edgewake_wakes", "counter"),
        ("edgewake_wakes_total", "gauge"),
        ("edgewake_wake_ms", "gauge"),
        ("edgewake_memory_mib", "gauge"),
        ("edgewake_wake_count", "gauge"),
        ("edgewake_wakeTime_seconds", "gauge"),
        ("wakes_total", "counter"),
    ],
)
def test_the_check_finds_what_is_wrong(name: str, kind: str) -> None:
    assert [*faults(Family(name, kind, "Help.", (("", (), 1.0),)))]


def test_the_page_lists_exactly_what_there_is(whole: list[Family]) -> None:
    listed = {
        name: Told(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in ROW.findall(PAGE)
    }
    assert listed == {family.name: Told(family.kind, labels_of(family)) for family in whole}


def test_prometheus_reads_all_of_it(whole: list[Family]) -> None:
    read = {each.name: each for each in parser.text_string_to_metric_families(text(whole))}
    assert {each.type for each in read.values()} == {"counter", "gauge", "histogram"}
    assert len(read) == len(whole)
    assert all(each.documentation and each.samples for each in read.values())


def test_openmetrics_readers_read_all_of_it(whole: list[Family]) -> None:
    told = openmetrics(whole)
    read = list(openmetrics_parser.text_string_to_metric_families(told))
    assert [each.type for each in read] == [family.kind for family in whole]
    assert sum(len(each.samples) for each in read) == sum(len(each.samples) for each in whole)
