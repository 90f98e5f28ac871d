"""The spt back end keeps the contract, with real processes, taps and bridges on this machine.

The tender is a stand-in, built here, that checks its arguments as the real one does: `[stand-in]`
in a test's name says so. Where the real solo5-spt is found (PATH, or EDGEWAKE_SOLO5_SPT) and
EDGEWAKE_SPT_IMAGE names the test_net.spt of Solo5's own tests, every test of what both can do is
run with that too, as `[solo5-spt]`.
"""

import json
import os
import pickle
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import cast

import pytest

from images.bootspec import BootSpec, Disk, Nic
from images.facts import Entry
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.guards.base import Guarded
from orchestrator.guards.ladder import open_guard
from orchestrator.hypervisors.base import Depth, GuestEnded
from orchestrator.hypervisors.process_host import LOG_BYTES
from orchestrator.hypervisors.solo5 import TENDER_VARIABLE, find_tender
from orchestrator.hypervisors.spt import SptHypervisor
from orchestrator.linux.bridges import Link, Links
from orchestrator.linux.consoles import CONSOLE_BYTES
from orchestrator.linux.processes import processes_told
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, Probe, ProbeKind, mac_of
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

pytestmark = pytest.mark.real

SOURCE = Path(__file__).parent / "standin" / "solo5-spt.c"
IMAGE_VARIABLE = "EDGEWAKE_SPT_IMAGE"
SUBNETS = tuple(IPv4Network(f"10.88.{third}.0/24") for third in range(2, 10))
MEMORY_MIB = 16
ECHO_REQUEST = bytes.fromhex("0800f7ff00000000")  # RFC 792, of nobody else's identifier
ECHO_REPLY = bytes.fromhex("0000ffff00000000")


@dataclass(frozen=True)
class Kit:
    """A tender, a unikernel for it with one card, and a network its address is on."""

    tender: Path
    kernel: Path
    card: str
    subnet: IPv4Network
    takes_address: bool

    def cmdline(self, guest_address: str) -> str:
        return f"--ipv4={guest_address}/24" if self.takes_address else ""


def real_is_here() -> bool:
    return find_tender(None) is not None and IMAGE_VARIABLE in os.environ


@pytest.fixture(scope="session")
def standin() -> Iterator[Kit]:
    """Build the stand-in where every user may run it: not below pytest's own folder."""
    folder = Path(tempfile.mkdtemp(prefix="ewspt-"))
    folder.chmod(0o755)
    tender, kernel = folder / "solo5-spt", folder / "sample.spt"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", tender, SOURCE], check=True)
    kernel.write_text("stand-in unikernel\nnet service0\n")
    yield Kit(tender, kernel, "service0", SUBNETS[os.getpid() % len(SUBNETS)], takes_address=True)
    shutil.rmtree(folder)


@pytest.fixture(params=["stand-in", *(["solo5-spt"] if real_is_here() else [])])
def kit(request: pytest.FixtureRequest, standin: Kit, tmp_path: Path) -> Kit:
    if request.param == "stand-in":
        return standin
    tender = find_tender(None)
    assert tender is not None
    subnet = IPv4Network("10.0.0.0/24")  # test_net is always 10.0.0.2
    return Kit(Path(tender), Path(os.environ[IMAGE_VARIABLE]), "service0", subnet, False)


