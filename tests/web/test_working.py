"""Long work over HTTP: 202 and where to look, or the result for who waits; versions; the audit."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Response
from flask.testing import FlaskClient

from orchestrator.operations import Job
from tests.web.test_api import _problem
from tests.world import World
from web.api.working import begin
from web.client import ApiError, Client, GoesOn
from web.models.base import Document
from web.models.operations import Preferred
from web.roles import ACTOR_HEADER, ROLE_HEADER
from web.server import Server

API = "/api/v1"
Put = Callable[..., Any]
AT_ONCE = {"Prefer": ""}
NEAR_A = {"client": "192.0.2.1"}
FRONT = {"terms": ["latency_ms", "migrations"]}


@pytest.fixture
def client(http: FlaskClient, tmp_path: Path) -> Iterator[Client]:
    """Return a client as programs use it, over a real socket."""
    server = Server(http.application, tmp_path / "api.sock")
    server.start()
    yield Client(tmp_path / "api.sock", timeout_s=20.0)
    server.stop()


@pytest.fixture
def put(http: FlaskClient, tmp_path: Path) -> Put:
    """Return what puts a lab whose images are there, with headers if any are given."""

    def put(text: str, **headers: str) -> Any:
        body = {"text": text, "path": str(tmp_path / "lab.yaml")}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.put(f"{API}/lab", json=body, headers=given)

    return put


class Gate:
    """Work that waits in the middle until it is let through."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> dict[str, Any]:
        job.tell("the first half", 1, 2)
        self.begun.set()
        assert self.open.wait(10.0)
        return {"answer": 42}


def _begun(world: World, work: Any) -> str:
    return world.control.operations.begin("plan", "t", "ann", work).id


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ("POST /plans", {}),
        ("POST /plans/warm", {}),
        ("POST /fronts", {"terms": ["latency_ms", "hosts_on"]}),
        ("POST /hosts/a/drain", {}),
        ("POST /services/web/wake", {}),
        ("POST /services/web/sleep", {}),
        ("PUT /lab", None),
        ("POST /lab/rollback", {"version": 1}),
        ("POST /services/web/rollback", {}),
        ("DELETE /services/web", None),
    ],
)
def test_long_work_is_accepted_and_its_operation_has_what_waiting_has(
    http: FlaskClient, put: Put, lab_text: str, asked: str, body: dict[str, Any] | None
) -> None:
    """The lab was applied twice before, so that there is something to go back to."""
    put(lab_text.replace("100 MiB", "90 MiB"))
    put(lab_text)
    method, path = asked.split()
    if path == "/lab":
        answer = put(lab_text.replace("100 MiB", "80 MiB"), Prefer="")
    else:
        answer = http.open(f"{API}{path}", method=method, json=body, headers=AT_ONCE)
    assert answer.status_code == 202, answer.text
    operation = answer.get_json()
    assert answer.headers["Location"] == f"{API}/operations/{operation['id']}"
    while operation["state"] not in {"done", "failed"}:
        operation = http.get(answer.headers["Location"]).get_json()
    assert operation["problem"] is None
    assert operation["state"] == "done"
    assert operation["actor"] == "local"
    assert operation["result"]


def test_who_waits_is_answered_with_the_result_or_the_problem(http: FlaskClient) -> None:
    woken = http.post(f"{API}/services/web/wake", headers={"Prefer": "wait=20"})
    assert woken.status_code == 200
    assert woken.headers["Preference-Applied"] == "wait=20"
    assert woken.get_json()["endpoints"]
    assert _problem(http.post(f"{API}/services/other/wake"), 503)["reason"] == "image-unusable"


def test_who_waits_too_short_is_told_how_far_it_is(world: World, http: FlaskClient) -> None:
    world.answer_s["web"] = None
    answer = http.post(f"{API}/services/web/wake", headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    assert answer.get_json()["state"] == "running"
    failed = http.get(answer.headers["Location"], headers={"Prefer": "wait=20"}).get_json()
    assert failed["state"] == "failed"
    assert failed["problem"]["status"] == 503
    assert failed["problem"]["reason"] == "not-ready"


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ('WAIT = "7"; x=1', 7),
        ("wait=99999", 300),
        ("wait=-1", None),
        ("wait=soon", None),
        ("await=5", None),
        ("", None),
    ],
)
def test_preferences_that_make_no_sense_are_not_there(said: str, wait_s: int | None) -> None:
    assert Preferred(Prefer=said).wait_s == wait_s


