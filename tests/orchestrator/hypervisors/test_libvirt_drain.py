"""A host is drained for real: guests move between two networks, and no client sees a failure."""

import http.client
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dns_boot.query import ask
from images.build.linux_microvm import Built
from orchestrator.daemon import Daemon
from orchestrator.drain import DrainReport
from tests.ports import free_port

pytestmark = pytest.mark.real

LAB = """\
name: drain-{tag}
zone: drain.test
dns: {{listen: 127.0.0.1:{port}}}
hosts:
  a:
    uri: qemu:///system
    capacity: {{cpu: 4, memory: 512 MiB}}
    network: {{name: ewdr-{tag}-a, create: true, bridge: ewdr{tag}a, subnet: 10.171.212.0/24,
      gateway: 10.171.212.1, pool: 10.171.212.10-10.171.212.60}}
  b:
    uri: qemu:///system
    capacity: {{cpu: 4, memory: 512 MiB}}
    network: {{name: ewdr-{tag}-b, create: true, bridge: ewdr{tag}b, subnet: 10.171.213.0/24,
      gateway: 10.171.213.1, pool: 10.171.213.10-10.171.213.60}}
images:
  sample: {{family: linux, kernel: {files.kernel}, initrd: {files.initrd}}}
services:
  web:
    image: sample
    resources: {{cpu: 0.25, memory: 96 MiB}}
    ready: {{http: {{path: /healthz}}}}
    deadline: 60 s
    ttl: 1 s
    idle: never
"""


@dataclass
class Visitor:
    """A client that asks DNS, believes an answer as long as its TTL says, and fetches the page."""

    port: int
    over: threading.Event = field(default_factory=threading.Event)
    fetched: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    thread: threading.Thread = field(init=False)

    def __enter__(self) -> "Visitor":
        self.thread = threading.Thread(target=self._visit)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.thread.join()

    def _visit(self) -> None:
        address, until = "", 0.0
        while not self.over.wait(0.02):
            if time.monotonic() >= until:
                reply = ask(("127.0.0.1", self.port), "web.drain.test", timeout_s=70.0)
                address, until = reply.addresses[0], time.monotonic() + 1.0
            try:
                self._fetch(address)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{address}: {error!r}")

    def _fetch(self, address: str) -> None:
        connection = http.client.HTTPConnection(address, timeout=20.0)
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 200:
            raise ValueError(f"status {status}")
        self.fetched[address] = self.fetched.get(address, 0) + 1


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def daemon(microvm_files: Built, port: int) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="ewdr-"))
    folder.chmod(0o755)  # QEMU's user must be able to enter
    lab = folder / "lab.yaml"
    lab.write_text(LAB.format(tag=os.getpid() % 1000, port=port, files=microvm_files))
    running = Daemon(folder / "state", lab, ephemeral=True)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


def report_of(daemon: Daemon, host: str) -> DrainReport:
    report = next(h.drain for h in daemon.orchestrator.status().hosts if h.host.name == host)
    assert report is not None
    return report


def test_clients_see_no_failure_while_a_host_is_drained(daemon: Daemon, port: int) -> None:
    control = daemon.orchestrator
    assert ask(("127.0.0.1", port), "web.drain.test", timeout_s=70.0).addresses
    (old,) = control.fleet.serving("web")
    with Visitor(port) as visitor:
        control.drain(old.host)
        end = time.monotonic() + 90
        while report_of(daemon, old.host).state != "drained":
            assert time.monotonic() < end, control.status()
            time.sleep(0.1)
        time.sleep(2.0)  # whoever believed the old answer until the last moment tries now
    (new,) = control.fleet.serving("web")
    assert new.host != old.host
    assert visitor.failures == []
    assert set(visitor.fetched) == {str(old.address), str(new.address)}
    assert min(visitor.fetched.values()) > 10
