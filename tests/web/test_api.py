"""The API over a real orchestrator with hosts in memory: each verb, and each way it can fail."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from orchestrator.drain import Booted, DrainReport, Migration
from orchestrator.errors import BackingOff
from orchestrator.hypervisors.base import Sent
from orchestrator.trace import wake_of
from placement.problem import Options, Plan, Problem
from tests.world import World
from web.app import LARGEST_REQUEST
from web.models.hosts import DrainDocument
from web.problems import PROBLEM_TYPE

API = "/api/v1"
WAIT = {"Prefer": "wait=30"}


def _problem(answer: Any, status: int) -> dict[str, Any]:
    """Return a problem document, once it has been seen to be one."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == PROBLEM_TYPE
    document: dict[str, Any] = json.loads(answer.text)
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def test_status_shows_hosts_and_sleeping_services(http: FlaskClient) -> None:
    document = http.get(f"{API}/status").get_json()
    assert document["lab"] == "t"
    (a, b) = document["hosts"]
    assert (a["name"], a["reachable"], a["used"]) == ("a", True, {"cpu": 0.0, "memory_mib": 0})
    assert b["usable"] == {"cpu": 64.0, "memory_mib": 1024}
    states = {service["name"]: service["state"] for service in document["services"]}
    assert states == {"web": "asleep", "other": "asleep", "huge": "asleep"}


def test_a_lost_host_is_shown_with_the_reason(world: World, http: FlaskClient) -> None:
    world.drivers["a"].unreachable("cable cut")
    world.eventually(lambda: bool(world.control.fleet.lost()))
    (a, _) = http.get(f"{API}/status").get_json()["hosts"]
    assert (a["reachable"], a["free"]) == (False, None)
    assert "cable cut" in a["lost"]


def test_wake_waits_and_tells_where_the_time_went(world: World, http: FlaskClient) -> None:
    world.answer_s["web"] = 0.05
    document = http.post(f"{API}/services/web/wake").get_json()
    (end,) = document["endpoints"]
    assert end["service"] == "web"
    assert world.guests(end["host"]) == [end["instance"]]
    wake = wake_of(document["wake"])
    assert wake.outcome == "ready"
    assert (wake.stamps[0][0], wake.stamps[-1][0]) == ("query", "reply")
    assert wake.total_s >= 0.05
    assert document["wake"]["own_s"] == pytest.approx(wake.own_s)
    assert "web" in world.control.asked, "an answer handed out counts as use"


def test_who_wakes_a_service_by_hand_does_not_wait_for_its_back_off(
    world: World, http: FlaskClient
) -> None:
    for _ in range(5):
        world.control._hopeless.failed(world.control.known("web"), "it crashed")
    assert isinstance(world.summon("web").exception(0), BackingOff)
    assert http.post(f"{API}/services/web/wake").status_code == 200


def test_waking_what_is_awake_answers_at_once(http: FlaskClient) -> None:
    first = http.post(f"{API}/services/web/wake").get_json()
    second = http.post(f"{API}/services/web/wake").get_json()
    assert second == {"endpoints": first["endpoints"], "wake": None}


@pytest.mark.parametrize(("client", "host"), [("192.0.2.1", "a"), ("192.0.2.200", "b")])
def test_the_clients_population_decides_where(http: FlaskClient, client: str, host: str) -> None:
    """The second address is in both populations; the narrower subnet counts."""
    document = http.post(f"{API}/services/web/wake", json={"client": client}).get_json()
    assert document["endpoints"][0]["host"] == host


def test_a_client_that_is_no_address_is_refused(world: World, http: FlaskClient) -> None:
    answer = http.post(f"{API}/services/web/wake", json={"client": "nobody"})
    assert "nobody" in _problem(answer, 422)["detail"]
    assert world.guests() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/services/nope/wake"),
        ("POST", "/services/nope/sleep"),
        ("GET", "/services/nope/console"),
    ],
)
def test_an_unknown_service_is_not_found(http: FlaskClient, method: str, path: str) -> None:
    document = _problem(http.open(f"{API}{path}", method=method), 404)
    assert document["type"] == "urn:problem-type:edgewake:unknown-service"
    assert document["service"] == "nope"
    assert document["reason"] == "unknown-service"


