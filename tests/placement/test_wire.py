"""Problems and plans survive the way to JSON and back; what is wrong is named by its field."""

import json
from typing import Any, get_args

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.problem import Demand, Flow, Host, Link, Malformed, Options, Plan, Problem
from placement.rules import Rule
from placement.solving import solve
from placement.warm import WarmOptions, plan_warm
from placement.warm.generate import warm_problem
from placement.wire import (
    plan_text,
    problem_text,
    read_plan,
    read_problem,
    read_warm_plan,
    read_warm_problem,
    warm_plan_text,
    warm_problem_text,
)
from tests.placement import tiny
from tests.placement.test_check import RULES

FULL: dict[str, Any] = {
    "hosts": [
        {"name": "a", "capacity": {"cpu": 4, "memory_mib": 1024}, "labels": [["gpu", "yes"]]}
    ],
    "demands": [
        {
            "name": "web",
            "resources": {"cpu": 1, "memory_mib": 64},
            "rates": {"p": 1.5},
            "latency_bound_ms": None,
            "flavours": [{"name": "mirage", "resources_at": {"a": {"cpu": 2}}}],
        },
        {"name": "db", "resources": {"cpu": 1, "memory_mib": 64}},
    ],
    "latency_ms": {"p": {"a": 1}},
    "current": {"web": ["a"]},
    "unfit": {"web": {"b": "its kernel is for Xen"}},
    "rules": [
        {"rule": "ban", "demands": ["web"], "hosts": ["b"], "must": False},
        {"rule": "percentile", "demands": ["web"], "share": 0.9, "within_ms": 5},
        {"rule": "split", "sets": [["web"], ["db"]]},
    ],
    "slices": [{"name": "s", "demands": ["web"], "share": {"cpu": 0.5}}],
    "chains": [{"name": "c", "demands": ["web", "db"], "latency_bound_ms": 5}],
    "traffic": [{"source": "web", "target": "db", "mbps": 3}],
    "links": [{"a": "east", "b": "west", "capacity_mbps": 10}],
}

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_a_problem_survives(family: str, seed: int) -> None:
    problem = tiny.draw(seed, family)
    assert read_problem(problem_text(problem)) == problem


@pytest.mark.parametrize("rule", [rule for rule, _, _ in RULES], ids=lambda rule: rule.kind)
def test_each_rule_survives(rule: Rule) -> None:
    problem = Problem((), (Demand("web"), Demand("db")), rules=(rule,))
    assert read_problem(problem_text(problem)) == problem
    assert type(rule) in get_args(Rule)


@given(
    st.builds(
        Plan,
        hosts=st.dictionaries(TEXTS, st.lists(TEXTS).map(tuple)),
        value=NUMBERS,
        terms=st.dictionaries(TEXTS, NUMBERS),
        bound=NUMBERS,
        gap=st.floats(0, 1),
        flavours=st.dictionaries(TEXTS, st.lists(TEXTS).map(tuple)),
        served=st.dictionaries(
            TEXTS, st.dictionaries(TEXTS, st.dictionaries(TEXTS, NUMBERS, max_size=2), max_size=2)
        ),
        flows=st.lists(st.builds(Flow, TEXTS, TEXTS, TEXTS, TEXTS, NUMBERS), max_size=2).map(tuple),
        admitted=st.frozensets(TEXTS),
        algorithm=TEXTS,
        solver=TEXTS,
        build_s=st.floats(0, 1e6),
        solve_s=st.floats(0, 1e6),
        why=st.dictionaries(TEXTS, TEXTS),
    )
)
def test_a_plan_survives(plan: Plan) -> None:
    assert read_plan(plan_text(plan)) == plan


