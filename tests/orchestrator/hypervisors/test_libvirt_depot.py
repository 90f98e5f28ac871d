"""Files sent to a host, and disks written there, through the real libvirt and with real guests.

A depot that is told that this machine is far away does all that it does for one that is: uploads go
through libvirt's streams into a storage pool, here in a folder of the test's.
"""

import hashlib
import http.client
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import libvirt
import pytest

from images.bootspec import BootSpec, Disk, Nic
from images.build import cpio
from images.build.linux_microvm import Built, newest_kernel
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.depot import SEAL, Depot, image_name
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.hypervisors.libvirt_pool import LibvirtPool, pool_name, pool_xml, qemu_user
from orchestrator.hypervisors.qcow2 import empty_overlay
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, guest_uuid, mac_of
from tests.contracts.hypervisor import Heard, ends, unheard
from tests.waiting import eventually

pytestmark = pytest.mark.real

URI = "qemu:///system"
SOCKET = Path("/run/libvirt/libvirt-sock")
SUBNETS = tuple(IPv4Network(f"10.77.{third}.0/24") for third in range(12, 20))
PATIENCE_S = 150.0
MIB = 2**20
POWER_OFF = "rdinit=/bin/busybox -- poweroff -f"

# What the guest of the disk tests does instead of serving: it reads, writes and reads again.
WRITER = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
mount -t devtmpfs dev /dev
modprobe virtio_pci
insmod /virtio_blk.ko
echo "found: $(dd if=/dev/vda bs=16 count=1 2>/dev/null)"
printf 'guest was here..' | dd of=/dev/vda bs=16 conv=notrunc,fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
echo "now: $(dd if=/dev/vda bs=16 count=1 2>/dev/null)"
while :; do sleep 1000; done
"""


class Tap:
    """Stands between libvirt's client and libvirtd: counts, and stops when it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = f"qemu+unix:///system?socket={path}"
        self.sent = 0  # bytes, towards libvirtd
        self.cut_at: int | None = None
        self.hold_at: int | None = None
        self.held = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in (self._listener, *self._sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(SOCKET))
                self._sockets += [client, server]
                for work, ends_ in ((self._up, (client, server)), (self._down, (server, client))):
                    threading.Thread(target=work, args=ends_, daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.cut_at is not None and self.sent + len(data) > self.cut_at:
                    break
                if self.hold_at is not None and self.sent + len(data) > self.hold_at:
                    self.held.set()
                    continue
                server.sendall(data)
                self.sent += len(data)
        _hang_up(client, server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        _hang_up(client, server)


def _hang_up(*sockets: socket.socket) -> None:
    for end in sockets:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class DepotRig:
    """Real libvirt; all that is made is found again by `owner`, and by names that begin with it."""

    def __init__(self, conn: libvirt.virConnect, files: Built, folder: Path) -> None:
        self.conn = conn
        self.files = files
        self.folder = folder
        self.owner = f"ewdp-{uuid.uuid4().hex[:6]}"
        self.store = folder / "depot" / self.owner
        self.tap = Tap(folder / "tap")
        subnet = SUBNETS[os.getpid() % len(SUBNETS)]
        network = GuestNetwork(
            name=self.owner,
            subnet=subnet,
            gateway=subnet[1],
            first=subnet[10],
            last=subnet[99],
            create=True,
            bridge=self.owner.replace("-", ""),
        )
        self.host = Host("here", URI, Capacity(cpu=2, memory_mib=4096), network)
        self.drivers: list[LibvirtHypervisor] = []

    def driver(self, *, uri: str = URI, far: bool = True) -> LibvirtHypervisor:
        driver = LibvirtHypervisor(
            replace(self.host, uri=uri),
            self.owner,
            console_dir=self.folder / "console",
            far=far,
            depot_dir=self.store.parent,
        )
        self.drivers.append(driver)
        driver.set_network(self.host.network)
        return driver

    def depot(self, uri: str = URI) -> Depot:
        """Return a depot with a connection of its own."""
        conn = libvirt.open(uri)
        user = qemu_user(conn.getCapabilities())
        pool = LibvirtPool(conn, "far", self.owner, self.store.parent, user)
        return Depot("far", self.owner, lambda: pool, far=True)

    def guest(self, number: int = 0, *disks: Disk, cmdline: str = "") -> Guest:
        address = self.host.network.first + number
        name = f"{self.owner}-{number}"
        boot = BootSpec(
            kernel=self.files.kernel,
            initrd=self.files.initrd,
            memory_mib=96,
            cmdline=f"console=ttyS0 edgewake.ip={address}/24 {cmdline}",
            nics=(Nic(self.host.network.name, mac_of(address)),),
            disks=disks,
        )
        return Guest(name, Mark(self.owner, name, "web", self.host.name, address), boot)

    def writer(self, number: int, disk: Disk) -> Guest:
        """Return a guest that writes to its first disk and says what it finds there."""
        initrd = self.folder / "writer"
        if not initrd.exists():
            kernel = newest_kernel()
            version = kernel.name.removeprefix("vmlinuz-")
            modules = kernel.parents[1] / "lib" / "modules" / version
            block = (modules / "kernel/drivers/block/virtio_blk.ko").read_bytes()
            more = [cpio.file("writer", WRITER, executable=True), cpio.file("virtio_blk.ko", block)]
            initrd.write_bytes(self.files.initrd.read_bytes() + cpio.archive(more))
        guest = self.guest(number, disk, cmdline="rdinit=/writer")
        return replace(guest, boot=replace(guest.boot, initrd=initrd))

    def big_file(self, size: int = 8 * MIB) -> Path:
        path = self.folder / "big"
        path.write_bytes(os.urandom(size))
        return path

    def stored(self) -> set[str]:
        return {file.name for file in self.store.iterdir()} if self.store.exists() else set()

    def overlays(self) -> set[str]:
        return {name for name in self.stored() if name.startswith("overlay-")}

    def clean(self) -> None:
        for driver in self.drivers:
            driver.close()
        self.tap.close()
        ours = [one for one in self.conn.listAllDomains() if one.name().startswith(self.owner)]
        with ThreadPoolExecutor(len(ours) or 1) as pool:
            list(pool.map(_destroyed, ours))
        for found in (*self.conn.listAllNetworks(), *self.conn.listAllStoragePools()):
            if self.owner in found.name():
                found.destroy()


def _destroyed(domain: libvirt.virDomain) -> None:
    with suppress(libvirt.libvirtError):  # it may be ending by itself
        domain.destroy()


@pytest.fixture
def rig(microvm_files: Built) -> Iterator[DepotRig]:
    try:
        conn = libvirt.open(URI)
    except libvirt.libvirtError as error:
        pytest.fail(f"libvirtd cannot be reached at {URI}: run `make setup` first ({error})")
    folder = Path(tempfile.mkdtemp(prefix="ewdp-"))
    folder.chmod(0o755)  # QEMU's user must be able to enter
    rig = DepotRig(conn, microvm_files, folder)
    try:
        yield rig
    finally:
        rig.clean()
        conn.close()
        shutil.rmtree(folder)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored_name(path: Path) -> str:
    return image_name(digest(path))


def answers(guest: Guest) -> bool:
    peer = http.client.HTTPConnection(str(guest.mark.address), timeout=2)
    try:
        peer.request("GET", "/healthz")
        return peer.getresponse().read() == b"ok\n"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        peer.close()


# --- transfers ------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_only_once(rig: DepotRig) -> None:
    big = rig.big_file()
    there = rig.depot(rig.tap.uri).bring(big)
    assert there == rig.store / stored_name(big)
    assert digest(there) == digest(big)
    assert rig.stored() == {there.name, there.name + SEAL}
    assert rig.tap.sent >= big.stat().st_size
    rig.tap.sent = 0
    assert rig.depot(rig.tap.uri).bring(big) == there
    assert rig.tap.sent < 8192, "a few questions, and none of the file"


def test_an_empty_file_is_a_file(rig: DepotRig) -> None:
    empty = rig.folder / "empty"
    empty.touch()
    assert rig.depot().bring(empty).read_bytes() == b""


def test_disks_are_sent_as_they_are(rig: DepotRig) -> None:
    """What looks like a disk image is neither converted nor followed by libvirt."""
    trap = rig.folder / "trap"
    trap.write_bytes(b"".join(empty_overlay("/etc/passwd", "raw", 64 * MIB)))
    depot = rig.depot()
    assert digest(depot.bring(trap)) == digest(trap)
    depot.forget()
    assert digest(depot.bring(trap)) == digest(trap)


def test_a_connection_cut_in_the_middle_is_taken_up_again(rig: DepotRig) -> None:
    big = rig.big_file()
    rig.tap.cut_at = 5 * MIB
    with pytest.raises(libvirt.libvirtError):
        rig.depot(rig.tap.uri).bring(big)
    assert rig.stored() == {stored_name(big)}, "a part has no seal"
    part = rig.store / stored_name(big)
    eventually(lambda: part.stat().st_size > 4 * MIB, PATIENCE_S, "the part is written")
    rig.tap.cut_at, rig.tap.sent = None, 0
    there = rig.depot(rig.tap.uri).bring(big)
    assert digest(there) == digest(big)
    assert MIB < rig.tap.sent < 5 * MIB, "only what was missing"


def test_a_damaged_part_is_never_used(rig: DepotRig, caplog: pytest.LogCaptureFixture) -> None:
    big = rig.big_file()
    rig.tap.cut_at = 5 * MIB
    with pytest.raises(libvirt.libvirtError):
        rig.depot(rig.tap.uri).bring(big)
    part = rig.store / stored_name(big)
    eventually(lambda: part.stat().st_size > 4 * MIB, PATIENCE_S, "the part is written")
    with part.open("r+b") as file:
        file.seek(MIB)
        file.write(b"something else")
    with caplog.at_level(logging.WARNING):
        assert digest(rig.depot().bring(big)) == digest(big)
    assert f"{part.name} is damaged there" in caplog.text


def test_an_uploader_that_was_killed_is_taken_over(rig: DepotRig) -> None:
    big = rig.big_file()
    rig.tap.hold_at = 5 * MIB
    program = f"""
import libvirt
from pathlib import Path
from orchestrator.hypervisors.depot import Depot
from orchestrator.hypervisors.libvirt_pool import LibvirtPool
pool = LibvirtPool(
    libvirt.open({rig.tap.uri!r}), "far", {rig.owner!r}, Path({str(rig.store.parent)!r}), None
)
Depot("far", {rig.owner!r}, lambda: pool, far=True).bring(Path({str(big)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", program]) as uploader:
        assert rig.tap.held.wait(PATIENCE_S)
        uploader.send_signal(signal.SIGKILL)
    assert uploader.returncode == -signal.SIGKILL
    assert rig.stored() == {stored_name(big)}
    rig.tap.hold_at, rig.tap.sent = None, 0
    assert digest(rig.depot(rig.tap.uri).bring(big)) == digest(big)
    assert MIB < rig.tap.sent < 5 * MIB


def test_a_file_that_somebody_removed_there_is_sent_again(rig: DepotRig) -> None:
    big = rig.big_file()
    depot = rig.depot()
    for _time in range(2):
        there = depot.bring(big)
        there.unlink()
        depot.forget()
    assert digest(depot.bring(big)) == digest(big)


def test_a_file_that_was_written_to_there_is_noticed_at_the_next_connection(
    rig: DepotRig, caplog: pytest.LogCaptureFixture
) -> None:
    big = rig.big_file()
    there = rig.depot().bring(big)
    with there.open("r+b") as file:
        file.seek(MIB)
        file.write(b"something else")
    with caplog.at_level(logging.WARNING):
        assert digest(rig.depot().bring(big)) == digest(big)
    assert f"{there.name} is not as it was when checked" in caplog.text


def test_a_file_that_was_only_touched_there_is_read_and_not_sent(rig: DepotRig) -> None:
    big = rig.big_file()
    os.utime(rig.depot().bring(big), (5, 5))
    for _time in range(2):
        rig.tap.sent = 0
        rig.depot(rig.tap.uri).bring(big)
        assert rig.tap.sent < 16384


@pytest.mark.parametrize("end", [b"", b"end"], ids=["hole", "data"])
def test_holes_stay_holes(rig: DepotRig, end: bytes) -> None:
    size = 200 * MIB
    sparse = rig.folder / "sparse"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.seek(100 * MIB)
        file.write(b"middle")
        file.truncate(size - len(end))
        file.seek(0, os.SEEK_END)
        file.write(end)
    there = rig.depot(rig.tap.uri).bring(sparse)
    assert rig.tap.sent < MIB
    assert there.stat().st_blocks * 512 < MIB
    assert there.stat().st_size == size
    assert digest(there) == digest(sparse)


def test_files_outlive_the_pool_that_libvirt_forgets(rig: DepotRig) -> None:
    big = rig.big_file()
    rig.depot().bring(big)
    rig.conn.storagePoolLookupByName(pool_name(rig.owner)).destroy()  # as a restart of the host
    assert rig.depot().drop("web-0") is None
    (rig.folder / "small").write_bytes(b"small")
    rig.depot().bring(rig.folder / "small")
    depot = rig.depot(rig.tap.uri)
    depot.bring(big)
    assert rig.tap.sent < 8192


def test_two_edgewakes_may_send_at_once(rig: DepotRig) -> None:
    big = rig.big_file(32 * MIB)
    depots = [rig.depot() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(lambda depot: depot.bring(big), depots))
    assert [digest(path) for path in paths] == [digest(big)]


def test_an_empty_folder_is_not_left_behind_and_one_with_files_is(rig: DepotRig) -> None:
    depot, first, last = rig.depot(), rig.driver(), rig.driver()
    path = depot.bring(rig.big_file())
    first.close()
    last.close()
    assert path.exists()
    for name in rig.stored():
        rig.conn.storagePoolLookupByName(pool_name(rig.owner)).refresh()
        volume = rig.conn.storagePoolLookupByName(pool_name(rig.owner)).storageVolLookupByName(name)
        volume.delete()
    first, last = rig.driver(), rig.driver()
    first.close()
    assert rig.store.exists(), "the other host may be about to use it"
    last.close()
    assert not rig.store.exists()
    assert pool_name(rig.owner) not in {one.name() for one in rig.conn.listAllStoragePools()}


def test_a_pool_of_our_name_that_is_not_ours_is_left_alone(rig: DepotRig) -> None:
    rig.conn.storagePoolCreateXML(
        pool_xml("x", rig.folder / "foreign").replace(pool_name("x"), pool_name(rig.owner)),
        libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD,
    )
    with pytest.raises(StartFailed, match=f"pool named edgewake-{rig.owner} exists there and"):
        rig.depot().bring(rig.big_file())
    assert list((rig.folder / "foreign").iterdir()) == []


@pytest.fixture
def small_disk(rig: DepotRig) -> Iterator[Path]:
    """Mount a file system of 16 MiB where the rig's files go."""
    rig.store.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", "size=16m", "edgewake-test", str(rig.store)]
    subprocess.run(argv, check=True)
    try:
        yield rig.store
    finally:
        rig.conn.storagePoolLookupByName(pool_name(rig.owner)).destroy()
        subprocess.run(["umount", str(rig.store)], check=True)


@pytest.mark.usefixtures("small_disk")
def test_no_space_left_says_how_much_is_needed(rig: DepotRig) -> None:
    rig.depot().bring(rig.big_file(4 * MIB))
    wanted = r"no space left for .*big: 24\.0 MiB needed, 1[12]\.\d MiB free in .*depot"
    with pytest.raises(StartFailed, match=wanted):
        rig.depot().bring(rig.big_file(24 * MIB))


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_fills_up_meanwhile_is_said_to_be_full(
    rig: DepotRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtPool, "free", lambda _pool: 2**40)
    guest = rig.guest()
    too_big = replace(guest, boot=replace(guest.boot, kernel=rig.big_file(24 * MIB)))
    with pytest.raises(StartFailed, match=r"(?i)start .*no space left .*remove images that"):
        rig.driver().start(too_big, unheard)


# --- guests ---------------------------------------------------------------------------------------


def test_a_guest_boots_from_what_was_sent_and_a_second_one_sends_nothing(rig: DepotRig) -> None:
    driver = rig.driver(uri=rig.tap.uri)
    first, second = rig.guest(0), rig.guest(1)
    driver.start(first, unheard)
    xml = rig.conn.lookupByName(first.name).XMLDesc()
    assert f"<kernel>{rig.store / stored_name(rig.files.kernel)}</kernel>" in xml
    assert f"<initrd>{rig.store / stored_name(rig.files.initrd)}</initrd>" in xml
    rig.tap.sent = 0
    driver.start(second, unheard)
    assert rig.tap.sent < 16384
    for guest in (first, second):
        eventually(lambda guest=guest: answers(guest), PATIENCE_S, f"an answer of {guest.name}")


def test_guests_that_boot_at_once_cause_one_transfer(rig: DepotRig) -> None:
    driver = rig.driver(uri=rig.tap.uri)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: driver.start(rig.guest(number), unheard), range(2)))
    size = rig.files.kernel.stat().st_size + rig.files.initrd.stat().st_size
    assert size <= rig.tap.sent < 1.2 * size


