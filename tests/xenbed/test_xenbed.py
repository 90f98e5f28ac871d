"""The Xen test bed: its decisions alone, and then the real thing with a real guest."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID
from xml.sax.saxutils import escape

import libvirt
import pytest

from images.build import cpio
from images.build.linux_microvm import build as build_linux
from images.build.linux_microvm import newest_kernel
from orchestrator.hypervisors.migration_address import address_of
from orchestrator.labfile import parse_lab
from tests.xenbed import build, network, notes, packages, personality, plan, qemu, rootfs
from tests.xenbed import state as states
from tests.xenbed.__main__ import main
from tests.xenbed.bed import Bed, remove
from tests.xenbed.commands import command_line
from tests.xenbed.elf import needed_libraries
from tests.xenbed.errors import BedError
from tests.xenbed.packages import Package
from tests.xenbed.state import State

ROOT = Path(__file__).parents[2]
CACHE = build.default_cache()
PATIENCE_S = 120.0
PV = "<type arch='x86_64' machine='xenpv'>xen</type>"
PVH = "<type arch='x86_64' machine='xenpvh'>xenpvh</type>"
URIS = """\
NOTE: this line is none
'http://deb.example/pool/x/xen-utils_4.17_amd64.deb' xen-utils-4.17_4.17.7+13_amd64.deb 100 SHA256:0
'http://deb.example/pool/o/ssh.deb' openssh-server_1%3a9.2p1-2_amd64.deb 20 SHA256:0
'http://deb.example/pool/p/perl.deb' perl-base_5.36.0-7_amd64.deb 3000 MD5Sum:0
"""


def state_in(cache: Path, name: str = "a", **other: object) -> State:
    state = State(
        name=name,
        folder=states.folder_of(cache, name),
        id=UUID(int=7),
        ssh_port=27001,
        libvirt_port=27002,
        lan=network.Lan(network.bridge_name(name), IPv4Network("10.213.90.0/24")),
        bridge_owner=name,
        address=IPv4Address("10.213.90.2"),
        memory_mib=2048,
        dom0_mib=512,
        guests_mib=1400,
    )
    return replace(state, **other)  # type: ignore[arg-type]


def written(state: State, pid: int | None = None) -> State:
    state.folder.mkdir(parents=True)
    state.write()
    if pid is not None:
        state.pid_file.write_text(f"{pid}\n")
    return state


def until(seen: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, f"not seen: {what}"
        time.sleep(0.05)


# --- packages and what is made of them ------------------------------------------------------------


def test_packages_are_read_from_what_apt_prints() -> None:
    assert packages.parse_uris(URIS) == (
        Package("openssh-server", "1:9.2p1-2", 20),
        Package("perl-base", "5.36.0-7", 3000),
        Package("xen-utils-4.17", "4.17.7+13", 100),
    )


def test_what_serves_installation_only_is_left_out() -> None:
    names = [each.name for each in packages.needed(packages.parse_uris(URIS))]
    assert names == ["openssh-server", "xen-utils-4.17"]


@pytest.mark.parametrize("name", packages.ROOTS)
def test_a_root_is_left_out_only_if_it_is_a_metapackage(name: str) -> None:
    assert bool(packages.needed([Package(name, "1", 1)])) is (name != "linux-image-amd64")


def test_the_key_changes_with_versions_and_with_our_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (Package("xen", "1", 5),), (Package("xen", "2", 5),)
    assert build.key(old) == build.key((Package("xen", "1", 5),))
    assert build.key(old) != build.key(new)
    ours = shutil.copytree(rootfs.OURS, tmp_path / "dom0")
    before = build.key(old)
    monkeypatch.setattr(rootfs, "OURS", ours)
    assert build.key(old) == before
    (ours / "init").write_text("#!/bin/sh\n")
    assert build.key(old) != before


def test_the_libraries_of_a_program() -> None:
    python = Path(sys.executable).resolve().read_bytes()
    assert "libc.so.6" in needed_libraries(python)
    assert needed_libraries(b"#!/bin/sh\n") == ()
    with pytest.raises(ValueError, match="damaged"):
        needed_libraries(python[:80])


def test_modules_are_loaded_after_those_they_need(tmp_path: Path) -> None:
    assert rootfs.module_needs(b"..\0license=GPL\0depends=llc,stp-x\0name=bridge\0") == (
        "llc",
        "stp_x",
    )
    assert rootfs.module_needs(b"..\0depends=\0name=llc\0") == ()
    needs = {"bridge": ("stp", "llc"), "stp": ("llc",), "llc": ()}
    assert rootfs.closure("bridge", needs) == ["stp", "llc"]


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    program = tmp_path / "usr/sbin/libvirtd"
    program.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), program)
    with pytest.raises(BedError, match=r"/usr/sbin/libvirtd needs lib\S+, and none"):
        list(rootfs.entries(tmp_path))


def test_a_build_that_fails_leaves_nothing_and_a_half_one_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(packages.Archive):
        def resolve(self) -> tuple[Package, ...]:
            return (Package("xen", "1", 5),)

        def fetch(self, packages: object) -> int:
            return 5

        def unpack(self, packages: object, into: Path) -> None:
            (into / "boot").mkdir(parents=True)

    monkeypatch.setattr(packages, "Archive", Broken)
    home = tmp_path / "built" / build.key((Package("xen", "1", 5),))
    home.mkdir(parents=True)
    (home / "xen").touch()
    (home.parent / ".new-killed").mkdir()
    with pytest.raises(BedError, match="boot/xen"):
        build.ensure(tmp_path)
    assert [each.name for each in home.parent.iterdir()] == [home.name]
    assert not build.is_whole(home)


def test_a_build_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "xen").write_bytes(b"12345")
    (tmp_path / "sizes.json").write_text('{"xen": 5}')
    assert build.is_whole(tmp_path)
    (tmp_path / "xen").write_bytes(b"123")
    assert not build.is_whole(tmp_path)


def test_two_builds_do_not_collide(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.xenbed.build import locked\n"
        "with locked(Path(sys.argv[1]), 'build', print): print('in')"
    )
    with build.locked(tmp_path, "build"):
        other = subprocess.Popen(
            [sys.executable, "-uc", program, str(tmp_path)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert other.stdout is not None
        assert "waiting" in other.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    assert other.communicate()[0] == "in\n"


# --- where a bed is on this machine ---------------------------------------------------------------


def test_names_of_devices_fit() -> None:
    longest = "a" * 10
    assert states.NAME.fullmatch(longest)
    assert max(len(network.tap_name(longest)), len(network.bridge_name(longest))) <= 15


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "../a", "a" * 11])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BedError, match="no name for a bed"):
        states.read(tmp_path, name)


def test_ports_are_free_ones_and_stay_with_a_name() -> None:
    first = network.choose_ports(2, "a", free=lambda _: True)
    assert len(set(first)) == 2
    assert network.choose_ports(2, "a", free=lambda _: True) == first
    other = network.choose_ports(2, "a", taken=first[:1], free=lambda port: port != first[1])
    assert not set(other) & set(first)
    with pytest.raises(BedError, match="no 1 ports"):
        network.choose_ports(1, "a", free=lambda _: False)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not network.is_free(server.getsockname()[1])


def test_the_subnet_is_a_free_one() -> None:
    assert network.choose_subnet([]) == network.SUBNETS[0]
    assert network.choose_subnet([IPv4Network("10.213.90.128/25")]) == network.SUBNETS[1]
    with pytest.raises(BedError, match="--subnet"):
        network.choose_subnet([IPv4Network("10.0.0.0/8")])


def test_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = written(state_in(tmp_path))
    assert states.read(tmp_path, "a") == state
    assert list(states.all_beds(tmp_path)) == [state]
    assert states.read(tmp_path, "b") is None


def test_a_broken_state_file_is_named(tmp_path: Path) -> None:
    state = written(state_in(tmp_path))
    (state.folder / "bed.json").write_text("{}")
    with pytest.raises(BedError, match=r"bed\.json: not what a bed writes"):
        states.read(tmp_path, "a")


def test_a_pid_that_is_another_process_now_is_not_the_beds(tmp_path: Path) -> None:
    state = written(state_in(tmp_path), pid=os.getpid())
    assert state.pid() is None
    assert remove(tmp_path, "a")  # and we are still here
    assert not state.folder.exists()
    assert not remove(tmp_path, "a")


def test_a_process_is_found_by_its_pid_file_argument(tmp_path: Path) -> None:
    state = written(state_in(tmp_path, lan=network.Lan("", IPv4Network("10.213.90.0/24"))))
    pause = [sys.executable, "-c", "import time; time.sleep(600)", "-pidfile", str(state.pid_file)]
    with subprocess.Popen(pause) as process:
        until(state.find_process, "the process")
        assert state.find_process() == process.pid
        assert state.pid() is None
        remove(tmp_path, "a")
        assert process.wait(10) == -signal.SIGTERM


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of beds that are to pass for running, on a machine with one route."""
    names: set[str] = set()
    monkeypatch.setattr(State, "pid", lambda self: 1 if self.name in names else None)
    monkeypatch.setattr(network, "routed_subnets", lambda: (IPv4Network("192.0.2.0/24"),))
    return names


