"""Hosts are drained by live migration for real: two libvirts, DNS, a guest that counts requests.

The guest is hello: its page says when it started, and how many requests it has answered.
"""

import http.client
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from dns_boot.query import ask
from tests.orchestrator.hypervisors.second_libvirt import SecondLibvirt
from tests.ports import free_port
from web.client import Client

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

PATIENCE_S = 200.0
SUBNETS = tuple(IPv4Network(f"10.79.{third}.0/24") for third in range(60, 120))
log = logging.getLogger(__name__)
FACTS = re.compile(r"Started</th><td>([^<]*).*Requests</th><td>(\d+)", re.DOTALL)
LAB = """\
name: live-{tag}
zone: live.test
dns: {{listen: 127.0.0.1:{port}}}
hosts:
  a:
    uri: qemu:///system
    capacity: {{cpu: 4, memory: 512 MiB}}
    migration_address: {subnet[1]}
    network: {{name: "bridge:{bridge}", subnet: {subnet}, gateway: {subnet[1]},
      pool: {subnet[10]}-{subnet[19]}}}
  b:
    uri: {uri}
    capacity: {{cpu: 4, memory: 512 MiB}}
    migration_address: {subnet[2]}
    network: {{name: "bridge:{bridge}", subnet: {subnet}, gateway: {subnet[1]},
      pool: {subnet[20]}-{subnet[29]}}}
images:
  hello: {{family: hello, kernel: {kernel}}}
services:
  web:
    image: hello
    resources: {{cpu: 0.25, memory: 8 MiB}}
    ready: {{http: {{path: /healthz}}}}
    deadline: 60 s
    ttl: 1 s
    idle: never
    migrate: live-only
"""


@dataclass
class Edgewake:
    """An edgewake in a process of its own, which may be killed and started again."""

    folder: Path
    lab: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def client(self) -> Client:
        return Client(self.folder / "state/control.sock")

    def start(self) -> None:
        log = (self.folder / "edgewake.log").open("ab")
        with log:
            state = ("--state", str(self.folder / "state"))
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *state, "up", str(self.lab)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), (self.folder / "edgewake.log").read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            with self.process:
                self.process = None

    def address(self) -> str:
        """Return what DNS says."""
        reply = ask(("127.0.0.1", self.port), "web.live.test", timeout_s=70.0)
        return str(reply.addresses[0])

    def host(self) -> str:
        """Return where the service is, as the API says; with an arrow while it moves."""
        (service,) = self.client.get("/status")["services"]
        return "→".join(
            filter(None, (part for i in service["instances"] for part in (i["host"], i["to"])))
        )

    def drain(self, host: str) -> Any:
        for each in self.client.get("/status")["hosts"]:
            if each["name"] == host:
                return each["drain"]
        raise AssertionError(host)

    def told(self, kind: str) -> list[str]:
        events = self.client.get("/events")["events"]
        return [event["text"] for event in events if event["kind"] == kind]


def facts(address: str) -> tuple[str, int]:
    """Return when the guest started, and how many requests it has answered."""
    peer = http.client.HTTPConnection(address, timeout=20)
    try:
        peer.request("GET", "/")
        found = FACTS.search(peer.getresponse().read().decode())
    finally:
        peer.close()
    assert found
    return found[1], int(found[2])


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def edgewake(hello_file: Path) -> Iterator[Edgewake]:
    folder = Path(tempfile.mkdtemp(prefix="ewl-"))
    folder.chmod(0o755)  # QEMU's user must be able to enter
    (folder / "second").mkdir()
    tag, subnet = uuid.uuid4().hex[:6], SUBNETS[os.getpid() % len(SUBNETS)]
    port = free_port()
    ours = IPv4Interface((subnet[1], subnet.prefixlen))
    second = SecondLibvirt.start(folder / "second", f"ewl{tag}", ours)
    lab = folder / "lab.yaml"
    names = {"tag": tag, "bridge": second.bridge, "uri": second.uri}
    lab.write_text(LAB.format(port=port, subnet=subnet, kernel=hello_file, **names))
    running = Edgewake(folder, lab, port)
    try:
        running.start()
        yield running
        running.client.post("/services/web/sleep", {"to": "cold"})
    finally:
        running.kill(signal.SIGTERM)
        second.stop()
        shutil.rmtree(folder)


def test_a_host_is_drained_and_no_client_notices(edgewake: Edgewake) -> None:
    address = edgewake.address()
    old = edgewake.host()
    new = {"a": "b", "b": "a"}[old]
    started, count = facts(address)
    edgewake.client.post(f"/hosts/{old}/drain")
    gaps, last = [0.0], time.monotonic()
    while edgewake.drain(old)["state"] != "drained":
        now, number = facts(address)
        assert now == started
        assert count < number <= count + 2  # the readiness probe asks as well
        count = number
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
        assert edgewake.address() == address
    assert edgewake.host() == new
    now, number = facts(address)
    assert (now, number > count) == (started, True)
    (told,) = edgewake.told("migrated")
    assert told.endswith(f"-web-0 is on {new}")
    log.info("the longest time between two answers was %.2f s", max(gaps))


def test_undone_the_guest_stays(edgewake: Edgewake) -> None:
    address = edgewake.address()
    old = edgewake.host()
    started, _ = facts(address)
    edgewake.client.post(f"/hosts/{old}/drain")
    until(lambda: "→" in edgewake.host(), "a migration under way")
    edgewake.client.delete(f"/hosts/{old}/drain")
    until(lambda: "→" not in edgewake.host(), "a migration that is over")
    assert edgewake.host() == old
    assert facts(address)[0] == started
    assert edgewake.told("migrated") == []


@pytest.mark.parametrize("after_s", [0.1, 1.0, 2.0, 3.0])
def test_killed_in_the_middle_it_goes_on_after_a_restart(
    edgewake: Edgewake, after_s: float
) -> None:
    address = edgewake.address()
    old = edgewake.host()
    started, _ = facts(address)
    edgewake.client.post(f"/hosts/{old}/drain")
    until(lambda: "→" in edgewake.host(), "a migration under way")
    time.sleep(after_s)
    edgewake.kill()
    edgewake.start()
    until(lambda: edgewake.drain(old)["state"] == "drained", "an empty host")
    assert edgewake.address() == address
    assert edgewake.host() == {"a": "b", "b": "a"}[old]
    assert facts(address)[0] == started