def test_an_unusable_image_is_unavailable_and_says_which(http: FlaskClient) -> None:
    document = _problem(http.post(f"{API}/services/other/wake"), 503)
    assert document["reason"] == "image-unusable"
    assert "gone" in document["detail"]
    (wake,) = http.get(f"{API}/wakes?service=other").get_json()["wakes"]
    assert wake["outcome"] == "image-unusable"
    assert wake["stamps"][-1][0] == "reply"


def test_no_capacity_is_unavailable(world: World, http: FlaskClient) -> None:
    for client in ("192.0.2.1", "192.0.2.200"):
        http.post(f"{API}/services/web/wake", json={"client": client})
    world.drivers["b"].unreachable("cable cut")
    world.eventually(lambda: "b" in world.control.fleet.lost())
    http.post(f"{API}/services/huge/wake")
    document = _problem(http.post(f"{API}/services/huge/wake"), 503)
    assert document["reason"] == "no-capacity"
    assert "a:" in document["detail"]


def test_a_guest_that_never_answers_is_unavailable(world: World, http: FlaskClient) -> None:
    world.answer_s["web"] = None
    document = _problem(http.post(f"{API}/services/web/wake"), 503)
    assert document["reason"] == "not-ready"
    assert "edgewake logs web" in document["hint"]


def test_sleep_ends_the_instances(world: World, http: FlaskClient) -> None:
    (end,) = http.post(f"{API}/services/web/wake").get_json()["endpoints"]
    document = http.post(f"{API}/services/web/sleep").get_json()
    assert document == {"service": "web", "slept": [end["instance"]], "rung": "cold"}
    assert world.guests() == []
    assert http.post(f"{API}/services/web/sleep").get_json()["rung"] == "cold"


def test_the_console_is_text_whatever_the_guest_wrote(world: World, http: FlaskClient) -> None:
    (end,) = http.post(f"{API}/services/web/wake").get_json()["endpoints"]
    machine = world.machines[end["host"]]
    with machine.lock:
        machine.consoles[end["instance"]] = b"booting \xff\xfe\n"
    answer = http.get(f"{API}/services/web/console")
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.text == "booting \ufffd\ufffd\n"


def test_wakes_are_listed_oldest_first_and_limited(http: FlaskClient) -> None:
    for _ in range(3):
        http.post(f"{API}/services/web/wake")
        http.post(f"{API}/services/web/sleep")
    http.post(f"{API}/services/other/wake")
    ids = [wake["id"] for wake in http.get(f"{API}/wakes?service=web").get_json()["wakes"]]
    assert ids == [1, 2, 3]
    ids = [wake["id"] for wake in http.get(f"{API}/wakes?limit=2").get_json()["wakes"]]
    assert ids == [3, 4]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "", "٣", "9" * 5000])
def test_a_senseless_limit_is_refused(http: FlaskClient, limit: str) -> None:
    (error,) = _problem(http.get(f"{API}/events", query_string={"limit": limit}), 422)["errors"]
    assert error["field"] == "limit"


def test_events_tell_what_happened(world: World, http: FlaskClient) -> None:
    http.post(f"{API}/services/web/wake")

    def kinds() -> list[str]:
        return [event["kind"] for event in http.get(f"{API}/events").get_json()["events"]]

    world.eventually(lambda: "woke" in kinds())
    (event,) = http.get(f"{API}/events?limit=1").get_json()["events"]
    assert event.keys() == {"at", "kind", "subject", "text", "data"}


# --- placement --------------------------------------------------------------------------------


def test_a_plan_is_a_proposal_unless_told_to_apply(world: World, http: FlaskClient) -> None:
    """Most clients are near b, but whoever asks first is near a."""
    http.post(f"{API}/services/web/wake", json={"client": "192.0.2.1"})
    before = world.guests()
    document = http.post(f"{API}/plans", json={"apply": False}).get_json()
    assert document["plan"]["hosts"]["web"] == ["b"]
    assert document["plan"]["algorithm"]
    assert document["plan"]["why"].keys() == {"web", "other", "huge"}
    assert [change["do"] for change in document["changes"]] == [
        "boot",
        "announce",
        "withdraw",
        "stop",
    ]
    assert document["applied"] is False
    assert world.guests() == before
    assert http.post(f"{API}/plans").get_json()["applied"] is False


