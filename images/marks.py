"""Tells the family of an ELF image by its marks: notes, section names, strings that builds leave.

One small function per family, asked in the order of `_MARKS`, the surest marks first. The marks
were seen on real images of each family, or stand in the sources named.
"""

from collections.abc import Callable
from dataclasses import dataclass

from images.elf import Elf, Note
from images.multiboot import Multiboot
from images.solo5 import Solo5
from images.source import Source
from images.xen_notes import PHYS32_ENTRY, SECTION, XenNotes

HELLO_OWNER, HELLO_TYPE = b"edgewake", 1
HERMIT_OWNER, HERMIT_TYPE = b"HERMIT", 0x5A00  # hermit-entry crate
RUMPRUN_OWNER, RUMPRUN_TYPE = b"rumpkernel.org", 0x101

MOST_SCANNED_BYTES = 16 * 1024 * 1024
MOST_INFO_BYTES = 64 * 1024
MOST_SYMBOL_BYTES = 4 * 1024 * 1024
_RUMPRUN_STRING = b"rump kernel bare metal"
_OCAML_SYMBOL = b"\0caml"
# The first is in every OCaml runtime (runtime/startup_aux.c), the second only where a program says
# so; a stripped image has no better mark.
_MIRAGE_STRINGS = (b"OCAMLRUNPARAM", b"MirageOS")
_UNIKRAFT_SECTIONS = (".uk_libinfo", ".uk_bootinfo", ".uk_inittab")
UNIKRAFT_NETDEV = ".uk_libparam_params_libuknetdev"


@dataclass(frozen=True, slots=True)
class Look:
    """An ELF image as its parsers saw it."""

    source: Source
    elf: Elf
    notes: tuple[Note, ...]
    xen: XenNotes
    solo5: Solo5 | None
    multiboot: Multiboot | None

    def has_note(self, owner: bytes, kind: int) -> bool:
        """Return whether it has a note of that owner and type."""
        return any(note.owner == owner and note.kind == kind for note in self.notes)

    def has_sections(self, *names: str) -> bool:
        """Return whether it has sections of all these names."""
        return self.elf.section_names >= {name.encode() for name in names}


@dataclass(frozen=True, slots=True)
class Mark:
    """A family, or only a name in `guest_os` for what is no family of ours, and the evidence."""

    family: str
    evidence: str
    guest_os: str = ""
    options: frozenset[str] = frozenset()


def mark_of(look: Look) -> Mark | None:
    """Return the first family whose marks the image has."""
    marks = (mark(look) for mark in _MARKS)
    return next((mark for mark in marks if mark is not None), None)


def _hello(look: Look) -> Mark | None:
    if look.has_note(HELLO_OWNER, HELLO_TYPE):
        return Mark("hello", "edgewake note")
    return _by_guest_os(look, "edgewake-hello", "hello")


def _solo5(look: Look) -> Mark | None:
    if look.solo5 is None:
        return None
    evidence = f"Solo5 ABI note: target {look.solo5.target}"
    ocaml = _ocaml(look)
    return Mark("mirage", f"{evidence}; {ocaml}") if ocaml else Mark("solo5", evidence)


def _ocaml(look: Look) -> str:
    """Return by which mark a Solo5 image is an OCaml program, which makes it MirageOS."""
    names = look.elf.section(b".strtab")
    if names and look.source.find(
        (_OCAML_SYMBOL,), names.offset, min(names.size, MOST_SYMBOL_BYTES)
    ):
        return "OCaml symbols"
    found = _find(look, _MIRAGE_STRINGS)
    return f"string {found.decode()}" if found else ""


def _hermit(look: Look) -> Mark | None:
    return Mark("hermit", "HERMIT note") if look.has_note(HERMIT_OWNER, HERMIT_TYPE) else None


