"""The commands `edgewake net ...`, on a machine in memory, and once for real."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator import local
from orchestrator.cli import Exit, app
from orchestrator.linux.records import Records
from orchestrator.network import Found, LinkEngine
from orchestrator.networks import Networks
from orchestrator.routers.memory import MemoryKernel, MemoryRouters
from orchestrator.state_dir import StateDir
from tests.results import document_of

FIVE = Path(__file__).parents[2] / "examples" / "five-routers.yaml"

Run = Callable[..., Result]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> MemoryKernel:
    """Return the machine in memory that all commands of a test work on."""
    made = MemoryKernel()

    def networks_of(state: StateDir) -> Networks:
        return Networks(
            Records(state.path / "network"),
            lambda name, machine: MemoryRouters(f"us {name}", made, machine),
        )

    monkeypatch.setattr(local, "networks_of", networks_of)
    return made


@pytest.fixture
def run(tmp_path: Path, kernel: MemoryKernel) -> Run:
    def invoke(*args: object) -> Result:
        if args[0] == "link":  # there are no packets in memory
            args = (*args, "--no-measure")
        return CliRunner().invoke(app, ["--state", str(tmp_path), "net", *map(str, args)])

    return invoke


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def refused(result: Result) -> str:
    assert result.exit_code == Exit.FAILED, result.output
    return result.stderr


def test_apply_makes_the_network_and_says_what_it_did(run: Run) -> None:
    first, made, *_, last = lines(run("apply", FIVE))
    assert first.startswith("network five-routers: 5 routers, 6 links, 2 stubs, set in ")
    things = "desk, r1, r1--r2, r1--r5, r2, r2--r3, r2--r4, r3, r3--r4, r4, r4--r5, r5, yard"
    assert made == f"  made     {things}"
    assert last == "  links by netem    r1--r2, r1--r5, r2--r3, r2--r4, r3--r4, r4--r5"
    assert "  nothing had to change" in lines(run("apply", FIVE))


def test_apply_as_json_has_all_names_and_engines(run: Run) -> None:
    answer = document_of(run("apply", FIVE, "--json"))
    assert len(answer["made"]) == 13
    assert answer["engines"]["r2--r4"] == "netem"


def test_a_dry_run_and_a_try_in_memory_change_nothing(run: Run) -> None:
    assert lines(run("apply", FIVE, "--dry-run"))[0] == "network five-routers: what would change"
    assert document_of(run("apply", FIVE, "--dry-run", "--json"))["dry_run"] is True
    assert "made" in run("apply", FIVE, "--back-end", "memory").stdout
    assert lines(run("show", "--all")) == ["no network is set on this machine"]


def test_a_lab_that_does_not_run_its_network_is_told_how(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "off.yaml"
    file.write_text(FIVE.read_text().replace("run: true", "run: false"))
    assert "write `network: {run: true}` into it" in refused(run("apply", file))
    assert "'pc1' is none of network.machines: none" in refused(
        run("apply", FIVE, "--machine", "pc1")
    )


def test_show_has_routers_links_and_stubs(run: Run) -> None:
    lines(run("apply", FIVE))
    assert lines(run("show", "--all")) == [
        "network five-routers: 5 routers, 6 links, 2 stubs, routing static"
    ]
    shown = " ".join(run("show", "five-routers").stdout.split())
    assert "r4--r5 3 ms ± 1 ms, 100 Mbit/s 1 netem up" in shown
    assert "r2--r4 9 ms, 0.5 % loss, 10 Mbit/s 2 netem up" in shown
    assert "yard r3 10.251.2.0/24 fded:ed:2::/64 clients at 10.251.2.2 up" in shown
    answer = document_of(run("show", FIVE, "--json"))
    assert answer["routers"][0] == {
        "name": "r1",
        "address": "10.255.0.1",
        "address6": "fded:ed::1",
        "machine": "",
        "state": "up",
        "ports": answer["routers"][0]["ports"],
    }
    assert [port["peer"] for port in answer["routers"][0]["ports"]] == ["r2", "r5", "desk"]
    assert answer["links"][5]["loss"] == 0.005
    assert [each["name"] for each in document_of(run("show", "--all", "--json"))["networks"]] == [
        "five-routers"
    ]


def test_show_wants_one_or_all(run: Run) -> None:
    assert run("show").exit_code == Exit.USAGE
    assert run("show", FIVE, "--all").exit_code == Exit.USAGE
    assert "no network nowhere is set on this machine" in refused(run("show", "nowhere"))


def test_a_link_is_changed_until_the_file_is_applied_again(run: Run) -> None:
    lines(run("apply", FIVE))
    assert lines(run("link", FIVE, "r2", "r1", "--down")) == [
        "r1--r2: 2 ms, 100 Mbit/s, weight 1, down, by netem",
        "  changed  r1--r2",
        "  the lab file is not changed: applied again, it has the link as it says",
    ]
    wishes = ("--latency", "7 ms", "--jitter", "1ms", "--loss", "2 %", "--bandwidth", "1 Gbit/s")
    (told, *_) = lines(run("link", "five-routers", "r1", "r2", *wishes, "--weight", "2.5", "--up"))
    assert told == "r1--r2: 7 ms ± 1 ms, 2 % loss, 1 Gbit/s, weight 2.5, up, by netem"
    assert lines(run("link", FIVE, "r1", "r2")) == [told]
    answer = document_of(run("link", FIVE, "r1", "r2", "--weight", "3", "--json"))
    assert (answer["link"]["weight"], answer["changes"]["changed"]) == (3.0, ["r1--r2"])
    assert "  changed  r1--r2" in lines(run("apply", FIVE))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("r1", "r3"), Exit.FAILED, "no link between r1 and r3"),
        (("r1", "r2", "--weight", "0"), Exit.USAGE, "--weight must be more than 0"),
        (("r1", "r2", "--latency", "5"), Exit.USAGE, "--latency: '5' has no unit"),
        (("r1", "r2", "--loss", "101 %"), Exit.FAILED, "more than all packets"),
        (("r1", "r2", "--bandwidth", "0 Mbit/s"), Exit.FAILED, "without bandwidth"),
        (("r1", "r2", "--jitter", "3 ms"), Exit.FAILED, "no packet arrives before it left"),
    ],
)
def test_what_a_link_cannot_be_is_refused(
    run: Run, options: tuple[str, ...], code: Exit, message: str
) -> None:
    lines(run("apply", FIVE))
    result = run("link", FIVE, *options)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())


def test_paths_are_those_of_the_network_that_runs_or_else_of_the_file(run: Run) -> None:
    assert lines(run("path", FIVE, "desk", "yard")) == [
        "desk to yard: cost 2, 4 ms",
        "  r1 → r2 → r3",
    ]
    assert "no network five-routers is set" in refused(run("path", "five-routers", "r1", "r2"))
    lines(run("apply", FIVE))
    lines(run("link", FIVE, "r1", "r2", "--down"))
    assert lines(run("path", FIVE, "desk", "yard"))[1:] == ["  r1 → r5 → r4 → r3"]
    lines(run("link", FIVE, "r1", "r5", "--down"))
    assert lines(run("path", FIVE, "r1", "yard")) == ["r1 to yard: there is no way"]
    answer = document_of(run("path", FIVE, "r5", "r2", "--json"))
    assert answer == {
        "cost": 3.0,
        "latency_ms": 12.0,
        "paths": [["r5", "r4", "r2"], ["r5", "r4", "r3", "r2"]],
    }


def test_a_node_that_is_not_there_is_said(run: Run) -> None:
    assert "no router or clients 'r9'" in refused(run("path", FIVE, "r1", "r9"))
    lines(run("apply", FIVE))
    told = refused(run("exec", FIVE, "r9", "--", "true"))
    assert "there are here: desk, r1, r2, r3, r4, r5, yard" in told


@pytest.mark.parametrize("command", ["show", "remove", "dot", "load"])
def test_a_lab_file_that_is_not_there_is_no_name(run: Run, tmp_path: Path, command: str) -> None:
    result = run(command, tmp_path / "typo.yaml")
    assert result.exit_code == Exit.LAB_INVALID
    assert "typo.yaml: cannot be read: No such file" in " ".join(result.stderr.split())


def test_that_a_link_was_the_last_way_is_said(run: Run) -> None:
    lines(run("apply", FIVE))
    assert not any("no way" in line for line in lines(run("link", FIVE, "r1", "r2", "--down")))
    assert "  no way is left from r1 to r5" in lines(run("link", FIVE, "r1", "r5", "--down"))


def test_remove_leaves_nothing(run: Run, kernel: MemoryKernel) -> None:
    lines(run("apply", FIVE))
    assert lines(run("remove", FIVE))[1].startswith("  removed  desk, r1, ")
    assert lines(run("remove", "five-routers"))[1:] == ["  nothing had to change"]
    assert MemoryRouters("us five-routers", kernel).found() == Found()


def test_dot_draws_links_that_are_down_dotted(run: Run) -> None:
    lines(run("apply", FIVE))
    lines(run("link", FIVE, "r1", "r2", "--down"))
    drawn = lines(run("dot", FIVE))
    assert drawn[0] == 'graph "five-routers" {'
    label = "2 ms, 100 Mbit/s, weight 1"
    assert f'  "r1" -- "r2" [label="{label}", style=dotted];' in drawn
    assert f'  "r2" -- "r3" [label="{label}"];' in drawn


TWO = """\
zone: two.test
network: {run: true, machines: {pc1: 192.0.2.1, pc2: 192.0.2.2}}
hosts:
  pc1:
    uri: memory:///one
    capacity: {cpu: 1, memory: 1 GiB}
    network: {name: n1, subnet: 10.1.0.0/24, gateway: 10.1.0.1, pool: 10.1.0.10-10.1.0.20}
  pc2:
    uri: xen+ssh://root@pc2/system
    capacity: {cpu: 1, memory: 1 GiB}
    network: {name: n2, subnet: 10.2.0.0/24, gateway: 10.2.0.1, pool: 10.2.0.10-10.2.0.20}
