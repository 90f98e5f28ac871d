"""The sockets of one port, UDP and TCP, and a bell that wakes a thread waiting for sockets.

For the doors of `dns_boot.udp` and `dns_boot.tcp` and for who makes them, `dns_boot.server`.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from orchestrator.errors import EdgewakeError

RECEIVE_BUFFER_BYTES = 4 << 20  # holds a burst of some 5,000 queries; the kernel may grant less
TCP_BACKLOG = 256
PORT_TRIES = 20  # with port 0, until a port that is free for UDP is free for TCP too


@dataclass(frozen=True, slots=True)
class Sockets:
    """What listens on one address and port; several UDP sockets share it."""

    tcp: socket.socket
    udps: tuple[socket.socket, ...]

    def __iter__(self) -> Iterator[socket.socket]:
        return iter((self.tcp, *self.udps))


def bind(listen: str, port: int, *, udps: int = 1) -> Sockets:
    """Return sockets on one port, so many of them for UDP. Raises EdgewakeError."""
    try:
        family = socket.AF_INET6 if ip_address(listen).version == 6 else socket.AF_INET
        take = _bind_any if port == 0 else bind_all
        return take(family, listen, port, udps)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        hint = _BIND_HINTS.get(number, "set dns.listen to an IP address of this machine")
        raise EdgewakeError(
            f"cannot serve DNS on {listen} port {port}: {error}", hint=hint
        ) from error


def _bind_any(family: int, listen: str, port: int, udps: int) -> Sockets:
    """Try ports that are free for UDP until one is free for TCP too."""
    for _ in range(PORT_TRIES - 1):
        try:
            return bind_all(family, listen, port, udps)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return bind_all(family, listen, port, udps)


_BIND_HINTS: dict[int | None, str] = {
    errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; "
    "or set dns.listen to a port above",
    errno.EADDRINUSE: "another program has this port (`ss -lntup` shows which); "
    "stop it, or set dns.listen to another port",
    errno.EADDRNOTAVAIL: "this machine has no such address (`ip address` lists them); "
    "set dns.listen to one that it has",
}


def bind_all(family: int, listen: str, port: int, udps: int) -> Sockets:
    """Return the sockets. Raises OSError; then none is open."""
    with contextlib.ExitStack() as undo:
        # TCP first: it is not shared, so that a second edgewake cannot join our UDP port unseen.
        tcp = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((listen, port))
        tcp.listen(TCP_BACKLOG)
        tcp.setblocking(False)
        chosen = tcp.getsockname()[1]
        bound = []
        for _ in range(udps):
            udp = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if udps > 1:
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            udp.bind((listen, chosen))
            udp.setblocking(False)
            bound.append(udp)
        undo.pop_all()
        return Sockets(tcp, tuple(bound))


class Bell:
    """Wakes a thread that waits for sockets."""

    def __init__(self) -> None:
        self.rung = False
        self._ear, self._hand = socket.socketpair()
        self._ear.setblocking(False)
        self._hand.setblocking(False)

    def fileno(self) -> int:
        """Return what is readable when the bell rings."""
        return self._ear.fileno()

    def ring(self) -> None:
        """Wake the thread and ask it to end."""
        self.rung = True
        self.nudge()

    def nudge(self) -> None:
        """Wake the thread without asking it to end. A full pipe means that it is awake."""
        with contextlib.suppress(OSError):
            self._hand.send(b"\0")

    def hush(self) -> None:
        """Take note of all nudges so far."""
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)

    def close(self) -> None:
        """Let go of the sockets."""
        self._ear.close()
        self._hand.close()
