"""The netns back end keeps the contract, with real namespaces, processes, cards and bridges."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from errno import ENOSPC
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import cast

import pytest

from images.bootspec import BootSpec, Command, GuestAddress, Nic
from images.facts import Entry
from orchestrator.errors import StartFailed
from orchestrator.hypervisors import netns
from orchestrator.hypervisors.base import Depth, GuestEnded
from orchestrator.hypervisors.netns import NetnsHypervisor
from orchestrator.linux import namespaces, sandbox
from orchestrator.linux.bridges import Link, Links
from orchestrator.linux.cgroups import Cgroups
from orchestrator.linux.processes import processes_told
from orchestrator.linux.records import Records
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

SUBNETS = tuple(IPv4Network(f"10.87.{third}.0/24") for third in range(2, 10))
MEMORY_MIB = 32
TALKER = "echo here; exec sleep 1000"  # the kernel answers pings for it


class NetnsRig:
    """The machine; all that is made has `tag` in its arguments or alias, and is found by it."""

    patience_s = 20.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = uuid.uuid4().hex[:6]
        self.owner = f"owner-{self.tag}"
        subnet = SUBNETS[os.getpid() % len(SUBNETS)]
        network = GuestNetwork(
            name=f"lab-{self.tag}",
            subnet=subnet,
            gateway=subnet[1],
            first=subnet[2],
            last=subnet[99],
            create=True,
            bridge=f"ewnet{self.tag}",
        )
        capacity = Capacity(cpu=2, memory_mib=1024)
        self.host = Host(name="here", uri="netns:///", capacity=capacity, network=network)
        self.drivers: list[NetnsHypervisor] = []

    def driver(
        self, *, owner: str = "", host: Host | None = None, cgroups: Cgroups | None = None
    ) -> NetnsHypervisor:
        driver = NetnsHypervisor(
            host or self.host,
            owner or self.owner,
            folder=self.folder / "state",
            cgroups=cgroups,
        )
        self.drivers.append(driver)
        return driver

    def dead_driver(self) -> NetnsHypervisor:
        return self.driver(host=replace(self.host, uri="netns://elsewhere/"))

    def guest(self, number: int = 0, *, argv: tuple[str, ...] = (), tree: str = "/") -> Guest:
        network = self.host.network
        address = network.first + number
        name = f"ewnet-{self.tag}-{number}"
        command = Command(
            argv=argv or ("/bin/sh", "-c", TALKER, self.tag),
            environment=(("PATH", "/usr/bin:/bin"), ("GREETING", "good day")),
            address=network.guest_address(address),
            tree=Path(tree),
        )
        boot = BootSpec(
            kernel=None,
            memory_mib=MEMORY_MIB,
            nics=(Nic(network.name, mac_of(address)),),
            entry=Entry.COMMAND,
            command=command,
        )
        mark = Mark(self.owner, name, "web", self.host.name, address, obeys_shutdown=True)
        return Guest(name, mark, boot)

    def record(self, name: str) -> dict[str, object]:
        data: dict[str, object] = json.loads((self.folder / "state" / f"{name}.json").read_text())
        return data

    def pid(self, name: str) -> int:
        return int(cast("dict[str, int]", self.record(name)["process"])["pid"])

    def ports(self) -> list[Link]:
        with Links() as links:
            bridge = links.find(self.host.network.bridge)
            return list(links.ports(bridge)) if bridge else []

    def ping(self, guest: Guest, kind: ProbeKind = ProbeKind.ICMP) -> None:
        mark = guest.mark
        target = Target(mark.address, None, mac_of(mark.address), lambda: b"")
        deadline = time.monotonic() + self.patience_s
        wait(Probe(kind), target, deadline=deadline, cancelled=lambda: None)

    def let_end(self, guest: Guest) -> None:
        os.kill(self.pid(guest.name), signal.SIGKILL)

    def hold(self, guest: Guest) -> None:
        os.kill(self.pid(guest.name), signal.SIGSTOP)

    def chat(self, guest: Guest) -> None:
        """Let it answer, and say much to where nobody listens."""
        self.ping(guest)
        world = str(self.record(guest.name)["world"])

        def say() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(50):
                    sender.sendto(bytes(1000), (str(self.host.network.gateway), 9))

        namespaces.inside(world, say)

    def make_foreign_guest(self, name: str) -> None:
        guest = replace(self.guest(), name=name)
        driver = self.driver(owner="x")
        driver.start(replace(guest, mark=replace(guest.mark, owner="x", instance=name)), unheard)
        driver.close()

    def has_guest(self, name: str) -> bool:
        return (self.folder / "state" / f"{name}.json").exists()

    def make_foreign_network(self, name: str) -> None:
        assert name == self.host.network.name
        bridge = self.host.network.bridge
        subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
        subprocess.run(["ip", "link", "set", bridge, "up"], check=True)

    def has_network(self, name: str) -> bool:
        assert name == self.host.network.name
        return Path("/sys/class/net", self.host.network.bridge).exists()

    def clean(self) -> None:
        cleaner = self.driver()
        for file in (self.folder / "state").glob("*.json"):
            data = json.loads(file.read_text() or "null")
            if isinstance(data, dict) and "world" in data:
                cleaner._clear(cleaner._parse(file.read_text()))
        for driver in self.drivers:
            driver.close()
        with Links() as links:
            bridge = links.find(self.host.network.bridge)
            for link in (*links.ports(bridge), bridge) if bridge else ():
                links.remove(link)


@pytest.fixture
def rig() -> Iterator[NetnsRig]:
    folder = Path(tempfile.mkdtemp(prefix="ewnet-"))
    rig = NetnsRig(folder)
    yield rig
    rig.clean()
    shutil.rmtree(folder)


@pytest.fixture
def hypervisor(rig: NetnsRig) -> NetnsHypervisor:
    driver = rig.driver()
    driver.set_network(rig.host.network)
    return driver


class TestNetnsHypervisor(HypervisorContract, SleepContract):
    depths = (Depth.PAUSED,)


# --- a guest --------------------------------------------------------------------------------------


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def said(rig: NetnsRig, hypervisor: NetnsHypervisor, guest: Guest, last: str = "done") -> str:
    """Start a guest, and return its console once it ends with a line."""
    hypervisor.start(guest, unheard)
    console = ""

    def is_whole() -> bool:
        nonlocal console
        console = hypervisor.console(guest.name).decode()
        return console.endswith(f"{last}\n")

    eventually(is_whole, rig.patience_s, f"the line {last!r}")
    return console


@pytest.mark.parametrize("kind", [ProbeKind.ICMP, ProbeKind.ARP])
def test_a_guest_answers_on_its_address(
    rig: NetnsRig, hypervisor: NetnsHypervisor, kind: ProbeKind
) -> None:
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest(), kind)


def test_what_a_guest_is_and_what_it_may(rig: NetnsRig, hypervisor: NetnsHypervisor) -> None:
    script = """
        grep -E '^(Uid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status
        echo "files $(ls /proc/self/fd | tr '\\n' ' ')"
        echo "variables $(cat /proc/self/environ | tr '\\0' ' ')"
        echo "host $(cat /proc/sys/kernel/hostname)"; grep -c . /etc/hosts
        echo "cards $(ls /sys/class/net | tr '\\n' ' ')"
        for file in /x /etc/x /usr/x /dev/x; do touch $file 2>/dev/null && echo "wrote $file"; done
        for file in /tmp/x /run/x /dev/shm/x; do touch $file || echo "no $file"; done
        ls /proc | grep -c '^[0-9]*$'
        unshare --user true 2>/dev/null && echo "namespaces"
        echo done"""
    lines = said(rig, hypervisor, rig.guest(argv=shell(script))).splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith("files "))
    status, told = dict(line.split(":", 1) for line in lines[:begin]), lines[begin:]
    (user,) = set(status["Uid"].split())
    assert int(user) >= 0x7000_0000, "a user of its own, without an account"
    assert status["Groups"].split() == []
    assert {value.strip() for key, value in status.items() if key.startswith("Cap")} == {"0" * 16}
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert told[0] == "files 0 1 2 3 ", "the last is of ls itself"
    shells_own = {"PWD=/"}
    assert set(told[1].split()[1:]) - shells_own == {"PATH=/usr/bin:/bin", "GREETING=good", "day"}
    assert told[2] == f"host {rig.guest().name}"
    assert told[4:] == ["cards eth0 lo ", *told[5:-1], "done"]
    assert not [line for line in told if line.startswith(("wrote", "no ", "namespaces"))]
    assert int(told[5]) <= 6, "processes of its own only"


def test_each_guest_has_a_user_of_its_own(rig: NetnsRig, hypervisor: NetnsHypervisor) -> None:
    for number in range(2):
        hypervisor.start(rig.guest(number), unheard)
    pids = [rig.pid(rig.guest(number).name) for number in range(2)]
    assert len({Path(f"/proc/{pid}").stat().st_uid for pid in pids}) == 2


def test_it_may_listen_on_any_port_and_speaks_ipv6(rig: NetnsRig) -> None:
    subnet6 = IPv6Network("fd77:87::/64")
    network = replace(rig.host.network, subnet6=subnet6)
    hypervisor = rig.driver(host=replace(rig.host, network=network))
    hypervisor.set_network(network)
    script = """