routers: {west: {host: pc1}, middle: {host: pc1}, east: {host: pc2}}
links:
  - {between: [west, middle], latency: 0 ms, bandwidth: 1 Gbit/s}
  - {between: [middle, east], latency: 0 ms, bandwidth: 1 Gbit/s}
"""


def test_each_machine_makes_its_own_routers(run: Run, tmp_path: Path) -> None:
    lab = tmp_path / "two.yaml"
    lab.write_text(TWO)
    made = document_of(run("apply", lab, "--json"))["made"]
    assert sorted(made) == ["east--middle", "middle", "middle--west", "west"]
    assert " ".join(run("show", lab).stdout.split()).count("on pc2") == 1
    lines(run("remove", lab))
    made = document_of(run("apply", lab, "--machine", "pc2", "--json"))["made"]
    assert sorted(made) == ["east", "east--middle"]


def test_an_engine_that_is_not_here_is_an_error_before_anything_is_made(
    run: Run, kernel: MemoryKernel
) -> None:
    for engine in LinkEngine:
        kernel.engines[engine] = "no such thing in this kernel"
    assert "no such thing in this kernel" in refused(run("apply", FIVE))
    assert MemoryRouters("us five-routers", kernel).found() == Found()


# --- for real -------------------------------------------------------------------------------------

Edgewake = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def edgewake(tmp_path: Path) -> Iterator[Edgewake]:
    """Return what runs a command in a process of its own; the network is removed at the end."""

    def invoke(*args: object) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "orchestrator", "--state", str(tmp_path), "net"]
        return subprocess.run(
            [*program, *map(str, args)], capture_output=True, text=True, check=False, timeout=120
        )

    yield invoke
    assert invoke("remove", tmp_path / "lab.yaml").returncode == 0


@pytest.mark.real
def test_packets_go_the_way_that_is_shown_and_programs_run_inside(
    edgewake: Edgewake, tmp_path: Path
) -> None:
    lab = tmp_path / "lab.yaml"
    lab.write_text(FIVE.read_text().replace("name: five-routers", "name: cli-net-test"))
    applied = edgewake("apply", lab)
    assert applied.returncode == 0, applied.stderr
    for option, prefix in ((), "10.25"), (("--ipv6",), "fded:"):
        told = json.loads(
            edgewake("path", lab, "desk", "yard", "--trace", "--json", *option).stdout
        )
        assert [hop["node"] for hop in told["trace"]] == ["r1", "r2", "r3", "yard"]
        assert all(hop["address"].startswith(prefix) for hop in told["trace"])
    inside = edgewake(
        "exec",
        lab,
        "desk",
        "--",
        sys.executable,
        "-c",
        "import socket;print(socket.if_nameindex());exit(7)",
    )
    assert inside.returncode == 7, inside.stderr
    assert "eth0" in inside.stdout
    changed = json.loads(edgewake("link", lab, "r1", "r2", "--down", "--json").stdout)
    assert changed["loss"]["sent"] >= 50
    assert changed["loss"]["lost"] < changed["loss"]["sent"] // 2
    told = json.loads(edgewake("path", lab, "desk", "yard", "--trace", "--json").stdout)
    assert [hop["node"] for hop in told["trace"]] == ["r1", "r5", "r4", "r3", "yard"]
    assert told["paths"] == [["r1", "r5", "r4", "r3"]]
