"""Edits of routers and links: as operations, and only of the version that they are meant for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.test_network import FIVE, OPERATOR, Net, made

AT_ONCE = {"Prefer": ""}
API = "/api/v1"


@pytest.fixture(autouse=True)
def looks_when_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the network looked at when somebody has changed it, and not after a second, too."""
    monkeypatch.setattr("orchestrator.network_monitor.LEAST_S", float("inf"))


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    yield from made(FIVE, tmp_path)


def ask(net: Net, request: str, body: Any = None, **headers: str) -> Any:
    """Ask without waiting; ``If_Match`` is a header."""
    method, _, path = request.partition(" ")
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return net.http.open(API + path, method=method, json=body, headers=AT_ONCE | given)


def end_of(net: Net, answer: Any) -> Any:
    """Return the operation of an answer when it has ended."""
    assert answer.status_code == 202, answer.text
    operation = answer.json
    assert answer.headers["Location"] == f"{API}/operations/{operation['id']}"
    while operation["state"] not in {"done", "failed"}:
        operation = net.http.get(answer.headers["Location"]).json
    return operation


def tag(net: Net, path: str) -> str:
    answer = net.http.get(API + path)
    assert answer.status_code == 200
    return str(answer.headers["ETag"])


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "body", "kind", "subject"),
    [
        ("PUT /routers/r6", {}, "change", "r6"),
        ("DELETE /routers/r5", None, "remove", "r5"),
        ("PUT /links/r5--r2", {"latency_ms": 5}, "change", "r2--r5"),
        ("DELETE /links/r1--r2", None, "remove", "r1--r2"),
        ("POST /links/r2--r1/down", None, "down", "r1--r2"),
        ("POST /links/r1--r2/up", None, "up", "r1--r2"),
    ],
)
def test_an_edit_is_accepted_and_its_operation_has_what_waiting_has(
    net: Net, asked: str, body: Any, kind: str, subject: str
) -> None:
    done = end_of(net, ask(net, asked, body, **OPERATOR))
    told = (done["kind"], done["subject"], done["actor"], done["state"], done["problem"])
    assert told == (kind, subject, "olga", "done", None)
    assert {"changes", "differs_from_lab", "until"} < done["result"].keys()
    if kind != "up":  # it was, so there was nothing to do
        assert done["result"]["differs_from_lab"] is True
        assert done["progress"]["text"] == "routers, links and stubs"
    waited = net.http.post(f"{API}/links/r2--r3/up")
    assert waited.headers["Preference-Applied"] == "wait=30"
    net.world.control._journal._writer.submit(lambda: None).result()
    lines = net.get("/audit")["audit"]
    assert [(each["actor"], each["status"]) for each in lines] == [("olga", 202), ("local", 200)]


def test_edits_are_done_in_order_and_one_that_cannot_be_any_more_says_why(net: Net) -> None:
    with net.keeper.turn():
        down, up, gone, late = (
            ask(net, f"{verb} /links/r1--r2{end}")
            for verb, end in (("POST", "/down"), ("POST", "/up"), ("DELETE", ""), ("POST", "/up"))
        )
        assert {answer.json["state"] for answer in (up, gone, late)} == {"queued"}
    assert end_of(net, down)["result"]["link"]["up"] is False
    assert end_of(net, up)["result"]["link"]["up"] is True
    assert end_of(net, gone)["result"]["link"] is None
    failed = end_of(net, late)
    assert (failed["state"], failed["result"]) == ("failed", None)
    assert (failed["problem"]["status"], failed["problem"]["title"]) == (404, "Not in network")


def test_a_network_that_cannot_be_made_is_a_problem_at_once(tmp_path: Path) -> None:
    for net in made(FIVE, tmp_path):
        net.kernel.foreign.add(("five-routers", "r6"))
        answer = net.http.put(f"{API}/routers/r6")
        assert (answer.status_code, answer.json["title"]) == (409, "Cannot network")
        assert end_of(net, ask(net, "PUT /routers/r6", {}))["problem"]["status"] == 409
        assert net.get("/network")["differs_from_lab"] is False
        net.kernel.foreign.add(("five-routers", "r5"))
        net.keeper.want(FIVE)
        answer = ask(net, "POST /links/r1--r2/down")
        assert answer.status_code == 409, "nobody could carry that out"
        assert "tried again" in answer.json["hint"]


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/routers", "/routers/r1", "/links", "/links/r2--r1"])
def test_what_is_the_same_is_not_sent_again(net: Net, path: str) -> None:
    quiet = f"{path}?load=0"
    busy, at_rest = tag(net, path), tag(net, quiet)
    again = net.http.get(API + path, headers={"If-None-Match": busy})
    assert (again.status_code, again.data) == (304, b"")
    net.send(10)
    assert net.http.get(API + quiet, headers={"If-None-Match": at_rest}).status_code == 304
    net.http.put(f"{API}/links/r1--r2", json={"latency_ms": 77})
    net.http.put(f"{API}/routers/r1", json={"address": "10.255.0.77"})
    assert tag(net, quiet) != at_rest


