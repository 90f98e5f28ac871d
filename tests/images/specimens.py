"""Images made of exactly the notes, sections and headers that tell them apart, and nothing else.

`SPECIMENS` has one of each kind, by name. The numbers are those of the formats' own documents, not
those of the code under test.
"""

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

LOAD, INTERP, NOTE = 1, 3, 4
PROGBITS, STRTAB, SHT_NOTE, NOBITS = 1, 3, 7, 8
I386, X86_64, ARM, AARCH64, RISCV = 3, 62, 40, 183, 243
REL, EXEC, DYN, CORE = 1, 2, 3, 4


def note(owner: bytes, kind: int, contents: bytes, order: str = "<") -> bytes:
    """Return an ELF note, name and contents padded to four bytes."""
    name = owner + b"\0"
    header = struct.pack(order + "III", len(name), len(contents), kind)
    return header + name + bytes(-len(name) % 4) + contents + bytes(-len(contents) % 4)


def xen(kind: int, contents: bytes) -> bytes:
    return note(b"Xen", kind, contents)


PVH32, PVH64 = xen(18, struct.pack("<I", 0x100000)), xen(18, struct.pack("<Q", 0x100000))


def pv_notes(guest_os: bytes) -> bytes:
    return (
        xen(6, guest_os + b"\0")
        + xen(5, b"xen-3.0\0")
        + xen(1, struct.pack("<Q", 0))
        + xen(2, struct.pack("<Q", 0x1000))
        + xen(8, b"generic\0")
    )


def multiboot(
    flags: int = 3, *, at: int = 0, load: int = 0x100000, load_end: int = 0, bss_end: int = 0
) -> bytes:
    """Return a multiboot 1 header; with flag 16 its address fields say that `at` is its offset."""
    head = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) % 2**32)
    if not flags & 0x10000:
        return head
    return head + struct.pack("<IIIII", load + at, load, load_end, bss_end, load + 0x20)


def multiboot2() -> bytes:
    return (
        struct.pack("<IIII", 0xE85250D6, 0, 24, -(0xE85250D6 + 24) % 2**32) + b"\0\0\0\0\10\0\0\0"
    )


@dataclass(frozen=True)
class ElfFile:
    """An ELF file to be built; what is in it has the order of the fields.

    `code` is the one loaded segment and starts at byte 0x1000, at physical 1 MiB; `early` stands at
    byte 0x800, where multiboot headers are looked for.
    """

    bits: int = 64
    machine: int = X86_64
    kind: int = EXEC
    order: str = "<"
    early: bytes = b""
    code: bytes = bytes(64)
    memory_size: int = 0x4000
    notes: bytes = b""
    interpreter: bytes = b""
    sections: Sequence[tuple[str, bytes]] = ()
    section_notes: bytes = b""
    sections_shown: bool = True
    extra_segments: Sequence[tuple[int, int, int]] = field(default=())  # kind, offset, size

    def build(self) -> bytes:
        wide = self.bits == 64
        out = bytearray(0x1000)
        out[0x800 : 0x800 + len(self.early)] = self.early
        segments = [(LOAD, len(out), len(self.code), max(self.memory_size, len(self.code)))]
        out += self.code
        for kind, data in ((NOTE, self.notes), (INTERP, self.interpreter)):
            if data:
                out += bytes(-len(out) % 8)
                segments.append((kind, len(out), len(data), len(data)))
                out += data
        segments += [(kind, offset, size, size) for kind, offset, size in self.extra_segments]
        names = b"\0"
        rows = [(0, 0, 0, 0)]
        wanted = [(name, PROGBITS, data) for name, data in self.sections]
        if self.section_notes:
            wanted.append((".note", SHT_NOTE, self.section_notes))
        for name, kind, data in wanted:
            out += bytes(-len(out) % 8)
            rows.append((len(names), STRTAB if name == ".strtab" else kind, len(out), len(data)))
            names += name.encode() + b"\0"
            out += data
        rows.append((len(names), STRTAB, len(out), len(names) + len(b".shstrtab\0")))
        out += names + b".shstrtab\0"
        out += bytes(-len(out) % 8)
        sections_at = len(out) if self.sections_shown else 0
        if self.sections_shown:
            out += b"".join(self._section(*row) for row in rows)
        else:
            rows = []
        table = b"".join(self._segment(*row) for row in segments)
        header_size = 64 if wide else 52
        out[: header_size + len(table)] = (
            b"\x7fELF"
            + bytes([2 if wide else 1, 1 if self.order == "<" else 2, 1])
            + bytes(9)
            + struct.pack(self.order + "HHI", self.kind, self.machine, 1)
            + struct.pack(
                self.order + ("QQQ" if wide else "III"), 0x100000, header_size, sections_at
            )
            + struct.pack(
                self.order + "IHHHHHH",
                0,
                header_size,
                56 if wide else 32,
                len(segments),
                64 if wide else 40,
                len(rows),
                max(len(rows) - 1, 0),
            )
            + table
        )
        return bytes(out)

    def _segment(self, kind: int, offset: int, size: int, memory: int) -> bytes:
        address = 0x100000 + offset - 0x1000
        if self.bits == 64:
            return struct.pack(
                self.order + "IIQQQQQQ", kind, 7, offset, address, address, size, memory, 4
            )
        return struct.pack(
            self.order + "IIIIIIII", kind, offset, address, address, size, memory, 7, 4
        )

    def _section(self, name: int, kind: int, offset: int, size: int) -> bytes:
        if self.bits == 64:
            return struct.pack(
                self.order + "IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0
            )
        return struct.pack(self.order + "IIIIIIIIII", name, kind, 0, 0, offset, size, 0, 0, 1, 0)


