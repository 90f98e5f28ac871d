"""Which image runs on which host, and every sentence that says why one does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from images.bootspec import Disk, HostTraits, Image, Platform
from images.errors import ImageRefused
from images.facts import Architecture, Container, Entry, Format, ImageFacts
from images.families import FAMILIES, family
from images.match import MIB, Match, match, resolve

QEMU = HostTraits(Platform.QEMU)
QEMU_DHCP = HostTraits(Platform.QEMU, dhcp=True)
KVM = HostTraits(Platform.QEMU, kvm=True)
XEN = HostTraits(Platform.XEN)
XEN_DHCP = HostTraits(Platform.XEN, dhcp=True)
SPT = HostTraits(Platform.SPT)
ARM = HostTraits(Platform.QEMU, Architecture.AARCH64)

KERNEL = Image("web", kernel=Path("/images/web"))
TOLD = replace(KERNEL, template="ip={ip}")
DISK = Image("web", disks=(Disk(Path("/images/web.img")),))
QCOW2 = Image("web", disks=(Disk(Path("/images/web.qcow2"), "qcow2"),))


def elf(*entries: Entry, bits: int = 32, target: str = "") -> ImageFacts:
    architecture = Architecture.X86_64 if bits == 64 else Architecture.X86
    return ImageFacts(
        file_bytes=1 << 20,
        format=Format.ELF,
        architecture=architecture,
        bits=bits,
        entries=frozenset(entries),
        solo5_target=target,
    )


MULTIBOOT = elf(Entry.MULTIBOOT)
SOLO5_VIRTIO = replace(
    elf(Entry.MULTIBOOT, bits=64, target="virtio"), least_file_bytes=1 << 20, loaded_bytes=9 * MIB
)
SOLO5_XEN = elf(Entry.PVH, Entry.MULTIBOOT, bits=64, target="xen")
SOLO5_SPT = elf(Entry.SPT, bits=64, target="spt")
SOLO5_HVT = elf(Entry.HVT, bits=64, target="hvt")
PVH = elf(Entry.PVH, bits=64)
PV = elf(Entry.XEN_PV, bits=64)
REFUSED_BY_QEMU = replace(elf(Entry.PVH_SECTION), warnings=("odd", "QEMU refuses it: x"))
BZIMAGE = ImageFacts(
    1 << 23,
    format=Format.BZIMAGE,
    architecture=Architecture.X86_64,
    entries=frozenset({Entry.LINUX}),
)
BOOT_DISK = ImageFacts(1 << 23, format=Format.DISK, entries=frozenset({Entry.BIOS}))
QCOW2_FILE = ImageFacts(1 << 20, container=Container.QCOW2, format=Format.DISK)

YES = [
    ("linux", KERNEL, BZIMAGE, QEMU, Entry.LINUX),
    ("linux", KERNEL, PVH, QEMU, Entry.PVH),
    ("linux", KERNEL, BZIMAGE, XEN, Entry.LINUX),
    ("linux", KERNEL, elf(Entry.PVH, Entry.XEN_PV, bits=64), XEN, Entry.PVH),
    ("linux", KERNEL, PV, XEN, Entry.XEN_PV),
    ("mirage", KERNEL, SOLO5_VIRTIO, QEMU, Entry.MULTIBOOT),
    ("mirage", KERNEL, SOLO5_XEN, XEN, Entry.PVH),
    ("mirage", KERNEL, replace(SOLO5_XEN, container=Container.GZIP), XEN, Entry.PVH),
    ("mirage", KERNEL, SOLO5_SPT, SPT, Entry.SPT),
    ("mirage", replace(KERNEL, machine="pc-q35-7.2"), SOLO5_VIRTIO, QEMU, Entry.MULTIBOOT),
    ("mirage", replace(KERNEL, machine="pc-i440fx-7.2"), SOLO5_VIRTIO, KVM, Entry.MULTIBOOT),
    ("mirage", replace(KERNEL, machine="q35"), SOLO5_XEN, XEN, Entry.PVH),
    ("solo5", KERNEL, SOLO5_SPT, SPT, Entry.SPT),
    ("rumprun", KERNEL, MULTIBOOT, QEMU, Entry.MULTIBOOT),
    ("rumprun", KERNEL, PV, XEN, Entry.XEN_PV),
    ("unikraft", KERNEL, MULTIBOOT, QEMU, Entry.MULTIBOOT),
    ("osv", KERNEL, PVH, QEMU, Entry.PVH),
    ("osv", QCOW2, QCOW2_FILE, QEMU_DHCP, Entry.BIOS),
    ("nanos", DISK, BOOT_DISK, QEMU_DHCP, Entry.BIOS),
    ("hermit", KERNEL, MULTIBOOT, KVM, Entry.MULTIBOOT),
    ("mini-os", KERNEL, PV, XEN, Entry.XEN_PV),
    ("other", TOLD, PVH, QEMU, Entry.PVH),
    ("other", KERNEL, elf(Entry.PVH_SECTION), XEN_DHCP, Entry.PVH_SECTION),
    # QEMU takes the multiboot entry although PVH would do.
    ("other", TOLD, elf(Entry.MULTIBOOT, Entry.PVH), QEMU, Entry.MULTIBOOT),
]  # fmt: skip


@pytest.mark.parametrize(("name", "image", "facts", "host", "entry"), YES)
def test_what_runs(
    name: str, image: Image, facts: ImageFacts, host: HostTraits, entry: Entry
) -> None:
    assert match(image, facts, family(name).traits, host, 128) == Match(entry)


def test_a_core_dump_is_taken_of_pv_guests_on_xen_alone() -> None:
    linux = family("linux").traits
    both = elf(Entry.PVH, Entry.XEN_PV, bits=64)

    def dumped(facts: ImageFacts, host: HostTraits) -> Match:
        return match(KERNEL, facts, linux, host, 128, dumps_core=True)

    assert dumped(PV, XEN) == Match(Entry.XEN_PV)
    assert dumped(both, XEN) == Match(Entry.XEN_PV), "by PVH without a dump"
    refused = dumped(PVH, XEN).why_not
    assert refused.startswith("a core dump is wanted when it crashes, and it can be entered by PVH")
    for host in (QEMU, KVM):
        refused = dumped(PVH, host).why_not
        assert "wanted when it crashes, and a QEMU host takes none" in refused
        assert "place it on a Xen host" in refused
    solo5 = match(KERNEL, SOLO5_SPT, family("solo5").traits, SPT, 128, dumps_core=True)
    assert "and a host that runs the solo5-spt tender takes none" in solo5.why_not


NO_DHCP = "it can be told no address, and the host's network has no DHCP"
LEGACY = "its old virtio driver does not find it; take 'machine:' away"

NO = [
    ("other", KERNEL, replace(PVH, unusable="It is a Firecracker build."), QEMU,
     "It is a Firecracker build."),
    ("linux", KERNEL, replace(PVH, architecture=Architecture.AARCH64), QEMU,
     "it was built for aarch64, and the host has x86_64 processors"),
    ("linux", KERNEL, BZIMAGE, ARM,
     "it was built for x86_64, and the host has aarch64 processors; build it for those"),
    ("nanos", DISK, BOOT_DISK, replace(ARM, dhcp=True),
     "it boots from its disk by BIOS, and the host has aarch64 processors, without one"),
    ("mirage", KERNEL, replace(SOLO5_VIRTIO, container=Container.GZIP), QEMU,
     "compressed by gzip, and QEMU's -kernel hangs on that in silence; unpack it"),
    ("mirage", KERNEL, replace(SOLO5_SPT, container=Container.GZIP), SPT,
     "compressed by gzip, and no tender reads that"),
    ("osv", KERNEL, QCOW2_FILE, QEMU, "a qcow2 disk, not a kernel; name it under 'disks:'"),
    ("nanos", DISK, replace(BOOT_DISK, container=Container.GZIP), QEMU_DHCP,
     "first disk is compressed by gzip, and nothing boots that"),
    ("osv", DISK, QCOW2_FILE, QEMU_DHCP,
     "first disk is qcow2, and the lab says raw; write 'format: qcow2'"),
    ("nanos", QCOW2, BOOT_DISK, QEMU_DHCP,
     "first disk is raw, and the lab says qcow2; write 'format: raw'"),
    ("mirage", KERNEL, SOLO5_HVT, QEMU,
     "Solo5 target hvt, whose tender needs KVM, which this host lacks besides, and which edgewake "
     "does not drive; for a QEMU host build it for virtio"),
    ("mirage", KERNEL, SOLO5_HVT, KVM, "whose tender needs KVM, and which edgewake does not drive"),
    ("mirage", KERNEL, elf(Entry.MUEN, target="muen"), XEN,
     "Solo5 target muen, which edgewake does not drive; for a Xen host build it for xen"),
    ("mirage", KERNEL, SOLO5_SPT, QEMU,
     "Solo5 target spt, which is for a host that runs the solo5-spt tender; for a QEMU host build "
     "it for virtio"),
    ("mirage", KERNEL, SOLO5_XEN, QEMU, "Solo5 target xen, which is for a Xen host"),
    ("mirage", KERNEL, SOLO5_VIRTIO, SPT, "Solo5 target virtio, which is for a QEMU host"),
    ("mini-os", KERNEL, PV, QEMU,
     "Mini-OS does not run on a QEMU host: it is a Xen PV guest and has no driver for anything "
     "else; place it on a Xen host"),
    ("nanos", DISK, BOOT_DISK, XEN, "Nanos does not run on a Xen host: its kernel dies there"),
    ("osv", KERNEL, PVH, XEN, "OSv does not run on a Xen host: it was not usable there"),
    ("solo5", KERNEL, SOLO5_XEN, XEN, "Solo5's own Xen binding has no network"),
    ("linux", KERNEL, BZIMAGE, SPT, "a tender starts Solo5 images only; place it on"),
    ("rumprun", KERNEL, PV, QEMU,
     "it has Xen PV notes only, and QEMU cannot start that; build it for QEMU (multiboot) or "
     "place it on a Xen host"),
    ("other", KERNEL, elf(Entry.PVH_SECTION), QEMU_DHCP,
     "only its section headers show its PVH note, which Xen finds and QEMU does not"),
    ("unikraft", KERNEL, MULTIBOOT, XEN,
     "it has a multiboot entry only, and Xen cannot start that; build it for Xen (Xen PV) or "
     "place it on a QEMU host"),
    ("other", KERNEL, elf(Entry.MULTIBOOT2), QEMU_DHCP,
     "a multiboot2 header only, and QEMU reads multiboot 1"),
    ("osv", KERNEL, MULTIBOOT, QEMU,
     "it can be entered by multiboot, and OSv starts on a QEMU host by PVH or BIOS boot disk"),
    ("osv", KERNEL, elf(Entry.MULTIBOOT, Entry.PVH), QEMU, "it can be entered by PVH or multiboot"),
    ("nanos", KERNEL, BOOT_DISK, QEMU_DHCP,
     "a whole boot disk, not a kernel; name it under 'disks:' instead of 'kernel:'"),
    ("nanos", DISK, replace(BOOT_DISK, entries=frozenset()), QEMU_DHCP,
     "no kernel, and its first disk has no boot sector"),
    ("linux", KERNEL, elf(), QEMU, "no loader knows a way into it (ELF); Linux starts on"),
    ("other", TOLD, REFUSED_BY_QEMU, QEMU,
     "Xen can enter it by PVH, and QEMU cannot: QEMU refuses it: x; place it on a Xen host"),
    ("mirage", KERNEL, replace(SOLO5_VIRTIO, least_file_bytes=3000000), QEMU,
     "its file has 1048576 bytes and its headers promise 3000000: it was cut short, or stripped; "
     "take the whole one, or pad a stripped one with truncate -s 3000000 /images/web"),
    ("rumprun", replace(KERNEL, kernel=Path("/my images/web")), MULTIBOOT, QEMU,
     "the path /my images/web has a blank"),
    ("hermit", KERNEL, MULTIBOOT, QEMU,
     "Hermit does not run on QEMU without KVM: QEMU's emulated processor lacks fsgsbase"),
    ("hermit", replace(KERNEL, initrd=Path("/a,b")), MULTIBOOT, KVM,
     "the path /a,b has a blank or a comma"),
    ("nanos", DISK, BOOT_DISK, QEMU, NO_DHCP),
    ("osv", QCOW2, QCOW2_FILE, QEMU, NO_DHCP),
    ("other", KERNEL, PVH, QEMU, "takes its address by DHCP, and the host's network has none"),
    ("rumprun", replace(KERNEL, machine="q35"), MULTIBOOT, QEMU, LEGACY),
    ("unikraft", replace(KERNEL, machine="pc-q35-7.2"), MULTIBOOT, QEMU, LEGACY),
    ("mirage", replace(KERNEL, machine="microvm"), SOLO5_VIRTIO, QEMU,
     "machine microvm, which libvirt does not support"),
    ("osv", replace(KERNEL, machine="pc"), PVH, QEMU,
     "machine pc, on which it was never seen to answer; take 'machine:' away (q35 works)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "image", "facts", "host", "why"), NO)
def test_what_does_not_run_says_why(
    name: str, image: Image, facts: ImageFacts, host: HostTraits, why: str
) -> None:
    matched = match(image, facts, family(name).traits, host, 128)
    assert matched.entry is None
    assert why in matched.why_not
    assert "\n" not in matched.why_not


MEMORY = [
    ("mirage", (KERNEL, SOLO5_VIRTIO, QEMU), 11, "11 MiB of memory are too few"),
    ("mirage", (KERNEL, SOLO5_VIRTIO, QEMU), 12, ""),
    ("mirage", (KERNEL, SOLO5_XEN, XEN), 16,
     "16 MiB of memory are too few for MirageOS on a Xen host (of 16 MiB, libxl could not even "
     "build a PVH guest); give the service at least 32 MiB"),
    ("unikraft", (KERNEL, PV, XEN), 7, "for Unikraft on a Xen host; give"),
    ("unikraft", (KERNEL, PV, XEN), 8, ""),
    ("mirage", (replace(KERNEL, least_memory_mib=10), SOLO5_VIRTIO, QEMU), 10, ""),
    ("mirage", (replace(KERNEL, least_memory_mib=100), SOLO5_VIRTIO, QEMU), 99, "at least 100 MiB"),
    ("mirage", (replace(KERNEL, least_memory_mib=1), SOLO5_VIRTIO, QEMU), 8,
     "8 MiB of memory are too few: loading it takes 9 MiB alone"),
    ("linux", (KERNEL, BZIMAGE, QEMU), 79, "79 MiB of memory are too few for Linux"),
    ("linux", (KERNEL, BZIMAGE, XEN), 127, "at least 128 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "pair", "memory_mib", "why"), MEMORY)
def test_memory_is_held_against_what_was_measured(
    name: str, pair: tuple[Image, ImageFacts, HostTraits], memory_mib: int, why: str
) -> None:
    image, facts, host = pair
    matched = match(image, facts, family(name).traits, host, memory_mib)
    assert (matched.entry is None) is bool(why)
    assert why in matched.why_not


@pytest.mark.parametrize("host", [QEMU, QEMU_DHCP, KVM, XEN, SPT])
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"hello"}))
def test_there_is_an_answer_for_every_entry(name: str, host: HostTraits) -> None:
    for entry in Entry:
        for image in (KERNEL, DISK):
            matched = match(image, elf(entry), family(name).traits, host, 128)
            assert (matched.entry is None) is bool(matched.why_not)
            assert matched.entry in {None, entry}


# --- whose family -----------------------------------------------------------------------------

SEEN = replace(MULTIBOOT, family="rumprun", evidence="section .bootstrap")


@pytest.mark.parametrize(
    ("said", "seen", "family_"),
    [
        ("", "rumprun", "rumprun"),
        ("rumprun", "", "rumprun"),
        ("rumprun", "rumprun", "rumprun"),
        ("other", "rumprun", "other"),
        ("ipxe", "linux", "ipxe"),
        ("mirage", "solo5", "mirage"),
        ("solo5", "mirage", "solo5"),
    ],
)
def test_the_family_is_what_user_and_bytes_say(said: str, seen: str, family_: str) -> None:
    assert resolve(replace(KERNEL, family=said), replace(SEEN, family=seen)) == family_


def test_bytes_that_say_nothing_need_a_word() -> None:
    with pytest.raises(ImageRefused, match=r"/images/web\.img does not tell.*add 'family:'"):
        resolve(DISK, BOOT_DISK)


def test_a_contradiction_is_refused_with_its_evidence() -> None:
    why = r"lab says family osv, and the bytes of /images/web say rumprun \(section \.bootstrap\)"
    with pytest.raises(ImageRefused, match=why):
        resolve(replace(KERNEL, family="osv"), SEEN)
