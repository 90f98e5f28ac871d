"""Every error has a status and one shape; nouns keep their meaning on the way through JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.changes import Announce, Boot, Changes, Stop, Withdraw
from orchestrator.errors import EdgewakeError, HypervisorError, LabError, WakeError
from orchestrator.trace import Wakes, wake_of
from placement.problem import Plan
from web import problems
from web.models.plans import ChangeDocument, PlanDocument
from web.models.wakes import WakeDocument


def _tree(kind: type[EdgewakeError] = EdgewakeError) -> Iterator[type[EdgewakeError]]:
    yield kind
    for sub in kind.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from _tree(sub)


def _made(kind: type[EdgewakeError]) -> EdgewakeError:
    if issubclass(kind, WakeError | HypervisorError):
        return kind("web", "it broke", hint="mend it")
    return kind("it broke", hint="mend it")


@pytest.mark.parametrize("kind", list(_tree()), ids=lambda kind: kind.__name__)
def test_every_error_becomes_a_problem(kind: type[EdgewakeError]) -> None:
    document = json.loads(json.dumps(problems.problem(_made(kind))))
    assert 400 <= document["status"] < 600
    assert document["type"].startswith("urn:problem-type:edgewake:")
    assert document["title"]
    assert "it broke" in document["detail"]
    assert document["hint"] == "mend it"


@pytest.mark.parametrize(
    ("error", "status", "type_"),
    [
        (errors.UnknownService("web", ""), 404, "unknown-service"),
        (errors.NoCapacity("web", ""), 503, "no-capacity"),
        (errors.ImageUnusable("web", ""), 503, "image-unusable"),
        (errors.NotReady("web", ""), 503, "not-ready"),
        (errors.NoHostReachable("web", ""), 503, "no-host-reachable"),
        (errors.Overloaded("web", ""), 503, "overloaded"),
        (errors.BackingOff("web", ""), 503, "backing-off"),
        (errors.HostUnreachable("box", ""), 503, "host-unreachable"),
        (errors.UnsafeChanges(""), 409, "unsafe-changes"),
        (errors.LabError(""), 422, "lab"),
        (errors.StoreError(""), 500, "store"),
        (errors.EdgewakeError(""), 409, "edgewake"),
    ],
)
def test_the_status_says_what_the_error_says(error: EdgewakeError, status: int, type_: str) -> None:
    document = problems.problem(error)
    assert document["status"] == status
    assert document["type"] == f"urn:problem-type:edgewake:{type_}"


def test_a_lab_error_says_where() -> None:
    error = LabError("no", file=Path("/lab.yaml"), line=3, field="hosts.a")
    document = problems.problem(error)
    assert (document["file"], document["line"], document["field"]) == ("/lab.yaml", 3, "hosts.a")
    assert problems.problem(LabError("no"))["file"] is None


def test_a_wake_comes_back_as_it_was() -> None:
    wakes = Wakes()
    trace = wakes.begin("web")
    trace.stamp("decided")
    trace.ended("ready", instance="ew-t-web-0", host="a")
    (wake,) = wakes.last()
    assert wake_of(json.loads(WakeDocument.of(wake).model_dump_json())) == wake


def test_changes_keep_their_order_and_say_what_they_do() -> None:
    changes = Changes(
        (Boot("s", "b"), Announce("s", "b"), Withdraw("s", "i", "a"), Stop("s", "i", "a"))
    )
    documents = [ChangeDocument.of(each).as_json() for each in changes]
    assert [each["do"] for each in documents] == ["boot", "announce", "withdraw", "stop"]
    assert documents[3] == {
        "do": "stop",
        "service": "s",
        "host": "a",
        "instance": "i",
        "why": "",
        "to": "",
    }


def test_a_plan_always_has_a_bound() -> None:
    made = Plan(hosts={"s": ("a",)}, value=1.0, algorithm="first-fit")
    document = PlanDocument.of(made).as_json()
    assert (document["hosts"], document["bound"], document["gap"]) == ({"s": ["a"]}, 0.0, 1.0)
