"""How many packets are lost between two network namespaces while something is changed.

Numbered UDP packets go one way at a steady pace, from a thread of their own; another counts what
arrives. The sockets stay in the namespaces they were made in, so no thread has to. Linux.
"""

import select
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from types import TracebackType
from typing import Self

from orchestrator.linux import namespaces

INTERVAL_S = 0.01
STEADY = 50  # packets in a row that have to arrive until all is taken as well again
_LAST_S = 1.0  # for packets that are still under way at the end
_NUMBER = struct.Struct("!Q")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of the packets: how many were sent and lost, and the longest time without any."""

    sent: int
    lost: int
    longest_gap_s: float


class Probe:
    """Sends packets while its ``with`` block lasts. Raises OSError if that cannot begin."""

    def __init__(self, start: str, end: str, source: Address, destination: Address) -> None:
        self._stack = ExitStack()
        self._sender = self._socket(start, source)
        self._receiver = self._socket(end, destination)
        self._destination = (str(destination), self._receiver.getsockname()[1])
        self._sent = 0
        self._arrived: set[int] = set()
        self._newest = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()

    def await_steady(self, patience_s: float) -> bool:
        """Wait until packets arrive one after the other, and return whether they do."""
        deadline = time.monotonic() + patience_s
        first = self._sent
        while time.monotonic() < deadline:
            last = self._newest
            if last >= first + STEADY and all(
                number in self._arrived for number in range(last - STEADY, last)
            ):
                return True
            self._stop.wait(INTERVAL_S)
        return False

    def loss(self) -> Loss:
        """Return what became of all packets, once the block is left."""
        numbers = [-1, *sorted(self._arrived), self._sent]
        gap = max(after - before for before, after in pairwise(numbers)) - 1
        return Loss(self._sent, self._sent - len(self._arrived), gap * INTERVAL_S)

    def _socket(self, namespace: str, address: Address) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            made = namespaces.inside(namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
            self._stack.callback(made.close)
            made.bind((str(address), 0))
        except BaseException:
            self._stack.close()
            raise
        return made

    def _send(self) -> None:
        begin = time.monotonic()
        while not self._stop.wait(begin + self._sent * INTERVAL_S - time.monotonic()):
            with suppress(OSError):  # no route: a packet that is lost like others
                self._sender.sendto(_NUMBER.pack(self._sent), self._destination)
            self._sent += 1

    def _receive(self) -> None:
        poll = select.poll()
        poll.register(self._receiver, select.POLLIN)
        until = None
        while until is None or (time.monotonic() < until and len(self._arrived) < self._sent):
            if poll.poll(INTERVAL_S * 1000):
                told = self._receiver.recv(2 * _NUMBER.size)
                if len(told) == _NUMBER.size:  # others may send something to that port, too
                    (number,) = _NUMBER.unpack(told)
                    self._arrived.add(number)
                    self._newest = max(self._newest, number)
            if until is None and self._stop.is_set():
                until = time.monotonic() + _LAST_S
