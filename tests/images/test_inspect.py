"""What a file is, by its bytes: one of each kind, and how files are read and remembered."""

import gzip
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from images import inspect as inspecting
from images.errors import ImageNotFound
from images.facts import Architecture, Container, Device, DeviceKind, Entry, Format, ImageFacts
from images.inspect import Inspector, inspect, inspect_bytes, inspect_source
from images.source import Source
from tests.images.specimens import (
    I386,
    PVH32,
    SPECIMENS,
    ElfFile,
    boot_disk,
    bzimage,
    multiboot,
    note,
    pv_notes,
    qcow2,
    solo5,
    solo5_abi,
    solo5_manifest,
    xen,
)

MB, MB2, PVH, PVH_XEN = Entry.MULTIBOOT, Entry.MULTIBOOT2, Entry.PVH, Entry.PVH_SECTION
PV, BIOS, LINUX = Entry.XEN_PV, Entry.BIOS, Entry.LINUX
NO_BOOT_LOADER = "a disk without a boot loader"

# name: family, ways in, and how the sentence begins that says why it cannot be started
KINDS: dict[str, tuple[str, set[Entry], str]] = {
    "hello": ("hello", {MB, PVH}, ""),
    "hello by its guest name": ("hello", {MB, PVH}, ""),
    "mirage virtio": ("mirage", {MB}, ""),
    "mirage virtio without symbols": ("mirage", {MB}, ""),
    "mirage xen": ("mirage", {PVH}, ""),
    "mirage spt": ("mirage", {Entry.SPT}, ""),
    "mirage hvt": ("mirage", {Entry.HVT}, ""),
    "solo5 virtio": ("solo5", {MB}, ""),
    "solo5 muen": ("solo5", {Entry.MUEN}, "built for Solo5's target muen"),
    "solo5 genode": ("solo5", {Entry.GENODE}, "built for Solo5's target genode"),
    "solo5 of a new target": ("solo5", set(), "built for a Solo5 target that is not known"),
    "rumprun hw": ("rumprun", {MB}, ""),
    "rumprun hw without sections": ("rumprun", {MB}, ""),
    "rumprun xen": ("rumprun", {PV}, ""),
    "rumprun not baked": ("rumprun", set(), "a Rumprun program that is not baked yet"),
    "unikraft kvm": ("unikraft", {MB}, ""),
    "unikraft xen": ("unikraft", {PV}, ""),
    "unikraft firecracker": ("unikraft", set(), "built for Firecracker only"),
    "mini-os": ("mini-os", {PV}, ""),
    "mini-os pvh": ("mini-os", {PVH_XEN}, ""),
    "osv": ("osv", {PVH}, ""),
    "osv disk": ("osv", {BIOS}, ""),
    "osv raw disk": ("osv", {BIOS}, ""),
    "nanos kernel": ("nanos", {PVH}, "a Nanos kernel, which does not start by itself"),
    "nanos disk": ("nanos", {BIOS}, ""),
    "hermit": ("hermit", set(), "a HermitOS program, which hermit-loader starts"),
    "hermit with multiboot": ("hermit", {MB}, ""),
    "include-os": ("", {MB}, ""),
    "grub pv": ("", {PV}, ""),
    "gnu mach": ("", {PV}, ""),
    "other loader": ("", set(), "no way in"),
    "linux pvh and pv": ("linux", {PVH, PV}, ""),
    "linux pvh only": ("linux", {PVH}, ""),
    "linux without notes": ("linux", set(), "an unpacked Linux kernel without a PVH entry"),
    "bzImage": ("linux", {LINUX}, ""),
    "bzImage of 32 bits": ("linux", {LINUX}, ""),
    "iPXE": ("", {LINUX}, ""),
    "bzImage without a version": ("", {LINUX}, ""),
    "bzImage cut off": ("linux", {LINUX}, "cut off: its header speaks of 5105 bytes"),
    "arm64 Image": ("", set(), "a Linux kernel for aarch64"),
    "arm zImage": ("", set(), "a Linux kernel for arm;"),
    "riscv Image": ("", set(), "a Linux kernel for riscv64"),
    "arm64 ELF": ("", set(), "built for aarch64"),
    "arm ELF": ("", set(), "built for arm;"),
    "riscv ELF": ("", set(), "built for riscv64"),
    "big-endian ELF": ("", set(), "built for another architecture"),
    "multiboot in x86-64 without addresses": ("", set(), "QEMU refuses its multiboot header"),
    "multiboot in the way of PVH": ("", {PVH_XEN}, ""),
    "multiboot with bad addresses": ("", set(), "QEMU refuses its multiboot header"),
    "multiboot stripped": ("", {MB}, ""),
    "multiboot2": ("", {MB2}, "it starts by multiboot 2 only"),
    "pvh by sections": ("", {PVH_XEN}, ""),
    "flat multiboot": ("", {MB}, ""),
    "flat multiboot cut off": ("", {MB}, ""),
    "linux program": ("", set(), "a Linux program, not a kernel"),
    "static program": ("", set(), "a Linux program, not a kernel"),
    "go program": ("", set(), "a Linux program, not a kernel"),
    "kernel module": ("", set(), "a Linux kernel module"),
    "object file": ("", set(), "an object file"),
    "core dump": ("", set(), "a memory dump"),
    "unknown ELF": ("", set(), "no way in"),
    "ELF cut off in its segments": (
        "",
        {MB},
        "cut off: its segments end at byte 4160 and it has 4",
    ),
    "ELF cut off in its sections": ("", {MB}, ""),
    "ELF cut off in its header": ("", set(), "its ELF header is damaged or cut off"),
    "bios disk": ("", {BIOS}, ""),
    "disk without boot loader": ("", set(), NO_BOOT_LOADER),
    "disk cut off": ("", {BIOS}, ""),
    "disk with odd partitions": ("", {BIOS}, ""),
    "gpt disk": ("", set(), "a disk that only EFI firmware starts"),
    "gpt disk with BIOS loader": ("", {BIOS}, ""),
    "ext4": ("", set(), "a file system without a boot loader"),
    "iso": ("", set(), "a CD image"),
    "hybrid iso": ("", set(), "a CD image"),
    "qcow2 version 2": ("", {BIOS}, ""),
    "qcow2 of small clusters": ("nanos", {BIOS}, ""),
    "qcow2 overlay": ("", {BIOS}, ""),
    "qcow2 compressed": ("", {BIOS}, ""),
    "qcow2 encrypted": ("", {BIOS}, ""),
    "qcow2 with a data file": ("", {BIOS}, ""),
    "qcow2 empty": ("", set(), NO_BOOT_LOADER),
    "qcow2 zero clusters": ("", set(), NO_BOOT_LOADER),
    "qcow2 of version 9": ("", set(), "a damaged qcow2 header, or version 9"),
    "gzip of mini-os": ("mini-os", {PV}, ""),
    "gzip of pvh": ("linux", {PVH_XEN, PV}, ""),
    "gzip of multiboot": ("", set(), "packed by gzip"),
    "gzip of bzImage": ("linux", set(), "packed by gzip"),
    "gzip of cpio": ("", set(), "an initramfs starts nothing by itself"),
    "gzip of gzip": ("", set(), "packed by gzip"),
    "gzip cut off": ("", set(), "its gzip data end too early"),
    "gzip damaged": ("", set(), "its gzip data are damaged"),
    "cpio": ("", set(), "an initramfs starts nothing by itself"),
    "cpio odc": ("", set(), "a cpio archive that Linux does not unpack"),
    "xz": ("", set(), "packed by xz and not looked into"),
    "zstd": ("", set(), "packed by zstd and not looked into"),
    "script": ("", set(), "a script"),
    "zip": ("", set(), "a zip archive"),
    "tar": ("", set(), "a tar archive"),
    "OVA": ("", set(), "an OVA appliance"),
    "OCI": ("", set(), "a container image"),
    "WebAssembly": ("", set(), "a WebAssembly module"),
    "VMDK": ("", set(), "a VMDK disk; convert it"),
    "EFI program": ("", set(), "a program for EFI"),
    "unified kernel image": ("", set(), "a unified kernel image for EFI"),
    "firmware": ("", set(), "firmware of a PC"),
    "option ROM": ("", set(), "an option ROM"),
    "empty": ("", set(), "an empty file"),
    "noise": ("", set(), "not a kind of file that edgewake knows"),
}


