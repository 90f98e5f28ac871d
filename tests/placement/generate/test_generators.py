"""The generators: what a seed gives is agreed, and is what the parameters say."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from placement.check import violations
from placement.generate import GENERATORS, generate
from placement.generate._make import fingerprint
from placement.problem import Malformed, Options, Problem
from placement.solving import solve

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "placement" / "generators.json"
GRAPH = Path(__file__).with_name("small_graph.graphml")
NEEDED: dict[str, dict[str, Any]] = {"topology-zoo": {"graph": GRAPH, "services": 12}}

every_generator = pytest.mark.parametrize("name", GENERATORS)


def _made(name: str, seed: int, **parameters: Any) -> Problem:
    return generate(name, seed, **NEEDED.get(name, {}), **parameters).problem


@every_generator
def test_a_seed_gives_the_agreed_problem(name: str) -> None:
    """A changed hash makes old studies incomparable: UPDATE_GOLDEN=1 says that this is meant."""
    agreed = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    made = {str(seed): fingerprint(_made(name, seed)) for seed in (0, 1, 2)}
    if os.environ.get("UPDATE_GOLDEN"):
        agreed[name] = made
        GOLDEN.write_text(json.dumps(agreed, indent=2, sort_keys=True) + "\n")
    assert agreed[name] == made
    assert len(set(made.values())) == 3


@every_generator
def test_a_problem_makes_sense_and_can_be_solved(name: str) -> None:
    problem = _made(name, 7)
    plan = solve(problem, Options(algorithm="first-fit", weights={}))
    assert violations(problem, plan) == ()


@every_generator
@pytest.mark.parametrize("utilisation", [0.1, 0.45])
def test_utilisation_is_the_share_of_both_resources(name: str, utilisation: float) -> None:
    problem = _made(name, 3, utilisation=utilisation, replicas=2, **_many(name))
    for resource in ("cpu", "memory_mib"):
        have = sum(host.capacity[resource] for host in problem.hosts)
        need = sum(each.resources[resource] * each.replicas for each in problem.demands)
        assert need / have == pytest.approx(utilisation, rel=0.01)


def _many(name: str) -> dict[str, Any]:
    """Return what makes enough services that none is too large."""
    return {} if name == "topology-zoo" else {"services": 60}


@every_generator
def test_every_host_and_population_is_on_the_map(name: str) -> None:
    instance = generate(name, 1, **NEEDED.get(name, {}))
    layout = instance.layout
    assert layout
    assert set(layout.hosts) == {host.name for host in instance.problem.hosts}
    assert set(layout.populations) == set(instance.problem.latency_ms)
    ends = {end for link in layout.links for end in link}
    assert {*layout.hosts.values(), *layout.populations.values(), *ends} <= set(layout.nodes)


@every_generator
def test_a_parameter_that_is_unknown_or_of_a_wrong_type_is_told(name: str) -> None:
    with pytest.raises(Malformed, match=r"coffee: unknown parameter; known: .*utilisation"):
        _made(name, 0, coffee=1)
    with pytest.raises(Malformed, match=r"replicas: must be a whole number, not 1\.5"):
        _made(name, 0, replicas=1.5)
    with pytest.raises(Malformed, match=r"utilisation: must be at most 1, not 1\.2"):
        _made(name, 0, utilisation=1.2)


def test_an_unknown_generator_lists_the_known() -> None:
    with pytest.raises(Malformed, match="no generator named 'coffee'; known: clos"):
        generate("coffee", 0)


def test_too_few_services_cannot_fill_large_hosts() -> None:
    with pytest.raises(Malformed, match="5 are too few for this utilisation"):
        generate("uniform", 0, hosts=50, services=5, utilisation=0.9)


def test_classes_are_few_kinds_and_without_them_all_differ() -> None:
    def kinds(classes: int) -> Counter[tuple[Any, ...]]:
        demands = generate("uniform", 4, services=200, hosts=40, classes=classes).problem.demands
        return Counter((*each.resources.items(), *sorted(each.rates.items())) for each in demands)

    assert len(kinds(0)) == 200
    assert 10 < len(kinds(12)) <= 12


def test_the_hierarchy_is_nearest_at_the_fog_and_farthest_in_the_cloud() -> None:
    problem = generate("hierarchical", 5).problem
    row = problem.latency_ms["thing1-2-0"]
    assert 1 <= row["fog1-2-0"] <= 3 < row["edge1-0"] <= 9 < row["cloud-0"] <= 49
    assert row["fog0-0-0"] > row["cloud-0"]


def test_in_a_clos_fabric_another_rack_is_two_hops_farther() -> None:
    problem = generate("clos", 0, hop_ms=0.1).problem
    row = problem.latency_ms["leaf0-clients"]
    assert row["leaf0-h0"] == pytest.approx(0.2)
    assert {row[f"leaf{n}-h3"] for n in (1, 2, 3)} == {0.4}


@pytest.mark.parametrize("seed", range(5))
def test_a_waxman_graph_is_in_one_piece_however_few_links_it_draws(seed: int) -> None:
    layout = generate("waxman", seed, nodes=30, beta=0.05).layout
    assert layout
    graph = nx.Graph(list(layout.links))
    assert len(graph) == 30
    assert nx.is_connected(graph)


# --- the Topology Zoo -----------------------------------------------------------------------------


def test_a_zoo_graph_is_read_with_all_its_faults() -> None:
    instance = generate("topology-zoo", 0, graph=GRAPH, services=12, hosted=1.0)
    layout = instance.layout
    assert layout
    assert set(layout.nodes) == {"Paris#0", "London", "Paris#2", "3"}
    assert set(layout.links) == {("London", "Paris#0"), ("London", "Paris#2"), ("3", "Paris#2")}
    to_london = instance.problem.latency_ms["Paris#0/clients"]["London/0"]
    assert to_london == pytest.approx(343.6 / 200, rel=0.01)  # km as the crow flies, km per ms
    assert instance.problem.latency_ms["3/clients"]["London/0"] == 10  # two links of unknown length
    assert layout.nodes["Paris#2"].x == layout.nodes["London"].x


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no GraphML"),
        ("<a/>", "is no GraphML"),
        ("<graphml", "is no GraphML"),
        (
            '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
            '<graph edgedefault="undirected"><node id="0"/></graph></graphml>',
            "has no links",
        ),
        (
            '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><key id="k" for="node" '
            'attr.name="Latitude" attr.type="double"/><graph edgedefault="undirected">'
            '<node id="0"><data key="k">north</data></node></graph></graphml>',
            "is no GraphML",
        ),
    ],
)
def test_a_file_that_is_no_graph_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.graphml"
    path.write_text(text)
    with pytest.raises(Malformed, match=rf"graph: x\.graphml {told}"):
        generate("topology-zoo", 0, graph=path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="cannot be read: No such file"):
        generate("topology-zoo", 0, graph=str(tmp_path / "gone"))
