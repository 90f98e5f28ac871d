"""The main job on real parts: a DNS query boots a machine, it answers, it sleeps when unused."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial

import pytest

from dns_boot.query import Reply
from tests.end_to_end.conftest import Edgewake, domains, get, virsh

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

SERVICES = """
  web: {config: {greeting: "hello from a test"}}
  held: {}
  crowd: {}
  loads: {idle: {after: 3 s, min_up: 1 s, paused: 0 s, saved: 0 s}}
  sinks: {idle: {after: 2 s, min_up: 1 s, paused: 3 s, saved: 3 s}}
  dies: {idle: never}
  slow: {deadline: 1 s}
  by-tcp: {ready: {tcp: 80}}
  by-icmp: {ready: {icmp: {}}}
  by-arp: {ready: {arp: {}}}
  by-console: {ready: {console: "edgewake: read[y]"}}
"""


@pytest.fixture(scope="module")
def edgewake(make_edgewake: Callable[..., Edgewake]) -> Edgewake:
    return make_edgewake(SERVICES, port=5392)


def dig(edgewake: Edgewake, *words: str) -> str:
    done = subprocess.run(
        ["dig", "@127.0.0.1", "-p", str(edgewake.port), "+tries=1", "+timeout=35", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"dig: {done.stdout} {done.stderr} (Debian package dnsutils)"
    return done.stdout


def test_dig_boots_a_machine_and_the_machine_answers(edgewake: Edgewake) -> None:
    assert domains() == []
    shown = dig(edgewake, "Web.E2E.test", "A")
    assert "status: NOERROR" in shown
    assert "Web.E2E.test.\t\t1\tIN\tA\t10.213.79." in shown, "case was not kept, or no address"
    assert domains() == ["ew-e2e-web-0"]
    address = shown.split("IN\tA\t")[1].split()[0]
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as page:
        text = page.read().decode()
    assert "hello from a test" in text
    assert "ew-e2e-web-0" in text


def test_then_it_is_warm_then_it_sleeps_then_it_wakes_again(edgewake: Edgewake) -> None:
    warm = edgewake.ask("web")
    assert warm.addresses
    edgewake.wait_until(lambda: edgewake.state_of("web") == "asleep")
    assert domains() == []
    cold = edgewake.ask("web")
    assert cold.addresses == warm.addresses, "a service keeps its address over a sleep"
    assert "hello from a test" in get(cold)
    assert warm.seconds < cold.seconds / 10
    edgewake.wait_until(lambda: "client" in edgewake.stages("web"))
    assert edgewake.stages("web") == [
        *("query", "parsed", "taken", "decided", "claimed", "intent", "asked"),
        *("define", "start", "frame", "answer", "stored", "reply", "client"),
    ]


def test_a_service_sinks_from_rung_to_rung_and_comes_back_from_each(edgewake: Edgewake) -> None:
    cold = edgewake.ask("sinks")
    for rung in ("paused", "saved"):
        if rung == "saved":
            edgewake.client.post("/services/sinks/sleep", {"to": "paused"})
        edgewake.wait_until(partial(edgewake.rests_at, "sinks", rung), 60)
        assert edgewake.ask("sinks").addresses == cold.addresses
        assert "ew-e2e-sinks-0" in get(cold)
        wake = edgewake.client.get("/wakes?service=sinks")["wakes"][-1]
        assert wake["rung"] == rung
        assert "define" not in [stage for stage, _ in wake["stamps"]], "a guest was booted"
    edgewake.wait_until(lambda: edgewake.rung_of("sinks") == "cold", 60)
    assert domains() == []
    found = {each["rung"]: each["works"] for each in edgewake.client.get("/abilities")["abilities"]}
    assert found == {"paused": True, "saved": True}


@pytest.mark.parametrize("qtype", ["TXT", "MX", "ANY", "SRV", "HTTPS", "CAA", "SOA"])
def test_other_types_boot_nothing(edgewake: Edgewake, qtype: str) -> None:
    assert not edgewake.ask("held", qtype).addresses
    time.sleep(0.2)
    assert "ew-e2e-held-0" not in domains()


def test_aaaa_wakes_where_hosts_have_ipv6_and_the_guest_answers_there(edgewake: Edgewake) -> None:
    reply = edgewake.ask("held", "AAAA")
    (address,) = reply.addresses
    assert address.startswith("fd00:ed:79::")
    with urllib.request.urlopen(f"http://[{address}]/healthz", timeout=10) as page:
        assert page.status == 200


def test_a_hundred_sockets_and_one_machine(edgewake: Edgewake) -> None:
    replies: list[Reply] = []
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(name for name in domains() if "crowd" in name)
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [
        threading.Thread(target=lambda: replies.append(edgewake.ask("crowd"))) for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert seen == {"ew-e2e-crowd-0"}
    assert len(replies) == 100
    assert len({reply.addresses for reply in replies}) == 1
    assert get(replies[0], "/healthz")
    (wake,) = edgewake.client.get("/wakes?service=crowd")["wakes"]
    assert wake["queries"] == 100


def test_the_reply_leaves_soon_after_the_guests_first_answer(edgewake: Edgewake) -> None:
    """Watch the wire: from the guest's first HTTP bytes to the DNS reply at the client."""
    edgewake.wait_until(lambda: edgewake.state_of("web") == "asleep")
    delays = []
    for _ in range(3):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
            wire.bind(("ewe2e0", 0))
            wire.settimeout(35)
            first: list[float] = []
            watcher = threading.Thread(target=first_http_answer, args=(wire, first))
            watcher.start()
            edgewake.ask("web")
            replied = time.monotonic()
            watcher.join()
        delays.append(replied - first[0])
        edgewake.client.post("/services/web/sleep")
    assert min(delays) >= -0.001, "a reply left before the guest had answered"
    assert sorted(delays)[1] < 0.1, f"seconds from first answer to reply: {delays}"


