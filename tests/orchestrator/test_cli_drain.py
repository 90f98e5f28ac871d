"""`edgewake host drain` against an edgewake with hosts in memory: in text and in JSON."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from images.bootspec import Image
from orchestrator import cli
from orchestrator.cli import Exit
from orchestrator.cli_drain import _steps, register
from orchestrator.daemon import Daemon
from orchestrator.errors import StartFailed
from orchestrator.hypervisors.memory import MemoryHypervisor
from tests.ports import free_port
from web.client import Client

Run = Callable[..., Result]

host_app = typer.Typer(name="host")
host_app.callback()(lambda: None)
register(host_app)
whole = typer.Typer(cls=cli._Commands, rich_markup_mode=None)
whole.callback()(cli.edgewake)
whole.add_typer(host_app)
whole.command()(cli.status)
whole.command()(cli.move)

LAB = """\
name: t
zone: drain.test
dns: {{listen: 127.0.0.1:{port}}}
hosts:
  a:
    uri: memory:///
    capacity: {{cpu: 4, memory: 512 MiB}}
    network: {{name: net-a, create: true, bridge: ewt0, subnet: 10.9.0.0/24, gateway: 10.9.0.1,
      pool: 10.9.0.10-10.9.0.99}}
  b:
    uri: memory:///
    capacity: {{cpu: 4, memory: 512 MiB}}
    network: {{name: net-b, create: true, bridge: ewt1, subnet: 10.9.1.0/24, gateway: 10.9.1.1,
      pool: 10.9.1.10-10.9.1.99}}
images:
  tiny: {{family: linux, kernel: {image.kernel}, initrd: {image.initrd}}}
defaults:
  image: tiny
  resources: {{cpu: 0.1, memory: 100 MiB}}
  ready: {{tcp: 80}}
  ttl: 0 s
  idle: never
services:
  web: {{}}
  bound: {{constraints: {{hosts: [a]}}}}
  live: {{migrate: live}}