import socket
server = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    server.accept()[0].close()"""
    guest = rig.guest(argv=("/usr/bin/python3", "-c", script))
    assert guest.boot.command is not None
    ipv6 = IPv6Interface((subnet6[2], 64))
    address = GuestAddress(guest.boot.command.address.ipv4, network.gateway, ipv6)
    told = replace(guest.boot, command=replace(guest.boot.command, address=address))
    hypervisor.start(replace(guest, boot=told), unheard)

    def connects(host: str) -> bool:
        try:
            socket.create_connection((host, 80), timeout=1).close()
        except OSError:
            return False
        return True

    for host in (str(guest.mark.address), str(subnet6[2])):
        eventually(lambda host=host: connects(host), rig.patience_s, f"port 80 of {host}")  # type: ignore[misc]


def test_it_has_the_public_address_of_its_service(
    rig: NetnsRig, hypervisor: NetnsHypervisor
) -> None:
    script = """
import socket, time
for address, family in ("203.0.113.9", socket.AF_INET), ("2001:db8::9", socket.AF_INET6):
    socket.create_server((address, 80), family=family)
    print("has", address, flush=True)
time.sleep(600)"""
    guest = rig.guest(argv=("/usr/bin/python3", "-c", script))
    assert guest.boot.command is not None
    own = (IPv4Address("203.0.113.9"), IPv6Address("2001:db8::9"))
    address = replace(guest.boot.command.address, own=own)
    told = replace(guest.boot, command=replace(guest.boot.command, address=address))
    hypervisor.start(replace(guest, boot=told), unheard)
    for each in own:
        eventually(
            lambda each=each: f"has {each}\n".encode() in hypervisor.console(guest.name),  # type: ignore[misc]
            rig.patience_s,
            f"the address {each}",
        )


def test_a_quiet_guest_hears_nothing(rig: NetnsRig, hypervisor: NetnsHypervisor) -> None:
    """Nothing of the host's own IPv6 or multicast: counters stand still, so it can be idle."""
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest())
    (before,) = hypervisor.running()
    time.sleep(1.5)
    (after,) = hypervisor.running()
    assert (before.rx_packets, before.tx_bytes) == (after.rx_packets, after.tx_bytes)


