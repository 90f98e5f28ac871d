"""What the API tells of hosts, services, instances, images, populations, wakes and the journal."""

import time
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from orchestrator.model import Energy
from orchestrator.trace import Wake
from orchestrator.wake_summary import summed_up
from tests.world import World

API = "/api/v1"


def _get(http: FlaskClient, path: str) -> Any:
    answer = http.get(f"{API}{path}")
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def test_a_host_says_what_it_draws_and_what_runs_there(world: World, http: FlaskClient) -> None:
    lab = world.control.lab
    hosts = (replace(lab.hosts[0], energy=Energy(10.0, 74.0)), *lab.hosts[1:])
    world.control.apply(replace(lab, hosts=hosts))
    (end,) = http.post(f"{API}/services/web/wake", json={"client": "192.0.2.1"}).json["endpoints"]
    a, b = _get(http, "/hosts")["hosts"]
    assert a["power"] == {"now_w": pytest.approx(10.1), "idle_w": 10.0, "busy_w": 74.0}
    assert b["power"] is None
    assert [each["name"] for each in a["instances"]] == [end["instance"]]
    assert (a["driver"], a["router"], a["capacity"]["memory_mib"]) == ("memory", "r1", 1024)
    assert _get(http, "/hosts/a") == a
    world.drivers["a"].unreachable("cable cut")
    world.eventually(lambda: bool(world.control.fleet.lost()))
    lost = _get(http, "/hosts/a")
    assert "cable cut" in lost["lost"]
    assert lost["power"]["now_w"] is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/hosts/nope", "unknown-host"),
        ("/services/nope", "unknown-service"),
        ("/instances/nope", "unknown-instance"),
        ("/images/nope", "unknown-image"),
        ("/wakes/77", "unknown-wake"),
    ],
)
def test_what_is_not_there_is_not_found(http: FlaskClient, path: str, kind: str) -> None:
    answer = http.get(f"{API}{path}")
    assert answer.status_code == 404
    assert answer.get_json()["type"].endswith(f":{kind}")


def test_a_service_says_where_it_is_why_there_and_what_it_costs(http: FlaskClient) -> None:
    asleep = _get(http, "/services/web")
    assert asleep["cost"]["wakes"][-1] == {
        "rung": "cold",
        "wait_ms": 3000.0,
        "measured": False,
        "waiting": 3.0,
    }
    assert (asleep["where"]["hosts"], asleep["where"]["decided_by"]) == ([], "")
    (end,) = http.post(f"{API}/services/web/wake").get_json()["endpoints"]
    awake = _get(http, "/services/web")
    assert awake["where"]["hosts"] == [end["host"]]
    assert awake["where"]["decided_by"]
    assert {choice["host"] for choice in awake["where"]["choices"]} == {"a", "b"}
    assert (awake["cost"]["host"], awake["cost"]["memory_mib"]) == (end["host"], 100)
    assert awake["cost"]["wakes"][-1]["measured"] is True
    assert awake["image_details"][0]["flavours"][0]["family"] == "linux"
    assert len(awake["image_details"][0]["flavours"][0]["digest"]) == 64
    assert awake["policy"]["idle"]["after_s"] == 0.05
    assert [wake["outcome"] for wake in awake["last_wakes"]] == ["ready"]
    assert [each["name"] for each in _get(http, "/services")["services"]] == [
        "web",
        "other",
        "huge",
    ]


