"""Routers, links, programs, ways and the graph through the API, on a machine in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from orchestrator.journal import Journal
from orchestrator.labfile import load_lab, parse_lab
from orchestrator.linux.records import Records
from orchestrator.live_network import LiveNetwork
from orchestrator.model import Lab, Link, NetworkSettings, Population, Router
from orchestrator.network_monitor import Monitors
from orchestrator.networking import NetworkKeeper
from orchestrator.networks import Networks
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.routers.memory_apps import MemoryApps
from orchestrator.store.memory import MemoryStore
from orchestrator.topology import read_graph
from tests.world import World, a_host, a_service, an_image
from web.app import create_app

FIVE = load_lab(Path(__file__).parents[2] / "examples" / "five-routers.yaml")
VIEWER = {"X-Edgewake-Actor": "eve", "X-Edgewake-Role": "viewer"}
OPERATOR = {"X-Edgewake-Actor": "olga", "X-Edgewake-Role": "operator"}
LARGEST_GRAPH = 1 << 20  # bytes


@dataclass
class Net:
    """A running lab with a network in memory, and its API."""

    world: World
    keeper: NetworkKeeper
    kernel: MemoryKernel
    journal: Journal
    http: FlaskClient

    def apply(self, lab: Lab) -> None:
        self.world.control.apply(lab)
        self.keeper.want(lab)

    def send(self, packets: int) -> None:
        MemoryRouters("us", self.kernel).send("desk", "yard", packets, size=1000)

    def get(self, path: str) -> Any:
        answer = self.http.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json if answer.mimetype == "application/json" else answer.text


def made(lab: Lab, folder: Path) -> Iterator[Net]:
    world = World(lab, MemoryStore())
    world.start()
    kernel, journal = MemoryKernel(), Journal(world.store)

    def nodes() -> set[str]:
        found = MemoryRouters("us", kernel).found()
        return {*found.routers, *found.stubs}

    apps = MemoryApps(nodes, {"ping": lambda _argv: (b"pong <b>\n", 0)})
    networks = Networks(
        Records(folder / "network"),
        lambda _name, machine: MemoryRouters("us", kernel, machine),
        lambda _name: apps,
    )
    keeper = NetworkKeeper(networks, journal, retry_s=3600)
    live = LiveNetwork(
        keeper, networks, Monitors(networks.seen), lambda: world.control.lab, journal
    )
    http = create_app(world.control, load=parse_lab, network=live).test_client()
    http.environ_base["HTTP_PREFER"] = "wait=30"
    keeper.want(lab)
    yield Net(world, keeper, kernel, journal, http)
    keeper.close()
    journal.close()
    world.control.close()


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    yield from made(FIVE, tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Return one for tests that change nothing."""
    yield from made(FIVE, tmp_path_factory.mktemp("still"))


def test_routers_are_listed_with_what_went_through_them(net: Net) -> None:
    net.send(10)
    answer = net.get("/routers")
    assert (answer["runs"], answer["differs_from_lab"], answer["next"]) == (True, False, None)
    assert [each["name"] for each in answer["routers"]] == ["r1", "r2", "r3", "r4", "r5"]
    r1 = answer["routers"][0]
    assert (r1["address"], r1["state"], r1["populations"]) == ("10.255.0.1", "up", ["desk"])
    ports = {port["peer"]: port for port in r1["ports"]}
    assert (ports["r2"]["tx_packets"], ports["desk"]["rx_bytes"]) == (10, 10_000)
    assert net.get("/routers/r1")["name"] == "r1"


def test_lists_come_in_pages(still: Net) -> None:
    first = still.get("/links?limit=4")
    assert [each["name"] for each in first["links"]][-1] == first["next"] == "r2--r4"
    second = still.get(f"/links?limit=4&after={first['next']}")
    assert ([each["name"] for each in second["links"]], second["next"]) == (
        ["r3--r4", "r4--r5"],
        None,
    )


def test_a_link_is_taken_down_and_packets_take_another_way(net: Net) -> None:
    assert net.get("/paths?from=desk&to=yard") == {
        "by": "weight",
        "cost": 2.0,
        "paths": [{"hops": ["r1", "r2", "r3"], "latency_ms": 4.0}],
        "more": False,
    }
    answer = net.http.post("/api/v1/links/r1--r2/down", headers=OPERATOR)
    assert answer.status_code == 200
    told = answer.json
    assert (told["link"]["state"], told["link"]["up"]) == ("down", False)
    assert (told["differs_from_lab"], told["until"]) == (True, "the lab is applied again")
    assert told["changes"]["changed"] == ["r1--r2"]
    assert net.get("/paths?from=desk&to=yard")["paths"][0]["hops"] == ["r1", "r5", "r4", "r3"]
    assert net.http.post("/api/v1/links/r2--r1/up").json["differs_from_lab"] is False
    net.journal.close()
    events = [each for each in net.get("/events")["events"] if each["kind"] == "link-changed"]
    assert [each["subject"] for each in events] == ["r1--r2", "r1--r2"]