def test_wrong_requests_fail_at_once(http: FlaskClient) -> None:
    for path, body in (
        ("/services/nope/wake", {}),
        ("/services/nope/move", {"host": "a"}),
        ("/services/web/move", {"host": "nope"}),
        ("/services/nope/rollback", {}),
        ("/hosts/nope/drain", {}),
        ("/lab/rollback", {"version": 7}),
        ("/plans", {"apply": True, "of": "nope"}),
    ):
        _problem(http.post(f"{API}{path}", json=body, headers=AT_ONCE), 404)
    _problem(http.delete(f"{API}/services/nope", headers=AT_ONCE), 404)
    _problem(http.post(f"{API}/plans", json={"of": "x"}, headers=AT_ONCE), 422)
    _problem(http.post(f"{API}/plans", json={"of": "x", "apply": True, "gap": 0.1}), 422)


class Far(Document):
    """A document with a number that JSON does not have."""

    distance_ms: float


def test_what_json_cannot_say_is_null_in_results_as_well(world: World, http: FlaskClient) -> None:
    with http.application.test_request_context():
        answer = begin(
            world.control, Preferred(Prefer="wait=5"), "x", "t", lambda _: Far(distance_ms=math.inf)
        )
    assert isinstance(answer, Response)
    assert answer.get_json() == {"distance_ms": None}


# --- operations -------------------------------------------------------------------------------


def test_operations_are_listed_in_pages_and_forgotten_ones_are_told(
    world: World, http: FlaskClient
) -> None:
    ids = [_begun(world, lambda _job: {}) for _ in range(3)]
    page = http.get(f"{API}/operations?limit=2").get_json()
    assert [each["id"] for each in page["operations"]] == ids[1:]
    page = http.get(f"{API}/operations?limit=2&after={page['next']}").get_json()
    assert ([each["id"] for each in page["operations"]], page["next"]) == ([ids[0]], None)
    document = _problem(http.get(f"{API}/operations/cafe0000-1"), 404)
    assert "with the edgewake that it was asked of" in document["hint"]
    _problem(http.get(f"{API}/operations?after=cafe0000-1"), 404)


def test_an_operation_is_told_live(world: World, http: FlaskClient) -> None:
    begin = world.control.feed.last
    world.control.operations.wait(_begun(world, lambda _job: {"x": 1}), 5.0)
    told = world.control.feed.since(begin, 0.0).messages
    answer = http.get(f"{API}/events/stream?topic=operation", headers={"Last-Event-ID": str(begin)})
    lines = b""
    for chunk in answer.response:
        lines += chunk if isinstance(chunk, bytes) else chunk.encode()
        if lines.count(b"data:") >= 3:
            break
    answer.close()
    documents = [json.loads(line[5:]) for line in lines.splitlines() if line.startswith(b"data:")]
    assert len(told) == 3
    assert [each["state"] for each in documents] == ["queued", "running", "done"]
    assert documents[-1]["result"] == {"x": 1}


