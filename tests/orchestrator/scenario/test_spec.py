"""A scenario file becomes a `Scenario`, or a message with the line of each mistake."""

import re
from pathlib import Path

import pytest

from orchestrator.errors import LabError
from orchestrator.network import Quality
from orchestrator.scenario.chance import Duration, Picker, Shape
from orchestrator.scenario.generate import events_of, start_of
from orchestrator.scenario.spec import (
    Arrivals,
    EventEntry,
    Failures,
    Scenario,
    ScenarioEntry,
    load_scenario,
    parse_scenario,
)

FILE = Path("runs/churn.yaml")
GOLDEN = Path(__file__).parents[2] / "golden" / "scenario"

WHOLE = """\
seed: 7
duration: 1 min
routers: 10
picker: preferential
links: {latency: 2 ms, jitter: 1 ms, loss: 1 %, bandwidth: 10 Mbit/s, weight: 2}
router_arrivals:
  every: {exponential: 2 s}
  lifetime: {uniform: [1 s, 3 s]}
  picker: lifetime
  links: 2
  most: 50
requests: {every: {fixed: 100 ms}}
link_failures: {mtbf: 1 h, mttr: 1 min}
events:
  - {at: 5 s, link_down: r2--r1}
  - at: 6 s
    start_app: {app: r1/probe, run: ping, parameters: {to: r9}}
"""


def parsed(text: str) -> Scenario:
    return parse_scenario(text, FILE)


def test_a_whole_file_becomes_a_scenario() -> None:
    scenario = parsed(WHOLE)
    assert (scenario.name, scenario.seed, scenario.duration_s) == ("churn", 7, 60.0)
    assert (scenario.routers, scenario.picker, scenario.lab) == (10, Picker.PREFERENTIAL, None)
    assert scenario.quality == Quality(2, 1, 0.01, 10)
    assert scenario.weight == 2
    assert scenario.router_arrivals == Arrivals(
        Duration(Shape.EXPONENTIAL, 2), Duration(Shape.UNIFORM, 1, 3), Picker.LIFETIME, 2, 50
    )
    assert scenario.link_arrivals is None
    assert scenario.requests is not None
    assert scenario.requests.every == Duration(Shape.FIXED, 0.1)
    assert scenario.failures == Failures(3600, 60)
    down, start = scenario.events
    assert (down.at_s, down.verb, down.value, down.line) == (5, "link_down", ("r1", "r2"), 15)
    assert (start.verb, start.line, start.value.app) == ("start_app", 16, ("r1", "probe"))


def test_a_lab_is_beside_the_file() -> None:
    assert parsed("duration: 1 s\nlab: ../five.yaml\n").lab == Path("runs/../five.yaml")


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("seed: 7", "seed: -1", 1, "seed", "must be a whole number, 0 to"),
        ("duration: 1 min\n", "", 1, "duration", "is missing, and required"),
        ("duration: 1 min", "duration: 60", 2, "duration", "has no unit"),
        ("duration: 1 min", "duration: 999 h", 2, "duration", "must be at most 30 days"),
        ("routers: 10", "routers: ten", 3, "routers", "must be a whole number, 0 to 10000"),
        ("routers: 10", "lab: x.yaml\nrouters: 10", 4, "routers", "choose one"),
        ("preferential", "best", 4, "picker", "unknown picker 'best'; known: random, pref"),
        ("jitter: 1 ms", "jitter: 3 ms", 5, "links", "more 'jitter' than 'latency'"),
        ("{exponential: 2 s}", "{}", 7, "router_arrivals.every", "needs exactly one of fixed,"),
        ("[1 s, 3 s]", "[3 s, 1 s]", 8, "router_arrivals.lifetime", "the shorter one first"),
        ("[1 s, 3 s]", "[3 s]", 8, "router_arrivals.lifetime.uniform", "at least 2 in it"),
        ("most: 50", "must: 50", 11, "router_arrivals.must", "unknown key; did you mean 'most'?"),
        ("mtbf: 1 h", "mtbf: 0 s", 13, "link_failures.mtbf", "greater than 0"),
        ("at: 5 s", "at: 61 s", 15, "events.0.at", "is after the end ('duration')"),
        ("r2--r1", "r2-r1", 15, "events.0.link_down", "must be written ROUTER--ROUTER"),
        ("r2--r1", "r2--r2", 15, "events.0.link_down", "must name two routers"),
        ("link_down: r2--r1", "link_up: a--b, link_down: a--b", 15, "events.0", "exactly one"),
        ("link_down", "link_dwon", 15, "events.0.link_dwon", "did you mean 'link_down'?"),
        ("r1/probe", "probe", 17, "events.1.start_app.app", "must be written ROUTER/PROGRAM"),
        ("run: ping", "run: pong", 17, "events.1.start_app", "did you mean 'ping'?"),
        ("to: r9", "tu: r9", 17, "events.1.start_app", "ping has no parameter 'tu'"),
    ],
)
def test_each_mistake_is_told_with_file_line_and_field(
    old: str, new: str, line: int, field: str, message: str
) -> None:
    assert WHOLE.count(old) == 1
    with pytest.raises(LabError) as caught:
        parsed(WHOLE.replace(old, new))
    error = caught.value
    assert message in str(error)
    assert str(error).startswith(f"runs/churn.yaml:{line}: {field}: ")
    assert (error.line, error.field) == (line, field)


def test_a_scenario_in_which_nothing_can_happen_is_refused() -> None:
    with pytest.raises(LabError, match="nothing happens without: say 'lab' or 'routers'"):
        parsed("duration: 1 s\n")
    with pytest.raises(LabError, match="is empty: it needs at least a duration"):
        parsed("")


def test_the_example_of_the_documentation_is_a_scenario() -> None:
    page = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert events_of(parsed(example), start_of(parsed(example)))
    for key in (*ScenarioEntry.model_fields, *EventEntry.model_fields):
        assert key == "name" or f"`{key}" in page, key


def test_every_verb_can_be_written() -> None:
    scenario = load_scenario(GOLDEN / "churn.yaml")
    verbs = {each.verb for each in scenario.events}
    assert verbs == {
        *("add_router", "remove_router", "add_link", "remove_link", "link_down", "link_up"),
        *("weight", "quality", "start_app", "stop_app", "request"),
    }