def test_what_goes_through_a_network_is_left_out_if_wished(net: Net) -> None:
    net.send(10)
    assert net.get("/routers/r1")["ports"]
    router, link = net.get("/routers/r1?load=0"), net.get("/links/r1--r2?load=false")
    assert (router["ports"], router["load"], link["load"]) == ([], None, None)
    assert net.get("/links?load=0")["interval_s"] == 0


def test_a_link_is_changed_only_as_it_was_read(net: Net) -> None:
    seen = tag(net, "/links/r1--r2")
    net.http.put(f"{API}/links/r1--r5", json={"weight": 3})
    done = end_of(net, ask(net, "PUT /links/r2--r1", {"weight": 5}, If_Match=seen))
    assert done["result"]["link"]["weight"] == 5
    late = ask(net, "PUT /links/r1--r2", {"weight": 7}, If_Match=seen)
    assert (late.status_code, late.mimetype) == (412, "application/problem+json")
    assert "link r1--r2 is not as you have read it" in late.json["detail"]
    assert late.headers["ETag"] == tag(net, "/links/r1--r2") != seen
    for asked in ("DELETE /links/r1--r2", "POST /links/r1--r2/down", "POST /links/r1--r2/up"):
        assert ask(net, asked, If_Match=f"{seen}, W/{late.headers['ETag']}").status_code == 412
    both = f"{seen}, {late.headers['ETag']}"
    assert end_of(net, ask(net, "DELETE /links/r1--r2", If_Match=both))["result"]["link"] is None
    assert ask(net, "PUT /links/r1--r2", {}, If_Match="*").status_code == 412
    assert ask(net, "PUT /links/r1--r2", {}, If_Match=seen).status_code == 412
    assert "ETag" not in ask(net, "PUT /links/r1--r2", {}, If_Match="*").headers
    end_of(net, ask(net, "PUT /links/r1--r2", {}, If_None_Match="*"))
    assert ask(net, "PUT /links/r1--r2", {}, If_None_Match="*").status_code == 412
    assert end_of(net, ask(net, "DELETE /links/r1--r2", If_Match="*"))["state"] == "done"


def test_what_goes_through_a_link_is_no_new_version_for_who_changes_it(net: Net) -> None:
    seen, router = tag(net, "/links/r1--r2"), tag(net, "/routers/r1")
    net.send(10)
    net.http.post(f"{API}/links/r1--r5/down")  # so that it is looked at anew
    assert tag(net, "/routers/r1") != router
    done = end_of(net, ask(net, "PUT /routers/r1", {}, If_Match=router))
    assert done["state"] == "done"
    end_of(net, ask(net, "POST /links/r1--r2/down", If_Match=seen))


@pytest.mark.parametrize(
    ("change", "body"), [("/links/r1--r6", {}), ("/routers/r6", {"address": "10.255.0.66"})]
)
def test_a_router_is_removed_only_as_it_was_read(net: Net, change: str, body: Any) -> None:
    net.http.put(f"{API}/routers/r6")
    seen = tag(net, "/routers/r6")
    net.http.put(API + change, json=body)
    late = ask(net, "DELETE /routers/r6", If_Match=seen)
    assert (late.status_code, late.headers["ETag"]) == (412, tag(net, "/routers/r6"))
    done = end_of(net, ask(net, "DELETE /routers/r6", If_Match=late.headers["ETag"]))
    assert "r6" in done["result"]["changes"]["removed"]


def test_of_two_who_are_as_fast_one_is_too_late(net: Net) -> None:
    seen = tag(net, "/links/r1--r2")
    with net.keeper.turn():
        asked = [
            ask(net, "PUT /links/r1--r2", {"weight": weight}, If_Match=seen) for weight in (5, 7)
        ]
    first, second = (end_of(net, answer) for answer in asked)
    assert first["result"]["link"]["weight"] == 5
    assert (second["state"], second["problem"]["status"]) == ("failed", 412)
    assert net.get("/links/r1--r2")["weight"] == 5
    with net.keeper.turn():
        asked = [ask(net, "PUT /routers/r6", {}, If_None_Match="*") for _ in range(2)]
    assert [end_of(net, answer)["state"] for answer in asked] == ["done", "failed"]