def facts_of(name: str) -> ImageFacts:
    return inspect_bytes(SPECIMENS[name])


def test_the_table_has_every_specimen() -> None:
    assert KINDS.keys() == SPECIMENS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str) -> None:
    facts = facts_of(name)
    family, entries, unusable = KINDS[name]
    assert (facts.family, facts.entries) == (family, frozenset(entries))
    assert facts.unusable.startswith(unusable)
    assert bool(facts.unusable) == bool(unusable)
    assert facts.file_bytes == len(SPECIMENS[name])


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_what_its_bytes_are(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(SPECIMENS[name])
    assert inspect(path) == facts_of(name)


CONTAINERS = [
    ("hello", Container.PLAIN, Format.ELF),
    ("gzip of cpio", Container.GZIP, Format.CPIO),
    ("gzip of bzImage", Container.GZIP, Format.BZIMAGE),
    ("gzip of mini-os", Container.GZIP, Format.ELF),
    ("gzip damaged", Container.GZIP, Format.UNKNOWN),
    ("osv disk", Container.QCOW2, Format.DISK),
    ("qcow2 of version 9", Container.QCOW2, Format.DISK),
    ("nanos disk", Container.PLAIN, Format.DISK),
    ("cpio", Container.PLAIN, Format.CPIO),
    ("zstd", Container.ZSTD, Format.UNKNOWN),
]


@pytest.mark.parametrize(("name", "container", "format_"), CONTAINERS)
def test_container_and_format(name: str, container: Container, format_: Format) -> None:
    facts = facts_of(name)
    assert (facts.container, facts.format) == (container, format_)


ARCHITECTURES = [
    ("hello", Architecture.X86, 32),
    ("mirage virtio", Architecture.X86_64, 64),
    ("arm64 ELF", Architecture.AARCH64, 64),
    ("arm ELF", Architecture.ARM, 32),
    ("riscv ELF", Architecture.RISCV64, 64),
    ("big-endian ELF", Architecture.OTHER, 32),
    ("bzImage", Architecture.X86_64, 64),
    ("bzImage of 32 bits", Architecture.X86, 32),
    ("arm64 Image", Architecture.AARCH64, 64),
    ("arm zImage", Architecture.ARM, 32),
    ("bios disk", Architecture.X86, 0),
    ("noise", None, 0),
]


@pytest.mark.parametrize(("name", "architecture", "bits"), ARCHITECTURES)
def test_architecture(name: str, architecture: Architecture | None, bits: int) -> None:
    facts = facts_of(name)
    assert (facts.architecture, facts.bits) == (architecture, bits)


EVIDENCE = [
    ("mirage virtio", "Solo5 ABI note: target virtio; OCaml symbols"),
    ("mirage virtio without symbols", "Solo5 ABI note: target virtio; string OCAMLRUNPARAM"),
    ("solo5 virtio", "Solo5 ABI note: target virtio"),
    ("unikraft kvm", "section .uk_libinfo (libkvmplat)"),
    ("rumprun xen", "__xen_guest: GUEST_OS=rumprun"),
    ("mini-os", "SHT_NOTE: GUEST_OS=Mini-OS-x86_64"),
    ("linux pvh only", "PT_NOTE: GUEST_OS=linux"),
    ("nanos disk", "Nanos file system at byte 0xce00"),
    ("osv disk", "qcow2 version 3, 65536 bytes inside: boot sector of OSv"),
    ("bzImage", "boot protocol 2.15, version 6.1.0-56-cloud-amd64"),
    ("bzImage without a version", "boot protocol 2.15"),
]


@pytest.mark.parametrize(("name", "evidence"), EVIDENCE)
def test_evidence(name: str, evidence: str) -> None:
    assert facts_of(name).evidence == evidence


WARNINGS = [
    ("multiboot stripped", "QEMU will read 1048576 bytes of it and it has 4304: .*truncate"),
    ("flat multiboot cut off", "QEMU will read 36864 bytes"),
    ("multiboot in x86-64 without addresses", "make it an ELF32 file or add the fields"),
    ("multiboot in the way of PVH", "QEMU refuses its multiboot header, which has no address"),
    ("multiboot with bad addresses", "header_addr and load_addr contradict"),
    ("ELF cut off in its sections", "section headers end at byte 4256 and it has 4248"),
    ("disk cut off", "partitions end at byte 512512 and it has 65536"),
    ("disk with odd partitions", "partition table makes no sense"),
    ("gpt disk with BIOS loader", "a GPT disk"),
    ("qcow2 overlay", "another file, which it needs: 'base.qcow2'"),
    ("qcow2 compressed", "its inside was not looked at"),
    ("qcow2 with a data file", "its data are in another file"),
    ("gzip of pvh", "QEMU does not unpack gzip"),
]


@pytest.mark.parametrize(("name", "warning"), WARNINGS)
def test_warnings(name: str, warning: str) -> None:
    found = facts_of(name).warnings
    assert [each for each in found if re.search(warning, each)], found


def test_the_others_warn_of_nothing() -> None:
    warned = {name for name, _ in WARNINGS} | {"qcow2 encrypted"}
    assert [name for name in KINDS if name not in warned and facts_of(name).warnings] == []


# --- details of the formats -----------------------------------------------------------------------


def test_solo5_devices_are_those_of_the_manifest() -> None:
    facts = facts_of("mirage virtio")
    assert facts.solo5_target == "virtio"
    assert facts.devices == (
        Device(DeviceKind.NET, "service"),
        Device(DeviceKind.BLOCK, "storage"),
    )


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        note(b"Solo5", 0x3154464D, b"short"),
        solo5_manifest(version=2),
        note(b"Solo5", 0x3154464D, bytes(4) + b"\1\0\0\0" + b"\xff" * 4),
        note(b"Solo5", 0x3154464D, bytes(4) + b"\1\0\0\0\2\0\0\0" + bytes(104)),
    ],
)
def test_a_manifest_that_cannot_be_read_is_warned_of(manifest: bytes) -> None:
    facts = inspect_bytes(ElfFile(notes=solo5_abi(2) + manifest).build())
    assert (facts.family, facts.devices) == ("solo5", ())
    assert "the devices it insists on are not known" in facts.warnings[0]


