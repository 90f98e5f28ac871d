"""One live migration through libvirt: asked for, looked at while it is under way, called off.

It is we who carry it from step to step, over our connections to both hosts, so the hosts need no
rights on each other (libvirt calls that managed direct migration). Only memory goes from one to the
other, over a TCP connection of its own, in plain text. What a domain is to be like at its
destination is the business of `migrated_xml`, where its memory goes that of `migration_address`.
"""

import logging
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import libvirt

from orchestrator.hypervisors.base import Sent, Tell

LOOK_S = 0.05

log = logging.getLogger(__name__)


def carry_out(
    domain: libvirt.virDomain,
    dest: libvirt.virConnect,
    xml: str,
    *,
    uri: str,
    xen: bool,
    tell: Tell,
) -> None:
    """Migrate a domain and return when it runs at `dest`, described by `xml`.

    `uri` is where its memory is sent; empty leaves that to the destination's libvirt. Called off as
    soon as `tell` says so or the connection to `dest` is lost, where libvirt can do that: its Xen
    driver cannot. Raises `libvirtError`.
    """
    # The binding's annotation says that this is text.
    params: Any = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml}
    if uri:
        params[libvirt.VIR_MIGRATE_PARAM_URI] = uri
    # Without the second, a guest that writes faster than the network carries would never be done.
    flags = libvirt.VIR_MIGRATE_LIVE | (0 if xen else libvirt.VIR_MIGRATE_AUTO_CONVERGE)
    over = False
    with ThreadPoolExecutor(1, thread_name_prefix="migrate") as pool:
        under_way = pool.submit(domain.migrate3, dest, params, flags)
        while not wait([under_way], LOOK_S).done:
            wanted = tell(_sent(domain)) and dest.isAlive() == 1
            over = over or (not wanted and _called_off(domain))
        under_way.result()


def _sent(domain: libvirt.virDomain) -> Sent:
    with suppress(libvirt.libvirtError):
        stats: Any = domain.jobStats()
        left, total = stats.get("memory_remaining", 0), stats.get("memory_total", 0)
        return Sent(left, total) if total else Sent()
    return Sent()


def _called_off(domain: libvirt.virDomain) -> bool:
    """Ask for an end; return whether there is no use in asking again."""
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        # Before it has begun, or after it was done, there is nothing to be aborted.
        return error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT
    return True
