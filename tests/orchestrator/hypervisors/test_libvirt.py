"""The libvirt back end keeps the contract, with real guests on the real libvirt of this machine."""

import http.client
import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import libvirt
import pytest

from images.bootspec import BootSpec, Disk, Nic
from images.build.linux_microvm import Built
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors import libvirt_consoles
from orchestrator.hypervisors.base import Depth, GuestEnded, HostBack, HostLost
from orchestrator.hypervisors.domain_xml import MARK_NAMESPACE, SLOW_CPU_CHECK, domain_xml
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.model import (
    Capacity,
    Guest,
    GuestNetwork,
    GuestState,
    Host,
    Mark,
    guest_uuid,
    mac_of,
)
from tests.contracts.hypervisor import (
    Heard,
    HypervisorContract,
    SleepContract,
    ends,
    names,
    unheard,
)
from tests.waiting import eventually

pytestmark = pytest.mark.real

URI = "qemu:///system"
SOCKET = Path("/run/libvirt/libvirt-sock")
MEMORY_MIB = 96
SUBNETS = tuple(IPv4Network(f"10.77.{third}.0/24") for third in range(2, 10))

# A program that ends at once: busybox, as the only process, asks the kernel for power off.
POWER_OFF = "rdinit=/bin/busybox -- poweroff -f"
PANIC = "rdinit=/no/such/program panic=-1"

# An empty disk of 1 MiB (QEMU docs/interop/qcow2.txt, version 2) in clusters of 64 KiB: the header,
# the table of reference counts, one block of them, and the table of data clusters.
_CLUSTER = 2**16
EMPTY_QCOW2 = b"".join(
    part.ljust(_CLUSTER, b"\0")
    for part in (
        struct.pack(
            ">4sIQIIQIIQQIIQ",
            *(b"QFI\xfb", 2, 0, 0, 16, 2**20, 0, 1, 3 * _CLUSTER, _CLUSTER, 1, 0, 0),
        ),
        struct.pack(">Q", 2 * _CLUSTER),
        struct.pack(">4H", 1, 1, 1, 1),
        b"",
    )
)


def connect() -> libvirt.virConnect:
    try:
        return libvirt.open(URI)
    except libvirt.libvirtError as error:
        pytest.fail(f"libvirtd cannot be reached at {URI}: run `make setup` first ({error})")


class LibvirtRig:
    """Real libvirt; all that is made has `tag` in its name, and is found again by it."""

    patience_s = 150.0

    def __init__(self, conn: libvirt.virConnect, files: Built, folder: Path) -> None:
        self.conn = conn
        self.files = files
        self.folder = folder
        self.tag = uuid.uuid4().hex[:6]
        self.owner = f"ewhv-{self.tag}"
        subnet = SUBNETS[os.getpid() % len(SUBNETS)]
        network = GuestNetwork(
            name=f"ewhv-{self.tag}",
            subnet=subnet,
            gateway=subnet[1],
            first=subnet[10],
            last=subnet[99],
            create=True,
            bridge=f"ewhv{self.tag}",
        )
        capacity = Capacity(cpu=2, memory_mib=4096)
        self.host = Host(name="here", uri=URI, capacity=capacity, network=network)
        self.drivers: list[LibvirtHypervisor] = []

    def driver(
        self, *, owner: str = "", host: Host | None = None, far: bool | None = None
    ) -> LibvirtHypervisor:
        driver = LibvirtHypervisor(
            host or self.host,
            owner or self.owner,
            console_dir=self.folder / "console",
            depot_dir=self.folder / "depot",
            far=far,
        )
        self.drivers.append(driver)
        return driver

    def dead_driver(self) -> LibvirtHypervisor:
        nowhere = f"qemu+unix:///system?socket={self.folder}/nobody"
        return self.driver(host=replace(self.host, uri=nowhere))

    def guest(self, number: int = 0, *, cmdline: str = "") -> Guest:
        address = self.host.network.first + number
        name = f"ewhv-{self.tag}-{number}"
        boot = BootSpec(
            kernel=self.files.kernel,
            initrd=self.files.initrd,
            memory_mib=MEMORY_MIB,
            cmdline=f"console=ttyS0 edgewake.ip={address}/24 {cmdline}",
            nics=(Nic(self.host.network.name, mac_of(address)),),
        )
        return Guest(name, Mark(self.owner, name, "web", self.host.name, address), boot)

    def let_end(self, guest: Guest) -> None:
        pid = int(Path(f"/run/libvirt/qemu/{guest.name}.pid").read_text())
        os.kill(pid, signal.SIGKILL)

    def hold(self, guest: Guest) -> None:
        self.conn.lookupByName(guest.name).suspend()

    def chat(self, guest: Guest) -> None:
        """Fetch the first MiB of something big from the guest, as soon as it serves."""
        eventually(lambda: self._fetch(guest, 2**20), self.patience_s, "an answer from the guest")

    def _fetch(self, guest: Guest, size: int) -> bool:
        peer = http.client.HTTPConnection(str(guest.mark.address), timeout=2)
        try:
            peer.request("GET", "/big")
            return len(peer.getresponse().read(size)) == size
        except (OSError, http.client.HTTPException):
            return False
        finally:
            peer.close()

    def make_foreign_guest(self, name: str) -> None:
        guest = self.guest()
        boot = BootSpec(kernel=guest.boot.kernel, memory_mib=MEMORY_MIB)
        marked = domain_xml(Guest(name, replace(guest.mark, owner="x"), boot))
        before, _, rest = marked.partition("<metadata>")
        self.conn.createXML(before + rest.partition("</metadata>")[2], 0)

    def has_guest(self, name: str) -> bool:
        return name in {domain.name() for domain in self.conn.listAllDomains()}

    def make_foreign_network(self, name: str) -> None:
        self.conn.networkCreateXML(
            f"<network><name>{name}</name><bridge name='ewhf{self.tag}'/></network>"
        )

    def has_network(self, name: str) -> bool:
        return name in {network.name() for network in self.conn.listAllNetworks()}

    def clean(self) -> None:
        for driver in self.drivers:
            driver.close()
        ours = [domain for domain in self.conn.listAllDomains() if self.tag in domain.name()]
        with ThreadPoolExecutor(len(ours) or 1) as pool:
            list(pool.map(self._destroy, ours))
        for made in (*self.conn.listAllNetworks(), *self.conn.listAllStoragePools()):
            if self.tag in made.name():
                made.destroy()

    def _destroy(self, domain: libvirt.virDomain) -> None:
        with suppress(libvirt.libvirtError):  # it may be ending by itself
            domain.destroy()


