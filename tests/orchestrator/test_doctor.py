"""Each check of the doctor, well and ill; it finds, and never breaks or mends."""

import io
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from images.bootspec import Image
from images.build.linux_microvm import KERNEL_NAME
from images.errors import BuildFailed
from images.facts import Architecture
from images.inspect import Inspector
from orchestrator import doctor
from orchestrator.cli import Exit, app
from orchestrator.doctor import CHECKS, Patient, examine, probe_kernel
from orchestrator.errors import InstallationError
from orchestrator.hypervisors.kvm import KvmVerdict
from orchestrator.library import Library
from orchestrator.linux.cgroups import Cgroups
from orchestrator.model import Capacity, DnsSettings, Lab, Public, Reply
from orchestrator.steering.redirect.base import Rung
from orchestrator.steering.redirect.probe import Ability
from orchestrator.verdicts import Check, Verdict
from tests.world import a_host, a_service

TO_DO = "what to do"


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    images = tmp_path / "images"
    images.mkdir()
    return Patient(images, Library(Inspector()), lambda _: False)


def _lab(**parts: object) -> Lab:
    return Lab(name="t", dns=DnsSettings(zone="t.test"), **parts)  # type: ignore[arg-type]


def _find(patient: Patient, name: str) -> Check:
    """Return the one check of that name; only checks by that name are made."""
    chosen = {check.__name__.strip("_").replace("_", " "): check for check in CHECKS}
    return chosen[name](patient)


def _is(check: Check, verdict: Verdict, *said: str) -> None:
    assert check.verdict is verdict, check
    assert all(each in f"{check.what} {check.to_do}" for each in said), check
    if verdict is Verdict.FAIL:
        assert check.to_do, f"{check.name} fails and does not say what to do"