class SptRig:
    """The machine; all that is made has `tag` in its name or alias, and is found again by it."""

    patience_s = 60.0

    def __init__(self, kit: Kit, folder: Path) -> None:
        self.kit = kit
        self.folder = folder
        self.tag = uuid.uuid4().hex[:6]
        self.owner = f"owner-{self.tag}"
        self.kernel = folder / "guest.spt"
        shutil.copyfile(kit.kernel, self.kernel)
        self.kernel.chmod(0o644)
        network = GuestNetwork(
            name=f"lab-{self.tag}",
            subnet=kit.subnet,
            gateway=kit.subnet[1],
            first=kit.subnet[2],
            last=kit.subnet[99],
            create=True,
            bridge=f"ewspt{self.tag}",
        )
        self.host = Host(
            name="here",
            uri="spt:",
            capacity=Capacity(cpu=2, memory_mib=1024),
            network=network,
        )
        self.drivers: list[SptHypervisor] = []
        self.bridges = {f"ewspt{self.tag}"}

    def driver(
        self, *, owner: str = "", host: Host | None = None, folder: str = "state"
    ) -> SptHypervisor:
        driver = SptHypervisor(
            host or self.host,
            owner or self.owner,
            folder=self.folder / folder,
            tender=str(self.kit.tender),
        )
        self.drivers.append(driver)
        return driver

    def dead_driver(self) -> SptHypervisor:
        return self.driver(host=replace(self.host, uri="spt://elsewhere/"))

    def guest(self, number: int = 0, *, cmdline: str = "") -> Guest:
        address = self.host.network.first + number
        name = f"ewspt-{self.tag}-{number}"
        boot = BootSpec(
            kernel=self.kernel,
            memory_mib=MEMORY_MIB,
            cmdline=f"{self.kit.cmdline(str(address))} {cmdline}".strip(),
            nics=(Nic(self.host.network.name, mac_of(address), name=self.kit.card),),
            entry=Entry.SPT,
        )
        return Guest(name, Mark(self.owner, name, "web", self.host.name, address), boot)

    def pid(self, name: str) -> int:
        """Return the process id that the guest's record says."""
        return int(cast("dict[str, int]", self.record(name)["process"])["pid"])

    def record(self, name: str) -> dict[str, object]:
        data: dict[str, object] = json.loads((self.folder / "state" / f"{name}.json").read_text())
        return data

    def pids(self) -> set[int]:
        """Return every process that was given our unikernel."""
        found = set()
        for process in processes_told(str(self.kernel)):
            found.add(process.identity.pid)
            process.close()
        return found

    def taps(self) -> list[Link]:
        with Links() as links:
            bridge = links.find(self.host.network.bridge)
            return list(links.ports(bridge)) if bridge else []

    def ping(self, guest: Guest, kind: ProbeKind = ProbeKind.ICMP, *, device: str = "") -> None:
        mark = guest.mark
        target = Target(mark.address, None, mac_of(mark.address), lambda: b"", device=device)
        deadline = time.monotonic() + self.patience_s
        wait(Probe(kind), target, deadline=deadline, cancelled=lambda: None)

    def tell(self, guest: Guest, command: str) -> None:
        """Send a command to a guest of the stand-in."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(command.encode(), (str(guest.mark.address), 9))

    def let_end(self, guest: Guest) -> None:
        os.kill(self.pid(guest.name), signal.SIGKILL)

    def hold(self, guest: Guest) -> None:
        pid = self.pid(guest.name)
        os.kill(pid, signal.SIGSTOP)
        stat = Path(f"/proc/{pid}/stat")
        eventually(lambda: ") T " in stat.read_text(), self.patience_s, "it stands still")

    def chat(self, guest: Guest) -> None:
        self.ping(guest)

    def make_foreign_guest(self, name: str) -> None:
        guest = replace(self.guest(), name=name)
        mark = replace(guest.mark, owner="x", instance=name)
        driver = self.driver(owner="x")
        driver.start(replace(guest, mark=mark), unheard)
        driver.close()

    def has_guest(self, name: str) -> bool:
        return (self.folder / "state" / f"{name}.json").exists()

    def make_foreign_network(self, name: str) -> None:
        assert name == self.host.network.name
        self.make_bridge(self.host.network.bridge)

    def make_bridge(self, bridge: str) -> None:
        self.bridges.add(bridge)
        subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
        subprocess.run(["ip", "link", "set", bridge, "up"], check=True)

    def has_network(self, name: str) -> bool:
        assert name == self.host.network.name
        return Path("/sys/class/net", self.host.network.bridge).exists()

    def clean(self) -> None:
        for driver in self.drivers:
            driver.close()
        for process in processes_told(str(self.kernel)):
            assert process.end(grace_s=0, patience_s=self.patience_s)
            process.close()
        with Links() as links:
            for name in self.bridges:
                bridge = links.find(name)
                for link in (*links.ports(bridge), bridge) if bridge else ():
                    links.remove(link)


@pytest.fixture
def rig(kit: Kit) -> Iterator[SptRig]:
    folder = Path(tempfile.mkdtemp(prefix="ewspt-"))
    folder.chmod(0o755)
    rig = SptRig(kit, folder)
    yield rig
    rig.clean()
    shutil.rmtree(folder)


@pytest.fixture
def hypervisor(rig: SptRig) -> SptHypervisor:
    driver = rig.driver()
    driver.set_network(rig.host.network)
    return driver


class TestSptHypervisor(HypervisorContract, SleepContract):
    depths = (Depth.PAUSED,)


only_standin = pytest.mark.parametrize("kit", ["stand-in"], indirect=True)


# --- a guest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ProbeKind.ICMP, ProbeKind.ARP])
def test_a_guest_answers_on_its_address(
    rig: SptRig, hypervisor: SptHypervisor, kind: ProbeKind
) -> None:
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest(), kind)


def test_a_packet_for_a_guest_that_sleeps_is_held_until_it_answers(
    rig: SptRig, hypervisor: SptHypervisor
) -> None:
    address, asked = rig.guest().mark.address, threading.Event()
    guard = open_guard(rig.host, lambda _: asked.set())
    try:
        assert guard.how == "routed, bridged"
        guard.set([Guarded("web", address, mac_of(address))])
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client:
            client.settimeout(rig.patience_s)
            client.sendto(ECHO_REQUEST, (str(address), 0))
            assert asked.wait(rig.patience_s)
            hypervisor.start(rig.guest(), unheard)
            rig.ping(rig.guest(), device=guard.device)
            guard.release(address)
            while not client.recv(100).endswith(ECHO_REPLY):
                pass  # of our probe
    finally:
        guard.close()


def test_a_guest_has_as_few_rights_as_can_be(rig: SptRig, hypervisor: SptHypervisor) -> None:
    hypervisor.start(rig.guest(), unheard)
    pid = rig.pid(rig.guest().name)
    proc = Path("/proc", str(pid))
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    (user,) = set(status["Uid"].split())
    assert int(user) >= 0x7000_0000, "a user of its own, without an account"
    assert set(status["Gid"].split()) == {user}
    assert status["Groups"].split() == []
    capabilities = {value.strip() for key, value in status.items() if key.startswith("Cap")}
    assert capabilities == {"0" * 16}
    assert status["NoNewPrivs"].split() == ["1"]
    assert os.getsid(pid) == pid
    assert (proc / "environ").read_bytes() == b""
    assert (proc / "cwd").readlink() == Path("/")
    limits = (proc / "limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    files = {int(fd.name): str(fd.readlink()) for fd in (proc / "fd").iterdir()}
    console = str(rig.folder / "state" / "console" / f"{rig.guest().name}.log")
    assert [files[fd] for fd in range(3)] == ["/dev/null", console, console]
    others = {file.partition(":")[0] for fd, file in files.items() if fd > 2}
    assert others <= {"/dev/net/tun", "anon_inode"}
    (tap,) = rig.taps()
    assert Path("/sys/class/net", tap.name, "owner").read_text().strip() == user


def test_each_guest_has_a_user_of_its_own(rig: SptRig, hypervisor: SptHypervisor) -> None:
    for number in range(2):
        hypervisor.start(rig.guest(number), unheard)
    owners = {Path("/sys/class/net", tap.name, "owner").read_text() for tap in rig.taps()}
    assert len(owners) == 2


def test_the_tap_says_whose_it_is_and_ends_with_the_guest(
    rig: SptRig, hypervisor: SptHypervisor
) -> None:
    hypervisor.start(rig.guest(), unheard)
    (tap,) = rig.taps()
    assert tap.name.startswith("ewt")
    assert tap.alias.startswith("edgewake:")
    assert tap.alias.endswith(f":here:{rig.guest().name}")
    rig.let_end(rig.guest())
    eventually(lambda: hypervisor.running() == (), rig.patience_s, "its end")
    eventually(lambda: rig.taps() == [], rig.patience_s, "no tap")


def test_a_guest_that_ended_leaves_no_zombie(rig: SptRig, hypervisor: SptHypervisor) -> None:
    hypervisor.start(rig.guest(), unheard)
    pid = rig.pid(rig.guest().name)
    rig.let_end(rig.guest())
    eventually(lambda: not Path("/proc", str(pid)).exists(), rig.patience_s, "it is reaped")


def test_a_quiet_guest_hears_nothing(rig: SptRig, hypervisor: SptHypervisor) -> None:
    """Nothing of the host's own IPv6 or multicast: counters stand still, so it can be idle."""
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest())
    before = hypervisor.running()
    time.sleep(2.5)
    assert hypervisor.running() == before