def test_what_is_left_out_has_its_default() -> None:
    problem = read_problem(json.dumps(FULL))
    assert problem.hosts == (
        Host("a", {"cpu": 4, "memory_mib": 1024}, labels=frozenset({("gpu", "yes")})),
    )
    assert problem.demands[1] == Demand("db", {"cpu": 1, "memory_mib": 64})
    assert problem.rules[2].must


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
        (["hosts"], ..., "hosts: missing"),
        (["hosts", 0, "capacity"], ..., "hosts[0].capacity: missing"),
        (["hosts", 0, "colour"], "red", "hosts[0].colour: unknown field; known: name, capacity"),
        (["hosts", 0, "name"], 5, "hosts[0].name: must be a text, not int"),
        (["hosts", 0, "labels"], [["gpu"]], "hosts[0].labels[0]: must have 2 items, has 1"),
        (["hosts", 0, "capacity"], [4], "hosts[0].capacity: must be an object, not list"),
        (["demands", 0, "replicas"], 1.5, "demands[0].replicas: must be a whole number, not float"),
        (["demands", 0, "replicas"], True, "demands[0].replicas: must be a number, not True"),
        (["demands", 0, "share_host"], 1, "demands[0].share_host: must be true or false, not int"),
        (["demands", 0, "rates"], {"p": "x"}, "demands[0].rates.p: must be a number, not str"),
        (["demands", 0, "least"], 2, "demands[0].least: 2 of 1 replicas"),
        (["demands", 0, "bound_for"], "all", "demands[0].bound_for: must be every-copy or"),
        (["demands", 0, "move"], "fly", "demands[0].move: must be kill-and-boot or"),
        (["demands", 0, "cold"], 1.5, "demands[0].cold: a probability is at most 1"),
        (["demands", 0, "flavours", 0, "boot_ms"], -1, "demands[0].flavours[0].boot_ms: must be a"),
        (["latency_ms", "p", "a"], 10**400, "latency_ms.p.a: is too large a number"),
        (["latency_ms", "p", "a"], -1, "latency_ms.p.a: must be a number from 0 to 1e+12, not -1"),
        (["latency_ms", "p", "a"], 1e999, "Infinity is not a number in JSON"),
        (["demands", 0, "resources", "cpu"], -2, "demands[0].resources.cpu: must be a number"),
        (["demands", 1, "name"], "web", "demands: the name 'web' is used 2 times"),
        (["rules", 0, "rule"], "bann", "rules[0].rule: no rule named 'bann'; known: ban, fence"),
        (["rules", 0, "rule"], ..., "rules[0].rule: no rule named None"),
        (["rules", 0], "ban", "rules[0]: must be an object, not str"),
        (["rules", 0, "demands"], "web", "rules[0].demands: must be a list, not str"),
        (["rules", 0, "demands"], ["cat"], "rules[0]: 'cat' is no demand here"),
        (["rules", 0, "limit"], 5, "rules[0].limit: unknown field; known: must, weight, demands"),
        (["rules", 1, "share"], 1.5, "rules[1].share: is at most 1, not 1.5"),
        (["rules", 2, "sets"], [["web"], ["web"]], "rules[2].sets: the name 'web' is used 2 times"),
        (["slices", 0, "share", "cpu"], 1.5, "slices: the shares of cpu add up to 1.5, above 1"),
        (["slices", 0, "revenue"], 2, "all its demands must be in one slice, or in none that"),
        (["chains", 0, "demands"], ["cat"], "chains[0].demands: 'cat' is no demand here"),
        (["demands", 0, "replicas"], 2, "chains[0].demands: 'web' has not exactly one copy"),
        (["demands", 0, "least"], 0, "chains[0]: 'web' must be hard (least: null)"),
        (["traffic", 0, "target"], "web", "traffic[0]: 'web' to itself"),
        (["links", 0, "b"], "east", "links[0]: must join two different nodes"),
        (["hosts", 0, "name"], "\ud800", r"hosts[0].name: '\ud800' has half a character"),
        (["current"], {"\ud800": ["a"]}, r"current: '\ud800' has half a character"),
        (["demands", 0, "replicas"], 10**6 + 1, "demands[0].replicas: must be at most 1000000"),
        (["demands", 0, "replicas"], 10**400, "demands[0].replicas: must be a number from 0 to"),
        (["hosts", 0, "capacity", "cpu"], 1e15, "hosts[0].capacity.cpu: must be a number from 0 t"),
        (["unfit", "web", "b"], "", "unfit.web.b: must say why the host cannot run it"),
        (["demands", 0, "flavours", 0, "unfit"], {"a": ""}, "demands[0].flavours[0].unfit.a: must"),
    ],
)
def test_an_error_says_which_field(path: list[str | int], value: Any, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_problem(changed(path, value))
    assert message in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(data=st.data(), junk=JSON)
def test_junk_in_any_field_is_refused_or_read_never_worse(
    data: st.DataObject, junk: object
) -> None:
    path: list[str | int] = []
    inner: Any = FULL
    while isinstance(inner, dict | list) and inner:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        path.append(data.draw(st.sampled_from(keys)))
        inner = inner[path[-1]]
        if data.draw(st.booleans()):
            break
    try:
        problem = read_problem(changed(path, junk))
    except Malformed:
        return
    assert read_problem(problem_text(problem)) == problem


def test_a_name_that_is_there_twice_is_no_name() -> None:
    text = json.dumps(FULL).replace('"hosts"', '"rules": [], "hosts"', 1)
    with pytest.raises(Malformed, match="rules: is there twice in one object"):
        read_problem(text)


def test_names_may_be_any_text() -> None:
    """Two links between other nodes are two, however their names read."""
    links = (Link("a to b", "c"), Link("a", "b to c"))
    hosts = (Host("höst 日本\n", {"cpu": 1}), Host("", {"cpu": 1}))
    problem = Problem(hosts, (Demand("x,*[] y", {"cpu": 1}),), links=links)
    assert read_problem(problem_text(problem)) == problem
    for name in ("highs", "highs-direct", "cbc"):
        assert solve(problem, Options(solver=name)).hosts.keys() == {"x,*[] y"}


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "null", "[" * 100_000, "9" * 5000, '{"value": NaN, "hosts": {}}']
)
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_plan(text)