def test_a_shadowed_package(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    _is(_find(patient, "packages"), Verdict.OK)

    def broken() -> None:
        raise InstallationError("'web' is taken by web.py 0.62", hint=TO_DO)

    monkeypatch.setattr(doctor, "check_installation", broken)
    _is(_find(patient, "packages"), Verdict.FAIL, "web.py 0.62", TO_DO)


@pytest.mark.parametrize(("uid", "verdict"), [(0, Verdict.OK), (1000, Verdict.WARN)])
def test_user(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, uid: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(doctor.os, "geteuid", lambda: uid)
    _is(_find(patient, "user"), verdict)


@pytest.mark.parametrize(
    ("groups", "said"), [([1, 2], "in libvirt and kvm"), ([1], "not in kvm"), ([], "libvirt, kvm")]
)
def test_a_user_who_is_not_root_needs_two_groups(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, groups: list[int], said: str
) -> None:
    known = {"libvirt": SimpleNamespace(gr_gid=1), "kvm": SimpleNamespace(gr_gid=2)}
    monkeypatch.setattr(doctor, "grp", SimpleNamespace(getgrnam=known.__getitem__))
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(doctor.os, "getgroups", lambda: groups)
    _is(_find(patient, "user"), Verdict.WARN, said, "usermod -aG libvirt,kvm")
    known.clear()  # and a machine may not have them at all
    _is(_find(patient, "user"), Verdict.WARN, "not in libvirt, kvm")


@pytest.fixture
def dom0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that looks like a dom0 where all is well."""
    root = tmp_path / "dom0"
    driver = root / "usr" / doctor.XEN_DRIVERS[1]
    driver.parent.mkdir(parents=True)
    driver.touch()
    (root / "capabilities").write_text("control_d\n")
    (root / "privcmd").touch()
    _program(root, "xl", "echo 'host : x'; echo 'xen_version            : 4.17.5'")
    _program(root, "xenstore-watch", "")
    monkeypatch.setenv("PATH", f"{root}:/bin")
    monkeypatch.setattr(doctor, "XEN_CAPABILITIES", root / "capabilities")
    monkeypatch.setattr(doctor, "XENSTORED", root / "socket")
    monkeypatch.setattr(doctor, "PRIVCMD", root / "privcmd")
    monkeypatch.setattr(doctor, "LIBRARIES", root / "usr")
    with socket.socket(socket.AF_UNIX) as xenstored:
        xenstored.bind(str(root / "socket"))
        yield root


def test_a_dom0_where_all_is_well(patient: Patient, dom0: Path) -> None:
    _is(_find(patient, "xen"), Verdict.OK, "dom0 of Xen 4.17.5")


@pytest.mark.parametrize(
    ("gone", "verdict", "said"),
    [
        ("capabilities", Verdict.OK, "no Xen dom0"),
        ("socket", Verdict.FAIL, "systemctl start xenstored"),
        ("privcmd", Verdict.WARN, "sudo"),
        ("xl", Verdict.FAIL, "apt install xen-utils"),
        ("xenstore-watch", Verdict.WARN, "apt install xenstore-utils"),
        (f"usr/{doctor.XEN_DRIVERS[1]}", Verdict.FAIL, "libvirt-daemon-driver-xen"),
    ],
)
def test_a_dom0_that_lacks_something(
    patient: Patient, dom0: Path, gone: str, verdict: Verdict, said: str
) -> None:
    (dom0 / gone).unlink()
    _is(_find(patient, "xen"), verdict, said)


def test_a_xen_guest_is_no_dom0(patient: Patient, dom0: Path) -> None:
    (dom0 / "capabilities").write_text("")
    _is(_find(patient, "xen"), Verdict.OK, "no Xen dom0")


@pytest.mark.parametrize("there", [True, False])
def test_bridges(patient: Patient, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    folder = patient.images / "br7" / "bridge"
    folder.mkdir(parents=True)
    monkeypatch.setattr(doctor, "DEVICES", patient.images)
    monkeypatch.setattr(doctor, "_tool", lambda _: "/sbin/ip" if there else None)
    if there:
        _is(_find(patient, "bridging"), Verdict.OK, "br7")
    else:
        _is(_find(patient, "bridging"), Verdict.WARN, "apt install iproute2")


def test_packets(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor.socket, "socket", refused)
    _is(_find(patient, "packets"), Verdict.WARN, "grant CAP_NET_RAW")
    monkeypatch.setattr(doctor.socket, "socket", lambda *_: io.BytesIO())
    _is(_find(patient, "packets"), Verdict.OK, "can be seen")


def test_where_packets_wake_nothing(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "check_networks", lambda _: ())
    monkeypatch.setattr(doctor, "check_hosts", lambda _: ())
    far = replace(a_host("far"), uri="qemu+ssh://far.invalid/system")
    lab = _lab(hosts=(far,), services=(a_service("web", reply=Reply.EARLY),))
    check = next(examine(replace(patient, lab=lab)))
    assert check.name == "traffic far"
    _is(check, Verdict.WARN, "on another machine", "`reply: early` (web)", "edgewake there")


@pytest.mark.parametrize(
    ("why_not", "verdict", "said"),
    [
        ("", Verdict.OK, "public addresses are steered by nft"),
        ("not here", Verdict.WARN, "traffic flows on: flower: no; u32: no; bpf: no; nft: not here"),
    ],
)
def test_what_steers_public_addresses(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, why_not: str, verdict: Verdict, said: str
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "check_hosts", lambda _: ())
    monkeypatch.setattr(doctor, "_images", lambda _: ())
    abilities = dict.fromkeys(Rung, Ability("", "no")) | {Rung.NFT: Ability("", why_not)}
    monkeypatch.setattr(doctor, "probe_redirects", lambda: abilities)
    monkeypatch.setattr(doctor, "obstacles", lambda _: ["it drops: sysctl x=2"])
    here = replace(a_host("here"), uri="qemu:///system")
    web = replace(a_service("web"), public=Public(IPv4Address("203.0.113.10"), "eth1"))
    checks = list(examine(replace(patient, lab=_lab(hosts=(here,), services=(web,)))))
    found = {check.name: check for check in checks}
    _is(found["redirects"], verdict, said)
    _is(found["redirects here"], Verdict.WARN, "it drops", "sysctl x=2")
    assert "redirects" not in {check.name for check in examine(patient)}


def test_dnsmasq_is_missed_only_where_the_lab_has_dhcp(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_tool", lambda _: None)
    _is(_find(patient, "dnsmasq"), Verdict.OK, "only needed for `dhcp: true`")
    host = a_host("a")
    lab = _lab(hosts=(replace(host, network=replace(host.network, dhcp=True)),))
    _is(_find(replace(patient, lab=lab), "dnsmasq"), Verdict.WARN, "apt install dnsmasq-base")
    monkeypatch.setattr(doctor, "_tool", lambda name: f"/usr/sbin/{name}")
    _is(_find(replace(patient, lab=lab), "dnsmasq"), Verdict.OK, "/usr/sbin/dnsmasq")


def test_gcc(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(patient.images))
    _is(_find(patient, "gcc"), Verdict.WARN, "hello", "apt install gcc")
    _program(patient.images, "gcc", "exit 0")
    _is(_find(patient, "gcc"), Verdict.OK, str(patient.images / "gcc"))


@pytest.mark.parametrize(("there", "verdict"), [(True, Verdict.OK), (False, Verdict.FAIL)])
def test_network_cards(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, there: bool, verdict: Verdict
) -> None:
    device = patient.images / "tun"
    if there:
        device.touch()
    monkeypatch.setattr(doctor, "TUN", device)
    _is(_find(patient, "tun"), verdict, str(device))


@pytest.mark.parametrize(
    ("text", "verdict", "said"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n", Verdict.OK, "2048 MiB"),
        ("MemAvailable: 102400 kB\n", Verdict.WARN, "100 MiB are free, fewer than 512"),
        ("MemTotal: 102400 kB\n", Verdict.WARN, "does not say"),
        (None, Verdict.WARN, "does not say"),
    ],
)
def test_memory(
    patient: Patient,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    verdict: Verdict,
    said: str,
) -> None:
    meminfo = patient.images / "meminfo"
    if text is not None:
        meminfo.write_text(text)
    monkeypatch.setattr(doctor, "MEMINFO", meminfo)
    _is(_find(patient, "memory"), verdict, said)


def _program(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("body", "verdict", "said"),
    [
        ("echo QEMU emulator version 7.2; echo more", Verdict.OK, "QEMU emulator version 7.2"),
        ("exit 127", Verdict.FAIL, "does not run"),
        (None, Verdict.FAIL, "install qemu-system-x86"),
    ],
)
def test_qemu(
    patient: Patient,
    monkeypatch: pytest.MonkeyPatch,
    body: str | None,
    verdict: Verdict,
    said: str,
) -> None:
    if body is not None:
        _program(patient.images, doctor.QEMU, body)
    monkeypatch.setenv("PATH", f"{patient.images}:/bin" if body else str(patient.images))
    _is(_find(patient, "qemu"), verdict, said)


@pytest.mark.parametrize(
    ("verdict", "found", "said"),
    [
        (
            KvmVerdict(True, "a Linux kernel booted under KVM", 0.5),
            Verdict.OK,
            "KVM: used: a Linux",
        ),
        (
            KvmVerdict(False, "/dev/kvm does not exist", 0.0),
            Verdict.WARN,
            "KVM: not used: /dev/kvm does not exist → TCG",
        ),
    ],
)
def test_kvm_is_judged_by_booting(
    patient: Patient,
    monkeypatch: pytest.MonkeyPatch,
    verdict: KvmVerdict,
    found: Verdict,
    said: str,
) -> None:
    probed: list[Path] = []

    def probe(kernel: Path) -> KvmVerdict:
        probed.append(kernel)
        return verdict

    monkeypatch.setattr(doctor, "newest_kernel", lambda: Path("/boot/vmlinuz"))
    monkeypatch.setattr(doctor, "probe_kvm", probe)
    _is(_find(patient, "kvm"), found, said)
    assert probed == [Path("/boot/vmlinuz")]


def test_kvm_without_any_kernel(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stock kernel the sample image's is used; without that, guests run under TCG."""

    def none() -> Path:
        raise BuildFailed("no kernel")

    monkeypatch.setattr(doctor, "newest_kernel", none)
    _is(_find(patient, "kvm"), Verdict.WARN, "→ TCG")
    built = patient.images / "sample" / KERNEL_NAME
    built.parent.mkdir()
    built.touch()
    assert probe_kernel(patient.images) == built


def test_virtlogd(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    path = patient.images / "virtlogd-sock"
    monkeypatch.setattr(doctor, "VIRTLOGD_SOCKET", path)
    _is(_find(patient, "virtlogd"), Verdict.FAIL, str(path), "start virtlogd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.bind(str(path))
        _is(_find(patient, "virtlogd"), Verdict.FAIL, "refused")
        daemon.listen()
        _is(_find(patient, "virtlogd"), Verdict.OK, str(path))


@pytest.mark.parametrize(
    ("mounts", "verdict"),
    [
        (("/ ext4",), Verdict.WARN),
        (("/ ext4", "/run tmpfs", "/running ext4"), Verdict.OK),
        (("/run tmpfs", "/ ext4"), Verdict.OK),
        (("/ ext4", "/run tmpfs", "/run/libvirt xfs"), Verdict.WARN),
        (("/run/libvirt xfs", "/run/libvirt tmpfs"), Verdict.OK),
        ((), Verdict.OK),
    ],
)
def test_where_libvirt_keeps_its_state(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, mounts: tuple[str, ...], verdict: Verdict
) -> None:
    file = patient.images / "mounts"
    monkeypatch.setattr(doctor, "MOUNTS", file)
    _is(_find(patient, "libvirt state"), Verdict.OK, "not known")
    file.write_text("".join(f"none {mount} rw 0 0\n" for mount in mounts))
    _is(_find(patient, "libvirt state"), verdict, "/run/libvirt")


def test_dig(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(patient.images))
    _is(_find(patient, "dig"), Verdict.WARN, "dnsutils")
    _program(patient.images, "dig", "exit 0")
    _is(_find(patient, "dig"), Verdict.OK, str(patient.images / "dig"))


def test_the_dns_port_may_only_be_taken_by_ourselves(patient: Patient) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        lab = replace(_lab(), dns=DnsSettings(zone="t.test", port=other.getsockname()[1]))
        ill = replace(patient, lab=lab)
        _is(_find(ill, "dns port"), Verdict.FAIL, "in use", "dns.listen")
        _is(_find(replace(ill, dns_is_ours=True), "dns port"), Verdict.OK)
    _is(_find(ill, "dns port"), Verdict.OK, "can be bound")


def test_an_address_that_this_machine_has_not(patient: Patient) -> None:
    lab = replace(_lab(), dns=DnsSettings(zone="t.test", listen="192.0.2.1"))
    _is(_find(replace(patient, lab=lab), "dns port"), Verdict.FAIL, "192.0.2.1")


# --- what a lab adds --------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Patient], dict[str, Check]]:
    """Return what makes only the checks of hypervisors and images."""
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "check_networks", lambda _lab: ())
    return lambda patient: {check.name: check for check in examine(patient)}


def test_every_libvirt_of_the_lab_is_asked_once(
    patient: Patient, seen: Callable[[Patient], dict[str, Check]]
) -> None:
    """`test:///default` is a driver inside the libvirt library; its machine is an i686."""
    dead = f"qemu+unix:///system?socket={patient.images}/none"
    uris = ["test:///default", dead, "memory:///x", "test:///default"]
    size = Capacity(cpu=1, memory_mib=512)
    hosts = tuple(
        replace(a_host(f"h{index}", index), uri=uri, capacity=size, architecture=Architecture.X86)
        for index, uri in enumerate(uris)
    )
    checks = seen(replace(patient, lab=_lab(hosts=hosts)))
    assert list(checks) == ["libvirt test:///default", f"libvirt {dead}"]
    _is(checks["libvirt test:///default"], Verdict.OK, "cores", "MiB free")
    _is(checks[f"libvirt {dead}"], Verdict.FAIL, "host h1")


def test_without_a_lab_this_machines_libvirt_is_asked(
    patient: Patient,
    seen: Callable[[Patient], dict[str, Check]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "LOCAL_URI", "test:///default")
    _is(seen(patient)["libvirt test:///default"], Verdict.OK)


def test_images_of_the_lab(
    patient: Patient, seen: Callable[[Patient], dict[str, Check]], image: Image
) -> None:
    gone = replace(image, name="gone", kernel=patient.images / "gone")
    checks = seen(replace(patient, lab=_lab(images=(image, gone))))
    _is(checks["image tiny"], Verdict.OK)
    _is(checks["image gone"], Verdict.FAIL, str(gone.kernel))


def test_the_sample_image(
    patient: Patient,
    seen: Callable[[Patient], dict[str, Check]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "LOCAL_URI", "test:///default")
    _is(seen(patient)["sample image"], Verdict.WARN, "make image")
    (patient.images / "linux-microvm").mkdir()
    (patient.images / "linux-microvm" / KERNEL_NAME).touch()
    _is(seen(patient)["sample image"], Verdict.OK, "linux-microvm")


# --- the command ------------------------------------------------------------------------------


def _stand_in(verdict: Verdict) -> Callable[[Patient], Check]:
    return lambda _: Check("stand-in", verdict, "[found]", TO_DO)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(Verdict.OK, Exit.OK), (Verdict.WARN, Exit.OK), (Verdict.FAIL, Exit.INSTALLATION)],
)
def test_the_command_shows_checks_and_fails_only_for_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: Exit
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (_stand_in(verdict),))
    monkeypatch.setattr(doctor, "LOCAL_URI", "test:///default")
    command = ["--state", str(tmp_path / "state"), "doctor"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == code, shown.output
    assert f"{verdict.value:<4}  stand-in: [found]\n      {TO_DO}\n" in shown.stdout
    listed = CliRunner().invoke(app, [*command, "--json"])
    assert listed.exit_code == code
    first = json.loads(listed.stdout)["checks"][0]
    assert first == {
        "name": "stand-in",
        "verdict": verdict.value,
        "what": "[found]",
        "to_do": TO_DO,
    }


def test_the_doctor_makes_no_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "LOCAL_URI", "test:///default")
    CliRunner().invoke(app, ["--state", str(tmp_path / "state"), "doctor"])
    assert list(tmp_path.iterdir()) == []


def test_a_host_for_solo5_needs_its_tender(
    patient: Patient,
    seen: Callable[[Patient], dict[str, Check]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    host = replace(a_host("box"), uri="spt:///")
    lab = replace(patient, lab=_lab(hosts=(host,)))
    monkeypatch.setenv("EDGEWAKE_SOLO5_SPT", str(tmp_path / "none"))
    _is(seen(lab)["tender box"], Verdict.FAIL, "solo5-spt is not installed")
    tender = tmp_path / "tender"
    tender.write_text("")
    tender.chmod(0o755)
    monkeypatch.setenv("EDGEWAKE_SOLO5_SPT", str(tender))
    _is(seen(lab)["tender box"], Verdict.OK, str(tender))


@pytest.mark.parametrize(
    ("cgroups", "verdict", "words"),
    [
        (
            Cgroups(),
            Verdict.WARN,
            "control groups limit nothing, but not cpu, memory, pids; no freezer",
        ),
        (
            Cgroups(v1={"memory": Path("/m"), "freezer": Path("/f")}),
            Verdict.WARN,
            "control groups limit memory, but not cpu, pids; a freezer",
        ),
        (
            Cgroups(Path("/c"), frozenset({"cpu", "memory", "pids"})),
            Verdict.OK,
            "control groups limit cpu, memory, pids; a freezer",
        ),
    ],
)
def test_a_host_for_commands_is_told_what_confines_them(  # noqa: PLR0917 - fixtures
    patient: Patient,
    seen: Callable[[Patient], dict[str, Check]],
    monkeypatch: pytest.MonkeyPatch,
    cgroups: Cgroups,
    verdict: Verdict,
    words: str,
) -> None:
    host = replace(a_host("box"), uri="netns:///")
    lab = replace(patient, lab=_lab(hosts=(host,)))
    monkeypatch.setattr(Cgroups, "found", lambda **_: cgroups)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    _is(seen(lab)["processes box"], verdict, words)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    _is(seen(lab)["processes box"], Verdict.FAIL, "made by root only")