def test_a_link_is_made_changed_and_removed(net: Net) -> None:
    answer = net.http.put("/api/v1/links/r2--r5", json={"latency_ms": 5, "bandwidth_mbps": 8})
    assert (answer.status_code, answer.json["changes"]["made"]) == (200, ["r2--r5"])
    answer = net.http.put("/api/v1/links/r5--r2", json={"loss": 0.5})
    assert (answer.status_code, answer.json["changes"]["made"]) == (200, [])
    link = answer.json["link"]
    assert (link["name"], link["latency_ms"], link["loss"], link["bandwidth_mbps"]) == (
        *("r2--r5", 5, 0.5, 8),
    )
    assert link["differs_from_lab"] is True
    answer = net.http.delete("/api/v1/links/r2--r5")
    assert (answer.json["link"], answer.json["changes"]["removed"]) == (None, ["r2--r5"])
    assert answer.json["differs_from_lab"] is False
    net.http.delete("/api/v1/links/r1--r2")
    assert net.get("/links")["gone"] == ["r1--r2"]
    assert net.http.get("/api/v1/links/r1--r2").status_code == 404


def test_a_router_comes_and_goes(net: Net) -> None:
    answer = net.http.put("/api/v1/routers/r6", json={"address": "10.255.0.66"})
    assert (answer.status_code, answer.json["router"]["address"]) == (200, "10.255.0.66")
    assert answer.json["changes"]["made"] == ["r6"]
    assert net.http.put("/api/v1/routers/r6").json["changes"]["made"] == []
    net.http.put("/api/v1/links/r1--r6", json={})
    answer = net.http.delete("/api/v1/routers/r6")
    assert answer.json["router"] is None
    assert answer.json["changes"]["removed"] == ["r1--r6", "r6"]
    assert net.http.get("/api/v1/routers/r6").status_code == 404


@pytest.mark.parametrize(
    ("request_", "body", "status", "said"),
    [
        ("delete /routers/r1", None, 409, "desk would be cut off"),
        ("delete /routers/r9", None, 404, "has no router r9"),
        ("put /routers/R_9", {}, 422, "pattern"),
        ("put /routers/r9", {"address": "10.255.0.1"}, 409, "r1 has that address"),
        ("put /routers/r9", {"address": "fded::1"}, 422, "address"),
        ("put /routers/r9", {"site": "x"}, 422, "site"),
        ("put /links/r1--r9", {}, 404, "does not join two routers"),
        ("put /links/r1", {}, 404, "does not join two routers"),
        ("put /links/r1--r2", {"loss": 2}, 422, "loss"),
        ("put /links/r1--r2", {"weight": 0}, 422, "weight"),
        ("put /links/r1--r2", {"latency_ms": "2 ms"}, 422, "latency_ms"),
        ("put /links/r1--r2", {"jitter_ms": 50}, 409, "before it left"),
        ("post /links/r1--r9/up", None, 404, "no link r1--r9"),
        ("get /paths?from=r1&to=r9", None, 404, "'r9'"),
        ("get /paths?from=r1", None, 422, "to"),
        ("get /routers/r9/apps", None, 404, "'r9'"),
        ("get /routers/r1/apps/x", None, 404, "no program x"),
        ("get /routers/r1/apps/x/console", None, 404, "no program x"),
        ("post /routers/r1/apps", {}, 422, "Field required"),
        ("post /routers/r1/apps", {"run": "ping", "argv": ["x"]}, 422, "Extra inputs"),
        ("post /routers/r1/apps", {"argv": ["x"]}, 422, "Field required"),
        ("post /routers/r1/apps", {"run": "pnig"}, 422, "did you mean 'ping'?"),
        ("post /routers/r1/apps", {"run": "ping"}, 409, "ping needs to"),
        ("post /routers/r1/apps", {"run": "echo", "name": "../x"}, 422, "name"),
        ("post /routers/r1/apps", {"argv": ["x"], "name": "x", "rights": ["sys"]}, 422, "right"),
    ],
)
def test_what_cannot_be_is_a_problem(
    still: Net, request_: str, body: Any, status: int, said: str
) -> None:
    method, _, path = request_.partition(" ")
    answer = still.http.open(f"/api/v1{path}", method=method.upper(), json=body)
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    assert said in str(answer.json)
    assert still.get("/network")["differs_from_lab"] is False


