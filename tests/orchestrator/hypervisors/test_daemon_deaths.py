"""Bad days of a real host: its libvirtd is killed or restarted, its disk is full, a file is bad.

The host is a libvirt of our own beside the system's, which is the other host; both are on one
network. The guest is hello. In memory, `tests.orchestrator.test_vanishing_hosts` does the same at
every stage.
"""

import http.client
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from images.bootspec import Image
from orchestrator.boot import HostParts
from orchestrator.control import ControlSettings, Orchestrator
from orchestrator.hypervisors.base import Stamp
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.library import traits_of
from orchestrator.model import (
    Capacity,
    Client,
    DnsSettings,
    Endpoint,
    Event,
    Guest,
    GuestNetwork,
    Host,
    IdlePolicy,
    Lab,
    Probe,
    ProbeKind,
    Rung,
    Service,
)
from orchestrator.readiness import wait
from orchestrator.store.memory import MemoryStore
from tests.orchestrator.hypervisors.second_libvirt import SecondLibvirt

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

SUBNETS = tuple(IPv4Network(f"10.83.{third}.0/24") for third in range(2, 60))
LADDER = IdlePolicy(after_s=3600.0, min_up_s=0.0)
PATIENCE_S = 150.0  # far more than it takes: for busy machines
NEAR, FAR = "near", "far"  # the system's libvirt, and the one that has bad days