def test_a_start_that_lost_its_connection_says_so_and_is_taken_up(rig: DepotRig) -> None:
    driver = rig.driver(uri=rig.tap.uri)
    rig.tap.cut_at = rig.tap.sent + 2 * MIB
    with pytest.raises(HostUnreachable, match="host here: start"):
        driver.start(rig.guest(), unheard)
    rig.tap.cut_at = None
    driver.start(rig.guest(), unheard)
    eventually(lambda: answers(rig.guest()), PATIENCE_S, "an answer")


def test_a_start_that_finds_its_image_gone_makes_the_next_one_send_it(rig: DepotRig) -> None:
    driver = rig.driver()
    driver.start(rig.guest(0), unheard)
    (rig.store / stored_name(rig.files.kernel)).unlink()
    with pytest.raises(StartFailed, match="one that was sent there is sent again"):
        driver.start(rig.guest(1), unheard)
    driver.start(rig.guest(1), unheard)


@pytest.mark.parametrize("far", [True, False])
def test_each_guest_writes_to_a_disk_of_its_own(rig: DepotRig, far: bool) -> None:
    base = rig.folder / "base.img"
    base.write_bytes(b"as it was built." + bytes(MIB - 16))
    before, owner = digest(base), base.stat().st_uid
    driver = rig.driver(far=far)
    guests = [rig.writer(number, Disk(base, read_only=False)) for number in range(2)]
    for guest in guests:
        driver.start(guest, unheard)
    for guest in guests:
        eventually(
            lambda guest=guest: b"now: guest was here.." in driver.console(guest.name),
            PATIENCE_S,
            f"{guest.name} has written",
        )
        assert b"found: as it was built." in driver.console(guest.name)
    shared = rig.store / stored_name(base) if far else base
    assert digest(shared) == before
    assert len(rig.overlays()) == 2
    for guest in guests:
        xml = rig.conn.lookupByName(guest.name).XMLDesc()
        assert f"<source file='{shared}'" in xml, "the backing file that libvirt found"
    driver.stop(guests[0].name)
    assert len(rig.overlays()) == 1
    driver.start(guests[0], unheard)
    eventually(
        lambda: b"found: as it was built." in driver.console(guests[0].name),
        PATIENCE_S,
        "a disk that is as new",
    )
    for guest in guests:
        driver.stop(guest.name)
    assert rig.overlays() == set()
    assert (digest(base), base.stat().st_uid) == (before, owner)