@only_standin
@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 0", "exited"),
        ("exit 1", "failed (exit status 1)"),
        ("exit 255", "aborted (exit status 255)"),
        ("exit 83", "exit status 83"),
    ],
)
def test_how_a_guest_ended_is_told(
    rig: SptRig, hypervisor: SptHypervisor, command: str, why: str
) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    guest = rig.guest()
    hypervisor.start(guest, unheard)
    rig.ping(guest)
    rig.tell(guest, command)
    assert heard.wait(ends(guest), rig.patience_s) == GuestEnded("here", guest.name, why)


def test_a_guest_killed_by_its_filter_is_told_so(rig: SptRig, hypervisor: SptHypervisor) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(), unheard)
    os.kill(rig.pid(rig.guest().name), signal.SIGSYS)
    event = heard.wait(ends(rig.guest()), rig.patience_s)
    assert isinstance(event, GuestEnded)
    assert "a system call that the tender forbids" in event.why


@only_standin
def test_a_guest_that_ends_well_at_once_did_start(rig: SptRig, hypervisor: SptHypervisor) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(cmdline="done"), unheard)
    assert heard.wait(ends(rig.guest()), rig.patience_s) == GuestEnded(
        "here", rig.guest().name, "exited"
    )


@only_standin
def test_the_command_line_arrives_letter_by_letter(rig: SptRig, hypervisor: SptHypervisor) -> None:
    cmdline = """--hello="a  b" 'c' $HOME ; *"""
    hypervisor.start(rig.guest(cmdline=cmdline), unheard)
    eventually(
        lambda: f" {cmdline}\n".encode() in hypervisor.console(rig.guest().name),
        rig.patience_s,
        "its command line",
    )


