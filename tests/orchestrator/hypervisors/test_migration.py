"""Live migration through libvirt, for real: QEMU guests between two libvirts of this machine.

The guest is hello: its page says when it started and how many requests it has answered.
"""

import http.client
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv4Network
from itertools import pairwise
from pathlib import Path

import libvirt
import pytest

from images.bootspec import BootSpec, Disk, Nic
from images.facts import Entry
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.base import Depth, Sent
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.model import (
    Capacity,
    Guest,
    GuestNetwork,
    GuestState,
    Host,
    Mark,
    mac_of,
)
from tests.contracts.hypervisor import (
    MigrateContract,
    elsewhere,
    names,
    states,
    unheard,
    unwatched,
)
from tests.orchestrator.hypervisors.second_libvirt import SecondLibvirt
from tests.waiting import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

URI = "qemu:///system"
SUBNETS = tuple(IPv4Network(f"10.79.{third}.0/24") for third in range(2, 60))
log = logging.getLogger(__name__)
STARTED = re.compile(r"Started</th><td>([^<]*)")
REQUESTS = re.compile(r"Requests</th><td>(\d+)")
ALL_FRAMES = 3  # ETH_P_ALL, linux/if_ether.h


class QemuPair:
    """Two libvirts; all that is made has `tag` in its name, and is found again by it."""

    patience_s = 150.0
    can_call_off = True

    def __init__(self, folder: Path, kernel: Path) -> None:
        self.folder = folder
        self.tag = uuid.uuid4().hex[:6]
        self.owner = f"ewm-{self.tag}"
        self.kernel = kernel
        subnet = SUBNETS[os.getpid() % len(SUBNETS)]
        ours = IPv4Interface((subnet[1], subnet.prefixlen))
        self.second = SecondLibvirt.start(folder / "second", f"ewm{self.tag}", ours)
        self.conn = libvirt.open(URI)
        name = f"bridge:{self.second.bridge}"
        network = GuestNetwork(name, subnet, subnet[1], subnet[10], subnet[19])
        capacity = Capacity(cpu=2, memory_mib=4096)
        self.host = Host("here", URI, capacity, network, migration_address=str(ours.ip))
        self.other = replace(
            self.host,
            name="there",
            uri=self.second.uri,
            network=replace(network, first=subnet[20], last=subnet[29]),
            migration_address=str(self.second.other_address),
        )
        self.drivers: list[LibvirtHypervisor] = []

    def driver(self, *, owner: str = "", host: Host | None = None) -> LibvirtHypervisor:
        driver = LibvirtHypervisor(
            host or self.host,
            owner or self.owner,
            console_dir=self.folder / "console",
            depot_dir=self.folder / "depot",
        )
        self.drivers.append(driver)
        return driver

    def other_driver(self) -> LibvirtHypervisor:
        return self.driver(host=self.other)

    def dead_other(self) -> LibvirtHypervisor:
        nowhere = f"qemu+unix:///system?socket={self.folder}/nobody"
        return self.driver(host=replace(self.other, uri=nowhere))

    def guest(self, number: int = 0) -> Guest:
        address = self.host.network.first + number
        name = f"ewm-{self.tag}-{number}"
        boot = BootSpec(
            kernel=self.kernel,
            memory_mib=8,
            entry=Entry.MULTIBOOT,
            cmdline=f"ip={address}/24 name={name}",
            nics=(Nic(self.host.network.name, mac_of(address)),),
        )
        return Guest(name, Mark(self.owner, name, "web", self.host.name, address), boot)

    def page(self, guest: Guest) -> str:
        """Return the guest's page, as soon as it serves one."""
        found: list[str] = []

        def fetched() -> bool:
            peer = http.client.HTTPConnection(str(guest.mark.address), timeout=2)
            try:
                peer.request("GET", "/")
                found.append(peer.getresponse().read().decode())
            except (OSError, http.client.HTTPException):
                return False
            finally:
                peer.close()
            return True

        eventually(fetched, self.patience_s, "an answer from the guest")
        return found[0]

    def state_of(self, guest: Guest) -> str:
        started = STARTED.search(self.page(guest))
        assert started
        return started[1]

    def has_guest(self, name: str) -> bool:
        return name in {domain.name() for domain in self.conn.listAllDomains()}

    def to_foreign_guest(self, name: str) -> None:
        machine = "<os><type arch='x86_64'>hvm</type></os>"
        memory = "<memory unit='MiB'>8</memory>"
        conn = libvirt.open(self.second.uri)
        conn.createXML(f"<domain type='qemu'><name>{name}</name>{memory}{machine}</domain>", 0)
        conn.close()

    def clean(self) -> None:
        for driver in self.drivers:
            driver.close()
        for domain in self.conn.listAllDomains():
            if self.tag in domain.name():
                domain.destroy()
        for pool in self.conn.listAllStoragePools():
            if self.tag in pool.name():
                pool.destroy()
        self.conn.close()
        self.second.stop()