# --- Solo5 ----------------------------------------------------------------------------------------

SOLO5_INTERPRETER = b"/nonexistent/solo5/\0"
OPENBSD = note(b"OpenBSD", 1, bytes(4))


def solo5_abi(target: int) -> bytes:
    return note(b"Solo5", 0x31494241, struct.pack("<IIII", target, 2, 0, 0))


def solo5_manifest(*devices: tuple[bytes, int], version: int = 1) -> bytes:
    entries = [(b"", 1 << 30), *devices]
    table = b"".join(struct.pack("<68sI32x", name, kind) for name, kind in entries)
    return note(b"Solo5", 0x3154464D, struct.pack("<4xII", version, len(entries)) + table)


def solo5(target: int, *devices: tuple[bytes, int], **more: object) -> bytes:
    """Return a Solo5 image of a target: 1 hvt, 2 spt, 3 virtio, 4 muen, 5 genode, 6 xen."""
    code = bytes(64)
    early, notes = b"", OPENBSD + solo5_abi(target) + solo5_manifest(*devices)
    if target in {3, 6}:
        early = multiboot(0x10003, at=0x800, load_end=0x100000 + 0x1100, bss_end=0x100000 + 0x9000)
    if target == 6:
        notes += PVH32
    image = ElfFile(
        early=early,
        notes=notes,
        interpreter=SOLO5_INTERPRETER,
        **{"code": code, **more},  # type: ignore[arg-type]
    )
    return image.build()


NET, BLOCK = (b"service", 2), (b"storage", 1)

# --- Linux kernels --------------------------------------------------------------------------------