def test_a_program_waits_and_sees_how_far_it_is(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, seen = Gate(), list[dict[str, Any]]()
    made = world.control.warm

    def warm(*args: Any) -> Any:
        gate(Job())
        return made(*args)

    monkeypatch.setattr("web.client.WAIT_S", 0)
    monkeypatch.setattr(world.control, "warm", warm)

    def watch(operation: dict[str, Any]) -> None:
        seen.append(operation)
        gate.open.set()

    client.watch = watch
    assert client.post("/plans/warm")["algorithm"]
    assert {each["kind"] for each in seen} == {"warm"}


def test_a_program_is_told_why_what_it_waited_for_failed(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.client.WAIT_S", 0)
    world.answer_s["web"] = None
    with pytest.raises(ApiError, match=r"web: .*did not answer|connection refused") as caught:
        client.post("/services/web/wake")
    assert caught.value.status == 503


def test_who_interrupts_is_told_that_it_goes_on(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_operation: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("web.client.WAIT_S", 0)
    world.answer_s["web"] = 0.5
    client.watch = interrupt
    with pytest.raises(GoesOn, match=r"goes on with it .wake web, operation "):
        client.post("/services/web/wake")
    world.eventually(lambda: len(world.guests()) == 1)


def test_who_waits_too_long_gives_up(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer_s["web"] = None
    client.timeout_s = 0.5
    with pytest.raises(Exception, match=r"no answer within 0\.5 s"):
        client.post("/services/web/wake")


# --- plans, moves, changes --------------------------------------------------------------------


def test_a_shown_plan_is_applied_just_as_it_was(world: World, http: FlaskClient) -> None:
    http.post(f"{API}/services/web/wake", json=NEAR_A)
    shown = http.post(f"{API}/plans", json={}).get_json()
    wish = {"apply": True, "of": shown["operation"]}
    done = http.post(f"{API}/plans", json=wish, headers={ACTOR_HEADER: "ann"}).get_json()
    assert (done["plan"], done["changes"]) == (shown["plan"], shown["changes"])
    assert (done["applied"], len(world.guests("b"))) == (True, 1)
    again = _problem(http.post(f"{API}/plans", json=wish), 409)
    assert again["hint"] == "plan again"
    listed = http.get(f"{API}/changes?limit=1").get_json()
    (last,) = listed["changes"]
    assert (last["by"], last["actor"], last["applied"]) == ("plan", "ann", True)
    assert (last["operation"], last["changes"]) == (done["operation"], done["changes"])
    (first,) = http.get(f"{API}/changes?after={listed['next']}").get_json()["changes"]
    assert (first["operation"], first["applied"]) == (shown["operation"], False)


def test_what_runs_now_stands_beside_a_plan(world: World, http: FlaskClient) -> None:
    asleep = http.post(f"{API}/plans", json={}).get_json()
    assert asleep["now"]["value"] == pytest.approx(asleep["plan"]["value"])
    assert asleep["now"]["asleep"] == ["huge", "other", "web"]
    assert asleep["now"]["wrong"] == []
    http.post(f"{API}/services/web/wake", json=NEAR_A)
    awake = http.post(f"{API}/plans", json={}).get_json()
    assert awake["changes"]
    assert awake["now"]["asleep"] == ["huge", "other"]
    assert awake["now"]["terms"].keys() == awake["plan"]["terms"].keys()
    (crowded,) = awake["now"]["wrong"]
    assert crowded.startswith("if all were awake: a: ")  # where only `huge` has room


def test_a_plan_of_a_front_is_applied_just_as_it_was_seen(world: World, http: FlaskClient) -> None:
    http.post(f"{API}/services/web/wake", json=NEAR_A)
    front = http.post(f"{API}/fronts", json=FRONT).get_json()
    where = f"{API}/fronts/{front['operation']}/plans"
    viewer = {ROLE_HEADER: "viewer", ACTOR_HEADER: "vi"}
    seen = [http.get(f"{where}/{n}", headers=viewer).get_json() for n in range(len(front["plans"]))]
    assert [each["plan"] for each in seen] == front["plans"]
    (number,) = [n for n, each in enumerate(seen) if each["plan"]["hosts"]["web"] == ["b"]]
    wish = {"apply": True, "of": front["operation"], "plan": number, "tag": seen[number]["tag"]}
    _problem(http.post(f"{API}/plans", json=wish, headers=viewer), 403)
    done = http.post(f"{API}/plans", json=wish, headers={ACTOR_HEADER: "ann"}).get_json()
    assert (done["plan"], done["changes"]) == (front["plans"][number], seen[number]["changes"])
    assert (world.guests("a"), len(world.guests("b"))) == ([], 1)
    (last,) = http.get(f"{API}/changes?limit=1").get_json()["changes"]
    assert (last["by"], last["actor"], last["applied"]) == ("plan", "ann", True)
    again = _problem(http.post(f"{API}/plans", json=wish), 409)
    assert again["hint"] == "look at it again"
    assert http.get(f"{where}/{number}").get_json()["changes"] == []


def test_a_plan_of_a_front_is_named_rightly_or_it_is_said_how(
    world: World, http: FlaskClient
) -> None:
    http.post(f"{API}/services/web/wake", json=NEAR_A)
    front = http.post(f"{API}/fronts", json=FRONT).get_json()
    of, last = front["operation"], len(front["plans"]) - 1
    wish = {"apply": True, "of": of}
    assert last > 0
    assert f"0 to {last}" in _problem(http.post(f"{API}/plans", json=wish), 409)["hint"]
    for asked in (f"/fronts/{of}/plans/{last + 1}", "/fronts/nope/plans/0"):
        _problem(http.get(f"{API}{asked}"), 404)
    _problem(http.post(f"{API}/plans", json={**wish, "plan": last + 1}), 404)
    _problem(http.get(f"{API}/fronts/{of}/plans/x"), 422)
    for wrong in ({"plan": 0}, {"tag": "x"}, {**wish, "plan": -1}, {**wish, "plan": 0, "gap": 1}):
        _problem(http.post(f"{API}/plans", json=wrong), 422)
    world.control.apply(replace(world.control.lab))
    _problem(http.get(f"{API}/fronts/{of}/plans/0"), 409)


def test_a_service_is_moved_or_it_is_said_why_not(world: World, http: FlaskClient) -> None:
    http.post(f"{API}/services/web/wake", json=NEAR_A)
    moved = http.post(f"{API}/services/web/move", json={"host": "b"}).get_json()
    assert [each["do"] for each in moved["changes"]] == ["boot", "announce", "withdraw", "stop"]
    assert (world.guests("a"), len(world.guests("b"))) == ([], 1)
    there = _problem(http.post(f"{API}/services/web/move", json={"host": "b"}), 409)
    assert "is on b already" in there["detail"]
    _problem(http.post(f"{API}/services/web/move", json={}), 422)


def test_a_drain_is_among_the_changes(http: FlaskClient) -> None:
    (end,) = http.post(f"{API}/services/web/wake", json=NEAR_A).get_json()["endpoints"]
    http.post(f"{API}/hosts/a/drain")
    (listed,) = http.get(f"{API}/changes").get_json()["changes"]
    assert (listed["by"], listed["subject"]) == ("drain", "a")
    assert {each["instance"] for each in listed["changes"]} == {end["instance"]}


SHORT = "http://localhost:9/..."

# --- the lab ----------------------------------------------------------------------------------


def test_a_lab_is_read_and_replaced_only_as_it_was_seen(
    http: FlaskClient, put: Put, lab_text: str
) -> None:
    _problem(http.get(f"{API}/lab"), 404)
    _problem(put(lab_text, If_Match="*"), 412)
    assert put(lab_text, If_None_Match="*").get_json()["version"] == 1
    _problem(put(lab_text, If_None_Match="*"), 412)
    seen = http.get(f"{API}/lab")
    assert seen.get_json()["text"] == lab_text
    tag = seen.headers["ETag"]
    assert http.get(f"{API}/lab", headers={"If-None-Match": tag}).status_code == 304
    newer = lab_text.replace("100 MiB", "90 MiB")
    assert put(newer, If_Match=tag).get_json()["version"] == 2
    late = put(lab_text, If_Match=tag)
    assert "version 2" in _problem(late, 412)["detail"]
    assert late.headers["ETag"] == http.get(f"{API}/lab").headers["ETag"] != tag
    assert put(lab_text, If_Match=late.headers["ETag"]).get_json()["version"] == 3


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_only_admins_see_where_webhooks_post_to(
    http: FlaskClient, put: Put, lab_text: str, role: str
) -> None:
    hooks = """\
# seen
webhooks:
  chat: {"url": "http:\\x2f/localhost:9/hooks/T0PS3CRET?key=T0PS3CRET", on: [audit]}
  plain:
    url: http://127.0.0.1:9
"""
    put(lab_text + hooks)
    shown = hooks.replace('"http:\\x2f/localhost:9/hooks/T0PS3CRET?key=T0PS3CRET"', SHORT)
    for path in ("/lab", "/lab/versions/1"):
        seen = http.get(API + path, headers={"X-Edgewake-Role": role}).get_json()
        assert seen["text"] == lab_text + shown
        assert http.get(API + path).get_json()["text"] == lab_text + hooks


def test_the_same_lab_twice_is_one_version_and_no_change(
    world: World, http: FlaskClient, put: Put, lab_text: str
) -> None:
    put(lab_text)
    http.post(f"{API}/services/web/wake")
    again = put(lab_text).get_json()
    assert (again["changes"], again["version"], len(world.guests())) == ([], 1, 1)


def test_versions_are_listed_shown_and_gone_back_to(
    http: FlaskClient, put: Put, lab_text: str
) -> None:
    texts = [lab_text.replace("100 MiB", f"{mib} MiB") for mib in (90, 80, 70)]
    for text in texts:
        put(text, X_Edgewake_Actor="ann")
    page = http.get(f"{API}/lab/versions?limit=2").get_json()
    assert [each["number"] for each in page["versions"]] == [2, 3]
    assert {each["actor"] for each in page["versions"]} == {"ann"}
    assert "text" not in page["versions"][0]
    page = http.get(f"{API}/lab/versions?limit=2&after={page['next']}").get_json()
    assert ([each["number"] for each in page["versions"]], page["next"]) == ([1], None)
    assert http.get(f"{API}/lab/versions/1").get_json()["text"] == texts[0]
    assert "from 1 to 3" in _problem(http.get(f"{API}/lab/versions/9"), 404)["hint"]
    _problem(http.get(f"{API}/lab/versions/first"), 422)
    dry = http.post(f"{API}/lab/rollback", json={"version": 1, "dry_run": True}).get_json()
    assert (dry["applied"], dry["version"]) == (False, 3)
    back = http.post(f"{API}/lab/rollback", json={"version": 1}).get_json()
    assert (back["applied"], back["version"]) == (True, 4)
    assert http.get(f"{API}/lab").get_json()["text"] == texts[0]


def test_a_service_is_deleted_and_the_undo_is_to_roll_back(
    world: World, http: FlaskClient, put: Put, lab_text: str
) -> None:
    _problem(http.delete(f"{API}/services/web"), 404)  # of a lab that was read from no file
    put(lab_text)
    http.post(f"{API}/services/web/wake")
    dry = http.delete(f"{API}/services/web?dry_run=1").get_json()
    assert [each["do"] for each in dry["changes"]] == ["withdraw", "stop"]
    assert (dry["applied"], len(world.guests())) == (False, 1)
    gone = http.delete(f"{API}/services/web").get_json()
    assert (gone["service"], gone["undo"], gone["version"]) == ("web", 1, 2)
    assert world.guests() == []
    assert "services: {}" in http.get(f"{API}/lab").get_json()["text"]
    _problem(http.post(f"{API}/services/web/wake"), 404)
    http.post(f"{API}/lab/rollback", json={"version": gone["undo"]})
    assert http.post(f"{API}/services/web/wake").status_code == 200


def test_a_service_is_rolled_back_and_all_else_stays(
    http: FlaskClient, put: Put, lab_text: str
) -> None:
    put(lab_text)
    newer = lab_text.replace("100 MiB", "90 MiB")
    put(newer)
    put(f"{newer}# a remark\n")
    back = http.post(f"{API}/services/web/rollback").get_json()
    assert (back["service"], back["like"], back["undo"], back["version"]) == ("web", 1, 3, 4)
    assert http.get(f"{API}/lab").get_json()["text"] == f"{lab_text}# a remark\n"


# --- the audit --------------------------------------------------------------------------------


def test_every_request_for_a_change_and_every_refusal_is_in_the_audit(
    world: World, http: FlaskClient
) -> None:
    ann = {ACTOR_HEADER: "ann", ROLE_HEADER: "operator"}
    http.get(f"{API}/status", headers=ann)
    http.post(f"{API}/services/web/sleep", json={"to": "cold"}, headers=ann)
    http.put(f"{API}/lab?dry_run=1", json={"text": "secret", "path": "/x"}, headers=ann)
    http.post(f"{API}/plans", headers={ACTOR_HEADER: "b\x1b", ROLE_HEADER: "king"})
    world.control._journal._writer.submit(lambda: None).result()
    page = http.get(f"{API}/audit?limit=2").get_json()
    later = http.get(f"{API}/audit?limit=2&after={page['next']}").get_json()
    assert later["next"] is None
    told = [
        (each["actor"], each["role"], each["request"], each["status"])
        for each in later["audit"] + page["audit"]
    ]
    assert told == [
        ("ann", "operator", "POST /services/web/sleep", 200),
        ("ann", "operator", "PUT /lab", 403),
        ("b\ufffd", "", "POST /plans", 403),
    ]
    assert "secret" not in json.dumps([page, later])