def test_two_beds_have_nothing_in_common(tmp_path: Path, running: set[str]) -> None:
    one = written(plan.plan(tmp_path, plan.Wanted("a", tap=True)))
    running.add("a")
    two = plan.plan(tmp_path, plan.Wanted("b", tap=True))
    assert not one.lan.subnet.overlaps(two.lan.subnet)
    assert one.lan.bridge != two.lan.bridge
    assert len({one.ssh_port, one.libvirt_port, two.ssh_port, two.libvirt_port}) == 4
    assert not {qemu.mac(one, c) for c in "ab"} & {qemu.mac(two, c) for c in "ab"}


def test_a_bed_can_join_anothers_network(tmp_path: Path, running: set[str]) -> None:
    one = written(plan.plan(tmp_path, plan.Wanted("a", tap=True)))
    with pytest.raises(BedError, match="no bed a with a tap runs"):
        plan.plan(tmp_path, plan.Wanted("b", join="a", tap=True))
    running.add("a")
    two = written(plan.plan(tmp_path, plan.Wanted("b", join="a", tap=True)))
    assert two.lan == one.lan
    assert two.bridge_owner == "a"
    assert {one.address, two.address} == {one.lan.subnet[2], one.lan.subnet[3]}
    assert plan.is_joining(tmp_path, two)
    running.clear()
    running.add("b")  # a was stopped, and starts again on the bridge that it made
    assert plan.plan(tmp_path, plan.Wanted("a", tap=True)).lan == two.lan


