"""A network interface whose packets come to us: a TUN device that is gone when we are.

See the kernel's Documentation/networking/tuntap.rst. The device is not persistent: when its file
is closed, by us or by our death, the kernel removes it and all routes to it.
"""

import fcntl
import os
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

from orchestrator.guards.held import EACH_PACKETS
from orchestrator.guards.netlink import set_up

NAME = "ewguard%d"  # the kernel puts a number in

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_UP = 1  # linux/if.h IFF_UP
_NO_ADDRESS = "1"  # addr_gen_mode (ip-sysctl.rst): no link-local address, so no chatter
_CONF6 = Path("/proc/sys/net/ipv6/conf")
_MOST_BYTES = 65536
_QUEUE = EACH_PACKETS  # what the kernel keeps until it is read here; 500 by default


class Tun:
    """A TUN device that is up. Making one raises OSError.

    It is `lost` once somebody else has removed it.
    """

    def __init__(self, mtu: int, alias: str) -> None:
        self.lost = False
        with ExitStack() as failing:
            self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            failing.callback(os.close, self._file)
            wish = struct.pack("16sH22x", NAME.encode(), _IFF_TUN | _IFF_NO_PI)
            made = fcntl.ioctl(self._file, _TUNSETIFF, wish)
            self.name = made[:16].rstrip(b"\0").decode()
            self.index = socket.if_nametoindex(self.name)
            with suppress(OSError):  # a kernel without IPv6
                (_CONF6 / self.name / "addr_gen_mode").write_text(_NO_ADDRESS)
            set_up(self.index, mtu, _QUEUE, alias)
            failing.pop_all()

    def fileno(self) -> int:
        """Return the file that is readable when a packet is there."""
        return self._file

    def is_up(self) -> bool:
        """Return whether the device is there and on: anybody with the rights can take it away."""
        try:
            flags = int(Path(f"/sys/class/net/{self.name}/flags").read_text(), 16)
        except OSError:
            return False
        return bool(flags & _UP) and not self.lost

    def read(self) -> bytes | None:
        """Return the next packet; None if there is none now, or never again (`lost`)."""
        try:
            return os.read(self._file, _MOST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            self.lost = True
            return None

    def close(self) -> None:
        """Have the kernel remove the device."""
        os.close(self._file)
