"""Packets that wait for a guest: bounded by number and bytes for each guest, and in all.

Pure; the caller holds its own lock. What is too much is dropped: clients send again.
"""

from collections.abc import Hashable

EACH_PACKETS = 64  # a client sends one SYN a second; a burst of datagrams may be longer
EACH_BYTES = 128 * 1024
ALL_BYTES = 8 * 1024 * 1024


class HeldPackets:
    """What is held, by key, in order of arrival."""

    def __init__(
        self,
        each_packets: int = EACH_PACKETS,
        each_bytes: int = EACH_BYTES,
        all_bytes: int = ALL_BYTES,
    ) -> None:
        self._each_packets, self._each_bytes = each_packets, each_bytes
        self._all_bytes = all_bytes
        self._held: dict[Hashable, list[bytes]] = {}
        self._bytes: dict[Hashable, int] = {}
        self._total = 0

    def keep(self, key: Hashable, packet: bytes) -> bool:
        """Keep one more packet; False if that would be too much."""
        held, size = self._held.get(key, []), self._bytes.get(key, 0)
        if (
            len(held) >= self._each_packets
            or size + len(packet) > self._each_bytes
            or self._total + len(packet) > self._all_bytes
        ):
            return False
        self._held.setdefault(key, []).append(packet)
        self._bytes[key] = size + len(packet)
        self._total += len(packet)
        return True

    def take(self, key: Hashable) -> list[bytes]:
        """Return what is held for a key, and hold it no more."""
        self._total -= self._bytes.pop(key, 0)
        return self._held.pop(key, [])