@pytest.fixture
def rig(hello_file: Path) -> Iterator[QemuPair]:
    folder = Path(tempfile.mkdtemp(prefix="ewm-"))
    folder.chmod(0o755)  # QEMU's user must be able to enter
    (folder / "second").mkdir()
    rig = QemuPair(folder, hello_file)
    try:
        yield rig
    finally:
        rig.clean()
        shutil.rmtree(folder)


class TestQemuMigration(MigrateContract):
    pass


@pytest.fixture
def here(rig: QemuPair) -> LibvirtHypervisor:
    driver = rig.driver()
    driver.start(rig.guest(), unheard)
    rig.page(rig.guest())
    return driver


@pytest.fixture
def there(rig: QemuPair) -> LibvirtHypervisor:
    return rig.other_driver()


# --- what a client sees ---------------------------------------------------------------------------


@dataclass
class Asker:
    """A client with one TCP connection, over which it asks again and again."""

    address: str
    answers: list[tuple[float, int]] = field(default_factory=list)  # when, requests so far
    failure: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Asker":
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._thread.join()

    def _ask(self) -> None:
        peer = http.client.HTTPConnection(self.address, timeout=30)
        peer.connect()
        first = peer.sock
        try:
            while not self.over.wait(0.01):
                peer.request("GET", "/")
                requests = REQUESTS.search(peer.getresponse().read().decode())
                assert requests
                assert peer.sock is first, "the connection was made anew"
                self.answers.append((time.monotonic(), int(requests[1])))
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failure = repr(error)
        finally:
            peer.close()


@dataclass
class Frames:
    """Frames that a MAC address sent, as they came in: when, and by which of our network cards."""

    mac: str
    seen: list[tuple[float, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Frames":
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        sender = bytes.fromhex(self.mac.replace(":", ""))
        while not self.over.is_set():
            try:
                frame, (card, _, kind, *_) = self._socket.recvfrom(64)
            except TimeoutError:
                continue
            if frame[6:12] == sender and kind != socket.PACKET_OUTGOING:
                self.seen.append((time.monotonic(), card))


def test_connections_and_memory_are_kept_and_the_old_copy_is_silent(
    rig: QemuPair,
    here: LibvirtHypervisor,
    there: LibvirtHypervisor,
) -> None:
    guest = rig.guest()
    address, mac = str(guest.mark.address), guest.boot.nics[0].mac
    with Frames(mac) as frames, Asker(address) as asker:
        eventually(lambda: len(asker.answers) > 20, rig.patience_s, "answers before")
        began = time.monotonic()
        here.migrate(elsewhere(guest, rig.other), there, unwatched)
        took = time.monotonic() - began
        before = len(asker.answers)
        eventually(lambda: len(asker.answers) > before + 20, rig.patience_s, "answers after")
    assert asker.failure == ""
    numbers = [number for _, number in asker.answers]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    times = [at for at, _ in asker.answers]
    silent = max(b - a for a, b in pairwise(times))
    log.info("migrated in %.2f s, and silent for %.3f s at most", took, silent)
    assert silent < took + 1.0
    cards = [card for _, card in frames.seen if card.startswith(("vnet", rig.second.cable))]
    switched = cards.index(rig.second.cable)
    assert switched > 0
    assert set(cards[switched:]) == {rig.second.cable}


def test_what_is_told_is_an_amount_of_memory(
    rig: QemuPair, here: LibvirtHypervisor, there: LibvirtHypervisor
) -> None:
    told: list[Sent] = []

    def tell(sent: Sent) -> bool:
        told.append(sent)
        return True

    here.migrate(elsewhere(rig.guest(), rig.other), there, tell)
    assert told
    assert all(0 <= sent.left <= sent.total for sent in told)


# --- bad moments ----------------------------------------------------------------------------------


def test_a_destination_that_goes_silent_leaves_the_guest_here(
    rig: QemuPair, here: LibvirtHypervisor, there: LibvirtHypervisor
) -> None:
    """Its connection is closed while the guest is being sent."""

    def cut(_sent: Sent) -> bool:
        rig.second.stop()
        return True

    with pytest.raises((HostUnreachable, StartFailed), match="migrate"):
        here.migrate(elsewhere(rig.guest(), rig.other), there, cut)
    assert names(here) == {rig.guest().name}


# --- what is not sent -----------------------------------------------------------------------------


def test_a_disk_that_is_written_to_keeps_its_guest(
    rig: QemuPair, here: LibvirtHypervisor, there: LibvirtHypervisor
) -> None:
    moved = elsewhere(rig.guest(), rig.other)
    disks = (Disk(rig.kernel, read_only=False),)
    with pytest.raises(StartFailed, match=r"what it writes to .* stays there"):
        here.migrate(replace(moved, boot=replace(moved.boot, disks=disks)), there, unwatched)
    assert names(here) == {rig.guest().name}


def test_a_guest_that_is_not_running_stays(
    rig: QemuPair, here: LibvirtHypervisor, there: LibvirtHypervisor
) -> None:
    here.sleep(rig.guest().name, Depth.PAUSED)
    with pytest.raises(StartFailed, match="does not run there"):
        here.migrate(elsewhere(rig.guest(), rig.other), there, unwatched)
    assert states(here) == {rig.guest().name: GuestState.PAUSED}