def test_programs_are_started_read_stopped_and_removed(net: Net) -> None:
    body = {"run": "ping", "name": "probe", "parameters": {"to": "yard"}}
    answer = net.http.post("/api/v1/routers/desk/apps", json=body, headers=OPERATOR)
    assert (answer.status_code, answer.json["argv"][-1]) == (201, "10.251.2.2")
    assert net.get("/routers/desk/apps/probe/console") == "pong <b>\n"
    net.http.post("/api/v1/routers/r1/apps", json={"run": "echo"})
    assert net.http.post("/api/v1/routers/r1/apps", json={"run": "echo"}).status_code == 409
    assert [each["name"] for each in net.get("/routers/r1/apps")["apps"]] == ["echo"]
    assert net.get("/routers/r1")["apps"][0]["running"] is True
    answer = net.http.post("/api/v1/routers/r1/apps/echo/stop")
    assert (answer.json["running"], answer.json["signal"]) == (False, 15)
    answer = net.http.delete("/api/v1/routers/r1/apps/echo")
    assert answer.json == {"removed": "r1/echo"}
    assert net.get("/routers/r1/apps") == {"apps": []}


@pytest.mark.parametrize(
    "body",
    [
        {"run": "command", "parameters": {"line": "id"}},
        {"run": "python", "parameters": {"function": "os:getcwd"}},
        {"argv": ["id"], "name": "x"},
    ],
)
def test_any_program_at_all_takes_an_admin(net: Net, body: dict[str, Any]) -> None:
    answer = net.http.post("/api/v1/routers/r1/apps", json=body, headers=OPERATOR)
    assert answer.status_code == 403
    assert net.http.post("/api/v1/routers/r1/apps", json=body).status_code == 201


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("put", "/routers/r9"),
        ("delete", "/routers/r5"),
        ("put", "/links/r1--r2"),
        ("delete", "/links/r1--r2"),
        ("post", "/links/r1--r2/up"),
        ("post", "/links/r1--r2/down"),
        ("post", "/routers/r1/apps"),
        ("delete", "/routers/r1/apps/x"),
        ("post", "/routers/r1/apps/x/stop"),
    ],
)
def test_a_viewer_changes_nothing(still: Net, method: str, path: str) -> None:
    answer = still.http.open(f"/api/v1{path}", method=method.upper(), headers=VIEWER)
    assert answer.status_code == 403
    assert still.http.get("/api/v1/network", headers=VIEWER).json["differs_from_lab"] is False


def test_a_lab_that_does_not_run_its_network_is_shown(net: Net) -> None:
    net.apply(replace(FIVE, network=replace(FIVE.network, run=False)))
    answer = net.get("/network")
    assert answer["runs"] is False
    assert {each["state"] for each in answer["links"]} == {"planned"}
    assert net.get("/paths?from=desk&to=yard")["by"] == "latency"
    refused = net.http.post("/api/v1/links/r1--r2/down")
    assert refused.status_code == 409
    assert refused.json["hint"].startswith("write `network: {run: true}` into the lab file")


def test_applying_the_lab_takes_changes_back(net: Net) -> None:
    net.http.put("/api/v1/links/r1--r2", json={"weight": 9})
    net.http.delete("/api/v1/routers/r5")
    net.apply(FIVE)
    answer = net.get("/network")
    assert (answer["differs_from_lab"], answer["gone"], len(answer["routers"])) == (False, [], 5)


# --- the graph ----------------------------------------------------------------------------------


def by_id(document: Any) -> dict[str, Any]:
    return {each["id"]: each for each in (*document["nodes"], *document["edges"])}