def test_the_end_of_a_guest_is_that_of_all_its_processes(
    rig: NetnsRig, hypervisor: NetnsHypervisor
) -> None:
    """Also of those that are in a session of their own, and whose parent is gone."""
    rest = f"1{rig.tag.translate(str.maketrans('abcdef', '012345'))}"
    script = f"(setsid sleep {rest} &); sleep {rest} & echo done; wait"
    said(rig, hypervisor, rig.guest(argv=shell(script)))

    def sleepers() -> int:
        found = list(processes_told(rest))
        for process in found:
            process.close()
        return len(found)

    eventually(lambda: sleepers() == 2, rig.patience_s, "both sleep")
    hypervisor.sleep(rig.guest().name, Depth.PAUSED)
    hypervisor.stop(rig.guest().name)
    assert sleepers() == 0
    said(rig, hypervisor, rig.guest(argv=shell(script)))
    eventually(lambda: sleepers() == 2, rig.patience_s, "both sleep again")
    rig.let_end(rig.guest())
    eventually(lambda: sleepers() == 0, rig.patience_s, "they end with the first of them")


def test_all_processes_of_a_guest_stand_still_when_it_sleeps(
    rig: NetnsRig, hypervisor: NetnsHypervisor
) -> None:
    script = "(while :; do echo tick; sleep 0.01; done) & echo done; wait"
    guest = rig.guest(argv=shell(script))
    hypervisor.start(guest, unheard)

    def ticks() -> int:
        return hypervisor.console(guest.name).count(b"tick")

    for driver in (hypervisor, rig.driver(cgroups=Cgroups())):  # with a freezer, and without any
        eventually(lambda: ticks() > 0, rig.patience_s, "it ticks")
        driver.sleep(guest.name, Depth.PAUSED)
        before = ticks()
        time.sleep(0.2)
        assert ticks() == before
        driver.rouse(guest.name)
        eventually(lambda before=before: ticks() > before, rig.patience_s, "it ticks on")  # type: ignore[misc]


