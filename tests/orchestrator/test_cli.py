"""The command line against an edgewake with hosts in memory: each command, each exit code."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from dns_boot.query import ask
from images.bootspec import Image
from orchestrator import cli, cli_trace, daemon, display
from orchestrator.changes import Boot, Withdraw
from orchestrator.cli import Exit, app, unseen
from orchestrator.daemon import Daemon, Tracing
from orchestrator.errors import EdgewakeError, InstallationError, LabError, StoreError
from orchestrator.hypervisors.memory import MemoryMachine
from orchestrator.steering.base import Route
from tests.ports import free_port
from tests.results import document_of, refusal
from tests.waiting import PATIENCE_S, eventually
from web.client import Client
from web.models.plans import ChangeDocument

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()


def _commands(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command, those of groups with the groups' names before theirs."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if getattr(command, "commands", None) is None:
            yield f"{before}{name}", command
        else:
            yield from _commands(command, f"{before}{name} ")


COMMANDS = dict(_commands())
NO_RESULTS = {"schema", "demo", "metrics", "net exec", "net dot", "net app watch"}
HEAVY = {"flask", "libvirt", "networkx", "pulp", "sqlalchemy", "pydantic", "dnslib", "rich.table"}

LAB = """\
name: t
zone: cli.test
dns: {{listen: 127.0.0.1:{port}}}
hosts:
  box:
    uri: memory:///
    capacity: {{cpu: 4, memory: 512 MiB}}
    network:
      name: net-t
      create: true
      bridge: ewt0
      subnet: 10.9.0.0/24
      gateway: 10.9.0.1
      pool: 10.9.0.10-10.9.0.99
images:
  tiny: {{family: linux, kernel: {image.kernel}, initrd: {image.initrd}}}
  gone: {{family: linux, kernel: gone, initrd: gone}}
defaults:
  image: tiny
  resources: {{cpu: 0.1, memory: 100 MiB}}
  ready: {{tcp: 80}}
  ttl: 0 s
services:
  web: {{}}
  big: {{resources: {{cpu: 1, memory: 450 MiB}}}}
  broken: {{image: gone}}
"""
TEXT = "".join(f"[{number}] a line\n" for number in range(1000))
FITS = "450 MiB", "150 MiB"  # as it is, `big` and `web` do not fit on the box together


@pytest.fixture
def lab(tmp_path: Path, image: Image) -> Path:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB.format(port=free_port(), image=image))
    return file


@pytest.fixture
def weighed(tmp_path: Path, lab: Path) -> Path:
    """Return a lab whose one service is either near or cheap to run."""
    head = lab.read_text().partition("hosts:")[0]
    images = lab.read_text().partition("images:")[2].partition("  gone:")[0]
    host = """\
  {name}:
    uri: memory:///
    capacity: {{cpu: 4, memory: 512 MiB}}
    energy: {{idle: {watts} W, busy: {watts} W}}
    network:
      name: net-{name}
      create: true
      bridge: ewt{number}
      subnet: 10.9.{number}.0/24
      gateway: 10.9.{number}.1
      pool: 10.9.{number}.10-10.9.{number}.99
"""
    near, far = (
        host.format(name=name, watts=watts, number=number)
        for number, (name, watts) in enumerate((("near", 90), ("far", 10)))
    )
    file = tmp_path / "weighed.yaml"
    file.write_text(
        f"""{head}hosts:
{near}{far}
routers:
  access: {{}}
clients:
  home: {{subnets: [192.0.2.0/24], router: access, rate: 1/s}}
links:
  - {{between: [access, near], latency: 1 ms, bandwidth: 1 Gbit/s}}
  - {{between: [access, far], latency: 9 ms, bandwidth: 1 Gbit/s}}
images:{images}
services:
  web:
    image: tiny
    resources: {{cpu: 0.1, memory: 100 MiB}}
    ready: {{tcp: 80}}
"""
    )
    return file


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> MemoryMachine:
    """Return the machine that every host in memory is on, also after a restart."""
    machine = MemoryMachine()
    monkeypatch.setattr(daemon, "MemoryMachine", lambda: machine)
    return machine


@pytest.fixture
def up(state: Path, lab: Path, machine: MemoryMachine) -> Iterator[Daemon]:
    """Return a running edgewake."""
    running = Daemon(state, lab)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def run(state: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return what runs a command with the state directory of this test."""
    monkeypatch.setattr(daemon.logs, "set_up", lambda *_: None)  # it is for a whole process

    def invoke(*args: str, stdin: str = "") -> Result:
        return CliRunner().invoke(app, ["--state", str(state), *args], input=stdin)

    return invoke


# --- the main job -----------------------------------------------------------------------------


