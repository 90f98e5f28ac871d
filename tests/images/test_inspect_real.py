"""What real files are, of ours, of Debian's and of qemu-img's; and that QEMU agrees."""

import subprocess
from pathlib import Path

import pytest

from images.build import hello
from images.build.linux_microvm import newest_kernel
from images.build.vmlinux import unpack
from images.facts import Architecture, Container, Entry, Format
from images.inspect import inspect, inspect_bytes
from tests.images.conftest import DebianFile
from tests.images.specimens import SPECIMENS

MB, PVH, PV, BIOS, LINUX = (
    Entry.MULTIBOOT,
    Entry.PVH,
    Entry.XEN_PV,
    Entry.BIOS,
    Entry.LINUX,
)
Command = list[str | Path]

GRUB = "usr/lib/grub-xen/grub"
MACH = "gnumach-image-1.8-xen-486"
DEBIAN = {
    ("grub-xen-host", f"{GRUB}-x86_64-xen.bin"): ("GRUB", PV, Architecture.X86_64),
    ("grub-xen-host", f"{GRUB}-i386-xen.bin"): ("GRUB", PV, Architecture.X86),
    ("grub-xen-host", f"{GRUB}-i386-xen_pvh.bin"): ("GRUB", PVH, Architecture.X86),
    (MACH, "boot/gnumach-1.8-xen-486.gz"): ("GNU Mach", PV, Architecture.X86_64),
    ("ipxe", "boot/ipxe.lkrn"): ("1.0.0+git-20190125", LINUX, Architecture.X86),
    ("memtest86+", "boot/memtest86+x64.bin"): ("Memtest86+ v", LINUX, Architecture.X86_64),
    ("memtest86+", "boot/memtest86+ia32.bin"): ("Memtest86+ v", LINUX, Architecture.X86),
}


@pytest.mark.real
@pytest.mark.parametrize(("package", "path"), DEBIAN)
def test_debians_other_kernels(debian_file: DebianFile, package: str, path: str) -> None:
    guest_os, entry, architecture = DEBIAN[package, path]
    facts = inspect(debian_file(package, path))
    assert (facts.family, facts.unusable, facts.warnings) == ("", "", ())
    assert facts.guest_os.startswith(guest_os)
    assert (facts.entries, facts.architecture) == (frozenset({entry}), architecture)


UNUSABLE = [
    ("seabios", "usr/share/seabios/bios-256k.bin", "firmware of a PC"),
    ("seabios", "usr/share/seabios/vgabios-stdvga.bin", "an option ROM"),
    ("ipxe", "usr/lib/ipxe/ipxe.iso", "a CD image"),
    ("ipxe", "boot/ipxe.efi", "a program for EFI"),
    ("busybox-static", "bin/busybox", "a Linux program, not a kernel"),
    ("coreutils", "bin/true", "a Linux program, not a kernel"),
]


@pytest.mark.real
@pytest.mark.parametrize(("package", "path", "why"), UNUSABLE)
def test_what_debian_ships_and_nobody_can_start(
    debian_file: DebianFile, package: str, path: str, why: str
) -> None:
    facts = inspect(debian_file(package, path))
    assert facts.unusable.startswith(why)
    assert facts.entries == frozenset()


def test_our_own_sample(tmp_path: Path) -> None:
    facts = inspect(hello.build(tmp_path).kernel)
    assert (facts.family, facts.unusable, facts.warnings) == ("hello", "", ())
    assert {MB, PVH} <= facts.entries


@pytest.mark.real
def test_the_cloud_kernel_packed_and_unpacked(tmp_path: Path) -> None:
    packed = newest_kernel()
    version = packed.name.removeprefix("vmlinuz-")
    facts = inspect(packed)
    assert (facts.family, facts.entries, facts.unusable) == ("linux", frozenset({LINUX}), "")
    assert version in facts.evidence
    unpacked = tmp_path / "vmlinux"
    unpacked.write_bytes(unpack(packed.read_bytes()))
    facts = inspect(unpacked)
    assert (facts.family, facts.guest_os, facts.unusable) == ("linux", "linux", "")
    assert {PVH, PV} <= facts.entries
    assert facts.architecture is Architecture.X86_64
    assert 30 * 2**20 < facts.loaded_bytes < 80 * 2**20