@only_standin
def test_a_talkative_guest_does_not_fill_the_disk(rig: SptRig, hypervisor: SptHypervisor) -> None:
    hypervisor.start(rig.guest(cmdline="chatty"), unheard)
    folder = rig.folder / "state" / "console"
    aside = folder / f"{rig.guest().name}.log.0"
    eventually(aside.exists, rig.patience_s, "the log was cut")
    assert aside.stat().st_size == CONSOLE_BYTES
    current = folder / f"{rig.guest().name}.log"
    eventually(lambda: current.stat().st_size < LOG_BYTES, rig.patience_s, "it began afresh")
    assert len(hypervisor.console(rig.guest().name)) == CONSOLE_BYTES


def with_disks(rig: SptRig, *files: Path) -> Guest:
    """Return a guest of the stand-in with disks, that it writes to at once: the last its own."""
    names = [file.stem for file in files]
    rig.kernel.write_text(
        "\n".join(["stand-in unikernel", "net service0", *map("block {}".format, names)])
    )
    disks = tuple(
        Disk(file, name=name, read_only=file is not files[-1])
        for file, name in zip(files, names, strict=True)
    )
    guest = rig.guest()
    return replace(guest, boot=replace(guest.boot, disks=disks))


@only_standin
def test_a_guest_writes_to_copies_of_its_disks(rig: SptRig, hypervisor: SptHypervisor) -> None:
    files = (rig.folder / "shared.img", rig.folder / "own.img")
    for file in files:
        file.write_bytes(bytes(1024))
    guest = with_disks(rig, *files)
    for _boot in range(2):
        hypervisor.start(guest, unheard)
        rig.ping(guest)
        copies = sorted((rig.folder / "state").glob("*.disk"))
        assert [copy.read_bytes()[:2] for copy in copies] == [b"s\0", b"o\0"]
        assert {stat.S_IMODE(copy.stat().st_mode) for copy in copies} == {0o600}
        hypervisor.stop(guest.name)
        assert not [copy for copy in copies if copy.exists()]
    for file in files:
        assert file.read_bytes() == bytes(1024)
        assert file.stat().st_uid == os.getuid()


@only_standin
def test_the_copy_of_a_disk_keeps_its_holes(rig: SptRig, hypervisor: SptHypervisor) -> None:
    disk = rig.folder / "d.img"
    with disk.open("wb") as file:
        file.truncate(2**30)
    hypervisor.start(with_disks(rig, disk), unheard)
    rig.ping(rig.guest())
    (copy,) = (rig.folder / "state").glob("*.disk")
    assert copy.stat().st_size == 2**30
    assert copy.stat().st_blocks * 512 < 2**20


@only_standin
def test_disks_go_with_a_guest_that_ends_by_itself(rig: SptRig, hypervisor: SptHypervisor) -> None:
    disk = rig.folder / "d.img"
    disk.write_bytes(bytes(1024))
    hypervisor.watch(lambda _event: None)
    hypervisor.start(with_disks(rig, disk), unheard)
    rig.let_end(rig.guest())
    eventually(
        lambda: not list((rig.folder / "state").glob("*.disk")), rig.patience_s, "no copy is left"
    )