def test_a_query_wakes_a_service_and_every_command_can_be_used_on_it(
    up: Daemon, run: Callable[..., Result]
) -> None:
    reply = ask(up.dns_address, "web.cli.test")
    assert reply.rcode == "NOERROR"
    services = {each["name"]: each for each in document_of(run("status", "--json"))["services"]}
    assert services["web"]["state"] == "awake"
    assert [i["address"] for i in services["web"]["instances"]] == list(reply.addresses)
    (wake,) = document_of(run("trace", "web", "--json"))["wakes"]
    assert wake["outcome"] == "ready"
    assert "is up" in document_of(run("logs", "web", "--json"))["console"]
    assert document_of(run("sleep", "web", "--json"))["slept"] == ["ew-t-web-0"]
    assert (
        document_of(run("wake", "web", "--json"))["endpoints"][0]["address"] == reply.addresses[0]
    )


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["wake", "web"],
        ["wake", "web", "--client", "192.0.2.1"],
        ["sleep", "web"],
        ["logs", "web"],
        ["trace"],
        ["plan", "{lab}"],
        ["apply", "{lab}", "--dry-run"],
        ["apply", "{lab}", "--yes"],
    ],
    ids=" ".join,
)
def test_json_is_json(
    up: Daemon, run: Callable[..., Result], lab: Path, command: list[str]
) -> None:
    lab.write_text(lab.read_text().replace(*FITS))
    result = run(*(part.format(lab=lab) for part in command), "--json")
    assert isinstance(document_of(result), dict)


def test_the_schema_is_json(run: Callable[..., Result]) -> None:
    assert document_of(run("schema"))["title"] == "edgewake lab file"


def test_people_are_told_what_happens(up: Daemon, run: Callable[..., Result]) -> None:
    """Run the commands in the order a newcomer would; each says the fact that matters."""
    for command, said in [
        (["status"], r"web +asleep +cold, healthy: a query wakes it"),
        (["trace"], r"no wakes yet"),
        (["wake", "web"], r"web: 10\.9\.0\.\d+ on box \(ew-t-web-0\)\n(.|\n)*first answer"),
        (["wake", "web"], r"it was awake"),
        (["status"], r"web +awake +box +10\.9\.0\.\d+ "),
        (["status"], r"box +reachable +0\.1 of 4 +100 of 512 MiB"),
        (["trace", "web"], r"of their time"),
        (["logs", "web"], r"ew-t-web-0 is up\n$"),
        (["abilities"], r"nothing has been tried yet"),
        (["sleep", "web"], r"web: ew-t-web-0 went to sleep, paused now"),
        (["status"], r"web +asleep +box +\S+ +paused, healthy: a query wakes it"),
        (["abilities"], r"box +\w+ +paused +yes"),
        (["sleep", "web", "--to", "cold"], r"web: ew-t-web-0 went to sleep, cold now"),
        (["sleep", "web"], r"web: cold now"),
        (["abilities", "--forget"], r"forgotten; what guests survive"),
    ]:
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert re.search(said, result.stdout), result.stdout


def test_csv_has_one_line_per_wake(up: Daemon, run: Callable[..., Result]) -> None:
    run("wake", "web")
    run("sleep", "web")
    run("wake", "web")
    wakes = list(csv.DictReader(run("trace", "--csv").stdout.splitlines()))
    assert [(each["id"], each["service"], each["rung"]) for each in wakes] == [
        ("1", "web", "cold"),
        ("2", "web", "paused"),
    ]
    assert 0 < float(wakes[0]["define_at_s"]) < float(wakes[0]["reply_at_s"])
    assert float(wakes[0]["total_s"]) == float(wakes[0]["reply_at_s"])


def test_a_summary_has_percentiles_per_service_and_stage(
    up: Daemon, run: Callable[..., Result]
) -> None:
    run("wake", "web")
    lines = document_of(run("trace", "--summary", "--json"))["summary"]
    assert {line["service"] for line in lines} == {"web"}
    (total,) = (line for line in lines if line["stage"] == "total")
    assert total["count"] == 1
    assert 0 < total["p50_s"] == total["p99_s"]
    assert re.search(r"web +1 +guest's first answer +\d", run("trace", "--summary").stdout)


