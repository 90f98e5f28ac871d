"""The network of a running edgewake, changed through its API: by `edgewake net`, and for real."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator import local
from orchestrator.cli import Exit, app
from orchestrator.daemon import Daemon
from orchestrator.linux.records import Records
from orchestrator.local import namespace_of
from orchestrator.net_trace import traced
from orchestrator.networks import Networks
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.routers.memory_apps import MemoryApps
from orchestrator.state_dir import StateDir
from tests.orchestrator.test_networking import FIVE
from tests.ports import free_port
from web.client import Client

Run = Callable[..., Result]


def lab_file(folder: Path, name: str) -> Path:
    file = folder / "lab.yaml"
    text = FIVE.read_text().replace("name: five-routers", f"name: {name}")
    file.write_text(f'{text}dns: {{listen: "127.0.0.1:{free_port()}"}}\n')
    return file


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return lab_file(tmp_path, "five")


@pytest.fixture
def client(tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Run edgewake and commands over the same machine in memory; return a client of its API."""
    kernel = MemoryKernel()

    def nodes() -> set[str]:
        found = MemoryRouters("us", kernel).found()
        return {*found.routers, *found.stubs}

    apps = MemoryApps(nodes)

    def networks_of(state: StateDir) -> Networks:
        records = Records(state.path / "network")
        return Networks(
            records, lambda _name, machine: MemoryRouters("us", kernel, machine), lambda _name: apps
        )

    monkeypatch.setattr(local, "networks_of", networks_of)
    daemon = Daemon(tmp_path, lab, open_networks=networks_of)
    daemon.start()
    yield Client(daemon.socket)
    daemon.stop()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*args: object) -> Result:
        return CliRunner().invoke(app, ["--state", str(tmp_path), "net", *map(str, args)])

    return invoke


def out(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def events(client: Client, kind: str) -> list[Any]:
    return [each for each in client.get("/events")["events"] if each["kind"] == kind]


def test_the_network_that_runs_needs_no_name(client: Client, run: Run, lab: Path) -> None:
    assert "network five: 5 routers, 6 links, 2 stubs, routing static" in out(run("show"))
    client.delete("/links/r1--r2")
    for shown in (out(run("show")), out(run("show", lab)), out(run("show", "five"))):
        assert "unlike the lab file, until it is applied again; gone: r1--r2" in shown
    told = json.loads(out(run("show", "--json")))
    assert (told["name"], told["gone"]) == ("five", ["r1--r2"])
    assert [each["name"] for each in told["stubs"]] == ["desk", "yard"]


def test_a_link_is_changed_by_who_runs_it(client: Client, run: Run, lab: Path) -> None:
    told = out(run("link", lab, "r2", "r1", "--weight", "5", "--down", "--no-measure"))
    assert told.splitlines() == [
        "r1--r2: 2 ms, 100 Mbit/s, weight 5, down, by netem",
        "  changed  r1--r2",
        "  the lab file is not changed: applied again, it has the link as it says",
    ]
    (event,) = events(client, "link-changed")
    assert event["text"] == "2 ms, 100 Mbit/s, weight 5, down until the lab is applied again"
    refused = run("link", lab, "r1", "r2", "--jitter", "9 ms", "--no-measure")
    assert refused.exit_code == Exit.FAILED
    assert "no packet arrives before it left" in refused.stderr


def test_programs_are_started_and_ended_by_who_runs_the_network(client: Client, run: Run) -> None:
    assert "r1/x " in out(run("app", "start", "five", "r1", "send", "to=r3", "--name", "x"))
    assert json.loads(out(run("app", "list", "five", "--json")))["apps"][0]["running"] is True
    assert client.get("/routers/r1/apps/x")["running"] is True
    assert "ended by signal 15" in out(run("app", "stop", "five", "r1", "x"))
    out(run("app", "remove", "five", "r1", "x"))
    out(run("app", "remove", "five", "r1", "x"))
    assert client.get("/routers/r1/apps") == {"apps": []}
    assert [each["subject"] for each in events(client, "app-removed")] == ["r1/x"]
    assert "did you mean 'ping'?" in run("app", "start", "five", "r1", "pnig").stderr


def test_a_network_of_another_name_is_not_the_daemons(client: Client, run: Run) -> None:
    out(run("apply", FIVE, "--dry-run"))
    assert "no network five-routers is set" in run("app", "list", "five-routers").stderr
    assert client.get("/network")["name"] == "five"


@pytest.mark.real
def test_packets_take_another_way_when_the_api_is_told(tmp_path: Path) -> None:
    lab = lab_file(tmp_path, "api-net-test")
    daemon = Daemon(tmp_path / "state", lab, ephemeral=True)
    daemon.start()
    try:
        client = Client(daemon.socket)

        def way() -> list[str]:
            kept = Networks(Records(tmp_path / "state" / "network"), opens_nothing).kept(
                "api-net-test"
            )
            assert kept is not None
            hops = traced(kept.network, "desk", "yard", namespace_of, six=False)
            return [hop.node for hop in hops]

        assert way() == ["r1", "r2", "r3", "yard"]
        client.post("/links/r1--r2/down")
        assert way() == ["r1", "r5", "r4", "r3", "yard"]
        client.put("/routers/r6", {})
        for name in ("r1--r6", "r3--r6"):
            client.put(f"/links/{name}", {"latency_ms": 1})
        assert way() == ["r1", "r6", "r3", "yard"]
        probe = {"run": "ping", "parameters": {"to": "yard", "count": "2", "every": "200 ms"}}
        client.post("/routers/desk/apps", probe)
        deadline = time.monotonic() + 20
        while (ended := client.get("/routers/desk/apps/ping"))["running"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ended["exit_code"] == 0, client.text("/routers/desk/apps/ping/console")
        counters = {port["peer"]: port for port in client.get("/routers/r6")["ports"]}
        assert counters["r1"]["rx_packets"] > 0
        client.delete("/routers/r6")
        assert way() == ["r1", "r5", "r4", "r3", "yard"]
        daemon.reload()
        assert way() == ["r1", "r2", "r3", "yard"]
        assert client.get("/network")["links"][0]["state"] == "up"
    finally:
        daemon.stop()


def opens_nothing(name: str, machine: str) -> Any:
    raise AssertionError((name, machine))