def test_a_folder_with_blanks_holds_no_disks(rig: SptRig) -> None:
    disk = rig.folder / "d.img"
    disk.write_bytes(bytes(1024))
    driver = rig.driver(folder="my state")
    driver.set_network(rig.host.network)
    with pytest.raises(StartFailed, match="/my state, and the tender takes no path with blanks"):
        driver.start(with_disks(rig, disk), unheard)


# --- what is refused ------------------------------------------------------------------------------


def refused(rig: SptRig, hypervisor: SptHypervisor, guest: Guest) -> str:
    """Start a guest that cannot be, see that nothing of it is left, and return what was said."""
    with pytest.raises(StartFailed, match=f"host here: start {guest.name}") as caught:
        hypervisor.start(guest, unheard)
    assert rig.taps() == []
    assert rig.pids() == set()
    assert {file.name for file in (rig.folder / "state").iterdir()} <= {"console"}
    return str(caught.value)


def test_a_tender_that_is_not_there(
    rig: SptRig, hypervisor: SptHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TENDER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin")
    missing = SptHypervisor(rig.host, rig.owner, folder=rig.folder / "state")
    rig.drivers.append(missing)
    said = refused(rig, missing, rig.guest())
    assert "Solo5's tender solo5-spt is not installed here; `opam install solo5`" in said
    monkeypatch.setenv(TENDER_VARIABLE, str(rig.kit.tender))
    missing.start(rig.guest(), unheard)


def test_an_image_of_another_kind_is_refused_in_the_tenders_words(
    rig: SptRig, hypervisor: SptHypervisor
) -> None:
    rig.kernel.write_text("no unikernel\n")
    said = refused(rig, hypervisor, rig.guest())
    assert "invalid executable" in said
    assert "build the image for the target `spt`" in said


def test_an_image_that_guests_may_not_read(rig: SptRig, hypervisor: SptHypervisor) -> None:
    rig.kernel.chmod(0o600)
    assert "let all users read image and tender" in refused(rig, hypervisor, rig.guest())


def test_a_card_the_manifest_does_not_name(rig: SptRig, hypervisor: SptHypervisor) -> None:
    guest = rig.guest()
    nics = (replace(guest.boot.nics[0], name="other"),)
    said = refused(rig, hypervisor, replace(guest, boot=replace(guest.boot, nics=nics)))
    assert "solo5-elftool query-manifest" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entry": Entry.MULTIBOOT}, "cannot start an image by multiboot"),
        ({"kernel": None}, "no kernel"),
        ({"nics": ()}, "no network card"),
        ({"nics": (Nic("lab", "02:00:00:00:00:01"),)}, "a device has no name"),
        ({"disks": (Disk(Path("/d"), format="qcow2", name="d"),)}, "is raw, not qcow2"),
        ({"cmdline": "x" * 8192}, "command line too long"),
        ({"kernel": Path("/no/such.spt")}, "Could not open"),
        ({"memory_mib": 2**24}, "16777216 MiB of memory wanted"),
        ({"disks": (Disk(Path("/no/disk"), name="d"),)}, "/no/disk: No such file"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_the_tender_cannot_do_is_refused(
    rig: SptRig, hypervisor: SptHypervisor, change: dict[str, object], words: str
) -> None:
    guest = rig.guest()
    boot = replace(guest.boot, **change)  # type: ignore[arg-type]
    assert words in refused(rig, hypervisor, replace(guest, boot=boot))


@only_standin
def test_a_program_that_is_no_tender_is_given_up(
    rig: SptRig, hypervisor: SptHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.hypervisors.spt.PATIENCE_S", 0.3)
    said = refused(rig, hypervisor, rig.guest(cmdline="mute"))
    assert "is it Solo5's spt tender?" in said


# --- bridges --------------------------------------------------------------------------------------


def test_the_bridge_has_both_gateways_and_a_mark(rig: SptRig) -> None:
    subnet = rig.host.network.subnet
    network = replace(rig.host.network, subnet6=IPv6Network("fd77:88::/64"))
    hypervisor = rig.driver()
    hypervisor.set_network(network)
    with Links() as links:
        bridge = links.find(network.bridge)
        assert bridge is not None
        assert links.addresses(bridge) == {
            IPv4Interface((subnet[1], 24)),
            IPv6Interface("fd77:88::1/64"),
        }
    with socket.socket(socket.AF_INET6) as server:
        server.bind(("fd77:88::1", 0))  # at once, though no guest is there yet
    assert bridge.up
    assert bridge.alias.startswith("edgewake:")
    assert rig.owner not in bridge.alias, "a digest of it, for all to see"
    hypervisor.set_network(rig.host.network)
    with Links() as links:
        assert links.addresses(bridge) == {IPv4Interface((subnet[1], 24))}
        assert links.find(network.bridge) == bridge, "changed, not made anew"


def test_a_bridge_with_guests_keeps_its_addresses(rig: SptRig, hypervisor: SptHypervisor) -> None:
    hypervisor.start(rig.guest(), unheard)
    gateway = rig.host.network.gateway + 1
    with pytest.raises(StartFailed, match="plugged in"):
        hypervisor.set_network(replace(rig.host.network, gateway=gateway))
    hypervisor.set_network(rig.host.network)
    rig.ping(rig.guest())


def test_a_bridge_cut_short_is_finished_by_the_next(rig: SptRig) -> None:
    """Whatever a crash while a bridge is made leaves is a draft or ours, so never in the way."""
    hypervisor = rig.driver()
    mark = hypervisor._mark
    with Links() as links:
        links.add_bridge(rig.host.network.bridge, mark, "02:ed:00:00:00:01")
    hypervisor.set_network(rig.host.network)
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest())


def test_a_foreign_bridge_must_be_there_and_up(rig: SptRig) -> None:
    hypervisor = rig.driver()
    given = replace(rig.host.network, create=False)
    with pytest.raises(StartFailed, match=r"does not exist here; make it, or write `create: true"):
        hypervisor.set_network(given)
    rig.make_bridge(given.bridge)
    subprocess.run(["ip", "link", "set", given.bridge, "down"], check=True)
    with pytest.raises(StartFailed, match=f"is down; `ip link set {given.bridge} up`"):
        hypervisor.set_network(given)


def test_a_bridge_is_named_by_its_network_if_by_nothing_else(rig: SptRig) -> None:
    name = f"ewsp{rig.tag}n"
    network = replace(rig.host.network, name=name, bridge="")
    rig.bridges.add(name)
    hypervisor = rig.driver(host=replace(rig.host, network=network))
    hypervisor.set_network(network)
    assert Path("/sys/class/net", name).exists()
    hypervisor.set_network(None)
    assert not Path("/sys/class/net", name).exists()


@pytest.mark.parametrize("bridge", ["sixteen-letters-", "a b", "a/b"])
def test_a_name_no_bridge_can_have(rig: SptRig, bridge: str) -> None:
    with pytest.raises(StartFailed, match="cannot be the name of a bridge; give it"):
        rig.driver().set_network(replace(rig.host.network, bridge=bridge))


def test_a_foreign_tap_on_our_bridge_is_left_alone(rig: SptRig, hypervisor: SptHypervisor) -> None:
    tap = f"ewt{rig.tag}foreign"[:15]
    subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap"], check=True)
    subprocess.run(["ip", "link", "set", tap, "master", rig.host.network.bridge], check=True)
    hypervisor.start(rig.guest(), unheard)
    hypervisor.stop(rig.guest().name)
    with pytest.raises(StartFailed, match="1 guest cards plugged in"):
        hypervisor.set_network(None)
    assert [link.name for link in rig.taps()] == [tap]


def test_a_tap_with_another_mark_is_left_alone(rig: SptRig, hypervisor: SptHypervisor) -> None:
    """Whatever a record says: only what carries our mark is removed."""
    hypervisor.start(rig.guest(), unheard)
    (tap,) = rig.taps()
    subprocess.run(["ip", "link", "set", tap.name, "alias", "somebody's"], check=True)
    hypervisor.stop(rig.guest().name)
    assert [link.name for link in rig.taps()] == [tap.name]


def test_two_owners_work_side_by_side(rig: SptRig, hypervisor: SptHypervisor) -> None:
    network = replace(
        rig.host.network, bridge=f"ewspu{rig.tag}", subnet=IPv4Network("10.89.1.0/24")
    )
    network = replace(network, gateway=network.subnet[1])
    rig.bridges.add(network.bridge)
    other = rig.driver(
        owner="other", host=replace(rig.host, network=network), folder="state-of-other"
    )
    other.set_network(network)
    guest = rig.guest()
    theirs = replace(guest, mark=replace(guest.mark, owner="other"))
    hypervisor.start(guest, unheard)
    other.start(theirs, unheard)
    assert len(rig.pids()) == 2
    hypervisor.stop(guest.name)
    hypervisor.set_network(None)
    assert [running.mark for running in other.running()] == [theirs.mark]
    with pytest.raises(StartFailed, match="not ours"):
        hypervisor.set_network(replace(rig.host.network, bridge=network.bridge))
    other.stop(guest.name)
    other.set_network(None)


# --- restarts and crashes -------------------------------------------------------------------------

# Runs one verb of a driver and dies, by SIGKILL, right before or after one of its steps.
CRASH = """
import os, pickle, signal, sys
from operator import attrgetter

import orchestrator.linux.bridges
import orchestrator.linux.processes
import orchestrator.linux.records
from orchestrator.hypervisors import spt

host, owner, folder, tender, guest, verb, place, call, when = pickle.load(sys.stdin.buffer)
where, _, name = (place or "hypervisors.spt.launch").rpartition(".")
holder = attrgetter(where)(sys.modules["orchestrator"])
real, calls = getattr(holder, name), 0

def dying(*args, **more):
    global calls
    calls += 1
    if calls == call and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **more)
    if calls == call and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

driver = spt.SptHypervisor(host, owner, folder=folder, tender=tender)
if verb == "stop":
    driver.start(guest, lambda stage: None)
if place:
    setattr(holder, name, dying)
driver.start(guest, lambda stage: None) if verb == "start" else driver.stop(guest.name)
driver.close()
"""


def in_another_process(
    rig: SptRig, verb: str, place: str = "", call: int = 1, when: str = ""
) -> int:
    """Let another edgewake do it, dying there unless `place` is empty; return how it ended."""
    order = (rig.host, rig.owner, rig.folder / "state", str(rig.kit.tender), rig.guest(), verb)
    done = subprocess.run(
        [sys.executable, "-c", CRASH],
        input=pickle.dumps((*order, place, call, when)),
        cwd=Path(__file__).parents[3],
        check=False,
    )
    return done.returncode


def nothing_is_left(rig: SptRig) -> bool:
    return not rig.pids() and not rig.taps() and not rig.has_guest(rig.guest().name)


@pytest.mark.parametrize(
    ("place", "call", "when"),
    [
        ("linux.records.Records.write", 1, "before"),
        ("linux.records.Records.write", 1, "after"),
        ("hypervisors.spt.SptHypervisor._copy_disks", 1, "after"),
        ("linux.bridges.Links._set", 1, "before"),  # a tap without alias
        ("linux.bridges.Links.add_tap", 1, "after"),
        ("hypervisors.spt.launch", 1, "before"),
        ("hypervisors.spt.launch", 1, "after"),
        ("hypervisors.spt.SptHypervisor._await_run", 1, "after"),
        ("linux.records.Records.write", 2, "before"),
    ],
)
def test_a_start_cut_short_is_undone(
    rig: SptRig, hypervisor: SptHypervisor, place: str, call: int, when: str
) -> None:
    assert in_another_process(rig, "start", place, call, when) == -signal.SIGKILL
    assert hypervisor.running() == ()
    assert nothing_is_left(rig)
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest())


def test_what_a_crash_left_does_not_hold_the_bridge(rig: SptRig, hypervisor: SptHypervisor) -> None:
    in_another_process(rig, "start", "linux.bridges.Links.add_tap", 1, "after")
    assert len(rig.taps()) == 1
    hypervisor.set_network(None)
    assert not rig.has_network(rig.host.network.name)


@pytest.mark.parametrize("again", ["start", "stop"])
def test_a_start_cut_short_does_not_stand_in_the_way(
    rig: SptRig, hypervisor: SptHypervisor, again: str
) -> None:
    assert in_another_process(rig, "start", "hypervisors.spt.launch", 1, "after") == -signal.SIGKILL
    if again == "start":
        hypervisor.start(rig.guest(), unheard)
        assert rig.pids() == {rig.pid(rig.guest().name)}
    hypervisor.stop(rig.guest().name)
    assert nothing_is_left(rig)


@pytest.mark.parametrize(
    ("place", "when"),
    [
        ("linux.processes.Process.send", "before"),
        ("linux.processes.Process.send", "after"),
        ("linux.processes.Process.end", "after"),
        ("linux.bridges.Links.remove", "after"),
        ("linux.records.Records.remove", "before"),
        ("linux.records.Records.remove", "after"),
    ],
)
def test_a_stop_cut_short_can_be_repeated(
    rig: SptRig, hypervisor: SptHypervisor, place: str, when: str
) -> None:
    assert in_another_process(rig, "stop", place, 1, when) == -signal.SIGKILL
    eventually(
        lambda: len(hypervisor.running()) == len(rig.pids()), rig.patience_s, "the truth is told"
    )
    hypervisor.stop(rig.guest().name)
    assert nothing_is_left(rig)


def test_a_guest_outlives_the_edgewake_that_started_it(
    rig: SptRig, hypervisor: SptHypervisor
) -> None:
    assert in_another_process(rig, "start") == 0
    heard = Heard()
    hypervisor.watch(heard)
    assert names(hypervisor) == {rig.guest().name}
    rig.ping(rig.guest())
    rig.let_end(rig.guest())
    event = heard.wait(ends(rig.guest()), rig.patience_s)
    assert event == GuestEnded("here", rig.guest().name, "ended"), "only its parent could know more"
    eventually(lambda: nothing_is_left(rig), rig.patience_s, "it is cleared away")


@pytest.mark.parametrize("change", ["another start time", "another boot"])
def test_a_process_id_that_means_another_process_is_left_alone(
    rig: SptRig, hypervisor: SptHypervisor, change: str
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        hypervisor.start(rig.guest(), unheard)
        record = rig.record(rig.guest().name)
        hypervisor.stop(rig.guest().name)
        process = cast("dict[str, object]", record["process"])
        theirs = int(Path(f"/proc/{innocent.pid}/stat").read_text().split()[21])
        reused = {
            "another start time": {**process, "pid": innocent.pid, "started": theirs + 1},
            "another boot": {"pid": innocent.pid, "started": theirs, "boot": "another"},
        }
        file = rig.folder / "state" / f"{rig.guest().name}.json"
        file.write_text(json.dumps({**record, "process": reused[change]}))
        hypervisor.stop(rig.guest().name)
        assert not rig.has_guest(rig.guest().name)
        assert innocent.poll() is None
        innocent.kill()


def test_the_whole_mark_survives_a_restart(rig: SptRig, hypervisor: SptHypervisor) -> None:
    guest = rig.guest()
    mark = replace(guest.mark, address6=IPv6Address("fd77:88::2"), obeys_shutdown=True)
    hypervisor.start(replace(guest, mark=mark), unheard)
    assert [running.mark for running in rig.driver().running()] == [mark]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": 1}', "null"])
def test_a_damaged_record_is_no_guest(rig: SptRig, hypervisor: SptHypervisor, text: str) -> None:
    hypervisor.start(rig.guest(), unheard)
    hypervisor.stop(rig.guest().name)
    (rig.folder / "state" / f"{rig.guest().name}.json").write_text(text)
    assert hypervisor.running() == ()
    hypervisor.start(rig.guest(), unheard)
    assert names(hypervisor) == {rig.guest().name}


# --- the machine ----------------------------------------------------------------------------------


def test_another_machine_is_out_of_reach(rig: SptRig) -> None:
    with pytest.raises(HostUnreachable, match="run edgewake on elsewhere, with the URI `spt:`"):
        rig.dead_driver().running()


def test_a_folder_that_cannot_be_is_named(rig: SptRig) -> None:
    (rig.folder / "file").write_text("")
    with pytest.raises(StartFailed, match=r"start .*/file.*: (File exists|Not a directory)"):
        rig.driver(folder="file").start(rig.guest(), unheard)


def test_listeners_may_stop_guests(rig: SptRig, hypervisor: SptHypervisor) -> None:
    first, second = rig.guest(0), rig.guest(1)
    hypervisor.watch(lambda _event: hypervisor.stop(second.name))
    for guest in (first, second):
        hypervisor.start(guest, unheard)
    rig.let_end(first)
    eventually(lambda: hypervisor.running() == (), rig.patience_s, "both are gone")


def every_thread_ends(rig: SptRig) -> Callable[[], bool]:
    return lambda: (
        not [
            comm
            for comm in Path("/proc/self/task").glob("*/comm")
            if comm.read_text().startswith((f"guests of {rig.tag}", f"events {rig.tag}"))
        ]
    )


def test_a_closed_driver_leaves_threads_and_files_behind_nowhere(rig: SptRig) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    driver = rig.driver(host=replace(rig.host, name=rig.tag))
    driver.set_network(rig.host.network)
    driver.watch(lambda _event: None)
    guest = rig.guest()
    driver.start(replace(guest, mark=replace(guest.mark, host=rig.tag)), unheard)
    driver.close()
    eventually(every_thread_ends(rig), rig.patience_s, "its threads end")
    with suppress(OSError):
        os.kill(rig.pid(guest.name), signal.SIGKILL)
    eventually(
        lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, rig.patience_s, "files closed"
    )
