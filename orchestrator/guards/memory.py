"""A guard without packets: tests say when somebody asks, and see what follows."""

import threading
import time
from collections.abc import Sequence
from ipaddress import IPv4Address

from orchestrator.guards.base import Asked, Guarded, Listener
from orchestrator.guards.held import HeldPackets


class MemoryGuard:
    """Remembers instead of guarding. `delivered` is what went on to guests, by address."""

    how = "memory"
    device = ""

    def __init__(self, listener: Listener) -> None:
        self.delivered: dict[IPv4Address, list[bytes]] = {}
        self.closed = False
        self._listener = listener
        self._lock = threading.Lock()
        self._guarded: dict[IPv4Address, Guarded] = {}
        self._pending: set[IPv4Address] = set()
        self._held = HeldPackets()

    @property
    def guarded(self) -> tuple[Guarded, ...]:
        """What is guarded now."""
        with self._lock:
            return tuple(self._guarded.values())

    def send(
        self,
        address: IPv4Address,
        packet: bytes = b"SYN",
        client: str = "a client",
        source: IPv4Address | None = None,
    ) -> None:
        """Let a packet come that wants an address."""
        asked = None
        with self._lock:
            guarded = self._guarded.get(address)
            if guarded is None:
                self.delivered.setdefault(address, []).append(packet)
                return
            self._held.keep(address, packet)
            if address not in self._pending:
                self._pending.add(address)
                asked = Asked(guarded, client, time.monotonic(), source)
        if asked:
            self._listener(asked)

    def set(self, guarded: Sequence[Guarded]) -> None:
        """Guard exactly these."""
        with self._lock:
            wanted = {each.address: each for each in guarded}
            for gone in self._guarded.keys() - wanted.keys():
                self._pending.discard(gone)
                self._held.take(gone)
            self._guarded = wanted

    def release(self, address: IPv4Address) -> None:
        """Let what is held go on."""
        with self._lock:
            if self._guarded.pop(address, None):
                self._pending.discard(address)
                self.delivered.setdefault(address, []).extend(self._held.take(address))

    def refuse(self, address: IPv4Address) -> None:
        """Drop what is held."""
        with self._lock:
            self._pending.discard(address)
            self._held.take(address)

    def close(self) -> None:
        """Guard nothing."""
        self.set(())
        self.closed = True
