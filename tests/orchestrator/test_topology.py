"""The graph: distances, ways and widths, what changes do to them, and graphs from files."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from xml.etree import ElementTree as ET

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import TopologyError
from orchestrator.model import (
    Capacity,
    DnsSettings,
    GuestNetwork,
    Host,
    Lab,
    Link,
    Population,
    Router,
)
from orchestrator.network import LinkLoad, Load, RouterLoad
from orchestrator.topology import UNKNOWN_BANDWIDTH_MBPS, UNKNOWN_LATENCY_MS, Topology, read_graph


def host(name: str, router: str = "") -> Host:
    network = GuestNetwork(
        "net",
        IPv4Network("10.0.0.0/24"),
        IPv4Address("10.0.0.1"),
        IPv4Address("10.0.0.2"),
        IPv4Address("10.0.0.9"),
    )
    return Host(name, "test:///default", Capacity(1, 1), network, router=router)


def people(name: str, router: str = "") -> Population:
    return Population(name, (IPv4Network("192.0.2.0/24"),), router)


@pytest.fixture
def lab() -> Lab:
    """Return a lab with a fast narrow way (r1, r2, r3) and a slow wide one (r1, r4, r3)."""
    return Lab(
        "lab",
        DnsSettings("edge.test"),
        hosts=(host("near", "r1"), host("far", "r3"), host("lost"), host("linked")),
        routers=tuple(Router(f"r{n}", site=f"town {n}") for n in range(1, 6)),
        links=(
            Link("r1", "r2", latency_ms=1, bandwidth_mbps=100),
            Link("r2", "r3", latency_ms=2, bandwidth_mbps=50),
            Link("r1", "r4", latency_ms=10, bandwidth_mbps=1000),
            Link("r4", "r3", latency_ms=10, bandwidth_mbps=800),
            Link("linked", "r2", latency_ms=0.5, bandwidth_mbps=10),
        ),
        populations=(people("home", "r1"), people("island", "r5"), people("nowhere")),
    )


@pytest.fixture
def topology(lab: Lab) -> Topology:
    return Topology.of(lab)


# --- questions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "latency", "path", "bottleneck", "widest"),
    [
        ("near", "far", 3.0, ("near", "r1", "r2", "r3", "far"), 50, 800),
        ("r1", "r4", 10.0, ("r1", "r4"), 1000, 1000),
        ("linked", "far", 2.5, ("linked", "r2", "r3", "far"), 10, 10),
        ("near", "home", 0.0, ("near", "r1", "home"), math.inf, math.inf),
        ("lost", "lost", 0.0, ("lost",), math.inf, math.inf),
    ],
)
def test_how_far_which_way_and_how_wide(
    topology: Topology,
    *,
    a: str,
    b: str,
    latency: float,
    path: tuple[str, ...],
    bottleneck: float,
    widest: float,
) -> None:
    assert topology.latency_ms(a, b) == topology.latency_ms(b, a) == pytest.approx(latency)
    assert topology.path(a, b) == path
    assert topology.bottleneck_mbps(a, b) == bottleneck
    assert topology.widest_mbps(a, b) == widest


@pytest.mark.parametrize("question", ["latency_ms", "path", "bottleneck_mbps", "widest_mbps"])
def test_what_has_no_answer_is_an_error_that_helps(topology: Topology, question: str) -> None:
    with pytest.raises(TopologyError, match="no path from home to lost"):
        getattr(topology, question)("home", "lost")
    with pytest.raises(TopologyError, match="named 'moon'; known: far, home, island, linked"):
        getattr(topology, question)("home", "moon")


def test_a_table_leaves_out_pairs_without_path(topology: Topology) -> None:
    table = topology.latency_table(["home", "island"], ["near", "far", "lost", "linked"])
    assert table == {"home": {"near": 0.0, "far": 3.0, "linked": 1.5}, "island": {}}
    with pytest.raises(TopologyError, match="no population named 'near'"):
        topology.latency_table(["near"], [])


def test_of_parallel_links_the_fastest_counts_then_the_widest() -> None:
    links = (Link("a", "b", 5, 1000), Link("b", "a", 1, 10), Link("a", "b", 1, 20))
    topology = Topology((Router("a"), Router("b")), links)
    assert topology.latency_ms("a", "b") == 1
    assert topology.bottleneck_mbps("a", "b") == 20
    assert topology.widest_mbps("a", "b") == 1000


def test_a_host_with_two_links_is_no_router() -> None:
    routers = (Router("r1"), Router("r2"))
    links = (Link("h", "r1", 1, 10), Link("h", "r2", 1, 10))
    topology = Topology(routers, links, (host("h"),))
    assert topology.latency_ms("h", "r2") == 1
    with pytest.raises(TopologyError, match="no path from r1 to r2"):
        topology.latency_ms("r1", "r2")


def test_a_name_that_two_nodes_bear_must_be_qualified() -> None:
    topology = Topology(
        (Router("edge"), Router("core")),
        (Link("core", "router:edge", 3, 10),),
        (host("edge", "core"),),
        (people("core", "edge"),),
    )
    with pytest.raises(TopologyError, match="ambiguous; say host:edge or router:edge"):
        topology.latency_ms("edge", "router:core")
    assert topology.latency_ms("host:edge", "router:core") == 0
    assert topology.latency_ms("router:edge", "router:core") == 3
    assert topology.latency_table(["core"], ["edge"]) == {"core": {"edge": 3.0}}


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link("r1", "home", 1, 1), "no router or host named 'home'"),
        (Link("r9", "r1", 1, 1), "named 'r9'; known: far, linked, lost, near, r1"),
    ],
)
def test_links_join_routers_and_hosts_only(topology: Topology, link: Link, words: str) -> None:
    with pytest.raises(TopologyError, match=words):
        topology.with_link(link)


def test_nodes_of_one_kind_have_names_of_their_own() -> None:
    with pytest.raises(TopologyError, match="two routers named r"):
        Topology((Router("r"), Router("r")), ())


# --- changes ------------------------------------------------------------------------------------


def test_answers_follow_a_change_though_they_were_computed_before(topology: Topology) -> None:
    assert topology.latency_ms("near", "far") == 3
    assert topology.bottleneck_mbps("near", "far") == 50
    faster = topology.with_link(Link("r3", "r1", latency_ms=0.5, bandwidth_mbps=7))
    assert faster.latency_ms("near", "far") == 0.5
    assert faster.bottleneck_mbps("near", "far") == 7
    slower = topology.without_link("r3", "r2")
    assert slower.latency_ms("near", "far") == 20
    assert slower.latency_table(["home"], ["far"]) == {"home": {"far": 20.0}}
    with pytest.raises(TopologyError, match="no path"):
        slower.without_link("r1", "r4").path("near", "far")
    assert topology.latency_ms("near", "far") == 3


def test_a_link_replaces_those_between_its_ends(topology: Topology) -> None:
    changed = topology.with_link(Link("r2", "r1", latency_ms=4, bandwidth_mbps=1))
    assert len(changed.links) == len(topology.links)
    assert changed.latency_ms("r1", "r2") == 4
    with pytest.raises(TopologyError, match="no link between r1 and r3"):
        topology.without_link("r1", "r3")


def test_a_second_question_from_the_same_node_is_not_computed_again(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = topology.latency_ms("home", "far")
    monkeypatch.delattr(nx, "single_source_dijkstra")
    assert topology.latency_ms("home", "far") == first
    assert topology.path("home", "near") == ("home", "r1", "near")


# --- against a plain search over all paths ------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> Topology:
    names = ["a", "b", "c", "d", "e"]
    amounts = st.integers(0, 9)
    ends = st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True)
    states = st.sampled_from([True, True, True, False])
    links = draw(st.lists(st.tuples(ends, amounts, amounts, states), max_size=9))
    return Topology(
        [Router(name) for name in names],
        [Link(a, b, ms, mbps, up=up) for (a, b), ms, mbps, up in links],
    )


def all_paths(topology: Topology, seen: tuple[str, ...], end: str) -> Iterator[list[Link]]:
    if seen[-1] == end:
        yield []
        return
    for link in topology.links:
        ends = {link.a, link.b} if link.up else set()
        for after in ends - {seen[-1]} if seen[-1] in ends else ():
            if after not in seen:
                for rest in all_paths(topology, (*seen, after), end):
                    yield [link, *rest]


@settings(deadline=None)
@given(graphs())
def test_fastest_and_widest_are_those_of_all_paths(topology: Topology) -> None:
    for a, b in itertools.combinations("abcde", 2):
        paths = list(all_paths(topology, (a,), b))
        if not paths:
            with pytest.raises(TopologyError, match="no path"):
                topology.latency_ms(a, b)
            continue
        assert topology.latency_ms(a, b) == min(sum(k.latency_ms for k in p) for p in paths)
        assert topology.widest_mbps(a, b) == max(min(k.bandwidth_mbps for k in p) for p in paths)


# --- as text ------------------------------------------------------------------------------------


def either_way(link: Link) -> tuple[frozenset[str], float, float, float]:
    return frozenset((link.a, link.b)), link.latency_ms, link.bandwidth_mbps, link.weight


def test_graphml_is_read_again(topology: Topology, lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "lab.graphml"
    file.write_text(topology.graphml())
    routers, links = read_graph(file)
    assert routers == lab.routers
    between_routers = [link for link in lab.links if link.a != "linked"]
    assert {either_way(link) for link in links} == {either_way(link) for link in between_routers}
    assert ET.fromstring(topology.graphml()).tag.endswith("graphml")  # noqa: S314 - our own text


def test_json_is_node_link_data(topology: Topology) -> None:
    graph = nx.node_link_graph(json.loads(topology.node_link_json()), edges="edges")
    assert graph.nodes["host:near"] == {"kind": "host", "label": "near", "site": ""}
    assert graph.edges["router:r1", "router:r2", 0] == {
        "latency_ms": 1,
        "bandwidth_mbps": 100,
        "weight": 1.0,
    }
    assert graph.edges["host:near", "router:r1", 0] == {"latency_ms": 0.0}


def test_a_link_that_is_down_is_drawn_but_is_no_way(tmp_path: Path) -> None:
    routers = tuple(map(Router, "abc"))
    down = Link("a", "c", latency_ms=1, bandwidth_mbps=1000, up=False, jitter_ms=0.5, loss=0.25)
    links = (Link("a", "b", 5, 100), Link("b", "c", 5, 50), down)
    topology = Topology(routers, links, (host("h", "c"),), (people("p", "a"),))
    assert topology.path("a", "c") == ("a", "b", "c")
    assert (topology.bottleneck_mbps("a", "c"), topology.widest_mbps("a", "c")) == (50, 50)
    assert topology.latency_table(["p"], ["h"]) == {"p": {"h": 10}}
    assert topology.with_link(replace(down, up=True)).path("a", "c") == ("a", "c")
    assert '"router:a" -- "router:c" [label="1 ms, 1000 Mbit/s", style=dotted];' in topology.dot()
    file = tmp_path / "lab.graphml"
    file.write_text(topology.graphml())
    assert down in read_graph(file)[1]
    alone = Topology(routers, (down,))
    with pytest.raises(TopologyError, match="no path"):
        alone.latency_ms("a", "c")


def test_how_busy_links_and_routers_are_is_written_and_drawn() -> None:
    topology = Topology(tuple(map(Router, "abc")), (Link("b", "a", 1, 100), Link("b", "c", 1, 100)))
    load = Load(1.0, {"a--b": LinkLoad(25.0, 50.0, 0.5)}, {"a": RouterLoad(50.0, 25.0, 0.75)})
    graph = nx.node_link_graph(json.loads(topology.node_link_json(load)), edges="edges")
    assert graph.edges["router:a", "router:b", 0]["load"] == {
        "there_mbps": 25.0,
        "back_mbps": 50.0,
        "share": 0.5,
        "drops_per_s": 0.0,
    }
    assert "load" not in graph.edges["router:b", "router:c", 0]
    assert graph.nodes["router:a"]["load"] == {"rx_mbps": 50.0, "tx_mbps": 25.0, "cores": 0.75}
    assert "load" not in graph.nodes["router:b"]
    drawn = topology.dot(load)
    assert '[label="a, 0.75 cores", shape=circle]' in drawn
    assert '"router:a" -- "router:b" [label="1 ms, 100 Mbit/s, 50%", penwidth=3.0];' in drawn
    assert '"router:b" -- "router:c" [label="1 ms, 100 Mbit/s"];' in drawn


def test_dot_quotes_what_would_end_a_string() -> None:
    text = Topology((Router('a"b'), Router("c\\")), (Link('a"b', "c\\", 1.5, 10),)).dot()
    assert '"router:a\\"b" [label="a\\"b", shape=circle];' in text
    assert '"router:a\\"b" -- "router:c\\\\" [label="1.5 ms, 10 Mbit/s"];' in text


# --- graphs from files --------------------------------------------------------------------------

GRAPHML = """<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="label" attr.type="string" for="node" id="d0"/>
  <key attr.name="Latitude" attr.type="double" for="node" id="d1"/>
  <key attr.name="Longitude" attr.type="double" for="node" id="d2"/>
  <key attr.name="LinkSpeedRaw" attr.type="double" for="edge" id="d3"/>
  <key attr.name="latency_ms" attr.type="double" for="edge" id="d4"/>
  <graph edgedefault="undirected">
    <node id="0"><data key="d0">Genève</data><data key="d1">46.2</data><data key="d2">6.15</data></node>
    <node id="1"><data key="d0">Zürich</data><data key="d1">47.38</data><data key="d2">8.54</data></node>
    <node id="2"><data key="d0">Zürich</data></node>
    <node id="3"><data key="d0">Île déserte</data></node>
    <edge source="0" target="1" id="e0"><data key="d3">10000000000.0</data></edge>
    <edge source="0" target="1" id="e1"><data key="d3">1000000.0</data></edge>
    <edge source="1" target="2"/>
    <edge source="2" target="0"><data key="d4">7.5</data></edge>
    <edge source="2" target="2"/>
  </graph>