def test_one_that_cannot_be_stopped_is_not_said_to_sleep(
    rig: NetnsRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = rig.driver(cgroups=Cgroups())
    driver.set_network(rig.host.network)
    driver.start(rig.guest(), unheard)
    monkeypatch.setattr(netns, "PATIENCE_S", 0.05)
    monkeypatch.setattr(netns, "_signal_all", lambda _record, _number: True)  # always one more
    with pytest.raises(StartFailed, match="faster than they can be stopped"):
        driver.sleep(rig.guest().name, Depth.PAUSED)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 0", "exited"),
        ("exit 83", "exit status 83"),
        ("kill -ABRT $$", "killed by SIGABRT"),
        (
            "x=$(head -c 100M /dev/zero | tail -c 99M | tr '\\\\0' x); echo $x",
            "more memory than it",
        ),
    ],
)
def test_how_a_guest_ended_is_told(
    rig: NetnsRig, hypervisor: NetnsHypervisor, script: str, why: str
) -> None:
    if why.startswith("more") and "memory" not in Cgroups.found().limits:
        pytest.skip("this machine limits no memory")
    heard = Heard()
    hypervisor.watch(heard)
    guest = rig.guest(argv=shell(f"echo; {script}"))
    hypervisor.start(guest, unheard)
    event = heard.wait(ends(guest), rig.patience_s)
    assert isinstance(event, GuestEnded)
    assert why in event.why
    eventually(lambda: not rig.has_guest(guest.name), rig.patience_s, "it is cleared away")


def test_one_that_obeys_may_tidy_up_and_one_that_does_not_is_killed(
    rig: NetnsRig, hypervisor: NetnsHypervisor
) -> None:
    script = "trap 'echo bye; exit' TERM; echo done; while :; do sleep 0.01; done"
    polite = rig.guest(argv=shell(script))
    said(rig, hypervisor, polite)
    hypervisor.stop(polite.name)
    assert hypervisor.console(polite.name).endswith(b"bye\n")
    rude = replace(polite, mark=replace(polite.mark, obeys_shutdown=False))
    said(rig, hypervisor, rude)
    hypervisor.stop(rude.name)
    assert hypervisor.console(rude.name).endswith(b"done\n")


def test_limits_are_set_and_gone_with_the_guest(rig: NetnsRig) -> None:
    hypervisor = rig.driver(host=replace(rig.host, guest_cpus=(0,)))
    hypervisor.set_network(rig.host.network)
    cgroups = Cgroups.found()
    assert cgroups.limits, "no control group can be written to here"
    guest = replace(rig.guest(), cpu=0.5, cpu_cap=0.25)
    hypervisor.start(guest, unheard)
    world = str(rig.record(guest.name)["world"])
    assert os.sched_getaffinity(rig.pid(guest.name)) == {0}
    folders = cgroups._folders(world)
    for folder in folders:
        assert str(rig.pid(guest.name)) in (folder / "cgroup.procs").read_text().split()
    if "cpu" in cgroups.v1:
        quota = (cgroups.v1["cpu"] / world / "cpu.cfs_quota_us").read_text()
        assert int(quota) == 25_000
    hypervisor.stop(guest.name)
    assert not [folder for folder in folders if folder.exists()]
    assert world not in namespaces.names()


# --- trees ----------------------------------------------------------------------------------------


