"""The libvirt back end on Xen keeps the contract, and what is Xen's own: on a real Xen 4.17."""

import http.client
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import libvirt
import pytest

from images.bootspec import BootSpec, Nic
from images.build import hello, linux_microvm
from images.facts import Entry
from orchestrator.abilities import probe
from orchestrator.errors import StartFailed
from orchestrator.hypervisors import libvirt_consoles
from orchestrator.hypervisors.base import Depth, GuestEnded
from orchestrator.hypervisors.domain_xml import xen_domain_xml
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.hypervisors.libxl_dumps import FOLDER
from orchestrator.model import (
    Capacity,
    Guest,
    GuestNetwork,
    Host,
    Mark,
    Probe,
    ProbeKind,
    mac_of,
)
from orchestrator.readiness import Target, wait
from tests.contracts.hypervisor import (
    Heard,
    HypervisorContract,
    SleepContract,
    ends,
    names,
    unheard,
)
from tests.waiting import eventually
from tests.xenbed.bed import Bed

# The first test waits for the bed.
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

HELLO_MIB, LINUX_MIB = 8, 96
INSIDE = IPv4Network("10.78.1.0/24")  # a network of the bed's own, which this machine cannot reach
BRIDGE = "xenbr0"
DEPOT = Path("/var/lib/libvirt/edgewake")  # in the bed, on its disk: the rest of it is memory


@pytest.fixture(scope="session")
def hello_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hello.build(tmp_path_factory.mktemp("hello")).kernel