def test_a_multiboot_image_needs_what_its_address_fields_say() -> None:
    facts = inspect_bytes(solo5(3))
    assert facts.least_file_bytes == 0x1100
    assert facts.loaded_bytes == 0x9000
    assert not facts.warnings, "this one is long enough"


@pytest.mark.parametrize("offset", [0x800, 0x802, 8140, 8144, 8192])
def test_multiboot_headers_count_where_qemu_looks(offset: int) -> None:
    header = multiboot(3)
    image = ElfFile(bits=32, machine=I386, code=bytes(0x2000)).build()
    image = image[:offset] + header + image[offset + len(header) :]
    found = Entry.MULTIBOOT in inspect_bytes(image).entries
    assert found == (offset % 4 == 0 and offset < 8144)


def test_a_wrong_multiboot_checksum_does_not_count() -> None:
    header = bytearray(multiboot(3))
    header[8] ^= 1
    assert not inspect_bytes(ElfFile(bits=32, machine=I386, early=bytes(header)).build()).entries


@pytest.mark.parametrize(
    ("notes", "entries"),
    [
        (pv_notes(b"x"), {PV}),
        (xen(5, b"xen-3.0\0"), {PV}),
        (xen(18, bytes(4)), {PVH}),
        (xen(18, bytes(8)), {PVH}),
        (xen(18, b""), set()),
        (note(b"name", 18, bytes(4)), set()),
        (note(b"Other", 9, bytes(5)) + PVH32, {PVH}),
        (PVH32 + b"\4\0\0\0\xff\xff\xff\xff", {PVH}),
        (b"\4\0\0\0\xff\xff\xff\xff" + PVH32, set()),
    ],
)
def test_xen_notes(notes: bytes, entries: set[Entry]) -> None:
    assert inspect_bytes(ElfFile(notes=notes).build()).entries == entries


