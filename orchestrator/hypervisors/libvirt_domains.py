"""What is asked of one domain, or told it, as libvirt wants it: no connection, no wishes, no state.

Functions only; libvirt's errors pass through, for `libvirt_calls` to translate.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from orchestrator.hypervisors import libvirt_census as census
from orchestrator.hypervisors.domain_xml import (
    MARK_ELEMENT,
    MARK_NAMESPACE,
    MARK_PREFIX,
    SLEEP_NAMESPACE,
    SLEEP_PREFIX,
    mark_element,
    parse_cap,
    parse_mark,
)
from orchestrator.hypervisors.libvirt_errors import lookup
from orchestrator.hypervisors.libvirt_pool import files_of
from orchestrator.model import Mark

SHUTDOWN_S = 1.0  # what a guest that obeys may take to end; hello takes a few milliseconds
SHUTDOWN_POLL_S = 0.01
# The states of a domain that has ended, and is still being cleared away.
OVER = frozenset(
    {libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}
)


def state(domain: libvirt.virDomain) -> int:
    """Return a domain's state, by libvirt's number."""
    info: Any = domain.info()  # the binding's annotations are wrong here
    return int(info[0])


def standing(domain: libvirt.virDomain) -> tuple[int, int]:
    """Return a domain's state and the reason for it, by libvirt's numbers."""
    found: Any = domain.state()  # the binding's annotation is wrong here
    return int(found[0]), int(found[1])


def job_s(domain: libvirt.virDomain) -> float:
    """Return for how long a call has held a domain for itself; 0 if none does. Does not wait."""
    try:
        info: Any = domain.jobInfo()  # the binding's annotations are wrong here
    except libvirt.libvirtError:  # it is gone
        return 0.0
    held_ms = max(1, info[1])
    return 0.0 if info[0] == libvirt.VIR_DOMAIN_JOB_NONE else held_ms / 1000


def files_used(domain: libvirt.virDomain) -> frozenset[Path]:
    """Return the files that a domain uses; none if it has just ended."""
    xml = lookup(lambda _name: domain.XMLDesc(), domain.name())
    return frozenset() if xml is None else files_of(xml)


def read_mark(domain: libvirt.virDomain) -> Mark | None:
    """Return the mark on a domain; None if it has none, or has just ended."""
    try:
        return parse_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE))
    except libvirt.libvirtError as error:
        if error.get_error_code() in {
            libvirt.VIR_ERR_NO_DOMAIN,
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
        }:
            return None
        raise


def set_mark(domain: libvirt.virDomain, mark: Mark) -> None:
    """Write another mark on a domain that is there; the cap that stands beside it stays."""
    kind, where = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    element = mark_element(mark, parse_cap(domain.metadata(kind, MARK_NAMESPACE)))
    element.tag = MARK_ELEMENT  # libvirt puts the namespace there itself
    text = ET.tostring(element, encoding="unicode")
    domain.setMetadata(kind, text, MARK_PREFIX, MARK_NAMESPACE, where)


def can_hear(domain: libvirt.virDomain, *, xen: bool) -> bool:
    """Return whether a guest can hear that it is asked to end, as far as libvirt knows.

    libxl waits 60 s for a guest that does not, and whoever looks at that domain waits with it.
    After a restart libvirtd takes paused Xen guests for running ones, so their state says too
    little.
    """
    if state(domain) != libvirt.VIR_DOMAIN_RUNNING or not census.has_run(domain):
        return False
    return not xen or not census.is_asleep(domain)


def shut_down(domain: libvirt.virDomain) -> bool:
    """Ask a guest to end, and return whether it did within `SHUTDOWN_S`."""
    deadline = time.monotonic() + SHUTDOWN_S
    try:
        domain.shutdown()
        while time.monotonic() < deadline:
            if not domain.isActive():
                return True
            time.sleep(SHUTDOWN_POLL_S)
    except libvirt.libvirtError as error:
        return error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
    return False


def set_asleep(domain: libvirt.virDomain, element: str | None) -> None:
    """Write on a domain that our own `sleep` paused it, or, with None, take that away."""
    kind, where = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    text: Any = element  # the binding's annotation forgets that None is allowed
    domain.setMetadata(kind, text, SLEEP_PREFIX, SLEEP_NAMESPACE, where)


def free_mib(conn: libvirt.virConnect) -> int:
    """Return free memory, counting what the kernel gives back when asked: buffers and cache.

    On Xen it is what no domain has; dom0's own is not counted as free.
    """
    with suppress(libvirt.libvirtError):  # not every driver has these figures
        kib: Any = conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        return int(sum(kib.get(part, 0) for part in ("free", "buffers", "cached")) // 1024)
    return conn.getFreeMemory() // 2**20
