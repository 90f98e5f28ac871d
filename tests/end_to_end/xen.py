"""For tests of a real `edgewake up` over the Xen bed: its lab, and the host seen by other eyes.

What the host has is asked of libvirt and of `xl` themselves, never through our own code.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import libvirt

from images.build import hello
from orchestrator.hypervisors.libvirt_driver import DEPOT_DIR
from orchestrator.state_dir import StateDir
from tests.end_to_end.conftest import Edgewake, get
from tests.images import specimens
from tests.xenbed.bed import Bed

HELLO_MIB = 8
FOREIGN = "foreign"
FOREIGN_NUMBER = 5  # of its address in the subnet: below every pool
WAKE_S = 90.0  # to wait for a reply: longer than the lab's deadline

LAB = """
name: e2e
zone: e2e.test
dns:
  listen: 127.0.0.1:{port}
  wake_budget: {{burst: 10000, total_burst: 10000}}
hosts:
  xen1:
    uri: {uri}
    capacity: {{cpu: 8, memory: {memory_mib} MiB}}
    network:
      name: bridge:xenbr0
      subnet: {lan.subnet}
      gateway: {lan.gateway}
      pool: {first}-{last}
images:
  hello: {{family: hello, kernel: "built:hello/kernel"}}
  with-disk:
    family: hello
    kernel: built:hello/kernel
    disks: [{{path: disk.raw, read_only: false}}]
  virtio-only: {{family: solo5, kernel: virtio.elf}}
  disk-only: {{family: nanos, disks: [{{path: disk.raw}}]}}
defaults:
  image: hello
  resources: {{cpu: 0.25, memory: 8 MiB}}
  ready: {{http: {{port: 80, path: /}}}}
  deadline: 75 s
  ttl: 1 s
  idle: never
services:
{services}
"""


class XenEdgewake(Edgewake):
    """One `edgewake up` whose only host is the bed; it wakes at the pace of emulation."""

    def wake(self, name: str) -> tuple[str, str]:
        """Ask for a service until it answers; return its address and its page."""
        reply = self.ask(name, timeout_s=WAKE_S)
        assert reply.addresses, f"{reply.rcode}: {reply.text}\n{self.said()}"
        return reply.addresses[0], get(reply)

    def cli(self, *words: str) -> str:
        """Return what a command of edgewake's prints."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "--state", str(self.folder), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"edgewake {' '.join(words)}: {done.stderr}"
        return done.stdout

    def why_not(self, service: str) -> str:
        """Return why `explain` says that the host is out; empty if it is not."""
        (choice,) = json.loads(self.cli("explain", service, "--json"))["hosts"]
        return str(choice["why_not"])

    def trouble(self, service: str) -> str:
        """Return how a service's last wake failed, as `status` says it."""
        services = self.client.get("/status")["services"]
        return next(str(each["trouble"]) for each in services if each["name"] == service)

    def host(self) -> dict[str, Any]:
        (host,) = self.client.get("/status")["hosts"]
        return dict(host)

    def stages(self, service: str) -> list[str]:
        """Return the stages of a service's last wake."""
        wakes = self.client.get(f"/wakes?service={service}")["wakes"]
        return [stage for stage, _ in wakes[-1]["stamps"]]

    def said(self) -> str:
        return (self.folder / "up.log").read_text()[-4000:]


class Eyes:
    """The bed as its administrator sees it."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed

    @contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        with closing(libvirt.open(self.bed.libvirt_uri)) as conn:
            yield conn

    def domains(self) -> dict[str, int]:
        """Return libvirt's guests and Xen's numbers for them; a guest booted anew has another."""
        with self.connection() as conn:
            return {each.name(): each.ID() for each in conn.listAllDomains() if each.ID() > 0}

    def ours(self) -> dict[str, int]:
        return {name: number for name, number in self.domains().items() if "ew-e2e-" in name}

    def destroy(self, name: str) -> None:
        with self.connection() as conn:
            conn.lookupByName(name).destroy()

    def xen_names(self) -> list[str]:
        """Return the names of all guests that Xen itself has, known to libvirt or not."""
        return [line.split()[0] for line in self.dom0("xl", "list").splitlines()[2:]]

    def free_mib(self) -> int:
        found = [line for line in self.dom0("xl", "info").splitlines() if "free_memory" in line]
        return int(found[0].split(":")[1])

    def files(self, edgewake: Edgewake) -> list[str]:
        """Return what an edgewake has put on the host."""
        return self.dom0("ls", str(DEPOT_DIR / StateDir(edgewake.folder).owner)).split()

    def dom0(self, *command: str) -> str:
        done = self.bed.ssh(*command)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
        return done.stdout.decode()

    def make_foreign(self, kernel: Path) -> int:
        """Start a guest as an administrator would, on the bridge that ours are on, too."""
        address = self.bed.state.lan.subnet[FOREIGN_NUMBER]
        path = self.bed.put(kernel, "foreign-hello")
        with self.connection() as conn:
            domain = conn.createXML(
                f"<domain type='xen'><name>{FOREIGN}</name><memory unit='MiB'>{HELLO_MIB}</memory>"
                f"<vcpu>1</vcpu><os><type arch='x86_64' machine='xenpvh'>xenpvh</type>"
                f"<kernel>{path}</kernel><cmdline>ip={address}/24 name={FOREIGN}</cmdline></os>"
                "<devices><interface type='bridge'><source bridge='xenbr0'/>"
                "<script path='vif-fast'/></interface></devices></domain>",
                0,
            )
            return int(domain.ID())


def make(
    folder: Path, bed: Bed, services: str, *, port: int, uri: str = "", pool: tuple[int, int]
) -> XenEdgewake:
    """Return an edgewake that is ready to be started; `pool` are numbers in the bed's subnet.

    The lab claims 4 GiB more than the bed has.
    """
    StateDir.open(folder).close()
    hello.build(folder / "images" / "hello")
    (folder / "virtio.elf").write_bytes(specimens.solo5(3, specimens.NET))
    (folder / "disk.raw").write_bytes(specimens.boot_disk())
    lan, lab = bed.state.lan, folder / "lab.yaml"
    lab.write_text(
        LAB.format(
            port=port,
            uri=uri or bed.libvirt_uri,
            memory_mib=bed.state.guests_mib + 4096,
            lan=lan,
            first=lan.subnet[pool[0]],
            last=lan.subnet[pool[1]],
            services=services,
        )
    )
    return XenEdgewake(folder, lab, port)


def clean(edgewake: XenEdgewake, eyes: Eyes) -> None:
    """End all that an edgewake made, and what it put on the host."""
    sent = DEPOT_DIR / StateDir(edgewake.folder).owner
    try:
        edgewake.clean()
    finally:
        edgewake.stop()
        eyes.bed.ssh("rm", "-rf", str(sent))
        shutil.rmtree(edgewake.folder, ignore_errors=True)