@pytest.fixture
def tree(rig: NetnsRig) -> Path:
    """Return a folder with a shell, and with everything that should lead nowhere."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "install busybox (see 'make setup')"
    tree = rig.folder / "a tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copyfile(busybox, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o4755)
    (tree / "bin/sh").symlink_to("/bin/busybox")
    (tree / "out").symlink_to("../../../../../../etc")
    (tree / "tmp").symlink_to("/etc")
    (tree / "dev").mkdir()
    os.mknod(tree / "dev/kmsg", 0o666 | 0o020000, os.makedev(1, 11))
    os.mknod(tree / "null", 0o666 | 0o020000, os.makedev(1, 3))
    (tree / "inner").mkdir()
    os.mknod(tree / "inner/zero", 0o666 | 0o020000, os.makedev(1, 5))
    (tree / "inner/up").symlink_to("../../../../../etc/passwd")
    (tree / "file").write_text("of the tree\n")
    os.mkfifo(tree / "pipe")
    return tree


def test_a_tree_is_all_that_a_guest_sees(
    rig: NetnsRig, hypervisor: NetnsHypervisor, tree: Path
) -> None:
    script = """
        cat /file; cat /out/passwd /inner/up 2>/dev/null && echo "led out"
        head -c 1 /inner/zero 2>/dev/null && echo "a device"
        echo x 2>/dev/null > /file && echo "wrote"
        echo x > /tmp/x && ls /tmp; busybox id -u; busybox ls / | tr '\\n' ' '; echo; echo done"""
    script = script.replace("cat ", "busybox cat ").replace("head ", "busybox head ")
    script = script.replace("ls /tmp", "busybox ls /tmp").replace("tr ", "busybox tr ")
    guest = rig.guest(argv=("/bin/sh", "-c", script), tree=str(tree))
    lines = said(rig, hypervisor, guest).splitlines()
    assert lines[:2] == ["of the tree", "x"]
    assert int(lines[2]) >= 0x7000_0000, "set-user-ID has no effect"
    assert lines[3].split() == sorted(
        ["bin", "dev", "file", "inner", "out", "proc", "run", "sys", "tmp"]
    )
    assert not Path("/etc/x").exists()
    assert (tree / "file").read_text() == "of the tree\n"


def test_what_is_mounted_outside_later_is_not_seen_inside(
    rig: NetnsRig, hypervisor: NetnsHypervisor, tree: Path
) -> None:
    """It would come as it is outside: to be written to, with devices and set-user-ID."""
    shared, go = tree / "shared", "shared/go"
    shared.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "ewnet", shared], check=True)
        subprocess.run(["mount", "--make-shared", shared], check=True)
        (shared / "later").mkdir()
        script = f"""
            while ! busybox test -e /{go}; do busybox sleep 0.05; done
            echo x > /shared/later/x && echo "wrote"; echo done"""
        guest = rig.guest(argv=("/bin/sh", "-c", script), tree=str(tree))
        hypervisor.start(guest, unheard)
        later = ["mount", "-t", "tmpfs", "-o", "mode=1777", "ewnet", shared / "later"]
        subprocess.run(later, check=True)
        (tree / go).touch()
        eventually(
            lambda: hypervisor.console(guest.name).endswith(b"done\n"), rig.patience_s, "an end"
        )
        assert b"wrote" not in hypervisor.console(guest.name)
        assert not list((shared / "later").iterdir())
    finally:
        subprocess.run(["umount", "--recursive", shared], check=False)


def test_the_keeper_which_no_filter_confines_is_not_to_be_written_to(
    rig: NetnsRig, hypervisor: NetnsHypervisor
) -> None:
    script = "exec 3<> /proc/1/mem && echo opened"
    console = said(
        rig, hypervisor, rig.guest(argv=shell(f"({script}) 2>&1; echo done; exec sleep 1000"))
    )
    assert console.splitlines()[-1] == "done"
    assert "opened" not in console
    keeper = cast("dict[str, int]", rig.record(rig.guest().name)["keeper"])["pid"]
    assert Path(f"/proc/{keeper}").stat().st_uid not in {
        0,
        Path(f"/proc/{rig.pid(rig.guest().name)}").stat().st_uid,
    }


def test_the_keeper_is_a_program_of_this_machine_however_slow_it_starts(
    rig: NetnsRig, hypervisor: NetnsHypervisor, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes root while it starts, and a tree may have programs of the same names."""
    real = sandbox._Tools.found

    def slow(user: int) -> sandbox._Tools:
        tools = real(user)
        delay = ["/bin/sh", "-c", 'sleep 0.1; exec "$@"', "sh"]
        return replace(tools, keeper=[*delay, *tools.keeper])

    monkeypatch.setattr(sandbox._Tools, "found", slow)
    hypervisor.start(
        rig.guest(argv=("/bin/sh", "-c", "busybox sleep 1000"), tree=str(tree)), unheard
    )
    keeper = cast("dict[str, int]", rig.record(rig.guest().name)["keeper"])["pid"]
    assert Path(f"/proc/{keeper}/exe").readlink() == Path(str(shutil.which("sleep")))