def _unikraft(look: Look) -> Mark | None:
    options = frozenset({"netdev.ip"} if look.has_sections(UNIKRAFT_NETDEV) else ())
    seen = [name for name in _UNIKRAFT_SECTIONS if look.has_sections(name)]
    if seen:
        platform = unikraft_platform(look)
        evidence = f"section {seen[0]}" + (f" ({platform})" if platform else "")
        return Mark("unikraft", evidence, options=options)
    return _by_guest_os(look, "Unikraft", "unikraft", options)


def unikraft_platform(look: Look) -> str:
    """Return the platform library that a Unikraft image says it has, or nothing."""
    info = look.elf.section(b".uk_libinfo")
    if info is None:
        return ""
    platforms = (b"libkvmplat", b"libxenplat")
    found = look.source.find(platforms, info.offset, min(info.size, MOST_INFO_BYTES))
    return found.decode() if found else ""


def _rumprun(look: Look) -> Mark | None:
    if look.xen.found_in == SECTION.decode() and look.xen.guest_os == "rumprun":
        return Mark("rumprun", "__xen_guest: GUEST_OS=rumprun")
    if look.has_sections("link_set_rump_components", ".bootstrap"):
        return Mark("rumprun", "section link_set_rump_components")
    if look.has_note(RUMPRUN_OWNER, RUMPRUN_TYPE):
        return Mark("rumprun", "rumpkernel.org note")
    return None


def _osv(look: Look) -> Mark | None:
    if look.has_sections(".tracepoint_patch_sites", ".start32_address"):
        return Mark("osv", "section .tracepoint_patch_sites")
    return _by_guest_os(look, "osv", "osv")


def _mini_os(look: Look) -> Mark | None:
    return _by_guest_os(look, "Mini-OS", "mini-os")


def _linux(look: Look) -> Mark | None:
    if look.has_sections("__ksymtab", "__param", ".init.text") and not look.xen.guest_os:
        return Mark("linux", "section __ksymtab", "linux")
    return _by_guest_os(look, "linux", "linux")


def _nanos(look: Look) -> Mark | None:
    if look.has_sections(".vvar") and look.xen.kinds == (PHYS32_ENTRY,):
        return Mark("nanos", "section .vvar and a PVH note only")
    return None


def _grub(look: Look) -> Mark | None:
    return Mark("", "sections mods and .xen", "GRUB") if look.has_sections("mods", ".xen") else None


def _include_os(look: Look) -> Mark | None:
    """Tell IncludeOS by the sections of its src/arch/x86_64/linker.ld."""
    if not look.has_sections(".multiboot", ".memdisk", ".elf_symbols"):
        return None
    return Mark("", "sections .memdisk and .elf_symbols", "IncludeOS")


def _rumprun_stripped(look: Look) -> Mark | None:
    if look.multiboot and _find(look, (_RUMPRUN_STRING,)):
        return Mark("rumprun", f'string "{_RUMPRUN_STRING.decode()}"')
    return None


def _other_guest_os(look: Look) -> Mark | None:
    os = look.xen.guest_os
    return Mark("", f"{look.xen.found_in}: GUEST_OS={os}", os) if os else None


def _by_guest_os(
    look: Look, start: str, family: str, options: frozenset[str] = frozenset()
) -> Mark | None:
    os = look.xen.guest_os
    if not os.startswith(start):
        return None
    return Mark(family, f"{look.xen.found_in}: GUEST_OS={os}", os, options)


def _find(look: Look, marks: tuple[bytes, ...]) -> bytes | None:
    """Look for strings in what the image loads, up to a limit."""
    left = min(MOST_SCANNED_BYTES, look.source.size)  # segments may lie on one another
    for segment in look.elf.loads:
        found = look.source.find(marks, segment.offset, min(segment.file_size, left))
        if found:
            return found
        left -= min(segment.file_size, left)
    return None


_MARKS: tuple[Callable[[Look], Mark | None], ...] = (
    _hello,
    _solo5,
    _hermit,
    _unikraft,
    _rumprun,
    _osv,
    _mini_os,
    _linux,
    _nanos,
    _grub,
    _include_os,
    _other_guest_os,
    _rumprun_stripped,
)
