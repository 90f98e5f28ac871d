"""What an ELF file is as an image: its ways in, its family, and why it cannot start if it cannot.

The ways in are those that QEMU's and Xen's loaders will really take, in QEMU's order: multiboot
first (hw/i386/multiboot.c), and if its header is one QEMU refuses it never gets to the PVH note.
"""

from collections.abc import Callable
from dataclasses import dataclass

from images import elf as elves
from images import multiboot, solo5, xen_notes
from images.elf import Elf
from images.facts import Architecture, Entry, Format, ImageFacts
from images.marks import Look, Mark, mark_of, unikraft_platform
from images.source import Source

SOLO5_INTERPRETER = "/nonexistent/solo5/"
X86_64_WITHOUT_ADDRESSES = (
    "QEMU refuses its multiboot header, which has no address fields in an x86-64 file: make it an "
    "ELF32 file or add the fields"
)

_ARCHITECTURES = {
    3: Architecture.X86,
    62: Architecture.X86_64,
    40: Architecture.ARM,
    183: Architecture.AARCH64,
    243: Architecture.RISCV64,
}
_X86 = (Architecture.X86, Architecture.X86_64)
_GNU_ABI_TAG = 1  # NT_GNU_ABI_TAG: the first word is the operating system, 0 is Linux
_NO_LOADER = frozenset({Entry.MULTIBOOT2, Entry.MUEN, Entry.GENODE})


@dataclass(frozen=True, slots=True)
class _Finding:
    """All that is known of an image before it is judged."""

    look: Look
    mark: Mark | None
    entries: frozenset[Entry]
    whole: bool

    @property
    def elf(self) -> Elf:
        return self.look.elf

    @property
    def family(self) -> str:
        return self.mark.family if self.mark else ""


def elf_facts(source: Source, *, whole: bool = True) -> ImageFacts | None:
    """Return what an ELF file is, None if it is none.

    `whole` is False when `source` is only the beginning of a file: nothing is then called cut off.
    """
    if source.read(0, 4) != elves.MAGIC:
        return None
    elf = elves.parse(source)
    if elf is None:
        return ImageFacts(
            source.size, format=Format.ELF, unusable="its ELF header is damaged or cut off"
        )
    look = _look(source, elf)
    entries, warnings = _ways_in(look)
    finding = _Finding(look, mark_of(look), entries, whole)
    return _facts(finding, warnings)


def _look(source: Source, elf: Elf) -> Look:
    segment_notes = elves.segment_notes(source, elf)
    section_notes = elves.section_notes(source, elf)
    notes = (*segment_notes, *section_notes)
    return Look(
        source=source,
        elf=elf,
        notes=notes,
        xen=xen_notes.read(source, elf, segment_notes, section_notes),
        solo5=solo5.read(notes),
        multiboot=multiboot.find(source),
    )


def _facts(finding: _Finding, warnings: list[str]) -> ImageFacts:
    look, mark, elf = finding.look, finding.mark, finding.elf
    header = look.multiboot if Entry.MULTIBOOT in finding.entries else None
    if finding.whole:
        warnings += _shortness(look, header)
    return ImageFacts(
        file_bytes=look.source.size,
        format=Format.ELF,
        architecture=_ARCHITECTURES.get(elf.machine, Architecture.OTHER),
        bits=elf.bits,
        entries=finding.entries,
        family=finding.family,
        evidence=mark.evidence if mark else _plain_evidence(finding),
        guest_os=(mark.guest_os if mark else "") or look.xen.guest_os,
        solo5_target=look.solo5.target if look.solo5 else "",
        devices=look.solo5.devices if look.solo5 else (),
        least_file_bytes=max(elf.file_end, header.file_end if header else 0),
        loaded_bytes=max(elf.loaded_bytes, header.loaded_bytes if header else 0),
        options=mark.options if mark else frozenset(),
        warnings=tuple(warnings),
        unusable=next(filter(None, (rule(finding) for rule in _RULES)), ""),
    )


def _plain_evidence(finding: _Finding) -> str:
    return "ELF file without a mark of a known family" if finding.entries else "ELF file"


def _ways_in(look: Look) -> tuple[frozenset[Entry], list[str]]:
    """Return the ways in and what is to be said of them."""
    if look.elf.machine not in (elves.MACHINE_386, elves.MACHINE_X86_64):
        return frozenset(), []
    if look.solo5 is not None and look.solo5.target in solo5.TENDERS:
        return frozenset({solo5.TENDERS[look.solo5.target]}), list(look.solo5.warnings)
    entries, warnings = set[Entry](), list(look.solo5.warnings) if look.solo5 else []
    refused = _multiboot_refusal(look)
    if refused:
        warnings.append(refused)
    elif look.multiboot and not (look.solo5 and look.solo5.target == "xen"):
        entries.add(Entry.MULTIBOOT)
    if multiboot.has_multiboot2(look.source):
        entries.add(Entry.MULTIBOOT2)
    if look.xen.pv:
        entries.add(Entry.XEN_PV)
    if look.xen.pvh:
        for_qemu = look.xen.pvh_for_qemu and not refused
        entries.add(Entry.PVH if for_qemu else Entry.PVH_SECTION)
    return frozenset(entries), warnings