def test_a_bed_that_runs_is_not_started_again(tmp_path: Path, running: set[str]) -> None:
    written(plan.plan(tmp_path, plan.Wanted("a", tap=False)))
    running.add("a")
    with pytest.raises(BedError, match="runs already"):
        plan.plan(tmp_path, plan.Wanted("a", tap=False))


def test_a_subnet_that_is_in_use_is_refused(tmp_path: Path, running: set[str]) -> None:
    wanted = plan.Wanted("a", subnet=IPv4Network("192.0.2.128/25"), tap=True)
    with pytest.raises(BedError, match="in use on this machine"):
        plan.plan(tmp_path, wanted)


# --- how a bed is reached -------------------------------------------------------------------------


@pytest.mark.parametrize("tap", [None, 5])
def test_only_the_loopback_leads_to_libvirt(tmp_path: Path, tap: int | None) -> None:
    words = qemu.argv(state_in(tmp_path), build.Built(tmp_path), tap=tap)
    cards = [words[at + 1] for at, word in enumerate(words) if word == "-netdev"]
    forwards = [part for card in cards for part in card.split(",") if "hostfwd" in part]
    assert forwards == [
        "hostfwd=tcp:127.0.0.1:27002-10.0.2.15:16509",
        "hostfwd=tcp:127.0.0.1:27001-10.0.2.15:22",
    ]
    assert all("restrict=on" in card for card in cards if card.startswith("user"))
    assert cards[1].split(",")[0] == ("user" if tap is None else "tap")