QEMU_IMG = [
    ((), "qcow2 version 3, 1048576 bytes inside: Nanos file system at byte 0xce00", "nanos"),
    (("-o", "compat=0.10"), "qcow2 version 2, 1048576 bytes inside: Nanos", "nanos"),
    (("-o", "cluster_size=512"), "qcow2 version 3, 1048576 bytes inside: Nanos", "nanos"),
    (("-o", "extended_l2=on"), "qcow2 version 3, 1048576 bytes inside", ""),
    (("-c",), "qcow2 version 3, 1048576 bytes inside", ""),
]


@pytest.mark.real
@pytest.mark.parametrize(("options", "evidence", "family"), QEMU_IMG)
def test_what_qemu_img_makes(
    tmp_path: Path,
    debian_file: DebianFile,
    options: tuple[str, ...],
    evidence: str,
    family: str,
) -> None:
    qemu_img = debian_file("qemu-utils", "usr/bin/qemu-img")
    raw, made, overlay = (tmp_path / name for name in ("raw", "made", "overlay"))
    raw.write_bytes(SPECIMENS["nanos disk"].ljust(2**20, b"\0"))
    convert: Command = [qemu_img, "convert", "-f", "raw", "-O", "qcow2", *options, raw, made]
    subprocess.run(convert, check=True, capture_output=True)
    facts = inspect(made)
    assert facts.evidence.startswith(evidence)
    assert (facts.family, facts.entries) == (family, frozenset({BIOS}))
    assert any("not looked at" in each for each in facts.warnings) == (family == "")
    create: Command = [qemu_img, "create", "-f", "qcow2", "-b", made, "-F", "qcow2", overlay]
    subprocess.run(create, check=True, capture_output=True)
    assert str(made) in inspect(overlay).warnings[0]


# --- QEMU's own opinion ---------------------------------------------------------------------------

FOR_QEMU = {Entry.MULTIBOOT, Entry.PVH, Entry.LINUX}
KERNELS = [
    name
    for name, data in SPECIMENS.items()
    if inspect_bytes(data).container is Container.PLAIN
    and (inspect_bytes(data).format is Format.ELF or "multiboot" in name)
]


def qemu_refuses(kernel: Path) -> str:
    """Return what QEMU says against a kernel when it loads it, before anything runs."""
    qemu = "qemu-system-x86_64 -machine pc -m 64 -nodefaults -display none -S -monitor stdio"
    command: Command = [*qemu.split(), "-kernel", kernel]
    done = subprocess.run(
        command, input="quit\n", capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr.strip() or "no words" if done.returncode else ""


@pytest.mark.real
@pytest.mark.parametrize("name", KERNELS)
def test_qemu_loads_what_has_a_way_in_for_it_and_refuses_the_rest(
    tmp_path: Path, name: str
) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(SPECIMENS[name])
    facts = inspect(kernel)
    expected = bool(facts.entries & FOR_QEMU) and facts.least_file_bytes <= facts.file_bytes
    refusal = qemu_refuses(kernel)
    assert (refusal == "") == expected, refusal


@pytest.mark.real
def test_padding_cures_what_was_stripped(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(SPECIMENS["multiboot stripped"])
    assert "fread() failed" in qemu_refuses(kernel)
    (warning,) = inspect(kernel).warnings
    size = int(warning.partition("--size=")[2].partition(" ")[0])
    with kernel.open("ab") as file:
        file.truncate(size)
    assert inspect(kernel).warnings == ()
    assert qemu_refuses(kernel) == ""