def test_xen_reads_section_notes_only_if_no_segment_has_any() -> None:
    image = ElfFile(notes=xen(6, b"first\0"), section_notes=PVH32 + xen(6, b"second\0"))
    facts = inspect_bytes(image.build())
    assert (facts.guest_os, facts.entries) == ("first", frozenset())


def test_a_cut_off_elf_says_both_numbers_and_what_it_needs() -> None:
    facts = facts_of("ELF cut off in its segments")
    assert facts.least_file_bytes == 4160
    assert "4160" in facts.unusable
    assert "4112" in facts.unusable


@pytest.mark.parametrize(
    ("missing", "cut_off"), [(0, False), (15, False), (16, True), (4096, True)]
)
def test_a_bzimage_may_end_within_its_last_paragraph(missing: int, cut_off: bool) -> None:
    image = bzimage(payload=8192)
    facts = inspect_bytes(image[: len(image) - missing])
    assert facts.unusable.startswith("cut off") == cut_off


@pytest.mark.parametrize("version", [b"\xff\xfe", b"x" * 2000])
def test_an_illegible_kernel_version_is_not_repeated(version: bytes) -> None:
    facts = inspect_bytes(bzimage(version))
    assert (facts.guest_os, facts.evidence) == ("", "boot protocol 2.15")


