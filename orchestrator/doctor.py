"""`edgewake doctor`: what this machine has and lacks to boot guests, and what to do about it.

Each check is a function from a `Patient` to a `Check`, a value; nothing is changed, except that the
KVM check boots a kernel for a moment. A check never raises for what it looks for. "warn" means
that edgewake works without it.
"""

import errno
import grp
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from urllib.parse import urlsplit

from images.build.linux_microvm import KERNEL_NAME, newest_kernel
from images.errors import BuildFailed, ImageError
from orchestrator.errors import CannotRedirect, InstallationError
from orchestrator.host_checks import check_hosts
from orchestrator.hypervisors.kvm import QEMU, probe_kvm
from orchestrator.hypervisors.solo5 import HOW_TO_INSTALL, TENDER, find_tender
from orchestrator.installation import check_installation
from orchestrator.library import Library, Place, traits_of
from orchestrator.linux.cgroups import CONTROLLERS, Cgroups
from orchestrator.model import Capacity, DnsSettings, GuestNetwork, Host, Lab
from orchestrator.network_checks import check_networks
from orchestrator.steering.redirect.probe import probe as probe_redirects
from orchestrator.steering.redirect.services import is_here
from orchestrator.steering.redirect.ways import bridge_of, obstacles
from orchestrator.unguarded import WHAT_TO_DO, unguarded
from orchestrator.verdicts import Check, Verdict

LOCAL_URI = "qemu:///system"
VIRTLOGD_SOCKET = Path("/run/libvirt/virtlogd-sock")
LIBVIRT_STATE = Path("/run/libvirt")
MOUNTS = Path("/proc/self/mounts")
MEMINFO = Path("/proc/meminfo")
TUN = Path("/dev/net/tun")
LEAST_FREE_MIB = 512  # a handful of sample guests, with QEMU's own share
COMMAND_S = 5.0
SET_UP = "run `make setup`"
GROUPS = ("libvirt", "kvm")
OTHERS = frozenset({"memory", "spt", "netns"})  # back ends of ours that are no libvirt
DEVICES = Path("/sys/class/net")
XEN_CAPABILITIES = Path("/proc/xen/capabilities")
XENSTORED = Path("/run/xenstored/socket")
PRIVCMD = Path("/dev/xen/privcmd")
LIBRARIES = Path("/usr")
XEN_DRIVERS = tuple(
    f"{folder}/libvirt/connection-driver/libvirt_driver_libxl.so"
    for folder in ("lib/*", "lib", "lib64")
)


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at: the images of a state directory and, if given, a lab.

    `kvm` says of a host whether KVM is known to boot guests there.

    `dns_is_ours` says that an edgewake runs already, so that its port is rightly taken.
    """

    images: Path
    library: Library
    kvm: Callable[[Host], bool]
    lab: Lab | None = None
    dns_is_ours: bool = False


def examine(patient: Patient) -> Iterator[Check]:
    """Yield one check after the other, as each is done."""
    for check in CHECKS:
        yield check(patient)
    yield from check_networks(patient.lab)
    yield from _hosts(patient)
    yield from _guards(patient)
    yield from _redirects(patient)
    yield from _images(patient)


def probe_kernel(images: Path) -> Path | None:
    """Return a Linux kernel to find out with whether KVM boots; None if there is none.

    A stock kernel is preferred: the sample image's may be unpacked, which only guests need.
    """
    try:
        return newest_kernel()
    except BuildFailed:
        return next(iter(_built(images)), None)


# --- this machine -----------------------------------------------------------------------------


def _packages(_patient: Patient) -> Check:
    try:
        check_installation()
    except InstallationError as error:
        return Check("packages", Verdict.FAIL, error.message, error.hint)
    return Check("packages", Verdict.OK, "none of our package names is shadowed")


def _user(_patient: Patient) -> Check:
    if os.geteuid() == 0:
        return Check("user", Verdict.OK, "root")
    lacks = ", ".join(group for group in GROUPS if not _in_group(group))
    member = f", not in {lacks}" if lacks else ", in libvirt and kvm"
    return Check(
        "user",
        Verdict.WARN,
        f"user id {os.geteuid()}, not root{member}: libvirt and ports below 1024 may be refused",
        "usermod -aG libvirt,kvm USER and log in anew, or run with sudo",
    )


def _tun(_patient: Patient) -> Check:
    if TUN.exists():
        return Check("network cards", Verdict.OK, f"{TUN} is there for guests' network cards")
    return Check(
        "network cards",
        Verdict.FAIL,
        f"{TUN} does not exist, so no guest can have a network card",
        "load the kernel module tun (modprobe tun), or give this container the device",
    )


def _memory(_patient: Patient) -> Check:
    free = _available_mib()
    if free is None:
        return Check("memory", Verdict.WARN, f"{MEMINFO} does not say how much is free")
    if free < LEAST_FREE_MIB:
        return Check(
            "memory",
            Verdict.WARN,
            f"{free} MiB are free, fewer than {LEAST_FREE_MIB}: few guests will fit",
            "end other programs, or use another machine",
        )
    return Check("memory", Verdict.OK, f"{free} MiB are free")


def _qemu(_patient: Patient) -> Check:
    version = _first_line([QEMU, "--version"])
    if not version:
        what = f"{QEMU} is not there, or does not run"
        return Check("qemu", Verdict.FAIL, what, f"install qemu-system-x86, or {SET_UP}")
    return Check("qemu", Verdict.OK, version)


def _kvm(patient: Patient) -> Check:
    """Say whether guests run under KVM; without it they are slower, but they run."""
    kernel = probe_kernel(patient.images)
    if kernel is None:
        why = "no kernel is there to find out with"
        return Check("kvm", Verdict.WARN, f"KVM: not used: {why} → TCG", SET_UP)
    verdict = probe_kvm(kernel)
    if not verdict.usable:
        return Check(
            "kvm",
            Verdict.WARN,
            f"KVM: not used: {verdict.why} → TCG",
            "nothing has to be done; guests boot in about 2 s under TCG",
        )
    return Check("kvm", Verdict.OK, f"KVM: used: {verdict.why} in {verdict.seconds:.1f} s")


def _virtlogd(_patient: Patient) -> Check:
    """Look for the daemon that writes guests' consoles to files."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(COMMAND_S)
        try:
            probe.connect(str(VIRTLOGD_SOCKET))
        except PermissionError:
            return Check(
                "virtlogd", Verdict.WARN, f"{VIRTLOGD_SOCKET}: this user may not ask", "use sudo"
            )
        except OSError as error:
            what = f"{VIRTLOGD_SOCKET}: {error.strerror or error}"
            return Check("virtlogd", Verdict.FAIL, what, f"start virtlogd, or {SET_UP}")
    return Check("virtlogd", Verdict.OK, f"answers on {VIRTLOGD_SOCKET}")


