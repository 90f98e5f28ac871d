"""The placement pages: plans as differences, fronts as charts, in words that people understand."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from placement.evaluate import UNITS
from placement.registry import ALGORITHMS
from placement.solvers import SOLVERS
from tests.web.pages.reading import HOSTILE, Through, door, look
from web.client import ApiError
from web.pages import placement_words
from web.pages.front_chart import chart_of, scale
from web.pages.placement_view import Move, moves_between, moves_of, rows_of, verdict

Asked = Callable[..., FlaskClient]


def _change(do: str, service: str, host: str, **more: str) -> dict[str, str]:
    return {"do": do, "service": service, "host": host, "instance": "", "why": "", "to": ""} | more


def _plan(**changes: object) -> dict[str, Any]:
    plan = {
        "hosts": {"web": ["b"], "huge": ["a"]},
        "flavours": {},
        "value": 12.5,
        "terms": {"latency_ms": 12.5, "migrations": 0.0},
        "bound": 12.5,
        "gap": 0.0,
        "algorithm": "exact",
        "solver": "highs",
        "seconds": 0.25,
        "why": {"web": "nearest to near-b"},
    }
    return plan | changes


def _proposal(**changes: object) -> dict[str, Any]:
    moved = [
        _change("boot", "web", "b", why="nearer"),
        _change("announce", "web", "b"),
        _change("withdraw", "web", "a"),
        _change("stop", "web", "a"),
    ]
    proposal = {"plan": _plan(), "changes": moved, "left": [], "applied": False, "operation": "p1"}
    return proposal | {"now": _now(), "tag": "cafe"} | changes


def _now(**changes: object) -> dict[str, Any]:
    terms = {"latency_ms": 30.0, "migrations": 0.0}
    return {"value": 30.0, "terms": terms, "asleep": [], "wrong": []} | changes


def _front() -> dict[str, Any]:
    plans = [
        _plan(terms={"latency_ms": ms, "energy_w": watts})
        for ms, watts in ((5.0, 90.0), (12.0, 40.0), (30.0, 35.0))
    ]
    return {
        "terms": ["latency_ms", "energy_w"],
        "units": {"latency_ms": "ms", "energy_w": "W"},
        "proven": True,
        "seconds": 1.5,
        "knee": 1,
        "plans": plans,
    }


def _warming() -> dict[str, Any]:
    line = {
        "name": HOSTILE,
        "host": "a",
        "rung": "paused",
        "count": 1,
        "memory_mib": 96.0,
        "before_s": 1.0,
        "after_s": 0.01,
        "value": 3.0,
        "measured": False,
        "anonymous": True,
    }
    return _plan(warm=[line], targets=[], before=2.0, after=0.5, memory_mib=96.0, room_mib=500.0)


@pytest.fixture
def asked(upstream: Through) -> Asked:
    """Return what opens a dashboard whose daemon remembers one operation, `p1`."""

    def asked(
        kind: str = "plan", state: str = "done", role: str = "admin", **more: object
    ) -> FlaskClient:
        operation = {
            "id": "p1",
            "kind": kind,
            "subject": "t",
            "actor": HOSTILE,
            "state": state,
            "asked_at": 1_790_000_000.0,
            "started_at": None,
            "ended_at": None,
            "progress": {"done": 3, "total": 10, "text": HOSTILE},
            "result": None,
            "problem": None,
        } | more
        upstream.answers["/operations?limit=100"] = {"operations": [operation], "next": None}
        upstream.answers["/operations/p1"] = operation
        upstream.answers["/operations/p2"] = ApiError(404, {"detail": "no such operation"})
        return door(upstream, role=role)

    return asked


@pytest.mark.parametrize("path", ["/placement", "/placement/front", "/placement/warm"])
def test_with_nothing_asked_pages_say_what_they_are_for(asked: Asked, path: str) -> None:
    page = look(asked(), path)
    assert page.all("div", data_testid="empty")
    assert page.all("a", href=path, aria_current="page")
    assert page.all("form", class_="plan-form")
    viewer = look(asked(role="viewer"), path)
    assert "this needs the role operator" in viewer.text
    assert any("disabled" in each for each in viewer.all("fieldset"))


@pytest.mark.parametrize("path", ["/placement", "/placement/front", "/placement/warm"])
@pytest.mark.parametrize(
    ("state", "more", "says"),
    [
        ("queued", {}, "Waiting for its turn"),
        ("running", {}, f"Searching {HOSTILE} 3 of 10"),
        (
            "failed",
            {
                "problem": {
                    "detail": HOSTILE,
                    "hint": "do this",
                    "errors": [{"field": "gap", "detail": "too small"}],
                }
            },
            f"{HOSTILE} gap : too small do this",
        ),
    ],
)
def test_how_far_it_is_and_why_it_failed(
    asked: Asked, path: str, state: str, more: dict[str, object], says: str
) -> None:
    page = look(asked(path.rpartition("/")[2], state, **more), f"{path}?of=p1")
    assert says in page.text
    assert bool(page.all("div", data_waits="p1")) == (state != "failed")


def test_what_is_forgotten_is_said_to_be(asked: Asked) -> None:
    assert "not kept any more" in look(asked(), "/placement?of=p2").text


def test_a_plan_is_shown_as_what_differs(asked: Asked) -> None:
    page = look(asked(result=_proposal(left=[HOSTILE])), "/placement?of=p1")
    assert "1 change proposed" in page.text
    assert "web \N{MINUS SIGN} a + b starts there first, then ends here: nearer" in page.text
    assert "Proven best" in page.text
    assert "Objective Now Plan Unit In all 30 12.5 smaller is better" in page.text
    assert "Latency 30 12.5 ms 0: Moves" in page.text
    (button,) = page.all("button", id="apply")
    assert button["data-body"] == '{"apply": true, "of": "p1"}'
    assert button["data-confirm"]


def test_what_runs_now_and_is_no_answer_is_said_to_be(asked: Asked) -> None:
    broken = _proposal(now=_now(wrong=[HOSTILE], asleep=["huge"]))
    page = look(asked(result=broken), "/placement?of=p1")
    assert f"What runs now falls short {HOSTILE}" in page.text
    assert "Asleep: huge." in page.text
    missing = _proposal(now=_now(value=None, terms={}, wrong=[HOSTILE]))
    page = look(asked(result=missing), "/placement?of=p1")
    assert "Objective Value Unit In all 12.5 smaller is better Latency 12.5 ms" in page.text
    assert f"What runs now has no value to compare {HOSTILE}" in page.text
    page = look(asked(result=_proposal(now=None)), "/placement?of=p1")
    assert "Latency 12.5 ms" in page.text


def test_what_was_applied_is_not_offered_again(asked: Asked) -> None:
    page = look(asked(result=_proposal(applied=True)), "/placement?of=p1")
    assert not page.all("button", id="apply")
    assert "1 change made" in page.text
    assert "Objective Before Plan" in page.text


def test_hostile_names_are_names(asked: Asked) -> None:
    changes = [_change("boot", HOSTILE, HOSTILE, why=HOSTILE)]
    plan = _plan(hosts={HOSTILE: [HOSTILE]}, why={HOSTILE: HOSTILE}, terms={HOSTILE: 1.0})
    page = look(asked(result=_proposal(plan=plan, changes=changes)), "/placement?of=p1")
    assert page.text.count(HOSTILE) > 5


def test_a_front_is_a_chart_whose_points_lead_somewhere(asked: Asked) -> None:
    page = look(asked("front", result=_front()), "/placement/front?of=p1")
    points = page.all("a", class_="point") + page.all("a", class_="point knee")
    assert len(points) == 3
    assert all(point["aria-label"].startswith("Plan ") for point in points)
    (knee,) = page.all("a", class_="point knee")
    assert knee["aria-current"] == "true"
    assert "Plan 2: nothing that is awake would move" in page.text
    other = look(asked("front", result=_front()), "/placement/front?of=p1&plan=2")
    assert other.all("a", data_key="point-2")[0]["aria-current"] == "true"


def test_a_point_is_a_proposal_and_just_that_is_applied(asked: Asked, upstream: Through) -> None:
    http = asked("front", result=_front())
    upstream.answers["/fronts/p1/plans/2"] = _proposal(left=[HOSTILE], tag="cafe")
    page = look(http, "/placement/front?of=p1&plan=2")
    assert "Plan 3: 1 change proposed" in page.text
    assert "web \N{MINUS SIGN} a + b starts there first, then ends here: nearer" in page.text
    assert f"Left where it is {HOSTILE}" in page.text
    assert "All 4 steps, in their order" in page.text
    assert "Objective Now Plan Unit Latency 30 30 ms" in page.text
    (button,) = page.all("button", id="apply")
    wish = {"apply": True, "of": "p1", "plan": 2, "tag": "cafe"}
    assert json.loads(button["data-body"]) == wish
    assert button["data-confirm"]


def test_a_point_that_moves_nothing_or_is_out_of_date_has_no_button(
    asked: Asked, upstream: Through
) -> None:
    http = asked("front", result=_front())
    upstream.answers["/fronts/p1/plans/1"] = _proposal(changes=[], tag="cafe")
    page = look(http, "/placement/front?of=p1")
    assert "Plan 2: nothing that is awake would move" in page.text
    assert not page.all("button", id="apply")
    upstream.answers["/fronts/p1/plans/1"] = ApiError(409, {"detail": "too late", "hint": "again"})
    page = look(http, "/placement/front?of=p1")
    assert "It cannot be applied any more: too late (again)" in page.text
    assert not page.all("button", id="apply")
    upstream.answers["/fronts/p1/plans/1"] = ApiError(500, {"detail": "broken"})
    look(http, "/placement/front?of=p1", 500)


def test_a_viewer_sees_a_point_and_cannot_apply_it(asked: Asked, upstream: Through) -> None:
    http = asked("front", result=_front(), role="viewer")
    upstream.answers["/fronts/p1/plans/1"] = _proposal(tag="cafe")
    (button,) = look(http, "/placement/front?of=p1").all("button", id="apply")
    assert button["title"] == "this needs the role operator"


@pytest.mark.parametrize("number", ["9", "-1", "x", "9" * 40, ""])
def test_a_plan_that_is_not_there_is_the_knee(asked: Asked, number: str) -> None:
    page = look(asked("front", result=_front()), f"/placement/front?of=p1&plan={number}")
    assert page.all("a", class_="point knee", aria_current="true")


def test_an_empty_front_says_so(asked: Asked) -> None:
    empty = _front() | {"plans": [], "knee": 0}
    assert "The front is empty" in look(asked("front", result=empty), "/placement/front?of=p1").text


def test_a_warm_plan_is_a_table(asked: Asked) -> None:
    page = look(asked("warm", result=_warming()), "/placement/warm?of=p1")
    assert "0.5 clients wait for a wake on average, instead of 2 with everything cold" in page.text
    assert "assumed" in page.text


def test_an_operation_of_another_kind_is_not_shown_as_a_plan(asked: Asked) -> None:
    page = look(asked("warm", result=_warming()), "/placement?of=p1")
    assert not page.all("section", data_testid="proposal")


# --- values -----------------------------------------------------------------------------------


def test_changes_come_to_moves() -> None:
    changes = [
        _change("migrate", "m", "a", to="b"),
        _change("boot", "x", "c"),
        _change("stop", "x", "a"),
        _change("stop", "y", "a"),
        _change("boot", "z", "b"),
    ]
    assert moves_of(changes) == [
        Move("m", "a", "b", live=True),
        Move("x", "a", "c"),
        Move("y", "a", ""),
        Move("z", "", "b"),
    ]


def test_only_what_is_awake_would_move() -> None:
    def service(name: str, state: str, *hosts: str) -> dict[str, Any]:
        return {"name": name, "state": state, "instances": [{"host": host} for host in hosts]}

    status = {
        "services": [
            service("web", "awake", "a", "c"),
            service("huge", "asleep", "b"),
            service("new", "asleep"),
        ]
    }
    rows = rows_of(_plan(hosts={"web": ["b", "a"], "huge": ["a"], "new": ["a"]}), status)
    assert [row.service for row in rows] == ["web", "huge", "new"]
    assert moves_between(rows) == [Move("web", "c", "b")]


@pytest.mark.parametrize(
    ("bound", "gap", "says"),
    [
        (None, None, "Nothing is proven"),
        (12.5, 0.0, "Proven best"),
        (12.0, 0.04, "No placement has a value below 12: at most 4 % less than this one."),
        (12.0, 0.0001, "less than 0.1 %"),
    ],
)
def test_the_gap_is_explained(bound: float | None, gap: float | None, says: str) -> None:
    assert says in verdict(_plan(bound=bound, gap=gap))


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([5.0, 30.0], (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)),
        ([0.0], (0.0, 0.2)),
        ([7.0], (6.0, 8.0)),
        ([], (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([-3.0, 1.0], (-3.0, -2.0, -1.0, 0.0, 1.0)),
    ],
)
def test_axes_have_round_numbers(values: list[float], marks: tuple[float, ...]) -> None:
    assert scale(values) == marks


def test_points_lie_where_their_values_are() -> None:
    chart = chart_of(_front())
    xs, ys = [point.x for point in chart.points], [point.y for point in chart.points]
    assert xs == sorted(xs)  # latency grows to the right
    assert ys == sorted(ys)  # and power falls, on a page whose y grows downwards
    assert chart.line.startswith("M")


def test_our_words_are_those_of_the_planner() -> None:
    assert {name: term.unit for name, term in placement_words.TERMS.items()} == dict(UNITS)
    assert set(placement_words.ALGORITHMS) == {each.name for each in ALGORITHMS}
    assert set(placement_words.SOLVERS) == {"auto", *SOLVERS}