class XenRig:
    """The bed; all that is made has `tag` in its name, and is found again by it."""

    patience_s = 150.0

    def __init__(self, bed: Bed, kernel: Path, folder: Path, network: GuestNetwork | None) -> None:
        self.bed = bed
        self.kernel = kernel
        self.folder = folder
        self.tag = uuid.uuid4().hex[:6]
        self.owner = f"ewx-{self.tag}"
        self.conn = libvirt.open(bed.libvirt_uri)
        inside = GuestNetwork(
            name=f"ewx-{self.tag}",
            subnet=INSIDE,
            gateway=INSIDE[1],
            first=INSIDE[10],
            last=INSIDE[99],
            create=True,
            bridge=f"ewx{self.tag}",
        )
        capacity = Capacity(cpu=2, memory_mib=bed.state.guests_mib)
        self.host = Host("xen1", bed.libvirt_uri, capacity, network or inside)
        self.drivers: list[LibvirtHypervisor] = []

    def driver(self, *, owner: str = "", host: Host | None = None) -> LibvirtHypervisor:
        driver = LibvirtHypervisor(
            host or self.host,
            owner or self.owner,
            console_dir=self.folder / "console",
            depot_dir=DEPOT,
        )
        self.drivers.append(driver)
        return driver

    def dead_driver(self) -> LibvirtHypervisor:
        return self.driver(host=replace(self.host, uri="xen+tcp://127.0.0.1:1/system"))

    def guest(self, number: int = 0, **changes: Any) -> Guest:
        address = self.host.network.first + number
        name = f"ewx-{self.tag}-{number}"
        boot = BootSpec(
            kernel=self.kernel,
            memory_mib=HELLO_MIB,
            entry=Entry.PVH,
            cmdline=f"ip={address}/24 name={name}",
            nics=(Nic(self.host.network.name, mac_of(address)),),
        )
        mark = Mark(self.owner, name, "web", self.host.name, address, obeys_shutdown=False)
        return Guest(name, mark, replace(boot, **changes))

    def linux(self, files: linux_microvm.Built, entry: Entry) -> Guest:
        address = self.host.network.first
        return self.guest(
            kernel=files.kernel,
            initrd=files.initrd,
            memory_mib=LINUX_MIB,
            entry=entry,
            cmdline=f"console=hvc0 quiet panic=-1 mitigations=off edgewake.test=1 "
            f"edgewake.ip={address}/24",
        )

    def let_end(self, guest: Guest) -> None:
        self.conn.lookupByName(guest.name).destroy()

    def hold(self, guest: Guest) -> None:
        self.conn.lookupByName(guest.name).suspend()

    def chat(self, guest: Guest) -> None:
        """Fetch the guest's page from dom0, which is on its network."""
        ask = ("nc", "-w", "5", str(guest.mark.address), "80")  # wget crashes there

        def fetched() -> bool:
            return b"200 OK" in self.bed.ssh(*ask, stdin=b"GET / HTTP/1.0\r\n\r\n").stdout

        for _request in range(3):
            eventually(fetched, self.patience_s, "an answer from the guest")

    def path(self, guest: Guest) -> str:
        """Return where a guest's keys are in Xenstore."""
        return f"/local/domain/{self.conn.lookupByName(guest.name).ID()}"

    def write_key(self, guest: Guest, key: str, value: str) -> None:
        escaped = value.replace("\\", "\\\\")
        wrote = self.bed.ssh("xenstore-write", "--", f"{self.path(guest)}/{key}", escaped)
        assert wrote.returncode == 0, wrote

    def make_foreign_guest(self, name: str) -> None:
        guest = self.guest()
        kernel = self.bed.put(self.kernel, f"{self.tag}-hello")
        boot = BootSpec(kernel=Path(kernel), memory_mib=HELLO_MIB, entry=Entry.PVH)
        marked = xen_domain_xml(Guest(name, replace(guest.mark, owner="x"), boot))
        before, _, rest = marked.partition("<metadata>")
        self.conn.createXML(before + rest.partition("</metadata>")[2], 0)

    def has_guest(self, name: str) -> bool:
        return name in {domain.name() for domain in self.conn.listAllDomains()}

    def make_foreign_network(self, name: str) -> None:
        self.conn.networkCreateXML(
            f"<network><name>{name}</name><forward mode='open'/><dns enable='no'/>"
            f"<bridge name='ewf{self.tag}'/><ip address='10.79.1.1' prefix='24'/></network>"
        )

    def has_network(self, name: str) -> bool:
        return name in {network.name() for network in self.conn.listAllNetworks()}

    def page(self, guest: Guest, path: str = "/") -> bytes:
        """Return what the guest serves, once it does."""
        got: list[bytes] = []
        eventually(
            lambda: bool(got.append(self._fetch(guest, path)) or got[-1]),
            self.patience_s,
            "an answer from the guest",
        )
        return got[-1]

    def _fetch(self, guest: Guest, path: str) -> bytes:
        peer = http.client.HTTPConnection(str(guest.mark.address), timeout=10)
        try:
            peer.request("GET", path)
            return peer.getresponse().read()
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            peer.close()

    def files(self) -> list[str]:
        """Return what the driver put on the host."""
        found = self.bed.ssh("ls", str(DEPOT / self.owner))
        return found.stdout.decode().split()

    def write_dumps(self, *names: str) -> None:
        """Write files of a byte where libxl writes dumps."""
        self.bed.ssh("sh", "-c", f"cd {FOLDER} && for f in {' '.join(names)}; do echo >$f; done")

    def dumps(self) -> dict[str, int]:
        """Return our files where libxl writes dumps, and their sizes."""
        listed = self.bed.ssh("ls", "-l", str(FOLDER)).stdout.decode().splitlines()
        rows = [line.split() for line in listed if self.tag in line]
        return {row[-1]: int(row[4]) for row in rows}

    def clean(self) -> None:
        self.bed.ssh("sh", "-c", f"rm -f {FOLDER}/*{self.tag}*")
        for driver in self.drivers:
            driver.close()
        ours = [domain for domain in self.conn.listAllDomains() if self.tag in domain.name()]
        with ThreadPoolExecutor(len(ours) or 1) as pool:
            list(pool.map(self._destroy, ours))
        for made in (*self.conn.listAllNetworks(), *self.conn.listAllStoragePools()):
            if self.tag in made.name():
                made.destroy()
        self.bed.ssh("rm", "-rf", str(DEPOT / self.owner))
        self.conn.close()

    def _destroy(self, domain: libvirt.virDomain) -> None:
        with suppress(libvirt.libvirtError):  # it may be ending by itself
            domain.destroy()


