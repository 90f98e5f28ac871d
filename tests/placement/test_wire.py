"""Problems and plans survive the way to JSON and back; what is wrong is named by its field."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.problem import Demand, Malformed, Plan, Problem, Site
from placement.wire import plan_text, problem_text, read_plan, read_problem

FULL = {
    "sites": [
        {"name": "a", "capacity": {"cpu": 4, "memory_mib": 1024}, "labels": [["gpu", "yes"]]}
    ],
    "demands": [
        {
            "name": "web",
            "resources": {"cpu": 1, "memory_mib": 64},
            "rates": {"p": 1.5},
            "latency_bound_ms": None,
            "apart_from": ["db"],
        },
        {"name": "db", "resources": {"cpu": 1, "memory_mib": 64}},
    ],
    "latency_ms": {"p": {"a": 1}},
    "current": {"web": ["a"]},
    "unfit": {"web": {"b": "its kernel is for Xen"}},
    "extra_mib": {"web": {"a": 2}},
}


@settings(deadline=None)
@given(data=st.data())
def test_a_problem_survives(data: st.DataObject, tiny_problems: st.SearchStrategy[Problem]) -> None:
    problem = data.draw(tiny_problems)
    assert read_problem(problem_text(problem)) == problem


@given(
    st.builds(
        Plan,
        sites=st.dictionaries(st.text(), st.lists(st.text()).map(tuple)),
        value=st.floats(allow_nan=False, allow_infinity=False),
        terms=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
        bound=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        gap=st.none() | st.floats(0, 1),
        algorithm=st.text(),
        seconds=st.floats(0, 1e6),
        why=st.dictionaries(st.text(), st.text()),
    )
)
def test_a_plan_survives(plan: Plan) -> None:
    assert read_plan(plan_text(plan)) == plan


def test_what_is_left_out_has_its_default(
    site: Callable[..., Site], demand: Callable[..., Demand]
) -> None:
    problem = read_problem(json.dumps(FULL))
    assert problem.sites == (site("a", labels=frozenset({("gpu", "yes")})),)
    assert problem.demands[1] == demand("db", memory_mib=64)


def changed(path: list[str | int], value: Any) -> str:
    data = json.loads(json.dumps(FULL))
    inner = data
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["sites"], ..., "sites: missing"),
        (["sites", 0, "capacity", "cpu"], ..., "sites[0].capacity.cpu: missing"),
        (["sites", 0, "colour"], "red", "sites[0].colour: unknown field; known: name, capacity"),
        (["sites", 0, "name"], 5, "sites[0].name: must be a text, not int"),
        (["sites", 0, "labels"], [["gpu"]], "sites[0].labels[0]: must have 2 items, has 1"),
        (["sites", 0, "capacity"], [4], "sites[0].capacity: must be an object, not list"),
        (["demands", 0, "replicas"], 1.5, "demands[0].replicas: must be a whole number, not float"),
        (["demands", 0, "replicas"], True, "demands[0].replicas: must be a number, not True"),
        (["demands", 0, "rates"], {"p": "x"}, "demands[0].rates.p: must be a number, not str"),
        (["demands", 0, "apart_from"], "db", "demands[0].apart_from: must be a list, not str"),
        (["latency_ms", "p", "a"], 10**400, "latency_ms.p.a: is too large a number"),
        (["latency_ms", "p", "a"], -1, "latency_ms.p.a: must be a finite number of at least 0"),
        (["latency_ms", "p", "a"], 1e999, "Infinity is not a number in JSON"),
        (["demands", 0, "resources", "cpu"], -2, "demands[0].resources.cpu: must be a finite"),
        (["demands", 0, "apart_from"], ["x"], "demands[0].apart_from: 'x' is no demand here"),
        (["demands", 0, "together_with"], ["web"], "'web' is the demand itself"),
        (["demands", 1, "name"], "web", "demands: the name 'web' is used 2 times"),
    ],
)
def test_an_error_says_which_field(path: list[str | int], value: Any, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_problem(changed(path, value))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "null", "[" * 100_000, "9" * 5000, '{"value": NaN, "sites": {}}']
)
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_plan(text)
