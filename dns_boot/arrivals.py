"""When a datagram came: the kernel's own time of it, asked for only when somebody wants to know.

A trace of a wake begins when the query reached this machine, not when a busy thread got round to
it. The kernel notes the time of what a socket received last (SIOCGSTAMPNS, socket(7)); asking costs
2 µs and is done for queries that leave the fast path. A control message with every datagram
(SO_TIMESTAMPNS) would cost each warm answer half a microsecond.
"""

import contextlib
import fcntl
import socket
import struct
import time
from typing import Protocol

_SIOCGSTAMPNS = 0x8907  # asm-generic/sockios.h
_TIMESPEC = struct.Struct("@ll")
MOST_S = 10.0  # no datagram waits for longer; it is the clock that was set


class Descriptor(Protocol):
    """Anything that has a socket's descriptor."""

    def fileno(self) -> int:
        """Return it."""
        ...


def note_arrivals(sock: socket.socket) -> None:
    """Have the kernel note when datagrams come, from a moment later on, if it can."""
    with contextlib.suppress(OSError):  # the first call asks for it, and has no time to tell yet
        fcntl.ioctl(sock, _SIOCGSTAMPNS, bytes(_TIMESPEC.size))


def arrived_at(sock: Descriptor) -> float:
    """Return the monotonic time at which what a socket received last came; else the time of now."""
    now = time.monotonic()
    try:
        stamp = fcntl.ioctl(sock, _SIOCGSTAMPNS, bytes(_TIMESPEC.size))
    except OSError:
        return now
    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
    waited = time.time() - seconds - nanoseconds / 1e9
    return now - waited if 0.0 <= waited <= MOST_S else now