def test_wakes_can_be_followed_until_interrupted(
    up: Daemon, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("wake", "web")
    run("sleep", "web")
    turns = iter(["wake", "nothing"])

    def nap(seconds: float) -> None:
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        if turn == "wake":
            assert ask(up.dns_address, "web.cli.test").rcode == "NOERROR"

    monkeypatch.setattr(cli_trace.time, "sleep", nap)
    result = run("trace", "web", "--follow", "--csv", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert [each["id"] for each in csv.DictReader(result.stdout.splitlines())] == ["1", "2"]
    turns = iter(())
    assert "wake 2 of web" in run("trace", "-f", "--limit", "1").stdout


def test_wakes_are_kept_in_a_file_over_restarts(
    state: Path, lab: Path, machine: MemoryMachine, tmp_path: Path
) -> None:
    file = tmp_path / "wakes.csv"
    for _ in range(2):
        running = Daemon(state, lab, ephemeral=True, tracing=Tracing(csv=file))
        running.start()
        try:
            assert ask(running.dns_address, "web.cli.test").rcode == "NOERROR"
        finally:
            running.stop()
    with file.open(newline="") as lines:
        wakes = list(csv.DictReader(lines))
    assert [(wake["service"], wake["outcome"]) for wake in wakes] == [("web", "ready")] * 2
    assert all(float(wake["reply_at_s"]) > float(wake["parsed_at_s"]) > 0 for wake in wakes)


def test_traces_that_cannot_be_exported_are_told_at_the_start(
    run: Callable[..., Result], lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refusal(run("up", str(lab), "--trace-csv", str(tmp_path)), Exit.FAILED)
    assert f"{tmp_path}: the traces cannot be written there" in told
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "orchestrator.trace_otel", raising=False)
    told = refusal(run("up", str(lab), "--otel"), Exit.INSTALLATION)
    assert "pip install 'edgewake[otel]'" in told


def test_metrics_are_what_prometheus_reads(up: Daemon, run: Callable[..., Result]) -> None:
    text = run("metrics").stdout
    assert 'edgewake_services{state="asleep"} 3' in text
    assert "edgewake_dns_held_queries 0" in text


def test_queries_are_told_with_what_became_of_them(up: Daemon, run: Callable[..., Result]) -> None:
    assert run("queries").stdout == "no queries yet\n"
    with ThreadPoolExecutor(1) as thread:
        with up.orchestrator._waker.locks["web"]:  # so that it is not awake before it is waited for
            asked = thread.submit(ask, up.dns_address, "web.cli.test", timeout_s=PATIENCE_S)
            eventually(lambda: "edgewake_dns_held_queries 1" in run("metrics").stdout)
        assert asked.result().rcode == "NOERROR"
    assert ask(up.dns_address, "nobody.cli.test").rcode == "NXDOMAIN"
    while len(lines := run("queries").stdout.splitlines()) < 2:
        time.sleep(0.001)  # a query is noted after its reply was sent
    odd, cold = sorted(lines, key=lambda line: "web.cli.test" in line)
    assert re.search(r"A web\.cli\.test: NOERROR [\d.]+ \(cold, [\d.]+ ms, wake 1\)$", cold)
    assert odd.endswith(" ms)")
    assert run("queries", "--rcode", "nxdomain").stdout.splitlines() == [odd]
    of_web = document_of(run("queries", "--service", "web", "--json"))["queries"]
    assert [each["name"] for each in of_web] == ["web.cli.test"]
    counted = 'edgewake_dns_queries_total{type="A",rcode="NXDOMAIN",outcome="warm"} 1'
    assert counted in run("metrics").stdout


def test_events_are_the_lines_of_the_journal(up: Daemon, run: Callable[..., Result]) -> None:
    run("wake", "web")
    lines = run("events", "--limit", "100").stdout.splitlines()
    assert any("applied: " in line for line in lines)
    assert any(" web: " in line for line in lines)
    assert len(document_of(run("events", "--limit", "1", "--json"))["events"]) == 1


# --- plan and apply ---------------------------------------------------------------------------


def test_a_plan_of_a_file_needs_no_edgewake(run: Callable[..., Result], lab: Path) -> None:
    lab.write_text(lab.read_text().replace(*FITS))
    result = run("plan", str(lab))
    assert re.search(r"web +box", result.stdout), result.output
    assert "found by" in result.stdout
    assert document_of(run("plan", str(lab), "--json"))["plan"]["hosts"]["big"] == ["box"]


def test_the_steps_of_a_plan_are_numbered_and_what_stays_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = [Boot("web", "c", "by way of c to end a cycle"), Withdraw("web", "ew-t-web-0", "a")]
    display.print_steps([ChangeDocument.of(each).as_json() for each in steps], ["api"])
    assert capsys.readouterr().out.splitlines() == [
        "    1. boot      web on c (by way of c to end a cycle)",
        "    2. withdraw  ew-t-web-0 on a",
        "  api stays where it is: no order has room for it beside what runs",
    ]


def test_a_running_edgewake_plans_too(up: Daemon, run: Callable[..., Result], lab: Path) -> None:
    lab.write_text(lab.read_text().replace(*FITS))
    assert run("apply", str(lab)).exit_code == 0
    result = run("plan", "--apply")
    assert "carried out" in result.stdout, result.output
    assert "no instance has to end" in result.stdout


def test_a_front_shows_what_two_terms_cost_each_other(
    run: Callable[..., Result], weighed: Path, tmp_path: Path
) -> None:
    """The near host takes much power, the far one little: neither is better in both."""
    result = run("plan", str(weighed), "--front", "latency_ms,energy_w")
    assert "latency_ms (ms)" in result.stdout, result.output
    assert "2 points" in result.stdout
    assert "no point is missing" in result.stdout
    figure = tmp_path / "front.svg"
    command = ["plan", str(weighed), "--front", "latency_ms,energy_w", "--out", str(figure)]
    answer = document_of(run(*command, "--json"))
    assert [plan["hosts"]["web"] for plan in answer["plans"]] == [["near"], ["far"]]
    assert (answer["proven"], answer["units"]["energy_w"]) == (True, "W")
    assert "<svg" in figure.read_text()


def test_a_running_edgewake_has_the_same_front(
    up: Daemon, run: Callable[..., Result], lab: Path, weighed: Path
) -> None:
    lab.write_text(weighed.read_text())
    assert run("apply", str(lab)).exit_code == 0
    offline = document_of(run("plan", str(weighed), "--front", "energy_w,latency_ms", "--json"))
    online = document_of(run("plan", "--front", "energy_w,latency_ms", "--json"))
    assert [plan["terms"] for plan in online["plans"]] == [
        plan["terms"] for plan in offline["plans"]
    ]
    shown = run("plan", "--front", "energy_w,latency_ms").stdout
    (front,) = re.findall(r"edgewake plan point (\S+) POINT", shown)
    assert front != online["operation"]


def test_a_point_of_a_front_is_shown_and_gone_over_to(
    up: Daemon, run: Callable[..., Result], lab: Path, weighed: Path
) -> None:
    lab.write_text(weighed.read_text())
    assert run("apply", str(lab)).exit_code == 0
    run("wake", "web")
    (here,) = document_of(run("status", "--json"))["services"][0]["instances"]
    front = document_of(run("plan", "--front", "energy_w,latency_ms", "--json"))
    places = [plan["hosts"]["web"] for plan in front["plans"]]
    (there,) = [n for n, hosts in enumerate(places) if hosts != [here["host"]]]
    point = ["plan", "point", front["operation"], str(there + 1)]
    shown = run(*point).stdout
    assert re.search(r"energy_w +90 +10\b", shown), shown
    assert re.search(r"1\. boot +web on " + places[there][0], shown)
    assert document_of(run(*point, "--json"))["applied"] is False
    assert "carried out:" in run(*point, "--apply").stdout
    (now,) = document_of(run("status", "--json"))["services"][0]["instances"]
    assert [now["host"]] == places[there]
    assert "it has the plans 0 to 1" in refusal(run(*point[:3], "9"), Exit.FAILED)


def test_a_lab_file_tells_what_to_keep_warm(run: Callable[..., Result], weighed: Path) -> None:
    weighed.write_text(weighed.read_text().replace("rate: 1/s", "rate: 1/min"))
    result = run("plan", "--warm", str(weighed))
    assert result.exit_code == 0, result.output
    web = re.search(
        r"web +near +(\w+) +1 +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +default", result.stdout
    )
    assert web, result.stdout
    rung, mib, before, after, value = web.groups()
    assert (rung, mib, float(after)) == ("paused", "100", 3.679)
    assert float(before) == pytest.approx(367.879)  # 1 s x exp(-60 s x 1/min)
    assert float(value) == pytest.approx(1024 * 0.364200 / 60 / 100, rel=0.01)
    assert "memory held: 100 of" in result.stdout
    dear = document_of(run("plan", "--warm", str(weighed), "--mib-price", "1", "--json"))
    assert [(line["name"], line["rung"]) for line in dear["warm"]] == [("web", "saved")]
    assert dear["memory_mib"] == 0


def test_a_running_edgewake_tells_what_to_keep_warm(
    up: Daemon, run: Callable[..., Result], lab: Path, weighed: Path
) -> None:
    """What is awake now changes nothing: it rests where the plan says when it sleeps."""
    seldom = weighed.read_text().replace("rate: 1/s", "rate: 1/min")
    weighed.write_text(seldom + "    idle: {deepest: paused}\n")  # a boot in memory is as quick
    lab.write_text(weighed.read_text())
    assert run("apply", str(lab)).exit_code == 0
    offline = document_of(run("plan", "--warm", str(weighed), "--json"))
    assert run("wake", "web").exit_code == 0
    online = document_of(run("plan", "--warm", "--json"))
    assert online["targets"] == offline["targets"]
    placed = [(line["name"], line["host"], line["rung"]) for line in online["warm"]]
    assert placed == [(line["name"], line["host"], line["rung"]) for line in offline["warm"]]
    assert online["targets"][0]["name"] == "web"
    greedy = document_of(run("plan", "--warm", "--algorithm", "greedy", "--gap", "0.1", "--json"))
    assert (greedy["algorithm"], greedy["warm"]) == ("greedy", online["warm"])


def test_a_plan_is_made_as_it_is_asked_for(
    up: Daemon, run: Callable[..., Result], lab: Path, weighed: Path
) -> None:
    lab.write_text(weighed.read_text())
    assert run("apply", str(lab)).exit_code == 0
    asked = ["--algorithm", "first-fit", "--deadline", "5", "--gap", "0.1", "--json"]
    assert document_of(run("plan", *asked))["plan"]["algorithm"] == "first-fit"
    assert document_of(run("plan", str(weighed), *asked))["plan"]["algorithm"] == "first-fit"
    direct = document_of(run("plan", "--solver", "highs-direct", "--json"))["plan"]
    assert (direct["algorithm"], direct["solver"]) == ("auto", "highs-direct")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--front", "latency_ms,beauty"], "no term named 'beauty'; known: latency_ms, wake_ms"),
        (["--front", "latency_ms"], "two terms or more"),
        (["--front", "energy_w,energy_w"], "each once"),
        (["--front", "energy_w,latency_ms", "--out", "front.txt"], ".svg, .png, .pdf"),
        (["--front", "energy_w,latency_ms", "--algorithm", "tabu"], "does not go with"),
        (["--out", "front.svg"], "for --front"),
        (["--points", "4"], "for --front"),
        (["--front", "energy_w,wake_ms,hosts_on", "--points", "4"], "fronts of two terms"),
        (["--front", "energy_w,latency_ms", "--out", "gone/f.svg"], "there is no folder gone"),
        (["--algorithm", "magic"], "no placement algorithm named 'magic'; known: auto"),
        (["--warm", "--front", "energy_w,latency_ms"], "--warm does not go with"),
        (["--warm", "--algorithm", "tabu"], "no warm algorithm named 'tabu'; known: auto, exact"),
        (["--mib-price", "1"], "--mib-price is for --warm"),
        (["--solver", "magic"], "--solver: no solver named 'magic'; known: auto, highs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_senseless_options_of_a_plan_are_told(
    run: Callable[..., Result], lab: Path, options: list[str], said: str
) -> None:
    told = refusal(run("plan", str(lab), *options), Exit.USAGE)
    assert said in re.sub(r"[\s│]+", " ", told)


def test_a_plan_of_a_file_needs_no_daemon(
    run: Callable[..., Result], weighed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "orchestrator.daemon", None)  # its import takes longest
    assert run("plan", str(weighed)).exit_code == 0


def test_a_figure_that_cannot_be_written_is_told(
    run: Callable[..., Result], weighed: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken.svg").mkdir()
    out = str(tmp_path / "taken.svg")
    told = refusal(
        run("plan", str(weighed), "--front", "energy_w,latency_ms", "--out", out), Exit.FAILED
    )
    assert f"{out} cannot be written: Is a directory" in told


def test_apply_changes_what_runs_and_a_dry_run_does_not(
    up: Daemon, run: Callable[..., Result], lab: Path, machine: MemoryMachine
) -> None:
    run("wake", "web")
    lab.write_text(lab.read_text().replace("web: {}", "neu: {}"))
    result = run("apply", str(lab), "--dry-run")
    assert "not applied" in result.stdout
    assert re.search(r"stop +ew-t-web-0 on box", result.stdout)
    assert list(machine.guests) == ["ew-t-web-0"]
    assert "lab t: applied" in run("apply", str(lab)).stdout
    assert list(machine.guests) == []
    assert run("wake", "neu").exit_code == 0


def test_apply_says_where_packets_wake_nothing(
    up: Daemon, run: Callable[..., Result], lab: Path
) -> None:
    lab.write_text(lab.read_text().replace("memory:///", "qemu+ssh://far.invalid/system"))
    told = run("apply", str(lab), "--dry-run").output
    assert "note: box is on another machine" in told
    assert "`wake_on_traffic: false`" in told


def test_apply_asks_at_a_terminal_before_it_ends_anything(
    up: Daemon,
    run: Callable[..., Result],
    lab: Path,
    machine: MemoryMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "_at_terminal", lambda: True)
    run("wake", "web")
    lab.write_text(lab.read_text().replace("web: {}", "neu: {}"))
    assert run("apply", str(lab), stdin="n\n").exit_code == Exit.FAILED
    assert list(machine.guests) == ["ew-t-web-0"]
    assert run("apply", str(lab), stdin="y\n").exit_code == 0
    assert list(machine.guests) == []


# --- consoles ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "one\n", "one\n"),
        ("one\n", "one\n", ""),
        ("one\n", "one\ntwo\n", "two\n"),
        (TEXT[:5000], TEXT[1000:5500], TEXT[5000:5500]),
        (TEXT[:5000], TEXT[4900:9900], TEXT[5000:9900]),
        ("aaab" * 40, "aaab" * 39 + "c", "c"),
        ("old guest\n", "booting\n", "booting\n"),
    ],
)
def test_only_what_is_new_on_a_console_is_printed(before: str, now: str, new: str) -> None:
    assert unseen(before, now) == new


def test_logs_can_be_followed_until_interrupted(
    up: Daemon,
    run: Callable[..., Result],
    machine: MemoryMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("wake", "web")
    words = iter([b"hello\n", b"world\n"])

    def nap(seconds: float) -> None:
        word = next(words, None)
        if word is None:
            raise KeyboardInterrupt
        with machine.lock:
            machine.consoles["ew-t-web-0"] += word

    monkeypatch.setattr(cli.time, "sleep", nap)
    result = run("logs", "web", "--follow")
    assert result.exit_code == 0
    assert result.stdout == "ew-t-web-0 is up\nhello\nworld\n"


# --- exit codes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["wake", "web"],
        ["sleep", "web"],
        ["logs", "web"],
        ["trace"],
        ["metrics"],
        ["plan"],
        ["apply", "{lab}"],
    ],
    ids=" ".join,
)
def test_without_a_running_edgewake(
    run: Callable[..., Result], lab: Path, state: Path, command: list[str]
) -> None:
    said = refusal(run(*(part.format(lab=lab) for part in command)), Exit.NOT_RUNNING)
    assert f"no edgewake is running with state directory {state}" in said
    assert "edgewake up LAB.yaml" in said