def first_http_answer(wire: socket.socket, first: list[float]) -> None:
    """Note when a frame from port 80 first carries an HTTP status line."""
    while not first:
        frame = wire.recv(2048)
        if b"HTTP/1." in frame[54:80]:
            first.append(time.monotonic())


@pytest.mark.parametrize("kind", ["tcp", "icmp", "arp", "console"])
def test_every_kind_of_probe_sees_the_guest_answer(edgewake: Edgewake, kind: str) -> None:
    reply = edgewake.ask(f"by-{kind}")
    assert reply.addresses, reply.text
    if kind in {"tcp", "console"}:
        assert get(reply, "/healthz")
    edgewake.client.post(f"/services/by-{kind}/sleep")


def test_a_live_transfer_is_never_cut(edgewake: Edgewake) -> None:
    """Read slowly for three times the idle period, without any DNS query."""
    reply = edgewake.ask("loads")
    edgewake.wait_until(lambda: has_page(reply, "/big"))  # made just after the guest is ready
    with urllib.request.urlopen(f"http://{reply.addresses[0]}/big", timeout=30) as page:
        got = 0
        end = time.monotonic() + 9
        while time.monotonic() < end:
            got += len(page.read(16_384))
            time.sleep(0.05)
        assert edgewake.state_of("loads") == "awake"
        assert got > 1_000_000
    edgewake.wait_until(lambda: edgewake.state_of("loads") == "asleep")


def has_page(reply: Reply, path: str) -> bool:
    connection = http.client.HTTPConnection(reply.addresses[0], timeout=5)
    with closing(connection):
        connection.request("HEAD", path)
        return connection.getresponse().status == 200


def test_a_guest_that_dies_by_itself_is_noticed_and_replaced(edgewake: Edgewake) -> None:
    reply = edgewake.ask("dies")
    with suppress(OSError):  # it may be gone before it has answered
        get(reply, "/cgi-bin/poweroff", timeout_s=3)
    edgewake.wait_until(lambda: edgewake.state_of("dies") == "asleep", 5)
    assert get(edgewake.ask("dies"), "/healthz")


def test_a_guest_that_is_too_slow_is_a_servfail_that_says_why(edgewake: Edgewake) -> None:
    shown = dig(edgewake, "slow.e2e.test", "A")
    assert "status: SERVFAIL" in shown
    assert "EDE: 14 (Not Ready)" in shown
    assert "did not answer within" in shown
    edgewake.wait_until(lambda: "ew-e2e-slow-0" not in domains())


def test_the_command_line_sees_it_all(edgewake: Edgewake) -> None:
    edgewake.ask("held")
    folder = str(edgewake.folder)
    status = edgewake_cli("--state", folder, "status", "--json")
    assert {s["name"]: s["state"] for s in json.loads(status)["services"]}["held"] == "awake"
    assert "edgewake: ready" in edgewake_cli("--state", folder, "logs", "held")
    assert "guest's first answer" in edgewake_cli("--state", folder, "trace", "held")
    edgewake_cli("--state", folder, "sleep", "held")
    assert "ew-e2e-held-0" not in domains()


def edgewake_cli(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_foreign_domains_and_networks_are_untouched(edgewake: Edgewake) -> None:
    """A domain on our network, with a name like ours but without our mark, outlives all we do."""
    xml = edgewake.folder / "foreign.xml"
    xml.write_text(
        "<domain type='qemu'><name>ew-e2e-foreign-0</name><memory unit='MiB'>16</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        "<on_poweroff>destroy</on_poweroff><devices><controller type='usb' model='none'/>"
        "<memballoon model='none'/></devices></domain>"
    )
    virsh("create", str(xml))
    try:
        edgewake.ask("held")
        edgewake.client.post("/services/held/sleep")
        edgewake.kill()
        edgewake.start()
        assert "ew-e2e-foreign-0" in domains()
    finally:
        virsh("destroy", "ew-e2e-foreign-0")