@pytest.fixture
def make_rig(xen_bed: Bed, hello_kernel: Path) -> Iterator[Callable[[GuestNetwork | None], XenRig]]:
    folder = Path(tempfile.mkdtemp(prefix="ewx-"))
    rigs: list[XenRig] = []

    def make(network: GuestNetwork | None) -> XenRig:
        rigs.append(XenRig(xen_bed, hello_kernel, folder, network))
        return rigs[-1]

    try:
        yield make
    finally:
        for rig in rigs:
            rig.clean()
        shutil.rmtree(folder)


@pytest.fixture
def rig(make_rig: Callable[[GuestNetwork | None], XenRig]) -> XenRig:
    return make_rig(None)


@pytest.fixture
def outside(xen_bed: Bed, make_rig: Callable[[GuestNetwork | None], XenRig]) -> XenRig:
    """Return a rig whose guests are on dom0's own bridge, where this machine reaches them."""
    lan = xen_bed.state.lan
    network = GuestNetwork(
        name=f"bridge:{BRIDGE}",
        subnet=lan.subnet,
        gateway=lan.gateway,
        first=lan.subnet[10],
        last=lan.subnet[99],
    )
    return make_rig(network)


@pytest.fixture
def hypervisor(outside: XenRig) -> LibvirtHypervisor:
    driver = outside.driver()
    driver.set_network(outside.host.network)
    return driver


class TestXenHypervisor(HypervisorContract):
    pass


class TestXenSleep(SleepContract):
    pass


# --- guests ---------------------------------------------------------------------------------------


def test_hello_answers_from_outside_and_obeys_a_shutdown(
    outside: XenRig, hypervisor: LibvirtHypervisor
) -> None:
    guest = outside.guest()
    guest = replace(guest, mark=replace(guest.mark, obeys_shutdown=True), cpu=0.5)
    hypervisor.start(guest, unheard)
    assert guest.name.encode() in outside.page(guest)
    domain = outside.conn.lookupByName(guest.name)
    assert domain.schedulerParameters()["weight"] == 128, "half a core is half the usual weight"
    first = hypervisor.console(guest.name).splitlines()[0]
    assert b"network card" in first, "not a word is lost"
    hypervisor.stop(guest.name)
    assert not outside.has_guest(guest.name)
    eventually(
        lambda: hypervisor.console(guest.name).count(b"\n") > 2, outside.patience_s, "last words"
    )


@pytest.mark.parametrize("entry", [Entry.PVH, Entry.XEN_PV])
def test_linux_boots_sleeps_and_powers_off(
    outside: XenRig,
    hypervisor: LibvirtHypervisor,
    microvm_files: linux_microvm.Built,
    entry: Entry,
) -> None:
    guest = outside.linux(microvm_files, entry)
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(guest, unheard)
    assert outside.page(guest, "/healthz") == b"ok\n"
    eventually(
        lambda: b"edgewake: ready" in hypervisor.console(guest.name), outside.patience_s, "its line"
    )
    for depth in Depth:
        found = probe(
            hypervisor,
            guest.name,
            depth,
            lambda: outside.page(guest, "/healthz") == b"ok\n",
            outside.patience_s,
        )
        assert found.works, found.why
    assert heard.events == []
    outside.page(guest, "/cgi-bin/poweroff")
    event = heard.wait(ends(guest), outside.patience_s)
    assert event == GuestEnded("xen1", guest.name, "shut down")