@pytest.fixture
def rig(microvm_files: Built) -> Iterator[LibvirtRig]:
    conn = connect()
    folder = Path(tempfile.mkdtemp(prefix="ewhv-"))
    folder.chmod(0o755)  # QEMU's user must be able to enter
    rig = LibvirtRig(conn, microvm_files, folder)
    try:
        yield rig
    finally:
        rig.clean()
        conn.close()
        shutil.rmtree(folder)


class TestLibvirtHypervisor(HypervisorContract):
    pass


class TestLibvirtSleep(SleepContract):
    def test_a_restore_that_was_cut_off_leaves_no_memory_to_be_restored_again(
        self, rig: LibvirtRig, sleeper: LibvirtHypervisor, guest: Guest
    ) -> None:
        sleeper.sleep(guest.name, Depth.PAUSED)
        sleeper.sleep(guest.name, Depth.SAVED)
        file = sleeper._saved.memory_file(guest_uuid(rig.owner, guest.name))
        unchanged: Any = None  # the binding's annotation forgets that this is allowed
        rig.conn.restoreFlags(str(file), unchanged, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        sleeper.close()  # killed in the middle of its `rouse`
        after = rig.driver()
        assert [each.state for each in after.running()] == [GuestState.PAUSED]
        after.rouse(guest.name)
        rig.conn.lookupByName(guest.name).destroy()
        assert after.saved() == (), "the guest has run on since"


@pytest.fixture
def hypervisor(rig: LibvirtRig) -> LibvirtHypervisor:
    driver = rig.driver()
    driver.set_network(rig.host.network)
    return driver


# --- guests ---------------------------------------------------------------------------------------


def test_power_off_is_heard_as_such(rig: LibvirtRig, hypervisor: LibvirtHypervisor) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(cmdline=POWER_OFF), unheard)
    event = heard.wait(ends(rig.guest()), rig.patience_s)
    assert event == GuestEnded("here", rig.guest().name, "shut down")
    assert b"Power down" in hypervisor.console(rig.guest().name)


def test_a_panic_ends_the_guest_and_its_console_can_be_opened_till_then(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(cmdline=PANIC), unheard)
    stream = rig.conn.newStream(0)
    first_console: Any = None  # the binding's annotation forgets that this is allowed
    rig.conn.lookupByName(rig.guest().name).openConsole(first_console, stream, 0)
    assert stream.recv(1)
    stream.abort()
    heard.wait(ends(rig.guest()), rig.patience_s)
    assert b"Kernel panic" in hypervisor.console(rig.guest().name)
    assert hypervisor.running() == ()  # libvirt may still be clearing it away, for 2 s
    hypervisor.stop(rig.guest().name)
    assert not rig.has_guest(rig.guest().name)