def test_the_graph_of_a_network_that_runs(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.network_monitor.LEAST_S", 0.0)
    monkeypatch.setattr("orchestrator.network_monitor.LOOKING", float("inf"))
    net.get("/graph")
    net.send(1000)
    parts = by_id(net.get("/graph"))
    link = parts["link:r1--r2"]
    assert (link["source"], link["target"], link["state"]) == ("router:r1", "router:r2", "up")
    assert link["load"]["there_mbps"] > 0
    assert parts["router:r1"]["load"]["tx_mbps"] > 0
    edge = parts["attachment:population:desk"]
    assert (edge["source"], edge["target"]) == ("population:desk", "router:r1")
    assert by_id(net.get("/graph?load=0"))["link:r1--r2"]["load"] is None


def test_a_graph_that_is_the_same_is_not_sent_again(net: Net) -> None:
    first = net.http.get("/api/v1/graph?load=0")
    match = {"If-None-Match": first.headers["ETag"]}
    assert net.http.get("/api/v1/graph?load=0", headers=match).status_code == 304
    net.http.post("/api/v1/links/r1--r2/down")
    assert net.http.get("/api/v1/graph?load=0", headers=match).status_code == 200


def test_the_graph_as_text(net: Net, tmp_path: Path) -> None:
    net.http.post("/api/v1/links/r1--r2/down")
    dot = net.get("/graph/dot")
    assert '"router:r1" -- "router:r2" [label="2 ms, 100 Mbit/s", style=dotted];' in dot
    assert '"population:desk" -- "router:r1"' in dot or '"router:r1" -- "population:desk"' in dot
    file = tmp_path / "lab.graphml"
    file.write_text(net.get("/graph/graphml"))
    routers, links = read_graph(file)
    assert [router.name for router in routers] == ["r1", "r2", "r3", "r4", "r5"]
    assert [link.up for link in links if {link.a, link.b} == {"r1", "r2"}] == [False]


def test_hosts_hold_their_instances_on_sites(tmp_path: Path) -> None:
    lab = Lab(
        name="t",
        dns=FIVE.dns,
        hosts=(replace(a_host("a"), router="r1"), replace(a_host("b", 1), site="hill")),
        routers=(Router("r1", site="valley"), Router("r2")),
        links=(Link("r1", "b", 3.0, 10.0), Link("r1", "b", 4.0, 10.0), Link("r1", "r2", 1.0, 1.0)),
        populations=(Population("near", (ip_network("192.0.2.0/24"),), "r1", 2.5),),
        images=(an_image(tmp_path),),
        services=(a_service("web"),),
    )
    for net in made(lab, tmp_path):
        net.world.ask("web")
        graph = net.get("/graph")
        parts = by_id(graph)
        assert (graph["runs"], graph["differs_from_lab"]) == (False, False)
        assert (parts["host:a"]["parent"], parts["host:b"]["parent"]) == (
            "site:valley",
            "site:hill",
        )
        assert parts["population:near"]["parent"] == "site:valley"
        assert parts["router:r2"]["parent"] is None
        (instance,) = [each for each in graph["nodes"] if each["kind"] == "instance"]
        assert (instance["label"], instance["state"], instance["rung"]) == (
            *("web", "ready", "ready"),
        )
        assert instance["parent"] in {"host:a", "host:b"}
        ends = {
            name: (parts[name]["source"], parts[name]["target"])
            for name in (*("link:b--r1", "link:b--r1~2", "attachment:host:a"),)
        }
        assert set(ends.values()) == {("host:b", "router:r1"), ("host:a", "router:r1")}


def test_a_large_graph_is_small(tmp_path: Path) -> None:
    """1,000 nodes: 400 routers on 40 sites, 60 hosts, 540 populations; 1,200 links."""
    many = 400
    lab = Lab(
        name="t",
        dns=FIVE.dns,
        network=NetworkSettings(run=True),
        hosts=tuple(replace(a_host(f"host-{n}", n), router=f"router-{n}") for n in range(60)),
        routers=tuple(Router(f"router-{n}", site=f"site-{n % 40}") for n in range(many)),
        links=tuple(
            Link(f"router-{n}", f"router-{(n + step) % many}", 1.5, 100.0)
            for n in range(many)
            for step in (1, 7, 40)
        ),
        populations=tuple(
            Population(
                f"people-{n}",
                (ip_network(f"10.{64 + n // 200}.{n % 200}.0/24"),),
                f"router-{n % many}",
            )
            for n in range(540)
        ),
    )
    for net in made(lab, tmp_path):
        answer = net.http.get("/api/v1/graph")
        kinds = [each["kind"] for each in answer.json["nodes"]]
        assert (kinds.count("router"), kinds.count("host"), kinds.count("population")) == (
            *(400, 60, 540),
        )
        assert {each["state"] for each in answer.json["nodes"] if each["kind"] == "router"} == {
            "up"
        }
        assert len(answer.data) < LARGEST_GRAPH, len(answer.data)
