"""A guest or more of every family and platform, for golden files and for libvirt's schema."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

from images.bootspec import BootRequest, BootSpec, Disk, GuestAddress, Image, Nic, Platform
from images.facts import Device, DeviceKind, Entry, Format, ImageFacts
from images.families import family

ADDRESS = GuestAddress(IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1"))
DUAL = replace(ADDRESS, ipv6=IPv6Interface("fd00::2/64"))
ALONE = GuestAddress(IPv4Interface("10.0.0.2/24"), None)
GREETING = (("greeting", 'it\'s a <&> "day"'), ("PORT", "80"))
WORDS = (("GREETING", "it's a <&> day"), ("PORT", "80"))
ELF = ImageFacts(file_bytes=4096, format=Format.ELF)
SERVICE_CARD = Device(DeviceKind.NET, "service")


@dataclass(frozen=True, slots=True)
class Guest:
    """An image of a family, and what is asked of it."""

    family: str
    image: Image
    request: BootRequest
    facts: ImageFacts = ELF

    @property
    def spec(self) -> BootSpec:
        """How the family boots it."""
        return family(self.family).boot_spec(self.image, self.facts, self.request)


def request(
    entry: Entry = Entry.MULTIBOOT,
    platform: Platform = Platform.QEMU,
    address: GuestAddress = ADDRESS,
    config: tuple[tuple[str, str], ...] = (),
    memory_mib: int = 64,
) -> BootRequest:
    """Return a request for instance ew-lab-web-0."""
    return BootRequest(
        name="ew-lab-web-0",
        service="web",
        host="edge1",
        address=address,
        nic=Nic("edge", "02:ed:0a:00:00:02"),
        memory_mib=memory_mib,
        config=config,
        platform=platform,
        entry=entry,
    )


def _kernel(cmdline: str = "", **more: object) -> Image:
    return replace(Image("web", kernel=Path("/images/web"), cmdline=cmdline), **more)  # type: ignore[arg-type]


def _disk(**more: object) -> Image:
    disks = (Disk(Path("/images/web.img"), read_only=False),)
    return replace(Image("web", disks=disks), **more)  # type: ignore[arg-type]


_LINUX = _kernel("loglevel=7", initrd=Path("/images/web.cpio"))
_TWO_DISKS = _kernel(
    disks=(Disk(Path("/images/a.img")), Disk(Path("/images/b.img"), name="htdocs"))
)
_TWO_DEVICES = replace(
    ELF,
    solo5_target="virtio",
    devices=(
        Device(DeviceKind.BLOCK, "htdocs"),
        SERVICE_CARD,
        Device(DeviceKind.BLOCK, "certs"),
    ),
)
_SPT = replace(ELF, solo5_target="spt", devices=(SERVICE_CARD,))
_TOLD = replace(ELF, options=frozenset({"netdev.ip"}))
_LOADER = _kernel("serve", kernel=Path("/images/hermit-loader"), initrd=Path("/images/web"))
_XEN, _SPT_HOST = Platform.XEN, Platform.SPT
_IPXE = "ifopen net0 && set net0/ip {ip} && set net0/netmask {mask} && shell"

GUESTS = {
    "hermit-qemu": Guest("hermit", _LOADER, request(config=WORDS)),
    "linux-qemu": Guest("linux", _LINUX, request(Entry.LINUX, address=DUAL, config=GREETING)),
    "linux-xen-pvh": Guest("linux", _LINUX, request(Entry.PVH, _XEN, config=GREETING)),
    "linux-xen-pv": Guest("linux", _LINUX, request(Entry.XEN_PV, _XEN, address=ALONE)),
    "linux-xen-bzimage": Guest("linux", _LINUX, request(Entry.LINUX, _XEN)),
    "mini-os-xen": Guest("mini-os", _kernel("verbose"), request(Entry.XEN_PV, _XEN)),
    "mirage-qemu": Guest("mirage", _kernel("-l *:debug"), request(config=GREETING)),
    "mirage-qemu-dual-stack": Guest("mirage", _kernel(), request(address=DUAL)),
    "mirage-qemu-no-gateway": Guest("mirage", _kernel(), request(address=ALONE)),
    "mirage-qemu-q35-two-disks": Guest(
        "mirage", replace(_TWO_DISKS, machine="q35"), request(), _TWO_DEVICES
    ),
    "mirage-qemu-group": Guest(
        "mirage",
        _kernel(template="--edge-ipv4={cidr}[ --edge-ipv4-gateway={gw}][ {config}][ {args}]"),
        request(),
    ),
    "mirage-spt": Guest("mirage", _kernel(), request(Entry.SPT, _SPT_HOST), _SPT),
    "mirage-xen": Guest("mirage", _kernel(), request(Entry.PVH, _XEN)),
    "nanos-qemu": Guest("nanos", _disk(), request(Entry.BIOS)),
    "osv-qemu": Guest(
        "osv",
        _kernel("--rootfs=rofs /httpd -p 80", disks=(Disk(Path("/images/usr.img"), "qcow2"),)),
        request(Entry.PVH, config=WORDS),
    ),
    "osv-qemu-disk": Guest("osv", _disk(), request(Entry.BIOS)),
    "other-qemu-disk": Guest("other", _disk(), request(Entry.BIOS)),
    "other-qemu-template": Guest("other", _kernel(template=_IPXE), request(Entry.LINUX)),
    "other-xen": Guest("other", _kernel("verbose"), request(Entry.PVH_SECTION, _XEN)),
    "rumprun-qemu": Guest("rumprun", _kernel("-p 80 'a b'"), request(config=WORDS)),
    "rumprun-qemu-dhcp": Guest(
        "rumprun",
        _kernel(
            template='{{"cmdline":"web[ {args}]","net":{{"if":"vioif0","type":"inet",'
            '"method":"dhcp"}}}}',
        ),
        request(),
    ),
    "rumprun-xen": Guest("rumprun", _kernel("-p 80"), request(Entry.XEN_PV, _XEN)),
    "solo5-qemu": Guest("solo5", _kernel("verbose"), request()),
    "solo5-spt": Guest("solo5", _kernel(), request(Entry.SPT, _SPT_HOST), _SPT),
    "unikraft-qemu": Guest("unikraft", _kernel("-p 80"), request(config=WORDS)),
    "unikraft-qemu-no-gateway": Guest("unikraft", _kernel(), request(address=ALONE)),
    "unikraft-xen": Guest("unikraft", _kernel("-p 80"), request(Entry.XEN_PV, _XEN)),
    "unikraft-xen-no-gateway": Guest(
        "unikraft", _kernel(), request(Entry.XEN_PV, _XEN, address=ALONE)
    ),
    "unikraft-xen-parameter": Guest(
        "unikraft", _kernel("-p 80"), request(Entry.XEN_PV, _XEN), _TOLD
    ),
}
