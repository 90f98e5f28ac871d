"""What Solo5's `spt` tender is told, and what it says: `BootSpec` → arguments; its end → words.

Pure, save for looking for the program. Facts are from Solo5's sources: `tenders/spt/spt_main.c`,
`spt_module_net.c`, `spt_module_block.c` for the arguments, `include/solo5.h` for exit statuses.
"""

import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from images.bootspec import BootSpec, Nic
from images.facts import Entry
from orchestrator.linux.processes import Exit

TENDER = "solo5-spt"
TENDER_VARIABLE = "EDGEWAKE_SOLO5_SPT"  # names the tender when it is not on PATH
HOW_TO_INSTALL = (
    "`opam install solo5`, or build it from https://github.com/Solo5/solo5, and put it on PATH or"
    f" name it in {TENDER_VARIABLE}"
)

_CODES = {0: "exited", 1: "failed (exit status 1)", 255: "aborted (exit status 255)"}
_HINTS = (  # what the tender's words contain, in lower case, and what to do about it
    ("could not attach", "let all users open /dev/net/tun, as on Debian: chmod 0666 /dev/net/tun"),
    ("permission denied", "let all users read image and tender, and enter the folders above them"),
    ("declared", "cards and disks must have the names that `solo5-elftool query-manifest` prints"),
    ("invalid executable", "build the image for the target `spt`"),
    ("not for the solo5-spt", "build the image for the target `spt`"),
    ("memory allocation range", "the image needs more memory"),
    ("setresuid", "this container maps no uid for guests: run edgewake outside it"),
)


def find_tender(wanted: str | None) -> str | None:
    """Return the path of the tender: the one given, else the environment's, else PATH's."""
    found = shutil.which(wanted or os.environ.get(TENDER_VARIABLE) or TENDER)
    return str(Path(found).absolute()) if found else None


def objections(boot: BootSpec) -> Iterator[tuple[str, str]]:
    """Yield why the tender cannot boot this, and what to do: what it would not say itself."""
    if boot.entry != Entry.SPT:
        yield f"solo5-spt cannot start an image by {boot.entry}", "use an image built for `spt`"
    if boot.kernel is None:
        yield "there is no kernel to load", "name the .spt file as the image's kernel"
    if not boot.nics:
        yield "the guest has no network card", "nobody could reach it: give it one"
    if not all([*(nic.name for nic in boot.nics), *(disk.name for disk in boot.disks)]):
        yield "a device has no name", "use the names of the image's Solo5 manifest"
    for disk in boot.disks:
        if disk.format != "raw":
            yield f"{disk.path}: a Solo5 disk is raw, not {disk.format}", "`qemu-img convert`"


def net_argument(nic: Nic, tap: str) -> str:
    """Return the argument that plugs a guest's card into a tap device."""
    return f"--net:{nic.name}={tap}"


def tender_argv(
    tender: str, boot: BootSpec, taps: Sequence[str], disks: Iterable[Path]
) -> list[str]:
    """Return the tender's command line, for a spec without `objections`.

    `disks` are files whose paths have no blanks: the tender would end a path there. `vcpus` is not
    told: a Solo5 guest has one processor, however much cpu its service has.
    The guest's own command line is one argument: the tender joins several with blanks and keeps no
    quotes, so only thus does a guest read exactly what it would read on any other hypervisor.
    """
    nets = [
        argument
        for nic, tap in zip(boot.nics, taps, strict=True)
        for argument in (net_argument(nic, tap), f"--net-mac:{nic.name}={nic.mac}")
    ]
    blocks = [f"--block:{disk.name}={file}" for disk, file in zip(boot.disks, disks, strict=True)]
    guest = [str((boot.kernel or Path()).absolute()), *([boot.cmdline] if boot.cmdline else [])]
    return [tender, f"--mem={boot.memory_mib}", *nets, *blocks, "--", *guest]


def exit_words(how: Exit) -> str:
    """Return how a guest ended, in words."""
    if how.signal == signal.SIGSYS:
        return "killed by SIGSYS: it made a system call that the tender forbids"
    if how.signal is not None:
        return f"killed by {signal.Signals(how.signal).name}"
    if how.code is not None:
        return _CODES.get(how.code, f"exit status {how.code}")
    return "ended"


def complaint(printed: bytes, program: str) -> str:
    """Return the first thing that the tender, or what started it, said about a start that failed.

    What it says begins with its name; the last line is the guest's when there is no such line.
    """
    lines = [line for line in printed.decode(errors="replace").splitlines() if line.strip()]
    names = tuple(f"{name}: " for name in (program, "setpriv", "prlimit"))
    own = [line for line in lines if line.startswith(names)]
    return (own or lines[-1:] or [""])[0].strip()


def hint(words: str) -> str:
    """Return what to do about a complaint of the tender's; empty if unknown."""
    return next((what for part, what in _HINTS if part in words.lower()), "")
