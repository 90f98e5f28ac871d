"""What libvirt's errors mean, and what to do about them, where that is known."""

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
_HINTS = (  # what libvirt's text contains (in lower case), and what to do about it
    ("virtlogd-sock", "start virtlogd: run `make setup`"),
    ("failed to connect socket", "start libvirtd on that host: run `make setup` there"),
    ("no connection driver", "check the URI; for this machine it is qemu:///system"),
    ("connection refused", "is the host up, and libvirtd (or ssh) listening there?"),
    ("system bus", "polkit does not run there: connect as root"),
    ("polkit", "join the group libvirt, or run as root"),
    ("authentication", "check the credentials for this URI, and that you are in group libvirt"),
    ("cannot allocate memory", "the host has too little free memory; stop a guest or lower memory"),
    ("network not found", "apply the lab first, or name a network that exists there"),
    ("is not active", "start it with `virsh net-start`"),
    ("permission denied", "QEMU's user must be able to read the image and enter its folders"),
    ("no space left", "free some there, or remove images that nothing uses"),
    (
        "remotedispatchdomainmigrate",
        "a migration that was cut off still holds it: restart libvirtd there; its guests go on",
    ),
    ("no such file", "is the image on that host? one that was sent there is sent again"),
    ("could not open", "is the image on that host, readable by QEMU's user?"),
    ("virstorage", "that libvirt has no storage driver, which images and disks need: install it"),
    ("kvm", "KVM does not work there; use virt `qemu` (`edgewake doctor` says more)"),
)


def hint(text: str) -> str:
    """Return what to do about an error text of libvirt's; empty if that is not known."""
    return next((advice for words, advice in _HINTS if words in text.lower()), "")


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