@dataclass
class Bed:
    """An edgewake over both libvirts. `depot` is where guests of the far one are saved."""

    second: SecondLibvirt
    control: Orchestrator
    drivers: dict[str, LibvirtHypervisor]
    depot: Path

    def ask(self) -> Endpoint:
        """Wake the service, and see that it truly answers."""
        (end,) = self.control.summon("web", Client()).endpoints.result(PATIENCE_S)
        peer = http.client.HTTPConnection(str(end.address), timeout=PATIENCE_S)
        try:
            peer.request("GET", "/")
            assert peer.getresponse().status == 200
        finally:
            peer.close()
        return end

    def summon_far(self, then: Callable[[], object] = lambda: None) -> Endpoint:
        """Wake the service on the far host first; `then` is done when it has been chosen."""
        fleet, driver = self.control.fleet, self.drivers[FAR]
        build = driver.start

        def start(guest: Guest, stamp: Stamp) -> None:
            fleet.drain(NEAR, wanted=False)
            build(guest, stamp)

        fleet.drain(NEAR, wanted=True)
        driver.start = start  # type: ignore[method-assign]
        try:
            summons = self.control.summon("web", Client())
            self.until(lambda: NEAR not in fleet.draining(), "a choice")
            then()
            (end,) = summons.endpoints.result(PATIENCE_S)
        finally:
            driver.start = build  # type: ignore[method-assign]
        return end

    def events(self, kind: str) -> list[Event]:
        self.control._journal._writer.submit(lambda: None).result(PATIENCE_S)
        return [event for event in self.control.events(1000) if event.kind == kind]

    def until(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
            time.sleep(0.02)

    def restarted(self) -> None:
        """Start libvirtd again, and wait until its host is in use."""
        self.second.start_daemon()
        self.until(lambda: FAR not in self.control.fleet.lost(), "the host to be back")

    def swept(self, true: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            self.control.expire()
            return true()

        self.until(look, what)

    def guests(self, host: str) -> list[str]:
        return sorted(guest.mark.instance for guest in self.drivers[host].running())

    def saved(self) -> list[Path]:
        return sorted(self.depot.glob("**/saved-*"))

    def one_copy_and_nothing_else(self) -> None:
        """Wait until the service answers in one place, and no more than that is left."""
        end = self.ask()

        def is_alone() -> bool:
            if self.control.fleet.lost():
                return False
            guests = {host: self.guests(host) for host in (NEAR, FAR)}
            known = [each.name for each in self.control.fleet.instances()]
            expected = {NEAR: [], FAR: [], end.host: [end.instance]}
            return (guests, known) == (expected, [end.instance])

        self.swept(is_alone, "one guest, and no more")
        assert self.ask() == end
        self.control.release("web", Rung.COLD)
        self.swept(lambda: self.control.fleet.instances() == (), "the end of it")
        assert self.guests(NEAR) + self.guests(FAR) == []
        assert self.saved() == []


@contextmanager
def second_libvirt() -> Iterator[tuple[SecondLibvirt, Path, IPv4Network]]:
    folder = Path(tempfile.mkdtemp(prefix="ewbd-"))
    folder.chmod(0o755)  # QEMU's user must be able to enter
    depot = folder / "depot"
    depot.mkdir()
    (folder / "second").mkdir()
    # Mounted before the second libvirt has mounts of its own, so that it is the same one there.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(depot)], check=True)
    try:
        subnet = SUBNETS[os.getpid() % len(SUBNETS)]
        ours = IPv4Interface((subnet[1], subnet.prefixlen))
        bridge = f"ewbd{uuid.uuid4().hex[:6]}"
        second = SecondLibvirt.start(folder / "second", bridge, ours)
        try:
            yield second, depot, subnet
        finally:
            second.stop()
    finally:
        subprocess.run(["umount", "-l", str(depot)], check=True)
        shutil.rmtree(folder)


class Far:
    """A second libvirt, and another one in its place when asked to."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self.renew()

    def renew(self) -> None:
        self.close()
        self.second, self.depot, self.subnet = self._running.enter_context(second_libvirt())

    def close(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    with closing(Far()) as made:
        yield made


@pytest.fixture
def bed(far: Far, hello_file: Path, tmp_path: Path) -> Iterator[Bed]:
    second, depot, subnet = far.second, far.depot, far.subnet
    drivers: dict[str, LibvirtHypervisor] = {}

    def open_host(host: Host) -> HostParts:
        driver = LibvirtHypervisor(
            host, f"ewbd-{second.bridge}", console_dir=tmp_path / "consoles", depot_dir=depot
        )
        drivers[host.name] = driver
        return HostParts(driver, wait, traits_of(host))

    network = GuestNetwork(f"bridge:{second.bridge}", subnet, subnet[1], subnet[10], subnet[19])
    near = Host(NEAR, "qemu:///system", Capacity(cpu=2, memory_mib=512), network)
    pool = replace(network, first=subnet[20], last=subnet[29])
    away = replace(near, name=FAR, uri=second.uri, network=pool)
    web = Service(
        name="web",
        names=("web.bad.test",),
        images=("hello",),
        resources=Capacity(cpu=0.25, memory_mib=8),
        probe=Probe(ProbeKind.HTTP, port=80, path="/healthz"),
        ttl_s=1,
        idle=LADDER,
        deadline_s=90.0,
    )
    lab = Lab(
        name=second.bridge,
        dns=DnsSettings(zone="bad.test"),
        hosts=(near, away),
        images=(Image("hello", "hello", hello_file),),
        services=(web,),
    )
    control = Orchestrator(
        lab,
        store=MemoryStore(),
        open_host=open_host,
        owner=f"ewbd-{second.bridge}",
        settings=ControlSettings(sweep_s=3600.0),
    )
    control.start()
    try:
        yield Bed(second, control, drivers, depot)
    finally:
        if not second._listens():
            second.start_daemon()
        control.close(end_guests=True)
        for left in depot.glob("**/saved-*"):
            left.unlink()
        if second.has_domains():  # which a crash in a start can leave, and nothing can end
            far.renew()


# --- libvirtd dies --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["before", "define", "start"])
def test_a_host_that_vanishes_while_a_guest_is_built(bed: Bed, stage: str) -> None:
    driver = bed.drivers[FAR]
    build = driver.start

    def start(guest: Guest, stamp: Stamp) -> None:
        def stamped(reached: str) -> None:
            stamp(reached)
            if reached == stage:
                bed.second.kill_daemon()

        if stage == "before":
            bed.second.kill_daemon()
        build(guest, stamped)

    driver.start = start  # type: ignore[method-assign]
    end = bed.summon_far()
    driver.start = build  # type: ignore[method-assign]
    bed.until(lambda: FAR in bed.control.fleet.lost(), "the loss to be noticed")
    if stage != "start":  # a guest that was started is waited for, and may well answer
        assert end.host == NEAR
        assert [dict(event.data)["host"] for event in bed.events("boot-failed")] == [FAR]
    assert FAR in {event.subject for event in bed.events("host-lost")}
    bed.restarted()
    bed.one_copy_and_nothing_else()


def test_a_guest_goes_on_booting_while_its_libvirtd_is_restarted(bed: Bed) -> None:
    def restart() -> None:
        bed.until(lambda: bed.control._boots.waiting_for(name()), "the guest to be started")
        bed.second.kill_daemon()
        bed.second.start_daemon()

    def name() -> str:
        return next((each.name for each in bed.control.fleet.of("web")), "")

    end = bed.summon_far(restart)
    assert end.host == FAR
    assert bed.control.wakes.last("web")[-1].outcome == "ready"
    bed.until(lambda: FAR not in bed.control.fleet.lost(), "the host to be back")
    bed.one_copy_and_nothing_else()


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
@pytest.mark.parametrize("after_s", [None, 0.0, 0.02])
def test_libvirtd_dies_as_a_guest_goes_to_sleep(
    bed: Bed, rung: Rung, after_s: float | None
) -> None:
    """Before it was asked (None), or so long after: whatever it did, it is found out."""
    first = bed.summon_far()
    bed.control.release("web", rung)  # so that it is known to survive that
    assert bed.ask() == first
    with dying(bed, after_s):
        bed.control.release("web", rung)
    bed.restarted()
    assert bed.ask().instance == first.instance
    bed.one_copy_and_nothing_else()


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
@pytest.mark.parametrize("after_s", [None, 0.0, 0.02])
def test_libvirtd_dies_as_a_guest_is_brought_back(
    bed: Bed, rung: Rung, after_s: float | None
) -> None:
    bed.summon_far()
    bed.control.release("web", rung)
    with dying(bed, after_s):
        bed.ask()
    bed.restarted()
    bed.one_copy_and_nothing_else()


def test_a_start_that_a_crash_cut_off_costs_no_more_than_a_name(bed: Bed) -> None:
    """As if libvirtd had died between the first two notes it takes of a start."""
    first = bed.summon_far()
    notes = bed.second.notes(first.instance)
    running = notes.read_text()
    assert bed.control.release("web", Rung.SAVED) == (first.instance,)
    bed.second.kill_daemon()
    notes.write_text(as_half_made(running))
    bed.control.fleet.drain(NEAR, wanted=True)
    bed.restarted()
    lost_before = len(bed.events("host-lost"))
    end = bed.ask()
    assert (end.host, bed.guests(FAR)) == (FAR, [end.instance])
    assert end.instance != first.instance
    told = " ".join(event.text for event in bed.events("boot-failed"))
    assert f"rm /run/libvirt/qemu/{first.instance}.xml" in told
    bed.one_copy_and_nothing_else()
    assert len(bed.events("host-lost")) == lost_before, "nobody waits for its lock"
    # What the error says to do:
    bed.second.kill_daemon()
    notes.unlink()
    bed.until(lambda: FAR in bed.control.fleet.lost(), "the loss to be noticed")
    bed.restarted()
    assert bed.ask().instance == first.instance
    assert not bed.events("stop-failed")


def as_half_made(notes: str) -> str:
    """Return libvirtd's notes on a domain as they are before it has begun QEMU."""
    begun = (
        "<domstatus state='paused' reason='starting up' pid='0'><job type='none' async='start'/>"
    )
    return re.sub("<domstatus [^>]*>", begun, notes)


@contextmanager
def dying(bed: Bed, after_s: float | None) -> Iterator[None]:
    """Have libvirtd die before the block (None), or so long after it has begun."""
    if after_s is None:
        bed.second.kill_daemon()
        yield
        return
    killer = threading.Timer(after_s, bed.second.kill_daemon)
    killer.start()
    try:
        yield
    finally:
        killer.join()


# --- its disk -------------------------------------------------------------------------------------


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk that a folder is on."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65536)):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.parametrize("probed", [False, True], ids=["at the first save", "later"])
@pytest.mark.parametrize("deepest", [Rung.SAVED, Rung.COLD])
def test_a_disk_that_is_full_while_a_guest_is_saved(
    bed: Bed, deepest: Rung, *, probed: bool
) -> None:
    policy = replace(LADDER, deepest=deepest)
    lab = bed.control.lab
    bed.control.fleet.use(replace(lab, services=(replace(lab.services[0], idle=policy),)))
    first = bed.summon_far()
    if probed:
        bed.control.release("web", Rung.SAVED)
        assert bed.ask() == first
    with full(bed.depot):
        slept = bed.control.release("web", Rung.SAVED)
        (told, *_) = bed.events("sleep-failed")
        assert "No space left" in told.text
        assert bed.saved() == [], "the rest of a failure takes no room"
        if deepest is Rung.SAVED:
            assert slept == ()
            assert bed.ask() == first, "it goes on"
        else:
            assert slept == (first.instance,)
            assert bed.guests(FAR) == []
        assert bed.ask().host in {NEAR, FAR}
    assert all(ability.works for ability in bed.control.abilities()), "that says nothing of it"
    bed.one_copy_and_nothing_else()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "overwritten", "removed"])
def test_a_saved_guest_that_cannot_be_read_back_is_booted(bed: Bed, damage: str) -> None:
    first = bed.summon_far()
    bed.control.release("web", Rung.SAVED)
    (memory,) = [path for path in bed.saved() if path.suffix != ".xml"]
    match damage:
        case "truncated":
            os.truncate(memory, memory.stat().st_size // 2)
        case "emptied":
            os.truncate(memory, 0)
        case "overwritten":
            memory.write_bytes(os.urandom(memory.stat().st_size))
        case "removed":
            memory.unlink()
    again = bed.ask()
    assert (again.instance, again.address) == (first.instance, first.address)
    (told,) = bed.events("rouse-failed")
    assert f"{first.instance} did not come back, saved on far: " in told.text
    (wake, *_) = [each for each in bed.control.wakes.last("web") if "failed" in dict(each.stamps)]
    assert wake.outcome == "ready"
    bed.one_copy_and_nothing_else()