def test_an_applied_plan_moves_what_is_awake(world: World, http: FlaskClient) -> None:
    http.post(f"{API}/services/web/wake", json={"client": "192.0.2.1"})
    assert len(world.guests("a")) == 1
    assert http.post(f"{API}/plans", json={"apply": True}).get_json()["applied"] is True
    assert world.guests("a") == []
    assert len(world.guests("b")) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[" * 100_000, 400),
        ("[]", 422),
        ('"x"', 422),
        ('{"apply": "yes"}', 422),
        ('{"apply": null}', 422),
        ('{"aply": true}', 422),
    ],
)
def test_a_senseless_plan_request_is_refused(http: FlaskClient, body: str, status: int) -> None:
    _problem(http.post(f"{API}/plans", data=body, content_type="application/json"), status)


def test_a_plan_is_made_with_the_options_of_the_request(http: FlaskClient) -> None:
    options = {"algorithm": "nearest", "deadline_s": 5, "gap": 0.1, "solver": "highs"}
    assert http.post(f"{API}/plans", json=options).get_json()["plan"]["algorithm"] == "nearest"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deadline_s": 0}, "greater than 0"),
        ({"deadline_s": 301}, "less than or equal to 300"),
        ({"deadline_s": "5"}, "deadline_s: Input should be a valid number"),
        ({"gap": True}, "gap: Input should be a valid number"),
        ({"gap": -0.1}, "greater than or equal to 0"),
        ({"gap": math.nan}, "gap: Input should be a finite number"),
        ({"gap": 10**400}, "gap: Input should be a valid number"),
        ({"deadline_s": math.nan}, "finite"),
        ({"algorithm": 1}, "algorithm: Input should be a valid string"),
    ],
)
def test_senseless_options_of_a_plan_are_refused(
    http: FlaskClient, options: dict[str, object], said: str
) -> None:
    assert said in _problem(http.post(f"{API}/plans", json=options), 422)["detail"]


def test_what_to_keep_warm_is_planned_with_the_options_of_the_request(http: FlaskClient) -> None:
    answer = http.post(f"{API}/plans/warm", json={"algorithm": "greedy", "mib_price": 0.5})
    document = answer.get_json()
    assert (document["algorithm"], document["memory_mib"]) == ("greedy", 0)
    assert {line["name"] for line in document["warm"]} == {"web", "other", "huge"}
    for wrong in ({"mib_price": -1}, {"mib_price": "1"}, {"deadline_s": 301}):
        _problem(http.post(f"{API}/plans/warm", json=wrong), 422)
    _problem(http.post(f"{API}/plans/warm", json={"algorithm": "magic"}), 409)


def test_an_algorithm_that_is_not_there_is_told(http: FlaskClient) -> None:
    document = _problem(http.post(f"{API}/plans", json={"algorithm": "magic"}), 409)
    assert "known: auto" in document["detail"]


def test_a_front_has_its_points_by_the_first_term(http: FlaskClient) -> None:
    front = http.post(f"{API}/fronts", json={"terms": ["latency_ms", "hosts_on"]}).get_json()
    values = [plan["terms"]["latency_ms"] for plan in front["plans"]]
    assert values == sorted(values)
    assert front["proven"] is True
    assert front["units"] == {"latency_ms": "ms", "hosts_on": "hosts"}
    assert 0 <= front["knee"] < len(values)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"terms": "latency_ms"}, 422),
        ({"terms": ["latency_ms", 1]}, 422),
        ({"terms": ["latency_ms", "energy_w"], "points": 1}, 422),
        ({"terms": ["latency_ms", "energy_w", "hosts_on"], "points": 4}, 422),
        ({"terms": ["latency_ms", "energy_w"], "algorithm": "tabu"}, 422),
        ({"terms": ["latency_ms", "energy_w"], "deadline_s": 301}, 422),
        ({"terms": ["latency_ms", "beauty"]}, 409),
        ({"terms": []}, 409),
    ],
)
def test_a_senseless_front_is_refused(
    http: FlaskClient, body: dict[str, object], status: int
) -> None:
    _problem(http.post(f"{API}/fronts", json=body), status)


