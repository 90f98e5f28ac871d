"""The user-space end of TAP devices: opened by name in a namespace, then usable without rights.

For programs that are a wire between devices. Whoever has the file needs no capability to read and
write frames, to say what may come whole (`offload`) and whether the cable is in (`set_carrier`),
so it can be handed to a process that has none. An open file keeps the namespace it was opened in.
Frames have a header before them (`HEADER_BYTES`; linux/virtio_net.h struct virtio_net_hdr), with
which checksums stay to be done and segments to be cut. Every OSError raised names the device.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST, ENODEV

DEVICE = "/dev/net/tun"
HEADER_BYTES = 10

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST = 0x4004_54CA, 0x4004_54CB
_TUNSETOFFLOAD, _TUNSETCARRIER = 0x4004_54D0, 0x4004_54E2
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_CSUM, _TSO = 0x01, 0x02 | 0x04 | 0x08  # TUN_F_CSUM; TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN
_SIOCSIFTXQLEN = 0x8943  # linux/sockios.h

_IFREQ_FLAGS = struct.Struct("16sH22x")
_IFREQ_INT = struct.Struct("16si20x")


def attach(name: str, queue: int) -> int:
    """Open a device of the calling thread's namespace; return its file, non-blocking.

    `queue` is how many frames the kernel keeps for a reader that is late. Raises OSError: ENODEV
    if there is no such device (it is never made), EBUSY if somebody has it open.
    """
    with _named(name):
        socket.if_nametoindex(name)  # TUNSETIFF would make one, gone when its file is closed
        tap = _open(name)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                request = _IFREQ_INT.pack(name.encode(), queue)
                fcntl.ioctl(any_socket, _SIOCSIFTXQLEN, request)
        except BaseException:
            os.close(tap)
            raise
    return tap


def make(name: str) -> None:
    """Make a device in the calling thread's namespace, down, that stays until it is removed.

    FileExistsError if there is one of that name. (pyroute2 would make it in the namespace of the
    thread, not in that of its socket.)
    """
    with _named(name):
        if name in (known for _, known in socket.if_nameindex()):
            raise OSError(EEXIST, os.strerror(EEXIST))
        tap = _open(name)
        try:
            keep(tap)
        finally:
            os.close(tap)


def make_passing(name: str) -> int:
    """Make a device in the calling thread's namespace that is gone when its file is closed."""
    with _named(name):
        return _open(name)


def keep(tap: int) -> None:
    """Let a device stay when its file is closed."""
    fcntl.ioctl(tap, _TUNSETPERSIST, 1)


def offload(tap: int, *, segments: bool) -> None:
    """Say that checksums may stay undone and, with `segments`, that TCP may come in 64 KiB."""
    fcntl.ioctl(tap, _TUNSETOFFLOAD, _CSUM | (_TSO if segments else 0))


def set_carrier(tap: int, *, on: bool) -> None:
    """Put the cable in, or pull it: without one, the kernel sends nothing to the device."""
    fcntl.ioctl(tap, _TUNSETCARRIER, struct.pack("i", on))


def _open(name: str) -> int:
    tap = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tap, _TUNSETIFF, _IFREQ_FLAGS.pack(name.encode(), flags))
    except BaseException:
        os.close(tap)
        raise
    return tap


@contextmanager
def _named(device: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        number = error.errno or ENODEV  # if_nametoindex tells none
        raise OSError(number, os.strerror(number), device) from error