def test_a_crash_is_heard_as_one_and_its_console_and_memory_are_kept(
    outside: XenRig, hypervisor: LibvirtHypervisor, microvm_files: linux_microvm.Built
) -> None:
    guest = outside.linux(microvm_files, Entry.XEN_PV)
    guest = replace(guest, mark=replace(guest.mark, dumps_core=True))
    older = [f"{guest.name}-2020-01-0{day}-00:00:00" for day in range(1, 4)]
    foreign = f"{guest.name}-by-hand"
    outside.write_dumps(*older, foreign)
    # Without panic=-1, which asks for a reboot, Linux tells Xen that it crashed.
    crashing = guest.boot.cmdline.replace("panic=-1", "rdinit=/no/such/program")
    guest = replace(guest, boot=replace(guest.boot, cmdline=crashing))
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(guest, unheard)
    event = heard.wait(ends(guest), outside.patience_s)
    assert isinstance(event, GuestEnded)
    assert event == GuestEnded("xen1", guest.name, "crashed", event.dump)
    assert re.fullmatch(rf"{FOLDER}/{guest.name}-[-:0-9]+", event.dump)
    dumps = outside.dumps()
    assert dumps[Path(event.dump).name] >= LINUX_MIB * 2**20, "all of its memory"
    assert set(dumps) == {*older[1:], foreign, Path(event.dump).name}, "and only three are kept"
    eventually(
        lambda: b"Kernel panic" in hypervisor.console(guest.name), outside.patience_s, "last words"
    )


def test_five_wakes_at_once_answer(outside: XenRig, hypervisor: LibvirtHypervisor) -> None:
    guests = [outside.guest(number) for number in range(5)]

    def wake(guest: Guest) -> bytes:
        hypervisor.start(guest, unheard)
        return outside.page(guest)

    with ThreadPoolExecutor(5) as pool:
        pages = list(pool.map(wake, guests))
    assert all(guest.name.encode() in page for guest, page in zip(guests, pages, strict=True))


@pytest.mark.parametrize(
    "asked",
    [
        Probe(ProbeKind.HTTP, port=80),
        Probe(ProbeKind.TCP, port=80),
        Probe(ProbeKind.ICMP),
        Probe(ProbeKind.ARP),
        Probe(ProbeKind.CONSOLE, pattern="listening on .* port 80"),
    ],
    ids=lambda probe: probe.kind,
)
def test_every_readiness_probe_works_from_outside(
    outside: XenRig, hypervisor: LibvirtHypervisor, asked: Probe
) -> None:
    guest = outside.guest()
    hypervisor.start(guest, unheard)
    mac = guest.boot.nics[0].mac
    target = Target(guest.mark.address, None, mac, lambda: hypervisor.console(guest.name))
    deadline = time.monotonic() + outside.patience_s
    wait(asked, target, deadline=deadline, cancelled=lambda: None)  # raises if it is not answered


def test_our_vif_script_is_used_and_sent_once(
    outside: XenRig, hypervisor: LibvirtHypervisor
) -> None:
    for number in range(2):
        hypervisor.start(outside.guest(number), unheard)
    scripts = [name for name in outside.files() if name.startswith("vif-bridge-")]
    assert len(scripts) == 1
    backend = outside.bed.ssh("xenstore-ls", "-f", "/local/domain/0/backend/vif").stdout
    assert backend.count(f"/{scripts[0]}".encode()) == 2


def test_a_card_gets_its_address_through_xenstore(
    outside: XenRig, hypervisor: LibvirtHypervisor
) -> None:
    guest = outside.guest()
    (nic,) = guest.boot.nics
    nic = replace(nic, xenstore_ip="172.44.0.3 255.255.255.0 172.44.0.1")
    hypervisor.start(replace(guest, boot=replace(guest.boot, nics=(nic,))), unheard)
    number = outside.conn.lookupByName(guest.name).ID()
    key = f"/local/domain/0/backend/vif/{number}/0/ip"
    assert outside.bed.ssh("xenstore-read", key).stdout.decode().strip() == nic.xenstore_ip