def test_a_bed_has_keys_of_its_own(tmp_path: Path) -> None:
    state = written(state_in(tmp_path))
    personality.make_keys(state)
    archive = personality.archive(state)
    for name in ("id.pub", "host"):
        assert (state.folder / name).read_bytes() in archive
    assert (state.folder / "id").read_bytes() not in archive
    assert (state.folder / "id").stat().st_mode & 0o077 == 0
    told = subprocess.run(
        [state.folder / "ssh", "-G", "anything"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"hostname 127.0.0.1", "port 27001", "stricthostkeychecking true"} <= set(told)
    assert f"userknownhostsfile {state.folder}/known_hosts" in told


def test_the_stanza_belongs_in_a_lab_file(tmp_path: Path) -> None:
    bed = Bed(tmp_path, state_in(tmp_path))
    lab = parse_lab(
        f"zone: x.test\nhosts:\n{notes.stanza(bed)}"
        "images: {i: {family: linux, kernel: k}}\n"
        "services: {s: {image: i, resources: {cpu: 1, memory: 64 MiB}, ready: {tcp: 80}}}\n",
        tmp_path / "lab.yaml",
    )
    assert lab.hosts[0].uri == bed.libvirt_uri
    assert address_of(lab.hosts[0]) == "tcp://10.213.90.2"  # two joined beds reach each other
    assert notes.stanza(bed) in notes.describe(bed)
    alone = Bed(tmp_path, state_in(tmp_path, lan=network.Lan("", bed.state.lan.subnet)))
    assert "migration_address" not in notes.stanza(alone)


def test_a_bed_that_does_not_get_ready_shows_its_log(tmp_path: Path) -> None:
    state = written(state_in(tmp_path))
    state.serial.write_bytes(b"(XEN) Panic on CPU 0:\r\n(XEN) no memory\r\n")
    with pytest.raises(BedError, match=r"QEMU ended[^\n]*\n    \(XEN\) Panic[^\n]*\n.*no memory"):
        Bed(tmp_path, state).wait_ready(5)
    with state.serial.open("ab") as log:
        log.write(b"[xenbed 1.2] FAILED: no disk\r\n")
    with pytest.raises(BedError, match="says that it failed"):
        Bed(tmp_path, state).wait_ready(5)


def test_a_second_start_ends_when_the_cache_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--cache", str(tmp_path / "file"), "build"]) == 1
    assert "EDGEWAKE_XENBED" in capsys.readouterr().err


def test_status_and_stop_without_beds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cache", str(tmp_path), "status"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["--cache", str(tmp_path), "stop", "--all"]) == 0
    assert main(["--cache", str(tmp_path), "stop"]) == 1
    assert f"no bed xenbed to stop; beds in {tmp_path}: none\n" in capsys.readouterr().err


def test_stop_of_another_name_lists_the_beds_and_ends_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [written(state_in(tmp_path, name)) for name in ("a", "b")]
    assert main(["--cache", str(tmp_path), "stop", "nosuch"]) == 1
    assert f"no bed nosuch to stop; beds in {tmp_path}: a, b\n" in capsys.readouterr().err
    assert all(state.folder.exists() for state in ours)
    assert main(["--cache", str(tmp_path), "stop", "--all"]) == 0
    assert not any(state.folder.exists() for state in ours)


@pytest.mark.parametrize("command", ["start", "run", "stop"])
def test_help_names_the_usual_bed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "default: xenbed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--memory", "100"), "--memory 100: a bed takes 640 MiB at least, 512 of them"),
        (("--join", "nosuch"), "no bed nosuch with a tap runs that x could join; those that run"),
    ],
)
def test_what_cannot_be_started_is_told_before_anything_is_built(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, str],
    said: str,
) -> None:
    monkeypatch.setattr(build, "ensure", lambda *_, **__: pytest.fail("it was built"))
    assert main(["--cache", str(tmp_path), "start", "x", *option]) == 1
    assert said in capsys.readouterr().err


def test_commands_to_type_are_those_of_the_python_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12 has no `python`, and another Python may lack libvirt's binding."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.delenv("EDGEWAKE_XENBED", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    usual = build.default_cache()
    assert command_line(usual, "stop", "a") == ".venv/bin/python -m tests.xenbed stop a"
    assert command_line(tmp_path, "status").endswith(f" --cache {tmp_path} status")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    stop = command_line(usual, "stop", "a")
    assert stop == "/usr/bin/python3 -m tests.xenbed stop a"
    described = notes.describe(Bed(usual, state_in(usual)))
    assert f"    stop         {stop}\n" in described
    assert described.index("xen+ssh://") < described.index("xen+tcp://")


def test_status_prints_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = written(state_in(tmp_path))
    written(state_in(tmp_path, "b"))
    assert main(["--cache", str(tmp_path), "status"]) == 0
    said = capsys.readouterr()
    first, second = json.loads(said.out)
    assert first["libvirt_port"] == state.libvirt_port
    assert (first["name"], second["name"]) == ("a", "b")
    assert "does not run" in said.err


# --- the real thing -------------------------------------------------------------------------------