def bzimage(
    version: bytes = b"6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian",
    *,
    protocol: int = 0x20F,
    payload: int = 4096,
) -> bytes:
    """Return a bzImage with one setup sector beyond the first and a payload of zeros."""
    image = bytearray(1024 + payload)
    image[0x1F1] = 1
    struct.pack_into("<I", image, 0x1F4, (payload + 15) // 16)
    image[510:512] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<H", image, 0x236, 0x7F)
    struct.pack_into("<I", image, 0x260, 0x3000000)
    if version:
        struct.pack_into("<H", image, 0x20E, 0x100)
        image[0x300 : 0x300 + len(version) + 1] = version + b"\0"
    return bytes(image)


def at(offset: int, magic: bytes, size: int = 4096) -> bytes:
    """Return zeros with some bytes at an offset."""
    return bytes(offset) + magic + bytes(max(0, size - offset - len(magic)))


# --- disks ----------------------------------------------------------------------------------------


def boot_disk(
    *partitions: tuple[int, int, int, int],
    code: bytes = b"\xfa\x31\xc0",
    size: int = 128 * 512,
    files: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """Return a disk with a master boot record; a partition is active, type, first, count."""
    disk = bytearray(size)
    disk[: len(code)] = code
    for index, (active, kind, first, count) in enumerate(partitions):
        struct.pack_into("<B3xB3xII", disk, 446 + 16 * index, active, kind, first, count)
    disk[510:512] = b"\x55\xaa"
    for offset, data in files:
        disk[offset : offset + len(data)] = data
    return bytes(disk)


NANOS_DISK = boot_disk(
    (0x80, 0x83, 1, 0x66), (0, 0x83, 0x67, 25), files=[(0xCE00, b"NVMTFS\x05\x80")]
)
OSV_DISK = boot_disk((0, 0x83, 64, 64), code=b"\xea\x5e\x7c", files=[(0x1B8, b"VSO\0\0\0")])
GPT_DISK = boot_disk((0, 0xEE, 1, 127), code=b"", files=[(512, b"EFI PART")])


def qcow2(
    disk: bytes,
    *,
    version: int = 3,
    backing: bytes = b"",
    features: int = 0,
    encryption: int = 0,
    entry_flags: int = 0,
    cluster_bits: int = 16,
) -> bytes:
    """Return a qcow2 file with its clusters in order: header, L1, L2, data."""
    cluster = 1 << cluster_bits
    count = -(-len(disk) // cluster)
    header = bytearray(cluster)
    struct.pack_into(
        ">4sIQIIQIIQ", header, 0, b"QFI\xfb", version, 0, 0, cluster_bits, len(disk), encryption, 1,
        cluster,
    )  # fmt: skip
    if version == 3:
        struct.pack_into(">Q", header, 72, features)
    if backing:
        struct.pack_into(">QI", header, 8, 0x200, len(backing))
        header[0x200 : 0x200 + len(backing)] = backing
    l1 = struct.pack(">Q", (2 * cluster) | 1 << 63).ljust(cluster, b"\0")
    entries = [(3 + index) * cluster | 1 << 63 | entry_flags for index in range(count)]
    l2 = struct.pack(f">{count}Q", *entries).ljust(cluster, b"\0")
    return bytes(header) + l1 + l2 + disk.ljust(count * cluster, b"\0")


def pe(*sections: bytes) -> bytes:
    head = bytearray(0x40)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, 16, 0x22)
    return bytes(head) + coff + bytes(16) + b"".join(name.ljust(40, b"\0") for name in sections)


def tar(first_name: bytes) -> bytes:
    return first_name.ljust(257, b"\0") + b"ustar\0" + bytes(761)


# --- one of each ----------------------------------------------------------------------------------

UNIKRAFT_SECTIONS = (
    (".uk_libinfo", b"\0libkvmplat\0"),
    (".uk_bootinfo", bytes(16)),
    (".uk_inittab", bytes(8)),
)
NETDEV = (".uk_libparam_params_libuknetdev", bytes(8))
RUMPRUN_GUEST = (
    b"GUEST_OS=rumprun,XEN_VER=xen-3.0,VIRT_BASE=0x0,ELF_PADDR_OFFSET=0x0,HYPERCALL_PAGE=0x2,"
    b"LOADER=generic"
)
RUMPRUN_TUPLE = note(b"rumpkernel.org", 0x101, b"rumprun_tuple: x86_64-rumprun-netbsd\0")
RUMPRUN_SECTIONS = (("link_set_rump_components", bytes(8)), (".bootstrap", bytes(8)))
RUMPRUN_HEADER = multiboot(0x10003, at=0x800)
CPIO = b"070701" + b"0" * 104 + b"\0" * 2
MIRAGE_SYMBOLS = ((".strtab", b"\0_start\0camlStdlib__1\0"),)
OSV_SECTIONS = ((".tracepoint_patch_sites", bytes(8)), (".start32_address", bytes(4)))
LINUX_PROGRAM = ElfFile(kind=DYN, interpreter=b"/lib64/ld-linux-x86-64.so.2\0").build()

SPECIMENS: dict[str, bytes] = {
    "hello by its guest name": ElfFile(
        bits=32, machine=I386, early=multiboot(3), notes=PVH32 + xen(6, b"edgewake-hello\0")
    ).build(),
    "hello": ElfFile(
        bits=32, machine=I386, early=multiboot(3), notes=PVH32 + note(b"edgewake", 1, b"hello")
    ).build(),
    "mirage virtio": solo5(3, NET, BLOCK, sections=MIRAGE_SYMBOLS),
    "mirage virtio without symbols": solo5(3, NET, code=b"\0OCAMLRUNPARAM\0" + bytes(99)),
    "mirage xen": solo5(6, NET, sections=MIRAGE_SYMBOLS),
    "mirage spt": solo5(2, NET, sections=MIRAGE_SYMBOLS),
    "mirage hvt": solo5(1, NET, sections=MIRAGE_SYMBOLS),
    "solo5 virtio": solo5(3, NET),
    "solo5 muen": solo5(4, NET),
    "solo5 genode": solo5(5),
    "solo5 of a new target": solo5(9),
    "rumprun hw": ElfFile(
        early=RUMPRUN_HEADER, sections=RUMPRUN_SECTIONS, notes=RUMPRUN_TUPLE
    ).build(),
    "rumprun hw without sections": ElfFile(
        early=RUMPRUN_HEADER, code=b"rump kernel bare metal bootstrap\n\0", sections_shown=False
    ).build(),
    "rumprun xen": ElfFile(
        sections=[("__xen_guest", RUMPRUN_GUEST)], section_notes=RUMPRUN_TUPLE
    ).build(),
    "rumprun not baked": ElfFile(section_notes=RUMPRUN_TUPLE).build(),
    "unikraft kvm": ElfFile(
        bits=32, machine=I386, early=multiboot(3), sections=(*UNIKRAFT_SECTIONS, NETDEV)
    ).build(),
    "unikraft xen": ElfFile(
        section_notes=pv_notes(b"Unikraft"),
        sections=[(".uk_libinfo", b"\0libxenplat\0")],
    ).build(),
    "unikraft firecracker": ElfFile(sections=UNIKRAFT_SECTIONS).build(),
    "mini-os": ElfFile(section_notes=pv_notes(b"Mini-OS-x86_64")).build(),
    "mini-os pvh": ElfFile(section_notes=xen(6, b"Mini-OS\0") + PVH64).build(),
    "osv": ElfFile(bits=64, notes=PVH64 + xen(6, b"osv\0"), sections=OSV_SECTIONS).build(),
    "osv disk": qcow2(OSV_DISK),
    "osv raw disk": OSV_DISK,
    "nanos kernel": ElfFile(notes=PVH32, sections=[(".vvar", bytes(8))]).build(),
    "nanos disk": NANOS_DISK,
    "hermit": ElfFile(kind=DYN, notes=note(b"HERMIT", 0x5A00, b"\1")).build(),
    "hermit with multiboot": ElfFile(
        bits=32, machine=I386, early=multiboot(3), notes=note(b"HERMIT", 0x5A00, b"\1")
    ).build(),
    "include-os": ElfFile(
        bits=32,
        machine=I386,
        early=multiboot(3),
        sections=[(name, bytes(8)) for name in (".multiboot", ".memdisk", ".elf_symbols")],
    ).build(),
    "grub pv": ElfFile(notes=pv_notes(b"GRUB"), sections=[("mods", b""), (".xen", b"")]).build(),
    "gnu mach": ElfFile(
        section_notes=note(b"name", 6, b"GNU Mach\0"),
        sections=[("__xen_guest", b"GUEST_OS=GNU Mach,XEN_VER=xen-3.0,LOADER=generic\0")],
    ).build(),
    "other loader": ElfFile(sections=[("__xen_guest", b"GUEST_OS=x,LOADER=own")]).build(),
    "linux pvh and pv": ElfFile(notes=pv_notes(b"linux") + xen(3, bytes(8)) + PVH64).build(),
    "linux pvh only": ElfFile(notes=xen(6, b"linux\0") + xen(5, b"xen-3.0\0") + PVH64).build(),
    "linux without notes": ElfFile(
        sections=[(name, b"") for name in ("__ksymtab", "__param", ".init.text")]
    ).build(),
    "bzImage": bzimage(),
    "bzImage of 32 bits": bzimage(protocol=0x207),
    "iPXE": bzimage(b"1.0.0+git-20190125.36a4c85", protocol=0x207),
    "bzImage without a version": bzimage(b""),
    "bzImage cut off": bzimage()[:-100],
    "arm64 Image": at(0x38, b"ARM\x64"),
    "arm zImage": at(0x24, b"\x18\x28\x6f\x01"),
    "riscv Image": at(0x38, b"RSC\x05"),
    "arm64 ELF": ElfFile(machine=AARCH64).build(),
    "arm ELF": ElfFile(bits=32, machine=ARM).build(),
    "riscv ELF": ElfFile(machine=RISCV).build(),
    "big-endian ELF": ElfFile(bits=32, machine=20, order=">").build(),
    "multiboot in x86-64 without addresses": ElfFile(early=multiboot(3)).build(),
    "multiboot in the way of PVH": ElfFile(early=multiboot(3), notes=PVH32).build(),
    "multiboot with bad addresses": ElfFile(
        early=multiboot(0x10003, at=0x2000, load_end=0x100010)
    ).build(),
    "multiboot stripped": ElfFile(
        early=multiboot(0x10003, at=0x800, load_end=0x100000 + 0x100000)
    ).build(),
    "multiboot2": ElfFile(early=multiboot2()).build(),
    "pvh by sections": ElfFile(section_notes=PVH32).build(),
    "flat multiboot": at(0x40, multiboot(0x10003, at=0x40, load_end=0x101000)),
    "flat multiboot cut off": at(0x40, multiboot(0x10003, at=0x40, load_end=0x109000)),
    "linux program": LINUX_PROGRAM,
    "static program": ElfFile(notes=note(b"GNU", 1, struct.pack("<IIII", 0, 3, 2, 0))).build(),
    "go program": ElfFile(notes=note(b"Go", 4, b"id")).build(),
    "kernel module": ElfFile(kind=REL, sections=[(".modinfo", b"")]).build(),
    "object file": ElfFile(kind=REL).build(),
    "core dump": ElfFile(kind=CORE).build(),
    "unknown ELF": ElfFile().build(),
    "ELF cut off in its segments": ElfFile(early=multiboot(3), bits=32, machine=I386).build()[
        :0x1010
    ],
    "ELF cut off in its sections": ElfFile(early=multiboot(3), bits=32, machine=I386).build()[:-8],
    "ELF cut off in its header": LINUX_PROGRAM[:40],
    "bios disk": boot_disk((0x80, 0x83, 1, 100)),
    "disk without boot loader": boot_disk((0, 0x83, 1, 100), code=b""),
    "disk cut off": boot_disk((0x80, 0x83, 1, 1000)),
    "disk with odd partitions": boot_disk((0x33, 0x83, 1, 10)),
    "gpt disk": GPT_DISK,
    "gpt disk with BIOS loader": boot_disk((0, 0xEE, 1, 127), files=[(512, b"EFI PART")]),
    "ext4": at(0x438, b"\x53\xef"),
    "iso": at(0x8001, b"CD001", 40000),
    "hybrid iso": boot_disk((0x80, 0x17, 0, 100), files=[(0x8001, b"CD001")]),
    "qcow2 version 2": qcow2(boot_disk(), version=2),
    "qcow2 of small clusters": qcow2(NANOS_DISK, cluster_bits=12),
    "qcow2 overlay": qcow2(boot_disk(), backing=b"base.qcow2"),
    "qcow2 compressed": qcow2(boot_disk(), entry_flags=1 << 62),
    "qcow2 encrypted": qcow2(boot_disk(), encryption=1),
    "qcow2 with a data file": qcow2(boot_disk(), features=1 << 2),
    "qcow2 empty": qcow2(bytes(65536)),
    "qcow2 zero clusters": qcow2(boot_disk(), entry_flags=1),
    "qcow2 of version 9": qcow2(boot_disk(), version=9),
    "gzip of mini-os": gzip.compress(ElfFile(section_notes=pv_notes(b"Mini-OS")).build(), mtime=0),
    "gzip of pvh": gzip.compress(ElfFile(notes=PVH64 + pv_notes(b"linux")).build(), mtime=0),
    "gzip of multiboot": gzip.compress(
        ElfFile(bits=32, machine=I386, early=multiboot(3)).build(), mtime=0
    ),
    "gzip of bzImage": gzip.compress(bzimage(), mtime=0),
    "gzip of cpio": gzip.compress(CPIO, mtime=0),
    "gzip of gzip": gzip.compress(gzip.compress(CPIO, mtime=0), mtime=0),
    "gzip cut off": gzip.compress(LINUX_PROGRAM, mtime=0)[:-30],
    "gzip damaged": b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\xff" * 50,
    "cpio": CPIO,
    "cpio odc": b"070707" + b"0" * 100,
    "xz": b"\xfd7zXZ\0" + bytes(60),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(60),
    "script": b"#!/bin/sh\n",
    "zip": b"PK\x03\x04" + bytes(60),
    "tar": tar(b"etc/passwd"),
    "OVA": tar(b"appliance.ovf"),
    "OCI": tar(b"oci-layout"),
    "WebAssembly": b"\0asm\1\0\0\0",
    "VMDK": b"KDMV" + bytes(60),
    "EFI program": pe(b".text", b".data"),
    "unified kernel image": pe(b".osrel", b".linux", b".initrd"),
    "firmware": bytes(65536 - 16) + b"\xea\x5b\xe0\x00\xf006/23/99\0\xfc\0",
    "option ROM": b"\x55\xaa\x40" + bytes(600),
    "empty": b"",
    "noise": bytes(range(1, 256)) * 10,
}
