"""Guests of a few instructions, for tests of who gets how much: one burns time, one rests.

They boot by multiboot (QEMU) and by PVH (Xen), print nothing and never end. gcc makes them.
"""

import subprocess
from pathlib import Path

import libvirt

BURN = "jmp start"
REST = "sti; hlt; jmp start"  # nothing ever wakes it; with interrupts off, Xen would end it
_SOURCE = """
    .section .text, "ax"
    .balign 4
    .long 0x1BADB002, 0, -0x1BADB002    # multiboot
    .globl start
start:
    %s
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18                      # PHYS32_ENTRY
    .asciz "Xen"
    .long start
    .section .note.GNU-stack, "", @progbits
"""
_SCRIPT = """
ENTRY(start)
PHDRS { text PT_LOAD FLAGS(5); note PT_NOTE FLAGS(4); }
SECTIONS
{
    . = 1M;
    .text : { *(.text) } :text
    .note.Xen : { *(.note.Xen) } :text :note
    /DISCARD/ : { *(.comment) *(.note.gnu.*) *(.note.GNU-stack) }
}
"""


def build(folder: Path, does: str) -> Path:
    """Return the kernel of a guest that does `BURN` or `REST`, made in `folder`."""
    source, script, kernel = (folder / f"tiny{end}" for end in (".S", ".ld", ""))
    source.write_text(_SOURCE % does)
    script.write_text(_SCRIPT)
    link = (f"-Wl,-T,{script}", "-Wl,--build-id=none")
    subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-no-pie", *link, "-o", str(kernel), str(source)],
        check=True,
    )
    return kernel


def used_s(domain: libvirt.virDomain) -> float:
    """Return the processor time that a domain has used."""
    info: tuple[int, ...] = tuple(domain.info())  # type: ignore[arg-type]
    return info[4] / 1e9
