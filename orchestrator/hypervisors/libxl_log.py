"""Why Xen did not start a guest: read from libxl's log, because libvirt does not pass it on.

For any cause libvirt's libxl driver says "libxenlight failed to create new domain" (or "Failed to
save domain with libxenlight") and no more. The cause is in a file of dom0's, which libvirt itself
can hand out over the connection: as a volume of a storage pool on the folder of its logs. Only the
lines at the end are read, and only after a failure.

Lines name a domain by its number at most, and libvirt does not tell the number of a domain that
could not be made. So the lines of the time in which the failed call was under way are taken apart
by that number, and where several domains failed for different causes, all causes are told.

Texts are those of Xen 4.17; each but the one that says so was provoked on the test bed.
"""

import math
import re
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import libvirt

from orchestrator.hypervisors.libvirt_pool import folder_pool

OPAQUE = "libxenlight"  # in what libvirt says, whatever it was
FOLDER, FILE = "/var/log/libvirt/libxl", "libxl-driver.log"
_TAIL = 16 * 1024
_LINES = 60  # of the end; one failure takes up to six
_SLACK_S = 0.1  # the latest line may be another's, written after ours
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})\+0000: ")
_END = re.compile(r": Domain (\d+):|: (cannot make domain): ")  # of what is told of one domain

_MORE_MEMORY = "give its service more memory"
_LESS_MEMORY = "the host has too little free memory; stop a guest or lower memory"
_CAUSES = (  # what a line contains, what that means, and what to do about it
    (r"segment \S+ too large|not enough memory for initial mapping",
     "its memory is too small for its kernel", _MORE_MEMORY),
    # Seen with a MirageOS guest of 16 MiB, by others.
    (r"xc_dom_build_image failed: Device or resource busy",
     "its memory is too small to be built", _MORE_MEMORY),
    (r"can't allocate low memory|xc_dom_boot_mem_init failed",
     "Xen has too little free memory for it", _LESS_MEMORY),
    (r"Failed to set paging mempool size",
     "Xen has too little memory for it", _LESS_MEMORY),
    (r"failed to open file '([^']*)': No such file", "there is no file {0} in dom0",
     "is the image on that host? one that was sent there is sent again"),
    (r"failed to stat: (.*): No such file", "there is no disk {0} in dom0",
     "is the image on that host? one that was sent there is sent again"),
    (r"device model did not start|Please install the qemu-system-xen package",
     "a disk of it is of a format that only QEMU reads, and dom0 has no QEMU",
     "there: apt install qemu-system-xen; or make the disk raw: qemu-img convert -O raw"),
    (r"domain creation fail: Cannot allocate memory",
     "Xen has too little free memory for it", _LESS_MEMORY),
    (r"No space left on device", "the disk there is full",
     "free some, or give edgewake's folder there a file system of its own"),
    (r"Invalid kernel|XEN_ELFNOTE|no loader found",
     "Xen finds no way into this kernel", "`edgewake image inspect` says what it can be booted by"),
    (r"script: (.*ridge.*)", "its network card could not be plugged in: {0}",
     "name a bridge that exists there"),
    (r"script: (.*)", "its network card could not be plugged in: {0}",
     "see /var/log/xen/xen-hotplug.log there"),
    (r"killing execution of (\S+) \S* ?because of timeout",
     "its network card was not plugged in in time by {0}",
     "is that host overloaded? see /var/log/xen/xen-hotplug.log there"),
    (r"(/\S+) (?:online|add) \[\d+\] exited with error status (\d+)",
     "{0}, which plugs in its network card, failed with status {1}",
     "can it be run as a program there? see /var/log/xen/xen-hotplug.log"),
)  # fmt: skip


def cause(log: str, took_s: float = math.inf) -> tuple[str, str]:
    """Return what libxl complained of in the last `took_s` of its log, and what to do about it.

    A complaint that is not in the table is returned in libxl's own words, without advice; both are
    empty where nothing is written. Causes of several domains are told in one sentence.
    """
    found = dict(_meaning(told) for told in _by_domain(_recent(log, took_s)))
    known = {meaning: advice for meaning, advice in found.items() if advice} or found
    if len(known) < 2:
        return next(iter(known.items()), ("", ""))
    why = "; or ".join(known)
    return f"several failed there at once, and it is one of: {why}", "; or ".join(known.values())


def _recent(log: str, took_s: float) -> list[str]:
    """Return the lines of the last so many seconds, and those that have no time."""
    lines = log.splitlines()[-_LINES:]
    if took_s == math.inf:
        return lines
    times = [_time(line) for line in lines]
    latest = max((time for time in times if time is not None), default=None)
    if latest is None:
        return lines
    begins = latest - timedelta(seconds=took_s + _SLACK_S)
    return [line for line, at in zip(lines, times, strict=True) if at is None or at >= begins]


def _time(line: str) -> datetime | None:
    stamped = _STAMPED.match(line)
    return datetime.fromisoformat(stamped[1]) if stamped else None


def _by_domain(lines: list[str]) -> list[list[str]]:
    """Return what is told of each domain: lines up to one that names it, and those with it."""
    told: dict[str, list[str]] = {}
    before: list[str] = []
    for line in lines:
        before.append(line)
        if end := _END.search(line):
            told.setdefault(end[1] or line, []).extend(before)
            before = []
    return [*told.values(), before] if before else [*told.values()]


def _meaning(lines: list[str]) -> tuple[str, str]:
    """Return what the latest of these lines means that means anything."""
    for line in reversed(lines):
        for pattern, meaning, advice in _CAUSES:
            if match := re.search(pattern, line):
                return meaning.format(*match.groups()), advice
    return lines[-1].partition(": ")[2], ""  # without the time


def read_tail(conn: libvirt.virConnect) -> str:
    """Return the end of libxl's log; empty if this libvirt cannot hand it out."""
    with suppress(libvirt.libvirtError):
        return _read(conn).decode(errors="replace")
    return ""


def _read(conn: libvirt.virConnect) -> bytes:
    volume = folder_pool(conn, "edgewake-libxl-log", FOLDER).storageVolLookupByName(FILE)
    info: Any = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)  # the annotation is wrong
    size = int(info[2])
    stream, read = conn.newStream(), b""
    volume.download(stream, max(0, size - _TAIL), 0)
    while piece := stream.recv(_TAIL):
        read += piece
    stream.finish()
    return read