# --- arguments ------------------------------------------------------------------------------------

ODD = (
    "",
    " ",
    "a b",
    "$HOME;*`id`",
    "'\"\\",
    "--",
    "-e",
    "\n\t\x01\x7f",
    "\udcff\udc80",
    "日本",
    "x" * 4000,
)


def test_arguments_arrive_byte_by_byte(rig: NetnsRig, hypervisor: NetnsHypervisor) -> None:
    script = "import os, sys; print([os.fsencode(each) for each in sys.argv[1:]]); print('done')"
    guest = rig.guest(argv=("/usr/bin/python3", "-c", script, *ODD))
    lines = said(rig, hypervisor, guest).splitlines()
    assert lines[0] == str([os.fsencode(each) for each in ODD])


# --- refusals -------------------------------------------------------------------------------------


def nothing_is_left(rig: NetnsRig) -> bool:
    marked = list(processes_told(rig.tag))
    for process in marked:
        process.close()
    return not marked and not rig.ports() and not rig.has_guest(rig.guest().name)


@pytest.mark.parametrize(
    ("argv", "tree", "words"),
    [
        (("/no/such",), "/", "/no/such: No such file or directory; is it in the image's tree"),
        (("/etc/passwd",), "/", "/etc/passwd: Permission denied; let all users run"),
        (("/bin/true",), "/no/tree", "/no/tree: No such file"),
        (("/bin/true",), "/etc/passwd", "/etc/passwd: Not a directory"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(
    rig: NetnsRig, hypervisor: NetnsHypervisor, argv: tuple[str, ...], tree: str, words: str
) -> None:
    before = set(namespaces.names())
    with pytest.raises(StartFailed) as refused:
        hypervisor.start(rig.guest(argv=argv, tree=tree), unheard)
    assert words in str(refused.value)
    assert nothing_is_left(rig)
    assert set(namespaces.names()) <= before


def test_an_image_for_a_machine_is_refused(rig: NetnsRig, hypervisor: NetnsHypervisor) -> None:
    guest = rig.guest()
    with pytest.raises(StartFailed, match="it is no command"):
        hypervisor.start(replace(guest, boot=replace(guest.boot, command=None)), unheard)


def test_only_pausing_is_sleep_and_nothing_is_migrated(
    rig: NetnsRig, hypervisor: NetnsHypervisor
) -> None:
    hypervisor.start(rig.guest(), unheard)
    with pytest.raises(StartFailed, match="cannot be saved: nothing here writes the memory"):
        hypervisor.sleep(rig.guest().name, Depth.SAVED)
    with pytest.raises(StartFailed, match="a process has no live migration"):
        hypervisor.migrate(rig.guest(), hypervisor, lambda _sent: True)
    assert names(hypervisor) == {rig.guest().name}


@pytest.mark.parametrize(
    "step", [(Cgroups, "add", 1), (Records, "write", 2)], ids=["group", "disk"]
)
def test_a_program_that_runs_already_is_ended_when_its_start_fails(
    rig: NetnsRig,
    hypervisor: NetnsHypervisor,
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[type, str, int],
) -> None:
    holder, name, call = step
    real, calls, worlds = getattr(holder, name), 0, []

    def failing(*given: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            worlds.append(str(rig.record(rig.guest().name)["world"]))
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        real(*given)

    monkeypatch.setattr(holder, name, failing)
    with pytest.raises(StartFailed, match="No space left on device"):
        hypervisor.start(rig.guest(), unheard)
    assert nothing_is_left(rig)
    assert len(worlds) == 1
    assert not (namespaces.FOLDER / worlds[0]).exists()


# --- restarts and crashes -------------------------------------------------------------------------

# Runs one verb of a driver and dies, by SIGKILL, right before or after one of its steps.
CRASH = """
import os, pickle, signal, sys
from operator import attrgetter

import orchestrator.linux.cgroups, orchestrator.linux.sandbox
from orchestrator.hypervisors import netns

host, owner, folder, guest, verb, place, call, when = pickle.load(sys.stdin.buffer)
where, _, name = (place or "linux.sandbox.start").rpartition(".")
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

driver = netns.NetnsHypervisor(host, owner, folder=folder)
if verb == "stop":
    driver.start(guest, lambda stage: None)
if place:
    setattr(holder, name, dying)
driver.start(guest, lambda stage: None) if verb == "start" else driver.stop(guest.name)
driver.close()
"""


def in_another_process(
    rig: NetnsRig, verb: str, place: str = "", call: int = 1, when: str = ""
) -> int:
    """Let another edgewake do it, dying there unless `place` is empty; return how it ended."""
    order = (rig.host, rig.owner, rig.folder / "state", rig.guest(), verb, place, call, when)
    done = subprocess.run(
        [sys.executable, "-c", CRASH],
        input=pickle.dumps(order),
        cwd=Path(__file__).parents[3],
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize(
    ("place", "call", "when"),
    [
        ("linux.records.Records.write", 1, "after"),
        ("linux.namespaces.make", 1, "before"),
        ("linux.namespaces.make", 1, "after"),
        ("linux.bridges.Links._set", 1, "before"),  # a card without alias
        ("linux.bridges.Links.add_pair", 1, "after"),
        ("linux.cgroups.Cgroups.make", 1, "after"),
        ("linux.sandbox._child", 1, "after"),  # a keeper, and no program yet
        ("linux.sandbox._run", 1, "after"),
        ("linux.sandbox._child", 2, "before"),
        ("linux.sandbox._child", 2, "after"),  # a program that is in no record
        ("linux.cgroups.Cgroups.add", 1, "after"),
        ("linux.records.Records.write", 2, "before"),
    ],
)
def test_a_start_cut_short_is_undone(
    rig: NetnsRig, hypervisor: NetnsHypervisor, place: str, call: int, when: str
) -> None:
    assert in_another_process(rig, "start", place, call, when) == -signal.SIGKILL
    world = str(rig.record(rig.guest().name)["world"])
    assert hypervisor.running() == ()
    assert nothing_is_left(rig)
    assert not (namespaces.FOLDER / world).exists()
    assert not [folder for folder in Cgroups.found()._folders(world) if folder.exists()]
    hypervisor.start(rig.guest(), unheard)
    rig.ping(rig.guest())


@pytest.mark.parametrize(
    ("place", "when"),
    [
        ("linux.processes.Process.send", "after"),
        ("linux.processes.Process.end", "after"),
        ("linux.bridges.Links.remove", "after"),
        ("linux.namespaces.remove", "after"),
        ("linux.cgroups.Cgroups.remove", "after"),
        ("linux.records.Records.remove", "after"),
    ],
)
def test_a_stop_cut_short_can_be_repeated(
    rig: NetnsRig, hypervisor: NetnsHypervisor, place: str, when: str
) -> None:
    assert in_another_process(rig, "stop", place, 1, when) == -signal.SIGKILL
    hypervisor.stop(rig.guest().name)
    assert nothing_is_left(rig)
    assert hypervisor.running() == ()


def test_a_guest_outlives_the_edgewake_that_started_it(
    rig: NetnsRig, hypervisor: NetnsHypervisor
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


def test_a_card_with_another_mark_is_left_alone(rig: NetnsRig, hypervisor: NetnsHypervisor) -> None:
    """Whatever a record says: only what carries our mark is removed."""
    hypervisor.start(rig.guest(), unheard)
    file = rig.folder / "state" / f"{rig.guest().name}.json"
    record = rig.record(rig.guest().name)
    theirs = f"ewx{rig.tag}"
    subprocess.run(["ip", "link", "add", theirs, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", theirs, "alias", "somebody's"], check=True)
    try:
        file.write_text(json.dumps({**record, "card": theirs}))
        hypervisor.stop(rig.guest().name)
        assert Path("/sys/class/net", theirs).exists()
    finally:
        subprocess.run(["ip", "link", "del", theirs], check=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": 1}', "null"])
def test_a_damaged_record_is_no_guest(
    rig: NetnsRig, hypervisor: NetnsHypervisor, text: str
) -> None:
    hypervisor.set_network(rig.host.network)
    (rig.folder / "state").mkdir(exist_ok=True)
    (rig.folder / "state" / f"{rig.guest().name}.json").write_text(text)
    assert hypervisor.running() == ()
    hypervisor.start(rig.guest(), unheard)
    assert names(hypervisor) == {rig.guest().name}