def test_a_document_that_has_not_changed_is_not_sent_again(http: FlaskClient) -> None:
    answer = http.get(f"{API}/services/web")
    again = http.get(f"{API}/services/web", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    http.post(f"{API}/services/web/wake")
    changed = http.get(f"{API}/services/web", headers={"If-None-Match": answer.headers["ETag"]})
    assert changed.status_code == 200


def test_instances_are_listed_by_name_in_pages(http: FlaskClient) -> None:
    for client in ("192.0.2.1", "192.0.2.200"):
        http.post(f"{API}/services/web/wake", json={"client": client})
    http.post(f"{API}/services/huge/wake")
    first = _get(http, "/instances?limit=1")
    second = _get(http, f"/instances?limit=1&after={first['next']}")
    names = [page["instances"][0]["name"] for page in (first, second)]
    assert names == ["ew-t-huge-0", "ew-t-web-0"]
    assert second["next"] is None
    (web,) = _get(http, "/instances?service=web")["instances"]
    assert (web["image"], web["rung"], web["takes"]["memory_mib"]) == ("tiny", "ready", 100)
    assert _get(http, f"/instances/{web['name']}") == web


def test_images_say_what_they_are_who_uses_them_and_why_they_cannot_run(http: FlaskClient) -> None:
    document = _get(http, "/images")
    tiny, gone = document["images"]
    assert document["catalog"] == []
    assert (tiny["services"], tiny["memory_mib"]) == (["web", "huge"], [100, 1000])
    assert tiny["hosts"] == ["a", "b"]
    assert tiny["flavours"][0]["file_bytes"] > 4096
    assert (tiny["usable"], gone["usable"], gone["flavours"]) == (True, False, [])
    assert "gone" in gone["unusable"]


def test_populations_say_who_asks(http: FlaskClient) -> None:
    near_a, _ = _get(http, "/populations")["populations"]
    assert near_a == {
        "name": "near-a",
        "subnets": ["192.0.2.0/24"],
        "router": "r1",
        "requests_s": 1.0,
    }


def test_wakes_lead_back_in_time_page_by_page(http: FlaskClient) -> None:
    for _ in range(3):
        http.post(f"{API}/services/web/wake")
        http.post(f"{API}/services/web/sleep")
    first = _get(http, "/wakes?limit=2")
    second = _get(http, f"/wakes?limit=2&after={first['next']}")
    assert [wake["id"] for wake in first["wakes"]] == [2, 3]
    assert [wake["id"] for wake in second["wakes"]] == [1]
    assert second["next"] is None
    assert _get(http, "/wakes/2") == first["wakes"][0]


def test_events_of_one_kind_lead_back_in_time(world: World, http: FlaskClient) -> None:
    for _ in range(3):
        http.post(f"{API}/services/web/wake")
        http.post(f"{API}/services/web/sleep")
    world.eventually(lambda: len(_get(http, "/events?kind=woke")["events"]) == 3)
    first = _get(http, "/events?kind=woke&limit=2")
    second = _get(http, f"/events?kind=woke&limit=2&after={first['next']}")
    found = [event for page in (second, first) for event in page["events"]]
    assert [event["kind"] for event in found] == ["woke"] * 3
    assert [event["at"] for event in found] == sorted(event["at"] for event in found)
    assert second["next"] is None


def test_a_summary_counts_wakes_and_tells_why_some_failed(http: FlaskClient) -> None:
    empty = _get(http, "/wakes/summary")
    assert (empty["all"]["wakes"], empty["all"]["p50_s"]) == (0, None)
    http.post(f"{API}/services/web/wake")
    http.post(f"{API}/services/other/wake")
    document = _get(http, "/wakes/summary")
    counts = document["all"]["counts"]
    assert (counts["cold"], counts["failed"]) == (1, 1)
    assert [each["name"] for each in document["services"]] == ["other", "web"]
    (host,) = (each for each in document["hosts"] if each["counts"]["cold"])
    assert host["p50_s"] == host["p99_s"] > 0
    (failure,) = document["failures"]
    assert (failure["reason"], failure["count"]) == ("image-unusable", 1)
    assert "gone" in failure["text"]


def test_percentiles_are_values_that_were_measured() -> None:
    def wake(number: int, **more: Any) -> Wake:
        stamps = (("query", 0.0), ("reply", float(number)))
        return Wake(number, "web", 0.0, stamps, **{"outcome": "ready", "host": "a", **more})

    wakes = [wake(n, rung="paused") for n in range(1, 100)] + [wake(100, outcome="waking")]
    went = summed_up(wakes).all
    assert (went.p50_s, went.p95_s, went.p99_s) == (50.0, 95.0, 99.0)
    assert (went.counts, went.under_way, went.failed) == ((("paused", 99),), 1, 0)


def test_images_are_measured_beside_what_is_claimed(world: World, http: FlaskClient) -> None:
    before = {each["name"]: each for each in _get(http, "/measured")["images"]}
    assert (before["tiny"]["memory_bytes"], before["tiny"]["boots"]) == (None, 0)
    assert before["gone"]["file_bytes"] is None
    world.answer_s["web"] = 0.03
    (end,) = http.post(f"{API}/services/web/wake").get_json()["endpoints"]
    driver = world.machine(end["host"])
    now = time.monotonic()
    for second in (1, 2, 3):  # as if looked at once a second
        world.control._scaler.count(driver.running()[0], now + second)
        driver.work(end["instance"], 0.01)
    document = _get(http, "/measured")
    tiny = next(each for each in document["images"] if each["name"] == "tiny")
    assert (tiny["asked_mib"], tiny["guests"], tiny["memory_bytes"]) == (100, 1, 100 << 20)
    assert (tiny["boots"], tiny["boot_p50_s"] >= 0.03) == (1, True)
    assert (tiny["idle_looks"], tiny["idle_cpu"]) == (2, pytest.approx(0.01))
    assert {claim["key"] for claim in document["claims"]} < tiny.keys()
