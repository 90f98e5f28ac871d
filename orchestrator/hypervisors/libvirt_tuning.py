"""How much processor time a guest gets: its weight and its cap, set before it first runs.

What libvirt takes in a domain's XML is there already (`domain_xml`): on Xen, the weight. The rest
is set on the domain once it is built. On QEMU all of it is the business of cgroups, which a host's
libvirt may not have; that is seen when it is asked. A cap is also in the domain's metadata, because
libxl forgets it when a guest is saved.
"""

from typing import Any

import libvirt

from orchestrator.hypervisors.domain_xml import MARK_NAMESPACE, parse_cap
from orchestrator.model import Guest

PERIOD_US = 100_000  # the kernel's own default: within each, a capped guest gets its quota
_LEAST_SHARES = 2  # of cgroups v1 (kernel/sched/sched.h, MIN_SHARES)
_NO_CGROUPS = frozenset(
    {
        libvirt.VIR_ERR_OPERATION_INVALID,  # "cgroup CPU controller is not mounted"
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,  # "CPU tuning is not available in session mode"
    }
)


class NoCap(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """The host has no means to hold a guest to a cap."""


def tune_qemu(domain: libvirt.virDomain, guest: Guest) -> None:
    """Set a QEMU guest's weight and cap; without cgroups there are no weights.

    Raises `NoCap` if it is to have a cap and the host's libvirt has no cgroups for it.
    """
    if guest.cpu is None and guest.cpu_cap is None:
        return
    try:
        before: Any = domain.schedulerParameters()
        if guest.cpu is not None:
            # One core is worth what a domain is given by default: 1024 in cgroups v1, 100 in v2.
            domain.setSchedulerParameters(
                {"cpu_shares": max(_LEAST_SHARES, round(before["cpu_shares"] * guest.cpu))}
            )
        if guest.cpu_cap is not None:
            quota = round(PERIOD_US * min(guest.cpu_cap, guest.boot.vcpus))
            domain.setSchedulerParameters({"global_period": PERIOD_US, "global_quota": quota})
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_CGROUPS:
            raise
        if guest.cpu_cap is not None:
            raise NoCap from error


def cap_xen(domain: libvirt.virDomain) -> None:
    """Hold a Xen guest to the cap in its metadata, if there is one.

    Xen refuses a cap beyond a guest's virtual processors, which are a limit of their own.
    """
    cap = parse_cap(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE))
    if cap is not None:
        info: Any = domain.info()  # the binding's annotations are wrong here
        most = int(info[3])  # virtual processors
        domain.setSchedulerParameters({"cap": round(100 * min(cap, most))})  # hundredths of a core
