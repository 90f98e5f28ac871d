"""Packets that wait for a guest: bounded by number and bytes for each guest, and in all.

Pure; the caller holds its own lock. What is too much is dropped: clients send again.
"""

from collections.abc import Hashable

EACH_PACKETS = 1000  # sent on at once, they fill the queue of a TAP device (txqueuelen)
EACH_BYTES = 256 * 1024
ALL_PACKETS = 16 * 1024  # Python needs some 50 bytes for each packet beside its own
ALL_BYTES = 8 * 1024 * 1024


class HeldPackets:
    """What is held, by key, in order of arrival."""

    def __init__(
        self,
        each_packets: int = EACH_PACKETS,
        each_bytes: int = EACH_BYTES,
        all_packets: int = ALL_PACKETS,
        all_bytes: int = ALL_BYTES,
    ) -> None:
        self._each_packets, self._each_bytes = each_packets, each_bytes
        self._all_packets, self._all_bytes = all_packets, all_bytes
        self._held: dict[Hashable, list[bytes]] = {}
        self._bytes: dict[Hashable, int] = {}
        self._packets = self._total = 0

    def keep(self, key: Hashable, packet: bytes) -> bool:
        """Keep one more packet; False if that would be too much."""
        held, size = self._held.get(key, []), self._bytes.get(key, 0)
        if (
            len(held) >= self._each_packets
            or size + len(packet) > self._each_bytes
            or self._packets >= self._all_packets
            or self._total + len(packet) > self._all_bytes
        ):
            return False
        self._held.setdefault(key, []).append(packet)
        self._bytes[key] = size + len(packet)
        self._packets += 1
        self._total += len(packet)
        return True

    def take(self, key: Hashable) -> list[bytes]:
        """Return what is held for a key, and hold it no more."""
        self._total -= self._bytes.pop(key, 0)
        held = self._held.pop(key, [])
        self._packets -= len(held)
        return held