def test_a_qemu_that_was_killed_is_no_shutdown(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(), unheard)
    rig.let_end(rig.guest())
    event = heard.wait(ends(rig.guest()), rig.patience_s)
    assert event == GuestEnded("here", rig.guest().name, "failed")


def test_a_half_made_guest_does_not_run_and_is_made_anew(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    guest = rig.guest()
    rig.conn.createXML(domain_xml(guest), libvirt.VIR_DOMAIN_START_PAUSED)
    assert hypervisor.running() == ()
    stamps: list[str] = []
    hypervisor.start(guest, stamps.append)
    assert stamps == ["asked", "define", "start"]
    assert names(hypervisor) == {guest.name}


def test_a_copy_of_our_domain_under_another_name_is_foreign(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    guest = rig.guest()
    hypervisor.start(guest, unheard)
    copy = f"{guest.name}-copy"
    other = replace(guest, name=copy, mark=replace(guest.mark, owner="x"))
    xml = domain_xml(other).replace('owner="x"', f'owner="{rig.owner}"')
    rig.conn.createXML(xml.replace(guest.boot.nics[0].mac, "02:ed:00:00:00:01"), 0)
    assert names(hypervisor) == {guest.name}
    hypervisor.stop(copy)
    assert rig.has_guest(copy)


def test_libvirt_keeps_our_mark_and_what_saves_it_questions(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    hypervisor.start(rig.guest(), unheard)
    domain = rig.conn.lookupByName(rig.guest().name)
    element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE)
    assert f'owner="{rig.owner}"' in element or f"owner='{rig.owner}'" in element
    assert f"<qemu:del capability='{SLOW_CPU_CHECK}'/>" in domain.XMLDesc()


def test_guests_share_files_whose_owner_never_changes(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    disk = rig.folder / "shared.img"
    disk.write_bytes(bytes(2**20))
    files = (rig.files.kernel, rig.files.initrd, disk)
    before = [(file.stat().st_uid, file.stat().st_mode) for file in files]
    first, second = (rig.guest(number, cmdline=POWER_OFF) for number in range(2))
    for guest in (first, second):
        boot = replace(guest.boot, disks=(Disk(disk),))
        hypervisor.start(replace(guest, boot=boot), unheard)
    hypervisor.stop(first.name)
    eventually(
        lambda: b"Power down" in hypervisor.console(second.name), rig.patience_s, "power off"
    )
    assert [(file.stat().st_uid, file.stat().st_mode) for file in files] == before


def test_a_disk_may_be_shared_as_qcow2_or_written_as_raw(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    shared, own = rig.folder / "shared.qcow2", rig.folder / "own.img"
    shared.write_bytes(EMPTY_QCOW2)
    own.write_bytes(bytes(2**20))
    read_only = Disk(shared, format="qcow2")
    for number, disks in enumerate([(read_only,), (read_only, Disk(own, read_only=False))]):
        guest = rig.guest(number)
        hypervisor.start(replace(guest, boot=replace(guest.boot, disks=disks)), unheard)
    assert names(hypervisor) == {rig.guest(0).name, rig.guest(1).name}


def test_each_boot_has_a_console_of_its_own(rig: LibvirtRig, hypervisor: LibvirtHypervisor) -> None:
    guest = rig.guest()
    for _boot in range(2):
        hypervisor.start(guest, unheard)
        eventually(
            lambda: b"Linux version" in hypervisor.console(guest.name),
            rig.patience_s,
            "first words",
        )
        hypervisor.stop(guest.name)
    assert hypervisor.console(guest.name).count(b"Linux version") == 1
    assert (rig.folder / "console" / f"{guest.name}.log").stat().st_uid == os.getuid()


# --- errors ---------------------------------------------------------------------------------------


def test_a_missing_kernel_is_refused_in_libvirts_words(
    rig: LibvirtRig, hypervisor: LibvirtHypervisor
) -> None:
    guest = rig.guest()
    missing = replace(guest, boot=replace(guest.boot, kernel=rig.folder / "no-kernel"))
    with pytest.raises(StartFailed, match=r"host here: start .*no-kernel.*; is the image on"):
        hypervisor.start(missing, unheard)
    assert not rig.has_guest(guest.name)


def test_a_missing_network_says_what_to_do(rig: LibvirtRig) -> None:
    hypervisor = rig.driver()
    with pytest.raises(
        StartFailed, match="does not exist there; define it, or write `create: true"
    ):
        hypervisor.set_network(replace(rig.host.network, create=False))


def test_nobody_at_the_socket_says_what_to_do(rig: LibvirtRig) -> None:
    with pytest.raises(HostUnreachable, match="libvirtd does not run there"):
        rig.dead_driver().running()


# --- networks -------------------------------------------------------------------------------------


def test_a_network_may_have_ipv6(rig: LibvirtRig) -> None:
    hypervisor = rig.driver()
    wanted = replace(rig.host.network, subnet6=IPv6Network("fd77:77::/64"))
    hypervisor.set_network(wanted)
    assert "fd77:77::1" in rig.conn.networkLookupByName(wanted.name).XMLDesc()
    made = rig.conn.networkLookupByName(wanted.name).XMLDesc()
    hypervisor.set_network(wanted)
    assert rig.conn.networkLookupByName(wanted.name).XMLDesc() == made


def test_two_hosts_may_share_a_network_and_be_set_at_once(rig: LibvirtRig) -> None:
    drivers = [rig.driver(host=replace(rig.host, name=f"host{n}")) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda driver: driver.set_network(rig.host.network), drivers))
    assert rig.has_network(rig.host.network.name)


# --- a connection that breaks ---------------------------------------------------------------------


class Proxy:
    """Stands between a driver and libvirtd, so that the connection can break and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sockets: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.path}"

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        self.path.unlink(missing_ok=True)
        sockets, self._sockets = self._sockets, []
        for end in [self._listener, *sockets]:
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(SOCKET))
                self._sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)


@pytest.fixture
def proxy(rig: LibvirtRig) -> Iterator[Proxy]:
    proxy = Proxy(rig.folder / "proxy")
    proxy.open()
    yield proxy
    proxy.cut()


def test_a_broken_connection_is_heard_and_made_again(rig: LibvirtRig, proxy: Proxy) -> None:
    hypervisor = rig.driver(host=replace(rig.host, uri=proxy.uri))
    hypervisor.set_network(rig.host.network)
    heard = Heard()
    hypervisor.watch(heard)
    survivor, casualty = rig.guest(0), rig.guest(1)
    hypervisor.start(survivor, unheard)
    hypervisor.start(casualty, unheard)
    proxy.cut()
    heard.wait(lambda event: isinstance(event, HostLost), rig.patience_s)
    with pytest.raises(HostUnreachable, match="host here: no connection to"):
        hypervisor.running()
    rig.driver().stop(casualty.name)
    proxy.open()
    heard.wait(lambda event: isinstance(event, HostBack), rig.patience_s)
    assert names(hypervisor) == {survivor.name}
    rig.let_end(survivor)
    heard.wait(ends(survivor), rig.patience_s)
    assert [type(event) for event in heard.events] == [HostLost, HostBack, GuestEnded]


def test_drivers_share_one_connection_until_the_last_closes(rig: LibvirtRig, proxy: Proxy) -> None:
    hosts = [replace(rig.host, name=f"host{n}", uri=proxy.uri) for n in range(3)]
    drivers = [rig.driver(host=host) for host in hosts]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda driver: driver.free(), drivers))
    assert len(proxy._sockets) == 2, "one from us, one to libvirtd"
    drivers[0].close()
    drivers[1].close()
    assert drivers[2].running() == ()


# --- consoles that are read over the connection ---------------------------------------------------


def test_the_console_of_a_guest_elsewhere_is_read_from_its_first_byte(
    rig: LibvirtRig, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt_consoles, "REOPEN_S", 0.0)
    far = rig.driver(host=replace(rig.host, uri=proxy.uri), far=True)
    far.set_network(rig.host.network)
    heard = Heard()
    far.watch(heard)
    guest = rig.guest(cmdline="edgewake.test=1")
    far.start(guest, unheard)
    eventually(lambda: b"ready" in far.console(guest.name), rig.patience_s, "console output")
    assert b"Linux version" in far.console(guest.name).splitlines()[0]
    before = far.console(guest.name)
    proxy.cut()
    heard.wait(lambda event: isinstance(event, HostLost), rig.patience_s)
    proxy.open()
    heard.wait(lambda event: isinstance(event, HostBack), rig.patience_s)
    connection = http.client.HTTPConnection(str(guest.mark.address), timeout=rig.patience_s)
    connection.request("GET", "/cgi-bin/poweroff")  # of which the guest says something
    connection.getresponse().read()
    connection.close()
    eventually(
        lambda: b"Power down" in far.console(guest.name),
        rig.patience_s,
        "the console after the connection was made again",
    )
    assert far.console(guest.name).startswith(before[:1000])
