"""Tells this machine's ARP table about a guest that is just booting, so that nothing waits for ARP.

A SYN to an address the kernel does not know waits for an ARP reply; a request that is sent while
the guest boots is lost, and the next one follows a second later. We know the MAC: with an entry in
state STALE (no ATF_PERM, see arp(7)) packets leave at once, and the kernel checks and drops the
entry by itself like any it learned. All of it is best effort: without CAP_NET_ADMIN, or for an
address that is not on a local network, nothing happens but a slower first answer.
"""

import fcntl
import socket
import struct
from ipaddress import IPv4Address

_SIOCDARP = 0x8953  # linux/sockios.h
_SIOCSARP = 0x8955
_ARPHRD_ETHER = 1
_ATF_COM = 0x02  # linux/if_arp.h: the hardware address is valid
_ARPREQ = struct.Struct("=H2x4s8xH14si16s16s")  # struct arpreq: pa, ha, flags, netmask, device


def hint(address: IPv4Address, mac: str) -> bool:
    """Note which MAC an address on a local network has; return whether that was possible.

    The network is found by the kernel's routes. Calling it again, also for an entry whose check
    has failed meanwhile, makes the entry usable again.
    """
    return _ioctl(_SIOCSARP, address, bytes.fromhex(mac.replace(":", "")), _ATF_COM)


def forget(address: IPv4Address) -> bool:
    """Drop what is known of an address; return whether there was anything to drop."""
    return _ioctl(_SIOCDARP, address, b"", 0)


def _ioctl(request: int, address: IPv4Address, mac: bytes, flags: int) -> bool:
    entry = _ARPREQ.pack(socket.AF_INET, address.packed, _ARPHRD_ETHER, mac, flags, b"", b"")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, request, entry)
        except OSError:
            return False
    return True