"""


@pytest.fixture
def state(tmp_path: Path, image: Image) -> Iterator[Path]:
    """Run an edgewake in this process, and return its state directory."""
    lab, folder = tmp_path / "lab.yaml", tmp_path / "state"
    port = free_port()
    lab.write_text(LAB.format(image=image, port=port))
    running = Daemon(folder, lab, ephemeral=True)
    running.start()
    yield folder
    running.stop()


@pytest.fixture
def run(state: Path) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(whole, ["--state", str(state), *args])

    return invoke


@pytest.fixture
def client(state: Path) -> Client:
    return Client(state / "control.sock")


def woken_on(client: Client, service: str) -> str:
    return str(client.post(f"/services/{service}/wake")["endpoints"][0]["host"])


def test_it_shows_progress_and_ends_when_the_host_is_empty(run: Run, client: Client) -> None:
    host = woken_on(client, "web")
    result = run("host", "drain", host)
    assert result.exit_code == Exit.OK, result.output
    assert f"{host}: drained 1 of 1" in result.output
    (instance,) = client.get("/status")["services"][0]["instances"]
    assert instance["host"] != host
    assert re.search(rf"{host} +drained: 1 of 1 moved", run("status").output)
    assert "in use again" in run("host", "drain", host, "--undo").output
    assert "drained" not in run("status").output


def test_what_stays_is_listed_and_ends_it_with_1_unless_forced(run: Run, client: Client) -> None:
    assert woken_on(client, "bound") == "a"
    result = run("host", "drain", "a")
    assert result.exit_code == Exit.FAILED
    assert "ew-t-bound-0 stays: bound: no host can take it" in result.output
    assert "drained 0 of 1, 1 left; --force ends what cannot move" in result.output
    forced = run("host", "drain", "a", "--force")
    assert forced.exit_code == Exit.OK, forced.output
    assert client.get("/status")["services"][1]["state"] == "asleep"


def test_what_cannot_be_ended_is_listed_with_its_remedy_and_ends_it_with_1(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = woken_on(client, "web")

    def stop(_driver: MemoryHypervisor, name: str) -> None:
        raise StartFailed(host, f"stop {name}: it is locked", hint="restart libvirtd")

    monkeypatch.setattr(MemoryHypervisor, "stop", stop)
    result = run("host", "drain", host)
    assert result.exit_code == Exit.FAILED
    why = f"host {host}: stop ew-t-web-0: it is locked; restart libvirtd"
    assert f"{host}: ew-t-web-0 stays: it cannot be ended: {why}" in result.output
    assert "drained 0 of 1, 1 left\n" in result.output, "--force would not help"
    assert "cannot be ended" in run("status").output
    monkeypatch.undo()


def test_what_could_not_be_migrated_is_told(run: Run, client: Client) -> None:
    host = woken_on(client, "live")
    result = run("host", "drain", host)
    assert result.exit_code == Exit.OK, result.output
    why = "a and b have different subnets"
    assert re.search(rf"ew-t-live-0 is booted elsewhere: [ab]: {why}", result.output), result.output


def test_how_far_a_migration_is_is_a_line_of_its_own() -> None:
    document: dict[str, Any] = {"moved": 1, "total": 3, "booted": [], "migrating": []}
    assert _steps(document) == ["drained 1 of 3"]
    document["migrating"] = [{"instance": "x", "to": "b", "percent": None, "left_bytes": None}]
    assert _steps(document)[0] == "x is being migrated to b"
    document["migrating"] = [{"instance": "x", "to": "b", "percent": 43, "left_bytes": 12 * 2**20}]
    assert _steps(document)[0] == "x is being migrated to b: 43 %, 12 MiB left"


def test_json_is_the_document_of_the_api(run: Run) -> None:
    result = run("host", "drain", "b", "--json")
    document = json.loads(result.output)
    assert document["host"] == "b"
    assert document["drain"]["state"] == "drained"
    assert json.loads(run("host", "drain", "b", "--undo", "--json").output) == {
        "host": "b",
        "drain": None,
    }


def test_without_waiting_it_only_begins(run: Run, client: Client) -> None:
    assert woken_on(client, "bound") == "a"
    result = run("host", "drain", "a", "--no-wait", "--json")
    assert result.exit_code == Exit.OK
    assert json.loads(result.output)["drain"]["state"] == "draining"


def test_an_unknown_host_is_told(run: Run) -> None:
    result = run("host", "drain", "nope")
    assert result.exit_code == Exit.FAILED
    assert "the lab has: a, b" in result.output


def test_undo_and_force_do_not_go_together(run: Run) -> None:
    assert run("host", "drain", "a", "--undo", "--force").exit_code == Exit.USAGE


# --- edgewake move ----------------------------------------------------------------------------


def test_a_service_is_moved_and_each_step_is_told(run: Run, client: Client) -> None:
    old = woken_on(client, "web")
    new = "b" if old == "a" else "a"
    result = run("move", "web", new)
    assert result.exit_code == Exit.OK, result.output
    assert [line.split()[1] for line in result.stdout.splitlines()[:4]] == [
        "boot",
        "announce",
        "withdraw",
        "stop",
    ]
    assert result.stdout.endswith(f"web: on {new} now\n")
    back = run("move", "web", old, "--json")
    assert json.loads(back.stdout)["host"] == old
    assert [each["host"] for each in client.get("/services/web")["instances"]] == [old]


def test_what_cannot_move_is_told_with_the_reason(run: Run, client: Client) -> None:
    assert woken_on(client, "bound") == "a"
    result = run("move", "bound", "b")
    assert result.exit_code == Exit.FAILED
    assert "b cannot take bound" in result.stderr
    assert "edgewake explain bound" in result.stderr
    assert "no such host" in run("move", "bound", "nowhere").stderr
    assert "not awake" in run("move", "web", "b").stderr