def test_a_second_plan_at_the_same_time_is_refused(
    world: World, http: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[Any] = []
    planner = world.control.fleet.planner
    made = planner.plan

    def plan(question: Problem, options: Options) -> Plan:
        again.extend(
            http.application.test_client().post(f"{API}{path}", json=body, headers=WAIT)
            for path, body in (
                ("/plans", {}),
                ("/fronts", {"terms": ["latency_ms"]}),
                ("/plans/warm", {}),
            )
        )
        return made(question, options)

    monkeypatch.setattr(planner, "plan", plan)
    assert http.post(f"{API}/plans").status_code == 200
    assert ["another plan" in _problem(each, 409)["detail"] for each in again] == [True] * 3


# --- the lab ----------------------------------------------------------------------------------


def test_a_dry_run_of_a_lab_changes_nothing(
    world: World, http: FlaskClient, lab_text: str, tmp_path: Path
) -> None:
    http.post(f"{API}/services/web/wake", json={"client": "192.0.2.200"})
    before = world.guests()
    body = {"text": lab_text, "path": str(tmp_path / "new.yaml")}
    document = http.put(f"{API}/lab?dry_run=1", json=body).get_json()
    assert document["applied"] is False
    assert [change["do"] for change in document["changes"]] == ["withdraw", "stop"]
    assert world.guests() == before
    assert world.store.load().lab_text == ""


def test_a_lab_is_applied_and_kept_with_its_path(
    world: World, http: FlaskClient, lab_text: str, tmp_path: Path
) -> None:
    path = tmp_path / "läb.yaml"
    answer = http.put(
        f"{API}/lab",
        data=lab_text.replace("web:\n", "neu:\n").replace("[web]", "[neu]"),
        headers={"X-Lab-Path": str(path).replace("ä", "%C3%A4"), "Content-Type": "text/yaml"},
    )
    document = answer.get_json()
    assert "1 service added" in document.pop("summary")
    assert document == {"lab": "t", "unguarded": {}, "changes": [], "applied": True, "version": 1}
    assert [service.name for service in world.control.lab.services] == ["neu"]
    assert world.store.load().lab_path == str(path)
    assert http.post(f"{API}/services/neu/wake").status_code == 200


def test_a_wrong_lab_says_where_and_changes_nothing(
    world: World, http: FlaskClient, lab_text: str
) -> None:
    body = {"text": lab_text.replace("1 GiB", "lots"), "path": "/etc/lab.yaml"}
    document = _problem(http.put(f"{API}/lab", json=body), 422)
    assert (document["file"], document["line"]) == ("/etc/lab.yaml", 6)
    assert document["field"] == "hosts.a.capacity.memory"
    assert [service.name for service in world.control.lab.services] == ["web", "other", "huge"]


def test_what_needs_a_restart_conflicts(http: FlaskClient, lab_text: str) -> None:
    body = {"text": lab_text.replace("edge.test", "other.test"), "path": "/lab.yaml"}
    document = _problem(http.put(f"{API}/lab", json=body), 409)
    assert document["type"] == "urn:problem-type:edgewake:unsafe-changes"


@pytest.mark.parametrize("path", ["lab.yaml", "", "/etc/\0"])
def test_a_lab_needs_an_absolute_path(http: FlaskClient, lab_text: str, path: str) -> None:
    _problem(http.put(f"{API}/lab", json={"text": lab_text, "path": path}), 422)


def test_a_lab_that_is_not_text_is_refused(http: FlaskClient) -> None:
    headers = {"X-Lab-Path": "/lab.yaml"}
    _problem(http.put(f"{API}/lab", data=b"\xff\xfe", headers=headers), 400)
    _problem(http.put(f"{API}/lab", json={"text": 5, "path": "/lab.yaml"}), 422)


# --- the door itself --------------------------------------------------------------------------


def test_healthz_answers(http: FlaskClient) -> None:
    assert http.get(f"{API}/healthz").get_json() == {"status": "ok", "lab": "t"}


def test_a_request_that_is_too_large_is_refused(http: FlaskClient) -> None:
    _problem(http.put(f"{API}/lab", data=b"#" * (LARGEST_REQUEST + 1)), 413)


def test_a_path_that_does_not_exist_is_a_problem_too(http: FlaskClient) -> None:
    document = _problem(http.get("/nope"), 404)
    assert document["type"] == "about:blank"
    assert "/nope" in document["detail"]


def test_a_wrong_method_says_which_are_right(http: FlaskClient) -> None:
    answer = http.delete(f"{API}/lab")
    _problem(answer, 405)
    assert "PUT" in answer.headers["Allow"]


def test_a_defect_of_ours_shows_no_insides(
    world: World, http: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the secret name of a table")

    monkeypatch.setattr(world.control, "status", broken)
    answer = http.get(f"{API}/status")
    assert _problem(answer, 500)["detail"] == "internal error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


# --- draining a host ------------------------------------------------------------------------------


def test_a_drain_is_begun_shown_and_undone(world: World, http: FlaskClient) -> None:
    assert http.get(f"{API}/status").get_json()["hosts"][0]["drain"] is None
    document = http.post(f"{API}/hosts/a/drain").get_json()
    assert document["host"] == "a"
    assert (document["drain"]["state"], document["drain"]["total"]) == ("drained", 0)
    shown = http.get(f"{API}/status").get_json()["hosts"][0]["drain"]
    assert shown == document["drain"]
    end = http.post(f"{API}/services/web/wake").get_json()["endpoints"][0]
    assert end["host"] == "b"
    assert http.delete(f"{API}/hosts/a/drain").get_json() == {"host": "a", "drain": None}
    assert http.get(f"{API}/status").get_json()["hosts"][0]["drain"] is None


def test_what_cannot_be_drained_is_listed(world: World, http: FlaskClient) -> None:
    http.post(f"{API}/hosts/b/drain")
    http.post(f"{API}/services/web/wake")
    document = http.post(f"{API}/hosts/a/drain", json={"force": False}).get_json()
    assert (document["drain"]["state"], document["drain"]["moved"]) == ("draining", 0)

    def stuck() -> list[dict[str, str]]:
        found: list[dict[str, str]] = http.get(f"{API}/status").get_json()["hosts"][0]["drain"][
            "stuck"
        ]
        return found

    world.eventually(lambda: stuck() != [])
    assert stuck()[0]["instance"] == "ew-t-web-0"
    assert "is being drained" in stuck()[0]["why"]


def test_how_far_migrations_are_and_what_was_booted_instead_is_listed() -> None:
    sent, unknown = Sent(left=3 * 2**20, total=12 * 2**20), Sent()
    report = DrainReport(
        since=1.0,
        force=False,
        moved=0,
        total=3,
        migrating=(Migration("x", "b", sent), Migration("y", "b", unknown)),
        booted=(Booted("z", "b: too full"),),
    )
    document = DrainDocument.of(report).as_json()
    assert document["migrating"] == [
        {"instance": "x", "to": "b", "percent": 75, "left_bytes": 3 * 2**20},
        {"instance": "y", "to": "b", "percent": None, "left_bytes": None},
    ]
    assert document["booted"] == [{"instance": "z", "why": "b: too full"}]


@pytest.mark.parametrize("method", ["post", "delete"])
def test_an_unknown_host_cannot_be_drained(http: FlaskClient, method: str) -> None:
    document = _problem(getattr(http, method)(f"{API}/hosts/nope/drain"), 404)
    assert document["type"].endswith(":unknown-host")
    assert "a, b" in document["hint"]


def test_force_must_be_a_switch(http: FlaskClient) -> None:
    assert (
        "force" in _problem(http.post(f"{API}/hosts/a/drain", json={"force": "x"}), 422)["detail"]
    )