def _libvirt_state(_patient: Patient) -> Check:
    """See whether libvirt waits for a disk at each start and each wake of a paused guest."""
    try:
        lines = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        lines = []
    # The last of those that are mounted at the longest path above it is what is seen there.
    found = max(
        ((len(path), number, kind)
         for number, (_, path, kind, *_) in enumerate(lines)
         if LIBVIRT_STATE.is_relative_to(path)),
        default=(0, 0, ""),
    )[2]  # fmt: skip
    if found in {"", "tmpfs"}:
        return Check("libvirt's state", Verdict.OK, f"{LIBVIRT_STATE}: {found or 'not known'}")
    return Check(
        "libvirt's state",
        Verdict.WARN,
        f"{LIBVIRT_STATE} is on {found}: each start and wake of a guest waits for the disk",
        "mount a tmpfs there before libvirtd starts: docs/hosts.md, Faster starts",
    )


def _dig(_patient: Patient) -> Check:
    found = shutil.which("dig")
    if found is None:
        return Check("dig", Verdict.WARN, "dig is not there to try DNS with", "install dnsutils")
    return Check("dig", Verdict.OK, found)


def _dns_port(patient: Patient) -> Check:
    """Try to bind the address and port that DNS is to be answered on."""
    dns = patient.lab.dns if patient.lab else DnsSettings(zone="")
    where = f"{dns.listen} port {dns.port}"
    try:
        with socket.socket(socket.AF_INET6 if ":" in dns.listen else socket.AF_INET) as tcp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((dns.listen, dns.port))
        with socket.socket(tcp.family, socket.SOCK_DGRAM) as udp:
            udp.bind((dns.listen, dns.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and patient.dns_is_ours:
            return Check("dns port", Verdict.OK, f"{where} is taken while edgewake runs")
        to_do = "set dns.listen in the lab file to a free address and port of this machine"
        return Check("dns port", Verdict.FAIL, f"{where}: {error.strerror or error}", to_do)
    return Check("dns port", Verdict.OK, f"{where} can be bound")


def _xen(_patient: Patient) -> Check:
    """Say whether this machine is a Xen dom0, and whether its toolstack works."""
    try:
        is_dom0 = "control_d" in XEN_CAPABILITIES.read_text()
    except OSError:
        is_dom0 = False
    if not is_dom0:
        return Check("xen", Verdict.OK, "this machine is no Xen dom0, so it has no Xen guests")
    if not XENSTORED.is_socket():
        what = f"xenstored does not run: {XENSTORED} is not there"
        return Check("xen", Verdict.FAIL, what, "systemctl start xenstored xenconsoled")
    if not os.access(PRIVCMD, os.R_OK | os.W_OK):
        what = f"{PRIVCMD} may not be opened by this user; libvirtd, as root, may"
        return Check("xen", Verdict.WARN, what, "run `xl` with sudo")
    version = _field("xen_version", ["xl", "info"])
    if not version:
        what = "this is a dom0, but `xl info` does not work"
        return Check("xen", Verdict.FAIL, what, "apt install xen-utils, and boot into Xen anew")
    return _toolstack(version)


def _toolstack(version: str) -> Check:
    """Say whether edgewake has all that it uses in this dom0."""
    if not any(file for pattern in XEN_DRIVERS for file in LIBRARIES.glob(pattern)):
        what = f"Xen {version}, but libvirt has no driver for it"
        return Check("xen", Verdict.FAIL, what, "apt install libvirt-daemon-driver-xen")
    if _tool("xenstore-watch") is None:
        what = "no xenstore-watch, which a probe of a Xenstore key and some images need"
        return Check("xen", Verdict.WARN, what, "apt install xenstore-utils")
    return Check("xen", Verdict.OK, f"dom0 of Xen {version}, with libvirt's driver")


def _bridging(_patient: Patient) -> Check:
    """Look for what makes and shows bridges."""
    found = _tool("ip")
    if found is None:
        return Check("bridges", Verdict.WARN, "ip is not there", "apt install iproute2")
    bridges = ", ".join(sorted(each.parent.name for each in DEVICES.glob("*/bridge")))
    return Check("bridges", Verdict.OK, bridges or "none yet; edgewake makes those it is to make")


def _packets(_patient: Patient) -> Check:
    """Find out whether traces will have guests' first packets (`orchestrator.frames`)."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        what = f"wakes are traced without guests' first packets: {error.strerror or error}"
        return Check("packets", Verdict.WARN, what, "run as root, or grant CAP_NET_RAW")
    return Check("packets", Verdict.OK, "guests' first packets can be seen on networks of ours")


def _gcc(_patient: Patient) -> Check:
    found = shutil.which("gcc")
    if found is None:
        what = "gcc is not there to build our sample unikernel, hello, with"
        return Check("gcc", Verdict.WARN, what, "apt install gcc")
    return Check("gcc", Verdict.OK, found)


def _dnsmasq(patient: Patient) -> Check:
    """Look for what libvirt gives out addresses with, on this machine."""
    hosts = patient.lab.hosts if patient.lab else ()
    wanted = any(each.network.dhcp and each.network.create for each in hosts)
    found = _tool("dnsmasq")
    if found is not None:
        return Check("dnsmasq", Verdict.OK, found)
    if not wanted:
        return Check("dnsmasq", Verdict.OK, "not there, and only needed for `dhcp: true`")
    what = "dnsmasq is not there, which hosts of the lab with `dhcp: true` need"
    return Check("dnsmasq", Verdict.WARN, what, "apt install dnsmasq-base")


CHECKS: tuple[Callable[[Patient], Check], ...] = (
    _packages,
    _user,
    _tun,
    _memory,
    _qemu,
    _kvm,
    _xen,
    _virtlogd,
    _libvirt_state,
    _bridging,
    _packets,
    _dnsmasq,
    _gcc,
    _dig,
    _dns_port,
)


# --- hypervisors and images -------------------------------------------------------------------


def _guards(patient: Patient) -> Iterator[Check]:
    """Tell on which hosts packets will wake nothing although the lab says so."""
    for host, why in unguarded(patient.lab).items() if patient.lab else ():
        yield Check(f"traffic {host}", Verdict.WARN, why, WHAT_TO_DO)


def _redirects(patient: Patient) -> Iterator[Check]:
    """Tell what steers traffic for public addresses, and what keeps it from working."""
    if patient.lab is None or not any(service.public for service in patient.lab.services):
        return
    try:
        abilities = probe_redirects()
    except CannotRedirect as error:
        yield Check("redirects", Verdict.WARN, error.message, error.hint)
        return
    able = [rung for rung, ability in abilities.items() if not ability.why_no_mac]
    lost = "; ".join(f"{rung}: {each.why_no_mac}" for rung, each in abilities.items())
    if able:
        yield Check("redirects", Verdict.OK, f"public addresses are steered by {able[0]}")
    else:
        yield Check("redirects", Verdict.WARN, f"traffic flows on: {lost}", "see docs/redirect.md")
    for host in filter(is_here, patient.lab.hosts):
        for obstacle in obstacles(bridge_of(host)):
            what, _, to_do = obstacle.partition(": ")
            yield Check(f"redirects {host.name}", Verdict.WARN, what, to_do)


def _hosts(patient: Patient) -> Iterator[Check]:
    """Ask every libvirt that the lab names, or this machine's without a lab."""
    hosts = patient.lab.hosts if patient.lab else (_this_machine(),)
    drivers = {host: urlsplit(host.uri).scheme.partition("+")[0] for host in hosts}
    yield from check_hosts(tuple(host for host in hosts if drivers[host] not in OTHERS))
    yield from (_tender(host) for host in hosts if drivers[host] == "spt")
    yield from (_processes(host) for host in hosts if drivers[host] == "netns")


def _tender(host: Host) -> Check:
    """Look for the tender that runs Solo5 images as processes of this machine."""
    path = find_tender(None)
    if path is None:
        what = f"Solo5's tender {TENDER} is not installed"
        return Check(f"tender {host.name}", Verdict.FAIL, what, HOW_TO_INSTALL)
    return Check(f"tender {host.name}", Verdict.OK, path)


def _processes(host: Host) -> Check:
    """Say what confines the processes of a host that runs commands."""
    name = f"processes {host.name}"
    if os.geteuid() != 0:
        what = "network namespaces are made by root only"
        return Check(name, Verdict.FAIL, what, "run edgewake as root")
    missing = [tool for tool in ("setpriv", "env", "sleep", "mount") if _tool(tool) is None]
    if missing:
        what = f"{' and '.join(missing)} is not there"
        return Check(name, Verdict.FAIL, what, "apt install util-linux coreutils mount")
    cgroups = Cgroups.found(ask=False)
    limited = ", ".join(sorted(cgroups.limits))
    freezer = "a freezer" if cgroups.freezes else "no freezer, so signals pause them"
    lacks = sorted(set(CONTROLLERS) - cgroups.limits)
    if lacks:
        what = f"control groups limit {limited or 'nothing'}, but not {', '.join(lacks)}; {freezer}"
        to_do = "mount cgroup2 on /sys/fs/cgroup with these controllers, and let root write there"
        return Check(name, Verdict.WARN, what, to_do)
    return Check(name, Verdict.OK, f"control groups limit {limited}; {freezer}")


def _this_machine() -> Host:
    """Return a host to connect with; its network is never asked about."""
    address = IPv4Address(0)
    network = GuestNetwork("none", IPv4Network((address, 32)), address, address, address)
    return Host("this machine", LOCAL_URI, Capacity(cpu=0, memory_mib=0), network)


def _images(patient: Patient) -> Iterator[Check]:
    """Look at the lab's images, or for the sample image without a lab."""
    if patient.lab is None:
        yield _sample(patient.images)
        return
    for image in patient.lab.images:
        try:
            known = patient.library.recognise(image)
        except ImageError as error:
            to_do = f"build it (`make image IMAGES={patient.images}`), or correct its path"
            if image.catalog:
                to_do = "see `edgewake image list`, and add it (again): `edgewake image add`"
            yield Check(f"image {image.name}", Verdict.FAIL, str(error), to_do)
        else:
            files = ", ".join(f"{each.image.main_file}: {each.title}" for each in known)
            yield Check(f"image {image.name}", Verdict.OK, files)
    hosts = {
        host.name: Place(host, traits_of(host, kvm=patient.kvm(host))) for host in patient.lab.hosts
    }
    for service in patient.lab.services:
        unfit = patient.library.unfit(patient.lab, service, hosts)
        if hosts and len(unfit) == len(hosts):
            why = "; ".join(sorted(set(unfit.values())))
            to_do = "see docs/images.md for what each kind of host can boot"
            yield Check(
                f"service {service.name}", Verdict.FAIL, f"no host can run it: {why}", to_do
            )


def _sample(images: Path) -> Check:
    built = list(_built(images))
    if not built:
        what = f"no image was built in {images}"
        return Check(
            "sample image",
            Verdict.WARN,
            what,
            f"`make image IMAGES={images}` builds it (the demo makes its own)",
        )
    return Check("sample image", Verdict.OK, ", ".join(str(kernel.parent) for kernel in built))


def _built(images: Path) -> list[Path]:
    return sorted(images.glob(f"*/{KERNEL_NAME}"))


# --- small things -----------------------------------------------------------------------------


def _available_mib() -> int | None:
    """Return MemAvailable (proc_meminfo(5)) in MiB."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    kib = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kib[0]) // 1024 if kib else None


def _tool(name: str) -> str | None:
    """Return where a program is, also one for administrators."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _in_group(name: str) -> bool:
    try:
        return grp.getgrnam(name).gr_gid in os.getgroups()
    except KeyError:
        return False


def _field(name: str, command: list[str]) -> str:
    """Return what a command prints behind ``name :``; empty if it does not work."""
    lines = (line.partition(":") for line in _output(command).splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _first_line(command: list[str]) -> str:
    return _output(command).partition("\n")[0]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