# Our Linux guest's initrd has no driver of Xen's network card: it gets it from a first process
# that goes before its own.
FIRST_PROCESS = b"""#!/bin/busybox sh
/bin/busybox mount -t sysfs sys /sys
/bin/busybox insmod /xen-netfront.ko
tries=0
until [ -e /sys/class/net/eth0 ] || [ $tries -gt 500 ]; do
	/bin/busybox usleep 10000
	tries=$((tries + 1))
done
exec /init
"""


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("taps need root; the bed without one is tested by the other test")


def name_for(letter: str) -> str:
    return f"t{os.getpid()}{letter}"


@pytest.fixture(scope="session")
def linux(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Kernel and initrd of the Linux guest, for Xen."""
    built = build_linux(CACHE / "guest")
    modules = newest_kernel().parents[1] / "lib/modules" / built.version
    extra = (
        cpio.directory("sys"),
        cpio.file("xen-netfront.ko", (modules / "kernel/drivers/net/xen-netfront.ko").read_bytes()),
        cpio.file("xen-first", FIRST_PROCESS, executable=True),
    )
    initrd = tmp_path_factory.mktemp("guest") / "initrd"
    initrd.write_bytes(built.initrd.read_bytes() + cpio.archive(extra))
    return built.kernel, initrd


def guest_xml(bed: Bed, kind: str, address: IPv4Address, files: tuple[str, str]) -> str:
    command = (
        "console=hvc0 loglevel=4 mitigations=off panic=-1 rdinit=/xen-first "
        f"edgewake.ip={address}/24 edgewake.gw={bed.state.lan.gateway}"
    )
    kernel, initrd = map(escape, files)
    return f"""
        <domain type='xen'>
          <name>linux</name> <memory unit='MiB'>96</memory> <vcpu>1</vcpu>
          <os>{kind}<kernel>{kernel}</kernel><initrd>{initrd}</initrd>
            <cmdline>{escape(command)}</cmdline></os>
          <clock offset='utc'><timer name='tsc' mode='native'/></clock>
          <on_reboot>destroy</on_reboot> <on_crash>destroy</on_crash>
          <devices>
            <interface type='bridge'><source bridge='xenbr0'/><script path='vif-fast'/></interface>
            <console type='pty'><target type='xen' port='0'/></console>
          </devices>
        </domain>"""


def ping(address: IPv4Address) -> bool:
    """Return whether an ICMP echo request (RFC 792) is answered within a second."""
    body = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
    total = sum(struct.unpack("!4H", body))
    body = body[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
        line.settimeout(1)
        try:
            line.connect((str(address), 0))
            line.send(body)
            return line.recv(1024)[20:21] == b"\0"  # behind the IP header: an echo reply
        except OSError:
            return False


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http, ours
            return bool(answer.read() == b"ok\n")
    except OSError:
        return False


def traces(state: State) -> list[str]:
    """Return what is left of a bed on this machine."""
    devices = (network.tap_name(state.name), network.bridge_name(state.name))
    ports = (state.ssh_port, state.libvirt_port)
    return [
        *(name for name in devices if network.exists(name)),
        *(f"port {port}" for port in ports if not network.is_free(port)),
        *(f"process {pid}" for pid in [state.find_process()] if pid),
        *(str(path) for path in [state.folder] if path.exists()),
    ]


@pytest.mark.real
@pytest.mark.timeout(600)
def test_a_bed_runs_guests_that_we_reach(linux: tuple[Path, Path]) -> None:
    needs_root()
    bed = Bed.start(CACHE, plan.Wanted(name_for("a")), owned=True)
    try:
        files = (bed.put(linux[0], "kernel"), bed.put(linux[1], "initrd"))
        connection = libvirt.open(bed.libvirt_uri)
        assert connection.getType() == "Xen"
        assert connection.getVersion() // 1000 == 4017
        assert connection.networkLookupByName("xenbr0").isActive()
        for number, kind in ((10, PVH), (11, PV)):
            address = bed.state.lan.subnet[number]
            guest = connection.createXML(guest_xml(bed, kind, address, files))
            until(lambda: ping(address), f"{address} answers")  # noqa: B023 - called here
            until(lambda: healthy(f"http://{address}/healthz"), "the page")  # noqa: B023
            guest.destroy()
        connection.close()
        over_ssh = libvirt.open(bed.ssh_uri)
        assert over_ssh.listAllDomains() != []  # dom0
        over_ssh.close()
        assert network.exists(network.tap_name(bed.state.name))
        clock = int(bed.ssh("date", "+%s").stdout)
        assert abs(clock - time.time()) < 60
    finally:
        bed.stop()
    assert traces(bed.state) == []


@pytest.mark.real
@pytest.mark.timeout(600)
def test_a_cold_bed_without_a_tap_forwards_ports(linux: tuple[Path, Path]) -> None:
    bed = Bed.start(CACHE, plan.Wanted(name_for("b"), tap=False, cold=True), owned=True)
    try:
        files = (bed.put(linux[0], "kernel"), bed.put(linux[1], "initrd"))
        connection = libvirt.open(bed.libvirt_uri)
        address = bed.state.lan.subnet[10]
        connection.createXML(guest_xml(bed, PV, address, files))
        connection.close()
        port = bed.forward(address, 80)
        until(lambda: healthy(f"http://127.0.0.1:{port}/healthz"), "the page")
    finally:
        bed.stop()
    assert traces(bed.state) == []


@pytest.mark.real
@pytest.mark.timeout(600)
def test_two_beds_on_one_network_see_each_other() -> None:
    needs_root()
    one = Bed.start(CACHE, plan.Wanted(name_for("e")), owned=True)
    try:
        two = Bed.start(CACHE, plan.Wanted(name_for("f"), join=one.state.name), owned=True)
        try:
            assert two.state.lan == one.state.lan
            told = two.ssh("arping", "-c", "3", "-I", "xenbr0", str(one.state.address))
            assert told.returncode == 0, told.stdout
            assert ping(one.state.address)
            ids = {bed.ssh("cat", "/etc/machine-id").stdout for bed in (one, two)}
            assert len(ids) == 2  # libvirt refuses to migrate between hosts that have the same
            one.stop()
            assert network.exists(two.state.lan.bridge)
            assert ping(two.state.address)
        finally:
            two.stop()
    finally:
        one.stop()
    assert traces(one.state) + traces(two.state) == []


@pytest.mark.real
@pytest.mark.timeout(600)
def test_a_damaged_snapshot_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = build.ensure(CACHE)
    copy = tmp_path / "built"
    copy.mkdir()
    for file in built.folder.iterdir():
        (copy / file.name).symlink_to(file)
    wanted = plan.Wanted(name_for("g"), tap=False)
    snapshot = copy / f"snapshot-{wanted.memory_mib}-{wanted.dom0_mib}-{qemu.key()}"
    snapshot.unlink(missing_ok=True)
    snapshot.write_bytes(b"no snapshot")
    monkeypatch.setattr(build, "ensure", lambda *_, **__: build.Built(copy))
    with pytest.raises(BedError, match="snapshot was removed; start again"):
        Bed.start(CACHE, wanted, owned=True)
    assert not snapshot.exists()
    assert states.read(CACHE, wanted.name) is None


@pytest.fixture
def starting() -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], State]]]:
    """Start a bed by a process that is killed at the end, and return both while dom0 boots."""
    processes: list[tuple[subprocess.Popen[bytes], str]] = []

    def start(command: str, name: str) -> tuple[subprocess.Popen[bytes], State]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.xenbed", "--cache", str(CACHE), command, name],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        processes.append((process, name))
        until(lambda: (s := states.read(CACHE, name)) and s.pid(), "QEMU", PATIENCE_S * 2)
        state = states.read(CACHE, name)
        assert state is not None
        return process, state

    yield start
    for process, name in processes:
        process.kill()
        process.wait()
        remove(CACHE, name)


@pytest.mark.real
@pytest.mark.timeout(600)
def test_a_bed_ends_with_its_owner_even_if_that_is_killed(
    starting: Callable[..., tuple[subprocess.Popen[bytes], State]],
) -> None:
    owner, state = starting("run", name_for("c"))
    owner.kill()
    until(lambda: traces(state) == [], "the end of the bed")


@pytest.mark.real
@pytest.mark.timeout(600)
def test_what_a_killed_bed_left_is_found_and_removed(
    starting: Callable[..., tuple[subprocess.Popen[bytes], State]],
) -> None:
    starter, state = starting("start", name_for("d"))
    starter.kill()
    starter.wait()
    pid = state.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: state.pid() is None, "the end of QEMU")
    assert state.folder.exists()
    assert remove(CACHE, state.name)
    assert traces(state) == []