def test_the_overlay_of_a_guest_that_ended_by_itself_goes(rig: DepotRig) -> None:
    base = rig.big_file(MIB)
    driver, heard = rig.driver(far=False), Heard()
    driver.watch(heard)
    for guest in (
        rig.guest(0, Disk(base, read_only=False), cmdline=POWER_OFF),
        rig.guest(1, Disk(base, read_only=False), cmdline="rdinit=/none panic=-1"),
    ):
        driver.start(guest, unheard)
        assert len(rig.overlays()) == 1
        heard.wait(ends(guest), PATIENCE_S)
        eventually(lambda: not rig.overlays(), PATIENCE_S, "its overlay is gone")


def test_a_start_that_fails_leaves_no_overlay(rig: DepotRig) -> None:
    guest = rig.guest(0, Disk(rig.big_file(MIB), read_only=False))
    driver = rig.driver(far=False)
    huge = replace(guest, boot=replace(guest.boot, memory_mib=2**32))
    with pytest.raises(StartFailed):
        driver.start(huge, unheard)
    assert rig.store.exists()
    assert rig.overlays() == set()


def test_a_disk_that_names_other_files_of_the_host_is_refused(rig: DepotRig) -> None:
    trap = rig.folder / "trap.qcow2"
    trap.write_bytes(b"".join(empty_overlay("/etc/shadow", "raw", MIB)))
    with pytest.raises(StartFailed, match="needs backing file /etc/shadow"):
        rig.driver(far=False).start(rig.guest(0, Disk(trap, format="qcow2")), unheard)


def test_only_what_nobody_uses_is_collected(rig: DepotRig) -> None:
    base = rig.big_file(MIB)
    rig.driver().start(rig.guest(0, Disk(base, read_only=False)), unheard)
    (overlay,) = rig.overlays()
    unused, soon = rig.folder / "unused", rig.folder / "soon"
    for file in (unused, soon):
        file.write_bytes(file.name.encode())
        rig.depot().bring(file)
    leftover = rig.store / f"overlay-{guest_uuid(rig.owner, 'crashed')}-0"
    leftover.touch()
    foreign = rig.store / "precious"
    foreign.touch()
    fresh = rig.driver()
    assert fresh.collect([soon]) == (leftover.name,), "of a run that is over, whatever its age"
    for file in rig.store.iterdir():
        os.utime(file, (0, 0))
    assert fresh.collect([soon]) == (stored_name(unused),)
    files = [base, soon, rig.files.kernel, rig.files.initrd]
    images = {stored_name(file) for file in files}
    assert rig.stored() == {overlay, foreign.name, *images, *(name + SEAL for name in images)}
