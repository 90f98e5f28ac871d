"""A real edgewake over a real libvirt: processes, guests and packets, nothing pretended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dns_boot.query import Reply, ask
from images.build.linux_microvm import build
from orchestrator.state_dir import StateDir
from web.client import Client

LAB = """
name: e2e
zone: e2e.test
dns:
  listen: 127.0.0.1:{port}
  wake_budget: {{burst: 10000, total_burst: 10000}}
hosts:
  box:
    uri: qemu:///system
    capacity: {{cpu: 8, memory: {memory}}}
    network:
      name: edgewake-e2e
      subnet: 10.213.79.0/24
      gateway: 10.213.79.1
      pool: 10.213.79.10-10.213.79.60
      create: true
      bridge: ewe2e0
      subnet6: fd00:ed:79::/64
images:
  sample:
    family: linux
    kernel: built:linux-microvm/kernel
    initrd: built:linux-microvm/initrd
    cmdline: edgewake.test=1
defaults:
  image: sample
  resources: {{cpu: 0.25, memory: 96 MiB}}
  ready: {{http: {{port: 80, path: /healthz}}}}
  deadline: 30 s
  ttl: 1 s
  idle: {{after: 2 s, min_up: 1 s, paused: 0 s, saved: 0 s}}
services:
{services}
"""


@dataclass
class Edgewake:
    """One `edgewake up` as a process of its own, with the folder and lab it was started with."""

    folder: Path
    lab: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    args: tuple[str, ...] = ()

    @property
    def client(self) -> Client:
        return Client(StateDir(self.folder).socket)

    def start(self) -> dict[str, Any]:
        """Start it and return the line it prints when it is up."""
        command = [sys.executable, "-m", "orchestrator", "--state", str(self.folder), "up"]
        with (self.folder / "up.log").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*command, "--json", *self.args, str(self.lab)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._reap()
            pytest.fail((self.folder / "up.log").read_text())
        ready: dict[str, Any] = json.loads(line)
        return ready

    def kill(self) -> None:
        """End it as a power cut would: no undo, no good-bye."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self._reap()

    def clean(self) -> None:
        """Take away whatever is left, through a last run that ends all it adopts."""
        self.stop()
        self.args = ("--ephemeral",)
        self.start()
        self.stop()
        shutil.rmtree(self.folder)

    def _reap(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.wait(150)
        self.process.stdout.close()

    def ask(self, name: str, qtype: str = "A", timeout_s: float = 35.0) -> Reply:
        return ask(("127.0.0.1", self.port), f"{name}.e2e.test", qtype, timeout_s=timeout_s)

    def state_of(self, service: str) -> str:
        return str(self.seen(service)["state"])

    def rung_of(self, service: str) -> str:
        return str(self.seen(service)["rung"])

    def rests_at(self, service: str, rung: str) -> bool:
        return self.rung_of(service) == rung

    def seen(self, service: str) -> dict[str, Any]:
        services: list[dict[str, Any]] = self.client.get("/status")["services"]
        return next(each for each in services if each["name"] == service)

    def stages(self, service: str) -> list[str]:
        """Return the stages of a service's last wake."""
        wakes = self.client.get(f"/wakes?service={service}")["wakes"]
        return [stage for stage, _ in wakes[-1]["stamps"]]

    def wait_until(self, what: Callable[[], bool], timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < end, (self.folder / "up.log").read_text()[-4000:]
            time.sleep(0.05)


def virsh(*args: str) -> str:
    """Ask libvirt itself, by its own tool and not through our code."""
    done = subprocess.run(
        ["virsh", "-c", "qemu:///system", *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"virsh {' '.join(args)}: {done.stderr} (see 'make setup')"
    return done.stdout


def domains() -> list[str]:
    """Return our test lab's domains as libvirt itself lists them, in whatever state."""
    return sorted(name for name in virsh("list", "--all", "--name").split() if "ew-e2e-" in name)


def get(reply: Reply, path: str = "/", timeout_s: float = 10.0) -> str:
    """Fetch a page from the guest that a reply named."""
    url = f"http://{reply.addresses[0]}{path}"
    with urllib.request.urlopen(url, timeout=timeout_s) as page:
        return str(page.read().decode())


@pytest.fixture(scope="session")
def sample_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sample guest once, where the hypervisor's user can read it."""
    out = Path("/var/lib/edgewake-tests/linux-microvm")
    out.mkdir(parents=True, exist_ok=True)
    build(out)
    return out


@pytest.fixture(scope="module")
def make_edgewake(sample_images: Path) -> Iterator[Callable[..., Edgewake]]:
    """Return a maker of running edgewakes; all they made is gone afterwards."""
    made: list[Edgewake] = []

    def make(services: str, *, port: int, memory: str = "1200 MiB", start: bool = True) -> Edgewake:
        while made:  # they share one network: the last one must be gone before the next comes
            made.pop().clean()
        folder = Path(f"/var/lib/edgewake-tests/e2e-{os.getpid()}-{port}")
        StateDir.open(folder).close()
        target = folder / "images" / "linux-microvm"
        if not target.exists():
            target.symlink_to(sample_images)
        lab = folder / "lab.yaml"
        lab.write_text(LAB.format(port=port, memory=memory, services=services))
        edgewake = Edgewake(folder, lab, port)
        made.append(edgewake)
        if start:
            edgewake.start()
        return edgewake

    yield make
    for edgewake in made:
        edgewake.clean()
    assert domains() == []
    assert "edgewake-e2e" not in virsh("net-list", "--all", "--name")