def _multiboot_refusal(look: Look) -> str:
    """Return why QEMU will refuse the multiboot header there is, or nothing."""
    if look.multiboot is None:
        return ""
    if look.multiboot.mistake:
        return f"QEMU refuses it: {look.multiboot.mistake}"
    if look.elf.machine == elves.MACHINE_X86_64 and not look.multiboot.has_addresses:
        return X86_64_WITHOUT_ADDRESSES
    return ""


def _shortness(look: Look, header: multiboot.Multiboot | None) -> list[str]:
    """Return warnings about bytes that are missing but not fatal everywhere."""
    size, warnings = look.source.size, []
    if header and header.file_end > max(size, look.elf.file_end):
        warnings.append(multiboot.too_short(header, size))
    if look.elf.sections_end > size >= look.elf.file_end:
        warnings.append(
            f"its section headers end at byte {look.elf.sections_end} and it has {size} bytes: "
            "what only they tell is missing"
        )
    return warnings


# --- why it can be started nowhere ----------------------------------------------------------------


def _foreign(finding: _Finding) -> str:
    architecture = _ARCHITECTURES.get(finding.elf.machine, Architecture.OTHER)
    return "" if architecture in _X86 else f"built for {architecture}; edgewake starts x86 guests"


def _cut_off(finding: _Finding) -> str:
    end, size = finding.elf.file_end, finding.look.source.size
    if not finding.whole or end <= size:
        return ""
    return f"cut off: its segments end at byte {end} and it has {size} bytes; copy it again"


def _solo5_target(finding: _Finding) -> str:
    target = finding.look.solo5.target if finding.look.solo5 else ""
    if finding.entries & _NO_LOADER == finding.entries and finding.entries and target:
        return f"built for Solo5's target {target}; build it for virtio, spt or xen"
    if target.startswith("number"):
        return f"built for a Solo5 target that is not known here ({target})"
    return ""


def _unbaked(finding: _Finding) -> str:
    if finding.family != "rumprun" or finding.entries:
        return ""
    return "a Rumprun program that is not baked yet; bake it with rumprun-bake"


def _nanos_kernel(finding: _Finding) -> str:
    if finding.family != "nanos":
        return ""
    return "a Nanos kernel, which does not start by itself; give the disk image made by ops or mkfs"


def _hermit_program(finding: _Finding) -> str:
    if finding.family != "hermit" or finding.entries:
        return ""
    return (
        "a HermitOS program, which hermit-loader starts; give the loader as kernel and this file "
        "as initrd"
    )


def _firecracker(finding: _Finding) -> str:
    if finding.family != "unikraft" or finding.entries:
        return ""
    if unikraft_platform(finding.look) == "libxenplat":
        return "a Unikraft image for Xen without its Xen notes; build it again, unstripped"
    return "built for Firecracker only; build it with the multiboot or PVH option for QEMU"


def _program(finding: _Finding) -> str:
    """Say what an ELF file without any way in is instead."""
    if finding.entries:
        return ""
    if finding.elf.kind == elves.CORE:
        return "a memory dump of a process, not an image"
    if finding.elf.kind == elves.RELOCATABLE:
        module = finding.look.has_sections(".modinfo")
        return "a Linux kernel module, not a kernel" if module else "an object file; link it first"
    interpreter = _interpreter(finding.look)
    dynamic = bool(interpreter) and not interpreter.startswith(SOLO5_INTERPRETER)
    if dynamic or _is_static(finding.look):
        return (
            "a Linux program, not a kernel; put it into an initramfs and start that with the "
            "linux family"
        )
    return ""


def _interpreter(look: Look) -> str:
    for segment in look.elf.segments:
        if segment.kind == elves.INTERPRETER:
            return xen_notes.text(look.source.read(segment.offset, min(segment.file_size, 256)))
    return ""


def _is_static(look: Look) -> bool:
    """Return whether notes of the GNU or Go tool chains mark a program of Linux."""
    return any(
        (note.owner == b"GNU" and note.kind == _GNU_ABI_TAG and note.contents[:4] == bytes(4))
        or note.owner == b"Go"
        for note in look.notes
    )


def _no_way_in(finding: _Finding) -> str:
    if finding.entries == {Entry.MULTIBOOT2}:
        return "it starts by multiboot 2 only, which neither QEMU nor Xen offers its guests"
    if finding.entries:
        return ""
    if _multiboot_refusal(finding.look):
        return "QEMU refuses its multiboot header and it has no other way in"
    return "no way in: no usable multiboot header, PVH or Xen note, nor Solo5 target"


def _linux_without_entry(finding: _Finding) -> str:
    if finding.family != "linux" or finding.entries:
        return ""
    return "an unpacked Linux kernel without a PVH entry (CONFIG_PVH); take its bzImage"


_RULES: tuple[Callable[[_Finding], str], ...] = (
    _foreign,
    _cut_off,
    _solo5_target,
    _unbaked,
    _nanos_kernel,
    _hermit_program,
    _firecracker,
    _linux_without_entry,
    _program,
    _no_way_in,
)