def test_names_in_images_cannot_write_to_a_terminal() -> None:
    notes = xen(6, b"\x1b[2Jevil\r\n\0") + PVH32
    assert inspect_bytes(ElfFile(notes=notes).build()).guest_os.isprintable()
    overlay = qcow2(boot_disk(), backing=b"\x1b]0;evil\7")
    assert inspect_bytes(overlay).warnings[0].isprintable()


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (24, (2**60).to_bytes(8, "big"), "too large for QEMU: 1152921504606846976 bytes"),
        (36, (2**22 + 1).to_bytes(4, "big"), "too large for QEMU"),
        (36, bytes(4), "its L1 table is too small for its disk"),
    ],
)
def test_a_qcow2_that_qemu_would_not_open_cannot_be_started(
    at: int, value: bytes, why: str
) -> None:
    image = qcow2(boot_disk())
    assert why in inspect_bytes(image[:at] + value + image[at + len(value) :]).unusable


# --- how much is read and unpacked ----------------------------------------------------------------


def test_a_large_kernel_is_not_read_whole() -> None:
    image = ElfFile(
        notes=pv_notes(b"linux") + PVH32, code=bytes(20_000_000), sections=[("__ksymtab", b"")]
    )
    source = Source.of_bytes(image.build())
    assert inspect_source(source).family == "linux"
    assert source.bytes_read < 300_000