def test_a_graph_is_a_problem() -> None:
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_node("h1", kind="host", capacity={"cpu": 4.0}, site="east")
    graph.add_node("h2", kind="host", capacity={"cpu": 4.0}, site="west")
    graph.add_node("home", kind="population")
    graph.add_edge("home", "r", latency_ms=2.0)
    graph.add_edge("r", "h1", latency_ms=1.0, capacity_mbps=100)
    graph.add_edge("h1", "h2", latency_ms=5.0)
    problem = Problem.from_networkx(graph, (Demand("web"),))
    assert problem.latency_ms == {"home": {"h1": 3.0, "h2": 8.0}}
    assert Link("east", "west", None, 5.0) in problem.links
    assert Link("east", "r", 100.0, 1.0) in problem.links or (
        Link("r", "east", 100.0, 1.0) in problem.links
    )
    graph.nodes["h1"]["colour"] = "red"
    with pytest.raises(
        Malformed, match=r"nodes\.h1\.colour: unknown attribute; known: boot_factor"
    ):
        Problem.from_networkx(graph, ())


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_warm_problems_and_plans_survive(seed: int) -> None:
    problem = warm_problem(seed, hosts=2, services=4, recipes=1, bound_ms=50.0)
    assert read_warm_problem(warm_problem_text(problem)) == problem
    plan = plan_warm(problem, WarmOptions(algorithm="greedy"))
    assert read_warm_plan(warm_plan_text(plan)) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"hosts": [], "services": [{"name": "a"}]}', "services[0].rests: missing"),
        ('{"hosts": [], "services": [], "pool": 1}', "pool: unknown field"),
        (
            '{"hosts": [], "services": [{"name": "a", "rests": {}, "asleep": 2}]}',
            "services[0].asleep: is a probability",
        ),
    ],
)
def test_what_is_wrong_in_a_warm_problem_is_named(text: str, said: str) -> None:
    with pytest.raises(Malformed) as told:
        read_warm_problem(text)
    assert said in str(told.value)