</graphml>
"""  # noqa: E501 - a node is one line

GML = """graph [
  multigraph 1
  node [ id 0 label "Bern" Longitude 7.45 Latitude 46.95 ]
  node [ id 4 label "Thun" Longitude 7.63 Latitude 46.76 ]
  node [ id 7 label "Bern" ]
  edge [ source 0 target 4 key 0 LinkSpeedRaw 2500000000.0 ]
  edge [ source 0 target 4 key 1 latency 2.5 ]
  edge [ source 4 target 7 key 0 ]
]
"""


def written(folder: Path, name: str, data: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def test_graphml_of_the_topology_zoo_is_read(tmp_path: Path) -> None:
    routers, links = read_graph(written(tmp_path, "swiss.graphml", GRAPHML))
    assert routers == (
        Router("geneve", site="Genève"),
        Router("zurich", site="Zürich"),
        Router("zurich-2", site="Zürich"),
        Router("ile-deserte", site="Île déserte"),
    )
    by_ends = {(link.a, link.b, link.bandwidth_mbps): link.latency_ms for link in links}
    km = 223.8  # Geneva to Zurich, great circle
    assert by_ends == {
        ("geneve", "zurich", 10_000): pytest.approx(km / 200, rel=0.01),
        ("geneve", "zurich", 1): pytest.approx(km / 200, rel=0.01),
        ("zurich", "zurich-2", UNKNOWN_BANDWIDTH_MBPS): UNKNOWN_LATENCY_MS,
        ("geneve", "zurich-2", UNKNOWN_BANDWIDTH_MBPS): 7.5,
    }
    with pytest.raises(TopologyError, match="no path"):
        Topology(routers, links).latency_ms("geneve", "ile-deserte")


def test_gml_with_parallel_edges_is_read(tmp_path: Path) -> None:
    routers, links = read_graph(written(tmp_path, "swiss.gml", GML))
    assert [router.name for router in routers] == ["bern", "thun", "bern-2"]
    assert [(k.a, k.b, k.bandwidth_mbps) for k in links] == [
        ("bern", "thun", 2500),
        ("bern", "thun", UNKNOWN_BANDWIDTH_MBPS),
        ("thun", "bern-2", UNKNOWN_BANDWIDTH_MBPS),
    ]
    assert [k.latency_ms for k in links] == [pytest.approx(0.126, rel=0.02), 2.5, 1.0]


BOMB = '<!DOCTYPE g [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.graphml", GRAPHML.replace("?>", "?>" + BOMB, 1), "document type or entities"),
        ("a.xml", GRAPHML.replace("?>", "?><!doctype g>", 1), "document type or entities"),
        ("a.graphml", GRAPHML.replace("?>", "?>" + BOMB, 1).encode("utf-16"), "not UTF-8"),
        ("a.graphml", (BOMB + GRAPHML[38:]).encode("utf-16-le"), "NUL bytes|not UTF-8"),
        ("a.graphml", GRAPHML.encode("latin-1"), "not UTF-8"),
        ("a.graphml", b" " * (16 * 2**20 + 1), "larger than 16777216 bytes"),
        ("a.graphml", GRAPHML[:900], "not a graph we can read"),
        ("a.graphml", "<graphml/>", "not a graph we can read"),
        ("a.graphml", GRAPHML.replace(">7.5<", ">-7.5<"), "latency_ms must be finite"),
        ("a.graphml", GRAPHML.replace(">7.5<", ">nan<"), "latency_ms must be finite"),
        ("a.gml", GML.replace("multigraph 1", ""), "not a graph we can read"),
        ("a.gml", "graph [ " * 20_000, "not a graph we can read"),
        ("a.gml", "", "not a graph we can read"),
        ("a.png", GRAPHML, "unknown kind of file; known: .graphml, .xml, .gml"),
    ],
)
def test_a_file_that_is_no_graph_is_refused(
    tmp_path: Path, name: str, data: str | bytes, words: str
) -> None:
    with pytest.raises(TopologyError, match=words):
        read_graph(written(tmp_path, name, data))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"absent\.gml: cannot be read"):
        read_graph(tmp_path / "absent.gml")


@pytest.mark.filterwarnings("ignore:No key type for id:UserWarning")
@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from([("x.graphml", GRAPHML), ("x.gml", GML)]))
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, original: tuple[str, str]
) -> None:
    name, text = original
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    damaged = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    file = written(tmp_path_factory.mktemp("damaged"), name, damaged.encode(errors="replace"))
    try:
        routers, links = read_graph(file)
    except TopologyError as error:
        assert str(file) in str(error)  # noqa: PT017 - either outcome is fine
        return
    assert {link.a for link in links} <= {router.name for router in routers}
