"""The commands `edgewake net app ...` and what of a lab's programs `net apply` starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator import local
from orchestrator.cli import Exit, app
from orchestrator.linux.records import Records
from orchestrator.network import PortCounters
from orchestrator.networks import Networks
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.routers.memory_apps import MemoryApps
from orchestrator.state_dir import StateDir

FIVE = Path(__file__).parents[2] / "examples" / "five-routers.yaml"

Run = Callable[..., Result]


@pytest.fixture
def apps() -> MemoryApps:
    nodes = {"r1", "r2", "r3", "r4", "r5", "desk", "yard"}
    acts = {"ping": lambda _argv: (b"pong\n", 0), "echo": lambda argv: (argv[1].encode(), 3)}
    return MemoryApps(lambda: nodes, acts)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apps: MemoryApps) -> Run:
    kernel = MemoryKernel()

    def networks_of(state: StateDir) -> Networks:
        return Networks(
            Records(state.path / "network"),
            lambda name, machine: MemoryRouters(f"us {name}", kernel, machine),
            lambda _name: apps,
        )

    monkeypatch.setattr(local, "networks_of", networks_of)

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(app, ["--state", str(tmp_path), "net", *map(str, args)])

    return invoke


def out(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def listed(run: Run) -> dict[str, Any]:
    told = json.loads(out(run("app", "list", "five-routers", "--json")))
    return {f"{each['router']}/{each['name']}": each for each in told["apps"]}


def test_a_program_is_started_listed_stopped_and_removed(run: Run) -> None:
    out(run("apply", FIVE))
    assert out(run("app", "list", FIVE)) == "no program was started\n"
    started = out(run("app", "start", FIVE, "r1", "send", "to=r3", "rate=5", "--name", "load"))
    assert started.startswith("r1/load ")
    assert " running " in started
    assert listed(run)["r1/load"]["argv"][4:] == ["send", "10.255.0.3", "5001", "5", "200", "0"]
    assert "input" not in listed(run)["r1/load"]
    assert "ended by signal 15" in out(run("app", "stop", FIVE, "r1", "load"))
    told = json.loads(out(run("app", "remove", FIVE, "r1", "load", "--json")))
    assert told == {"removed": "r1/load"}
    assert listed(run) == {}


def test_what_a_program_prints_is_shown_and_followed_to_its_end(run: Run) -> None:
    out(run("apply", FIVE))
    out(run("app", "start", FIVE, "desk", "ping", "to=yard"))
    assert out(run("app", "console", FIVE, "desk", "ping")) == "pong\n"
    told = json.loads(out(run("app", "console", FIVE, "desk", "ping", "--json")))
    assert told == {"app": "desk/ping", "console": "pong\n"}
    assert out(run("app", "watch", FIVE, "desk", "ping")) == "pong\n"
    out(run("app", "start", FIVE, "r2", "command", "line=echo no", "--name", "fails"))
    failed = run("app", "watch", FIVE, "r2", "fails")
    assert (failed.exit_code, failed.stdout) == (Exit.FAILED, "no")
    assert failed.stderr == "r2/fails: ended with 3\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("start", FIVE, "r1", "pnig"), "r1: there is no program 'pnig'; did you mean 'ping'?"),
        (("start", FIVE, "r9", "echo"), "no router or clients 'r9'; known: r1, r2"),
        (("start", FIVE, "r1", "ping", "to=r9"), "to of ping must be a router, a stub or an IP"),
        (("stop", FIVE, "r1", "x"), "r1/x: there is no such program"),
        (("watch", FIVE, "r1", "x"), "r1/x: there is no such program"),
        (("console", FIVE, "r1", "x"), "r1/x: there is no such program"),
        (("list", "another"), "no network another is set"),
    ],
)
def test_what_cannot_be_is_said(run: Run, args: tuple[object, ...], message: str) -> None:
    out(run("apply", FIVE))
    result = run("app", *args)
    assert result.exit_code == Exit.FAILED
    assert message in result.stderr


@pytest.mark.parametrize("args", [("to",), ("=x",), ("to=r1", "--name", "a/b")])
def test_what_is_written_wrongly_is_a_usage_error(run: Run, args: tuple[str, ...]) -> None:
    out(run("apply", FIVE))
    assert run("app", "start", FIVE, "r1", "ping", *args).exit_code == Exit.USAGE


def test_the_catalogue_is_listed(run: Run) -> None:
    told = out(run("app", "programs"))
    assert "firewall: Filters packets with nftables" in told
    assert "  to         a router, a stub, or an IP address (required)" in told
    assert list(json.loads(out(run("app", "programs", "echo", "--json")))) == ["echo"]
    assert run("app", "programs", "none").exit_code == Exit.USAGE


def test_a_labs_programs_come_and_go_with_its_network(run: Run, tmp_path: Path) -> None:
    lab = tmp_path / "five-routers.yaml"

    def with_apps(written: str) -> None:
        text = FIVE.read_text().replace("  r1: {", f"  r1: {{apps: {{{written}}}, ")
        lab.write_text(text)

    with_apps("in: {run: receive}, once: {run: ping, parameters: {to: r2}}")
    assert "r1/in, r1/once" in out(run("apply", lab, "--json")).replace('",\n    "', ", ")
    out(run("app", "start", lab, "r2", "echo"))
    first = listed(run)
    assert [first[name]["running"] for name in ("r1/in", "r1/once", "r2/echo")] == [
        True,
        False,
        True,
    ]
    out(run("apply", lab))
    assert listed(run) == first, "what has ended is not begun again, what people started stays"
    with_apps("in: {run: receive, parameters: {port: 6000}}")
    out(run("apply", lab))
    assert "6000" in listed(run)["r1/in"]["argv"]
    out(run("remove", lab))
    out(run("apply", FIVE))
    assert listed(run) == {}


def test_how_busy_a_network_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines, JSON, DOT, the lab's graph, and metrics."""
    looks = iter(range(1000))

    def counters(_self: MemoryRouters) -> tuple[PortCounters, ...]:
        return (PortCounters("r1", "r2", tx_bytes=10**7 * next(looks)),)

    out(run("apply", FIVE))
    out(run("app", "start", FIVE, "r1", "send", "to=r3"))
    monkeypatch.setattr(MemoryRouters, "counters", counters)
    monkeypatch.setattr("time.sleep", lambda _s: None)
    monkeypatch.setattr("orchestrator.network_monitor.LEAST_S", 0.0)
    lines = out(run("load", FIVE))
    assert "link   r1--r2 " in lines
    assert "router r1 " in lines
    busy = json.loads(out(run("load", "five-routers", "--json")))
    assert busy["links"]["r1--r2"]["share"] > 0
    assert busy["links"]["r2--r3"]["share"] == 0
    assert '"r2" -- "r3" [label="2 ms, 100 Mbit/s, weight 1, 0%", penwidth=1.0];' in out(
        run("load", FIVE, "--form", "dot")
    )
    nodes = json.loads(out(run("load", FIVE, "--form", "graph")))["nodes"]
    assert nodes[0]["load"]["tx_mbps"] > 0
    assert 'edgewake_app_running{network="five-routers",router="r1",app="send"} 1.0' in out(
        run("load", FIVE, "--form", "metrics")
    )
    assert run("load", "five-routers", "--form", "graph").exit_code == Exit.USAGE
