"""What kind of failure one of libvirt's errors is; what its text means is in `libvirt_faults`."""

from collections.abc import Callable
from typing import TypeVar

import libvirt

T = TypeVar("T")

_UNREACHABLE_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_UNREACHABLE_CODES = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    }
)


def is_unreachable(error: libvirt.libvirtError) -> bool:
    """Return whether an error means that the host cannot be talked to."""
    return (
        error.get_error_domain() in _UNREACHABLE_DOMAINS
        or error.get_error_code() in _UNREACHABLE_CODES
    )


def lookup(find: Callable[[str], T], key: str) -> T | None:
    """Return what libvirt finds, or None when it says that there is no such thing."""
    try:
        return find(key)
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK}:
            return None
        raise