def test_a_gzip_file_is_unpacked_up_to_a_ratio() -> None:
    notes = PVH32 + pv_notes(b"linux")
    bomb = gzip.compress(ElfFile(notes=notes, code=bytes(300_000_000 // 10)).build(), mtime=0)
    facts = inspect_bytes(bomb)
    assert len(bomb) * 1000 > 29_000_000, "it is a bomb"
    assert "only the first 1048576 bytes" in facts.warnings[0]
    assert not facts.unusable.startswith("cut off"), "nothing is known of its end"


def test_of_a_large_initramfs_only_the_beginning_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = gzip.compress(b"070701" + os.urandom(2_000_000), mtime=0)
    source = Source.of_bytes(packed)
    assert inspect_source(source).format is Format.CPIO
    assert source.bytes_read < 600_000


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [inspect, Inspector()])
def test_what_cannot_be_read_is_named(tmp_path: Path, ask: Callable[[Path], ImageFacts]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ImageNotFound, match=r"nowhere: no such file; .*edgewake image build"):
        ask(tmp_path / "nowhere")
    for name in ("", "fifo", "loop", "nul\0byte", "x" * 5000):
        with pytest.raises(ImageNotFound, match="cannot be read: "):
            ask(tmp_path / name)
    with pytest.raises(ImageNotFound, match="neither a regular file nor a block device"):
        ask(Path("/dev/zero"))


def test_a_file_that_shrinks_while_it_is_read_is_short_not_fatal() -> None:
    data = SPECIMENS["mirage virtio"]
    source = Source(len(data), lambda length, offset: data[:3000][offset : offset + length])
    assert inspect_source(source).file_bytes == len(data)


def test_a_read_error_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    path = tmp_path / "image"
    path.write_bytes(SPECIMENS["hello"])
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ImageNotFound, match="Input/output error"):
        inspect(path)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that were just written be remembered at once."""
    monkeypatch.setattr(inspecting, "RACY_NS", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows by the path of every file that is opened to be inspected."""
    paths: list[Path] = []
    real = inspecting._read

    def read(path: Path) -> object:
        paths.append(path)
        return real(path)

    monkeypatch.setattr(inspecting, "_read", read)
    return paths


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    inspector, path, link = Inspector(), tmp_path / "image", tmp_path / "link"
    path.write_bytes(SPECIMENS["hello"])
    link.symlink_to(path)
    assert {inspector(each) for each in (path, path, link)} == {facts_of("hello")}
    assert reads == [path]


@pytest.mark.usefixtures("settled")
def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    inspector, path = Inspector(), tmp_path / "image"
    for name in ("hello", "script", "hello"):
        path.write_bytes(SPECIMENS[name])
        assert inspector(path) == facts_of(name)
    (tmp_path / "new").write_bytes(SPECIMENS["cpio"])
    (tmp_path / "new").rename(path)
    assert inspector(path).format is Format.CPIO
    assert len(reads) == 4


def test_a_file_that_has_just_changed_is_not_remembered_yet(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "RACY_NS", 3600 * 10**9)
    inspector, path = Inspector(), tmp_path / "image"
    path.write_bytes(SPECIMENS["hello"])
    inspector(path)
    inspector(path)
    assert len(reads) == 2


@pytest.mark.usefixtures("settled")
def test_it_forgets_the_file_asked_for_longest_ago(tmp_path: Path, reads: list[Path]) -> None:
    inspector = Inspector(most=2)
    first, second, third = (tmp_path / name for name in "abc")
    for path in (first, second, third):
        path.write_bytes(SPECIMENS["script"])
    for path in (first, second, first, third):
        inspector(path)
    assert reads == [first, second, third]
    inspector(first)
    assert len(reads) == 3
    inspector(second)
    assert len(reads) == 4


@pytest.mark.usefixtures("settled")
def test_many_threads_may_ask(tmp_path: Path) -> None:
    names = list(KINDS)[:40]
    for name in names:
        (tmp_path / name).write_bytes(SPECIMENS[name])
    inspector = Inspector(most=7)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: inspector(tmp_path / name), names * 10))
    assert found == [facts_of(name) for name in names] * 10