@pytest.mark.parametrize(
    "command",
    [
        ["nope"],
        ["wake"],
        ["status", "--nope"],
        ["trace", "--limit", "0"],
        ["trace", "--json", "--csv"],
        ["trace", "--summary", "--csv"],
        ["trace", "--follow", "--json"],
        ["logs", "web", "--follow", "--json"],
        ["plan", "lab.yaml", "--apply"],
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Callable[..., Result], command: list[str]) -> None:
    refusal(run(*command), Exit.USAGE)


@pytest.mark.parametrize("command", ["apply", "plan", "up", "doctor"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("zone: [", "not valid YAML"),
        ("zone: x.test\nhosts: 5\n", ":2: hosts"),
    ],
    ids=["absent", "no YAML", "no lab"],
)
def test_a_wrong_lab_file(
    run: Callable[..., Result], tmp_path: Path, command: str, text: str | None, said: str
) -> None:
    file = tmp_path / "wrong.yaml"
    if text is not None:
        file.write_text(text)
    assert said in refusal(run(command, str(file)), Exit.LAB_INVALID)


def test_a_lab_that_the_running_edgewake_finds_wrong(
    up: Daemon, run: Callable[..., Result], lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its version is older than the command line's."""
    monkeypatch.setattr("orchestrator.labfile.load_lab", lambda _: None)
    lab.write_text("zone: [")
    assert "not valid YAML" in refusal(run("apply", str(lab)), Exit.LAB_INVALID)


def test_up_without_any_lab(run: Callable[..., Result]) -> None:
    assert "edgewake up LAB.yaml" in refusal(run("up"), Exit.LAB_INVALID)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["wake", "nope"], "nope"),
        (["wake", "a/b"], "a/b"),
        (["sleep", "nope"], "the lab has: web, big, broken"),
        (["logs", "nope"], "the lab has"),
        (["wake", "broken"], "image gone"),
        (["wake", "web", "--client", "nobody"], "nobody"),
        (["plan"], "no placement"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done(
    up: Daemon, run: Callable[..., Result], command: list[str], said: str
) -> None:
    assert said in refusal(run(*command), Exit.FAILED)


def test_no_capacity_says_what_to_do(up: Daemon, run: Callable[..., Result]) -> None:
    run("wake", "web")
    said = refusal(run("wake", "big"), Exit.FAILED)
    assert "box" in said
    assert "give a host more capacity" in said


def test_a_broken_installation(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise InstallationError("our package 'web' is taken", hint="use pipx")

    monkeypatch.setattr(cli, "check_installation", broken)
    assert "use pipx" in refusal(run("status"), Exit.INSTALLATION)


def test_a_part_that_cannot_be_loaded(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, lab: Path
) -> None:
    """As when libvirt's C library was removed; help still works."""
    monkeypatch.setitem(sys.modules, "orchestrator.daemon", None)
    assert "orchestrator.daemon" in refusal(run("up", str(lab)), Exit.INSTALLATION)
    assert run("up", "--help").exit_code == 0


def test_the_demo_needs_a_lab_outside_of_a_checkout(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "DEMO_LAB", tmp_path / "absent.yaml")
    assert "LAB" in refusal(run("demo"), Exit.USAGE)


def test_the_demo_never_gets_the_state_directory_itself(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, state: Path, lab: Path
) -> None:
    """It removes its folder at the end: that must not be the one that edgewake keeps."""
    played: list[tuple[Path, Path]] = []
    monkeypatch.setattr("orchestrator.demo.run_demo", lambda *args: played.append(args))
    assert run("demo", str(lab)).exit_code == 0
    assert played == [(lab, state / "demo")]


# --- a daemon's life --------------------------------------------------------------------------


def test_guests_outlive_a_restart_without_a_lab_file(
    up: Daemon, state: Path, machine: MemoryMachine
) -> None:
    first = ask(up.dns_address, "web.cli.test")
    up.stop()
    up.stop()
    assert list(machine.guests) == ["ew-t-web-0"]
    again = Daemon(state)
    again.start()
    try:
        assert ask(again.dns_address, "web.cli.test").addresses == first.addresses
        assert again.orchestrator.wakes.last() == ()
    finally:
        again.stop()


def test_a_changed_file_at_start_ends_what_it_no_longer_has(
    up: Daemon, state: Path, lab: Path, machine: MemoryMachine
) -> None:
    """The host itself is gone from the file: only the old lab knows where the guest is."""
    ask(up.dns_address, "web.cli.test")
    up.stop()
    lab.write_text(
        lab.read_text()
        .replace("box:", "crate:")
        .replace("net-t", "net-u")
        .replace("name: t\n", "name: u\n")
        .replace("cli.test", "new.test")
    )
    again = Daemon(state, lab)
    again.start()
    try:
        assert list(machine.guests) == []
        assert list(machine.networks) == ["net-u"]
        assert ask(again.dns_address, "web.new.test").addresses
        assert list(machine.guests) == ["ew-u-web-0"]
    finally:
        again.stop()


def test_an_old_lab_that_cannot_be_read_any_more_is_left(
    up: Daemon, state: Path, lab: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    up.stop()
    real = daemon.parse_lab
    text = lab.read_text()

    def stricter(text_: str, path: Path, **options: Any) -> Any:
        if text_ == text:
            raise LabError("not allowed any more")
        return real(text_, path, **options)

    lab.write_text(text + "# new\n")
    monkeypatch.setattr(daemon, "parse_lab", stricter)
    again = Daemon(state, lab)
    again.start()
    again.stop()
    assert "not allowed any more" in caplog.text


def test_an_ephemeral_daemon_steers_no_packets_any_more_when_its_guests_have_ended(
    state: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Packets:
        def set(self, routes: Sequence[Route]) -> None:
            said.append("somewhere" if any(route.endpoints for route in routes) else "nowhere")

        def close(self) -> None:
            said.append("closed")

    def steered(*parts: Any) -> tuple[Packets, ...]:
        parts[-1].callback(said.append, "let go")
        return (Packets(),)

    monkeypatch.setattr(daemon, "steered", steered)
    ephemeral = Daemon(state, lab, ephemeral=True)
    ephemeral.start()
    ask(ephemeral.dns_address, "web.cli.test")
    assert said[-1] == "somewhere"
    ephemeral.stop()
    assert said[-3:] == ["nowhere", "closed", "let go"]


def test_an_ephemeral_daemon_leaves_nothing(state: Path, lab: Path, machine: MemoryMachine) -> None:
    ephemeral = Daemon(state, lab, ephemeral=True)
    ephemeral.start()
    ask(ephemeral.dns_address, "web.cli.test")
    assert machine.networks
    ephemeral.stop()
    assert (machine.guests, machine.networks) == ({}, {})


def test_one_state_directory_has_one_edgewake(
    up: Daemon, state: Path, lab: Path, run: Callable[..., Result]
) -> None:
    with pytest.raises(StoreError, match="in use by another edgewake"):
        Daemon(state, lab).start()
    assert "in use" in refusal(run("up", str(lab)), Exit.FAILED)
    assert document_of(run("status", "--json"))["lab"] == "t"


def test_a_start_that_fails_leaves_nothing_open(up: Daemon, tmp_path: Path, lab: Path) -> None:
    """Here its DNS port is taken; once that is free, the same start works."""
    up.orchestrator.expire()  # which begins the threads that it needs now and then
    before = set(threading.enumerate())
    lab.write_text(lab.read_text().replace("net-t", "net-other"))
    other = Daemon(tmp_path / "other", lab)
    with pytest.raises(EdgewakeError, match="cannot serve DNS"):
        other.start()
    for thread in set(threading.enumerate()) - before:
        thread.join(30.0)  # those of the one that runs come and go
        assert not thread.is_alive(), thread.name
    with pytest.raises(EdgewakeError, match="does not run"):
        _ = other.dns_address
    up.stop()
    other.start()
    assert ask(other.dns_address, "web.cli.test").addresses
    other.stop()


def test_reload_reads_the_file_in_use_again(up: Daemon, lab: Path) -> None:
    text = lab.read_text()
    lab.write_text(text.replace("web: {}", "neu: {}"))
    up.reload()
    assert ask(up.dns_address, "neu.cli.test").addresses
    lab.write_text("zone: [")
    with pytest.raises(LabError):
        up.reload()
    lab.write_text(text.replace("cli.test", "other.test"))
    with pytest.raises(EdgewakeError, match="cannot change while edgewake runs"):
        up.reload()
    assert ask(up.dns_address, "neu.cli.test").addresses


def test_a_reload_takes_back_nothing_of_the_api(
    up: Daemon, lab: Path, run: Callable[..., Result]
) -> None:
    """Whether the file was changed as well or not; `apply` shows the difference, and does it."""
    text = lab.read_text()
    _put(up, text.replace("web: {}", "neu: {}"), lab)
    up.reload()
    _await(lambda: _told(up, "lab-kept"))
    lab.write_text(text + "  more: {}\n")
    up.reload()
    _await(lambda: _told(up, "lab-conflict"))
    assert _services(up) == {"neu", "big", "broken"}
    told = run("apply", str(lab), "--diff").stdout
    assert "\n-  neu: {}\n+  web: {}\n" in told
    assert "not applied" in told
    assert run("apply", str(lab)).exit_code == 0
    assert document_of(run("apply", str(lab), "--diff", "--json"))["diff"] == ""
    lab.write_text(text)
    up.reload()
    assert _services(up) == {"web", "big", "broken"}


@pytest.mark.parametrize(
    ("more", "told"), [("", "lab-kept"), ("  more: {}\n", "lab-conflict"), (None, "")]
)
def test_a_restart_takes_back_nothing_of_the_api(
    up: Daemon, state: Path, lab: Path, more: str | None, told: str
) -> None:
    """But it goes over to another file that is named."""
    text = lab.read_text()
    _put(up, text.replace("web: {}", "neu: {}"), lab)
    up.stop()
    file = lab.with_name("other.yaml") if more is None else lab
    file.write_text(text + (more or ""))
    again = Daemon(state, file)
    again.start()
    try:
        runs = "web" if more is None else "neu"
        assert _services(again) == {runs, "big", "broken"}
        _await(lambda: not told or _told(again, told))
    finally:
        again.stop()


def test_a_lab_that_cannot_be_read_any_more_does_not_stay(
    up: Daemon, state: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, real = lab.read_text(), daemon.parse_lab
    edited = text.replace("web: {}", "neu: {}")
    _put(up, edited, lab)
    up.stop()

    def stricter(text: str, path: Path, **options: Any) -> Any:
        if text == edited:
            raise LabError("not allowed any more")
        return real(text, path, **options)

    monkeypatch.setattr(daemon, "parse_lab", stricter)
    again = Daemon(state, lab)
    again.start()
    assert _services(again) == {"web", "big", "broken"}
    again.stop()


def _put(running: Daemon, text: str, lab: Path) -> None:
    assert Client(running.socket).put("/lab", {"text": text, "path": str(lab)})["applied"]


def _services(running: Daemon) -> set[str]:
    return {each.name for each in running.orchestrator.lab.services}


def _told(running: Daemon, kind: str) -> bool:
    return bool(running.orchestrator.events(kinds=[kind]))


def test_a_remembered_guest_that_died_is_not_taken_for_ready() -> None:
    with pytest.raises(daemon.Cancelled, match="crashed"):
        daemon.wait_in_memory(None, None, deadline=0.0, cancelled=lambda: "crashed")  # type: ignore[arg-type]
    daemon.wait_in_memory(None, None, deadline=0.0, cancelled=lambda: None)  # type: ignore[arg-type]


# --- as a process -----------------------------------------------------------------------------


def _command(state: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "--state", str(state), *args]


def test_up_as_a_process(state: Path, lab: Path, tmp_path: Path) -> None:
    """It says when it is ready, reloads on SIGHUP, survives a wrong file, and ends on SIGTERM."""
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            _command(state, "up", str(lab), "--json", "--verbose"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline() or log.read_text())
        assert (ready["state"], ready["zone"], ready["pid"]) == ("up", "cli.test", process.pid)
        where = ready["dns"]["address"], ready["dns"]["port"]
        assert ask(where, "web.cli.test").addresses
        told = subprocess.run(
            _command(state, "status", "--json"), cwd=tmp_path, capture_output=True, check=True
        )
        assert json.loads(told.stdout)["services"][0]["state"] == "awake"
        text = lab.read_text()
        for wrong, said in [("zone: [", "not applied"), (text + "  neu: {}\n", "applied again")]:
            lab.write_text(wrong)
            process.send_signal(signal.SIGHUP)
            _await(lambda said=said: said in log.read_text())  # type: ignore[misc]
        assert ask(where, "neu.cli.test").addresses
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
        assert not Path(ready["socket"]).exists()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def _await(what: Callable[[], bool], timeout_s: float = 20.0) -> None:
    waiter = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if what():
            return
        waiter.wait(0.02)
    raise AssertionError("it did not happen in time")


def test_the_ready_line_is_for_people(up: Daemon) -> None:
    address, port = up.dns_address
    line = daemon._ready(up, as_json=False)
    assert line == (f"edgewake is up: zone cli.test on {address}:{port}, API on {up.socket}")


def test_help_loads_nothing_heavy() -> None:
    """`edgewake --help` is to be quick: what commands need is imported by them."""
    code = "import sys, orchestrator.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
    assert "typer" in done.stdout.split()


# --- help and docs ----------------------------------------------------------------------------


def test_version(run: Callable[..., Result]) -> None:
    assert re.fullmatch(r"edgewake \d+\.\d+\.\d+\n", run("--version").stdout)


def test_help_exits_with_0_also_without_arguments() -> None:
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
    assert "Commands:" in CliRunner().invoke(app, []).output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_in_its_help(name: str, run: Callable[..., Result]) -> None:
    assert f"Example: edgewake {name}" in run(*name.split(), "--help").stdout


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - NO_RESULTS))
def test_each_command_that_prints_results_has_json(name: str) -> None:
    assert "--json" in {option for param in COMMANDS[name].params for option in param.opts}


def _sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_has_every_command_and_no_other() -> None:
    told = {title.removeprefix("edgewake ") for title in _sections() if "edgewake " in title}
    assert told == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_each_commands_example_and_options(name: str) -> None:
    section, command = _sections()[f"edgewake {name}"], COMMANDS[name]
    assert f"\n    {command.epilog.removeprefix('Example: ')}\n" in section
    options = {opt for p in command.params for opt in p.opts if opt.startswith("-")} - {"--help"}
    told = {
        word
        for row in re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
        for word in re.findall(r"`(--?[a-z0-9-]+)", row)
    }
    assert told == options


def test_the_page_has_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \|", _sections()["Exit codes"], re.MULTILINE)
    assert {int(row) for row in rows} == {*map(int, Exit), 130}


def test_the_default_state_directory_is_the_one_on_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert f"`{cli._default_state()}` for root" in PAGE
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    home = cli._default_state().relative_to(Path.home())
    assert f"`~/{home}`" in PAGE
