"""What Prometheus is told, read back by its own library."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.labfile import parse_lab
from orchestrator.metrics import DnsCounts, WakeMetrics
from orchestrator.network import (
    App,
    AppState,
    Found,
    LinkEngine,
    LinkState,
    PortCounters,
    Quality,
    VirtualLink,
)
from orchestrator.network_monitor import Sample
from orchestrator.readings import Reading
from orchestrator.trace import Wake
from tests.world import World
from web.app import create_app
from web.metrics import exposition

ODD = 'a "quoted"\\path\nand more {x="y"}'
NO_QUERIES = DnsCounts()
NETWORK = Sample(
    "lab",
    at=5.0,
    found=Found(
        links=(
            LinkState(VirtualLink("r1", "r2", Quality(bandwidth_mbps=8)), LinkEngine.USER),
            LinkState(VirtualLink("r1", "r3", up=False), LinkEngine.NONE),
        )
    ),
    counters=(PortCounters("r1", "r2", 1, 2, 3, 4, 5), PortCounters("r2", "r1", 6)),
    apps=(AppState(App("probe", "r1", ("ping",)), running=True, cpu_s=0.5, memory_mib=2),),
    cpu_s={"r1": 1.5},
)


def a_reading(world: World, *wakes: Wake, **more: Any) -> Reading:
    metrics = WakeMetrics()
    for wake in wakes:
        metrics(wake)
    counts = metrics.counts({wake.service for wake in wakes}, {wake.host for wake in wakes})
    return Reading(world.control.status(), counts, networks=[NETWORK], **more)


def told(world: World, *wakes: Wake, dns: DnsCounts = NO_QUERIES) -> str:
    return exposition(a_reading(world, *wakes, dns=dns))[0]


def read(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def a_wake(service: str = "web", outcome: str = "ready", total_s: float = 0.3) -> Wake:
    stamps = (("query", 0.0), ("define", total_s / 2), ("reply", total_s))
    return Wake(1, service, 0.0, stamps, outcome, rung="cold", queries=2)


def test_a_parser_reads_what_was_counted(world: World) -> None:
    families = read(told(world, a_wake(), a_wake(), a_wake(outcome="no-capacity", total_s=99.0)))
    wakes = {
        sample.labels["outcome"]: sample.value for sample in families["edgewake_wakes"].samples
    }
    assert wakes == {"ready": 2, "no-capacity": 1}
    seconds = families["edgewake_wake_seconds"]
    assert seconds.type == "histogram"
    ready = [sample for sample in seconds.samples if sample.labels["outcome"] == "ready"]
    buckets = {each.labels["le"]: each.value for each in ready if each.name.endswith("_bucket")}
    assert (buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (0, 2, 2)
    assert [*buckets.values()] == sorted(buckets.values())
    (total,) = (each.value for each in ready if each.name.endswith("_sum"))
    assert math.isclose(total, 0.6)
    stages = families["edgewake_wake_stage_seconds"].samples
    assert {each.labels["stage"]: each.labels["owner"] for each in stages} == {
        "define": "hypervisor",
        "reply": "ours",
    }


def test_odd_names_survive(world: World) -> None:
    families = read(told(world, a_wake(ODD)))
    (sample,) = families["edgewake_wakes"].samples
    assert sample.labels["service"] == ODD


def test_hosts_and_services_and_queries_are_there(world: World) -> None:
    world.ask("web")
    families = read(told(world, dns=DnsCounts(held=3, dropped=7)))
    states = {each.labels["state"]: each.value for each in families["edgewake_services"].samples}
    assert states == {"asleep": 2, "waking": 0, "awake": 1, "stopping": 0}
    memory = {
        (each.labels["host"], each.labels["kind"]): each.value
        for each in families["edgewake_host_memory_bytes"].samples
    }
    hosts = {each.host.name: each.used.memory_mib for each in world.control.status().hosts}
    assert {host: memory[host, "used"] / 2**20 for host in hosts} == hosts
    assert any(hosts.values())
    assert families["edgewake_dns_held_queries"].samples[0].value == 3
    assert families["edgewake_dns_dropped_queries"].samples[0].value == 7


def test_a_lost_host_says_nothing_of_its_memory(world: World) -> None:
    world.control.fleet.host_lost("b", "cut off")
    families = read(told(world))
    reachable = families["edgewake_host_reachable"].samples
    assert {each.labels["host"]: each.value for each in reachable} == {"a": 1, "b": 0}
    kinds = {
        each.labels["kind"]
        for each in families["edgewake_host_memory_bytes"].samples
        if each.labels["host"] == "b"
    }
    assert kinds == {"usable", "used"}


def test_what_went_through_a_network_is_told_by_router_and_peer(world: World) -> None:
    families = read(told(world))
    for name, value in (
        ("receive_bytes", 1),
        ("receive_packets", 2),
        ("transmit_bytes", 3),
        ("transmit_packets", 4),
        ("dropped_packets", 5),
    ):
        first, second = families[f"edgewake_router_{name}"].samples
        assert first.labels == {"network": "lab", "router": "r1", "peer": "r2"}
        assert (first.value, second.labels["router"]) == (value, "r2")
    up = {each.labels["link"]: each.value for each in families["edgewake_link_up"].samples}
    assert up == {"r1--r2": 1, "r1--r3": 0}
    (bandwidth,) = families["edgewake_link_bandwidth_bytes_per_second"].samples
    assert (bandwidth.labels["link"], bandwidth.value) == ("r1--r2", 1e6)
    (cpu,) = families["edgewake_router_cpu_seconds"].samples
    assert cpu.value == 1.5
    values = {
        name: families[f"edgewake_app_{name}"].samples[0].value
        for name in ("running", "cpu_seconds", "memory_bytes")
    }
    assert values == {"running": 1, "cpu_seconds": 0.5, "memory_bytes": 2 << 20}


def test_without_a_network_nothing_is_told_of_one(world: World) -> None:
    text, _ = exposition(Reading(world.control.status()))
    assert "edgewake_router" not in text


@pytest.mark.parametrize(
    ("accept", "kind", "parse"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", text_string_to_metric_families),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            openmetrics_parser.text_string_to_metric_families,
        ),
    ],
)
def test_the_api_has_it_as_is_asked_for(
    world: World, accept: str, kind: str, parse: Callable[[str], Iterable[Metric]]
) -> None:
    reading = a_reading(world, a_wake())
    app = create_app(world.control, load=parse_lab, metrics=partial(exposition, reading))
    response = app.test_client().get("/api/v1/metrics", headers={"Accept": accept})
    assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
    assert "edgewake_wakes" in {family.name for family in parse(response.text)}


def test_without_any_the_page_is_empty(http: FlaskClient) -> None:
    assert http.get("/api/v1/metrics").data == b""