def test_a_console_is_read_again_after_a_restart(
    outside: XenRig, hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt_consoles, "REOPEN_S", 0.0)
    guest = outside.guest()
    guest = replace(guest, mark=replace(guest.mark, obeys_shutdown=True))
    hypervisor.start(guest, unheard)
    outside.page(guest)
    hypervisor.close()
    fresh = outside.driver()
    assert names(fresh) == {guest.name}
    before = fresh.console(guest.name)
    assert before, "the log of before the restart is kept"
    fresh.stop(guest.name)  # of which hello says something
    eventually(
        lambda: len(fresh.console(guest.name)) > len(before), outside.patience_s, "last words"
    )


def test_free_memory_is_what_one_more_guest_can_have_with_what_xen_adds(
    outside: XenRig, hypervisor: LibvirtHypervisor
) -> None:
    free = hypervisor.free().memory_mib
    sizes = (Capacity(1, size) for size in range(free, 0, -1))
    most = next(size for size in sizes if outside.host.taken_by(size).memory_mib <= free)
    hypervisor.start(outside.guest(memory_mib=most.memory_mib), unheard)
    assert hypervisor.free().memory_mib < HELLO_MIB
    with pytest.raises(StartFailed, match=r"too little free memory for it; .*stop a guest"):
        hypervisor.start(outside.guest(1), unheard)
    assert not outside.has_guest(outside.guest(1).name)


# --- errors: provoked, and told as sentences ------------------------------------------------------


def missing_kernel(rig: XenRig) -> Guest:
    return rig.guest(kernel=rig.folder / "no-kernel")


def bad_kernel(rig: XenRig) -> Guest:
    (rig.folder / "bad").write_bytes(b"not a kernel")
    return rig.guest(kernel=rig.folder / "bad")


def missing_bridge(rig: XenRig) -> Guest:
    return rig.guest(nics=(Nic("bridge:ewx-none", "02:ed:00:00:00:07"),))


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (missing_kernel, r"no-kernel cannot be read on this machine"),
        (bad_kernel, r"Xen finds no way into this kernel; .*image inspect"),
        (lambda rig: rig.guest(entry=Entry.XEN_PV), r"Xen finds no way into this kernel"),
        (lambda rig: rig.guest(memory_mib=1), r"memory is too small for its kernel; give .* more"),
        (missing_bridge, r"could not be plugged in: there is no bridge ewx-none; name a bridge"),
        (
            lambda rig: rig.guest(xenstore=(("rumprun/cfg", "{}"),)),
            r"Xenstore is reached .*xen\+ssh",
        ),
    ],
)
def test_what_xen_refuses_is_told_and_leaves_nothing(
    outside: XenRig,
    hypervisor: LibvirtHypervisor,
    broken: Callable[[XenRig], Guest],
    told: str,
) -> None:
    guest = broken(outside)
    with pytest.raises(StartFailed, match=told):
        hypervisor.start(guest, unheard)
    assert not outside.has_guest(guest.name)
    assert hypervisor.running() == ()


def test_a_bridge_is_not_made(outside: XenRig) -> None:
    with pytest.raises(StartFailed, match="bridges are not made by edgewake"):
        outside.driver().set_network(replace(outside.host.network, create=True))


# --- many hosts -----------------------------------------------------------------------------------


def test_twenty_hosts_cost_one_thread_each(xen_bed: Bed, outside: XenRig) -> None:
    before = threading.active_count()
    drivers = []
    for number in range(20):
        # A parameter that libvirt ignores makes the URI, and so the connection, a host's own.
        uri = f"{xen_bed.libvirt_uri}?no_verify={number}"
        drivers.append(outside.driver(host=replace(outside.host, name=f"x{number}", uri=uri)))
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda driver: driver.watch(Heard()), drivers))
    assert all(driver.running() == () for driver in drivers)
    grown = threading.active_count() - before
    assert grown <= 20 + 1, "one for each host's events, and libvirt's event loop"
