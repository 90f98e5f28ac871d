"""Tells secondaries that the zone has changed (NOTIFY, RFC 1996), until they say they heard it.

For `dns_boot.resolver`. They then come and compare the serial themselves, so nothing more is said,
and nothing is lost if nobody hears it: they look by themselves every now and then.
"""

import logging
import secrets
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from dns_boot import tsig
from dns_boot.names import AA, HEADER_BYTES, OPCODE, QR, FormatError, Name, name_of, tsig_in, wire
from orchestrator.model import Secondary

logger = logging.getLogger(__name__)

NOTIFY = 4 << 11  # the opcode, in its place
SOA, IN = 6, 1
SETTLE_S = 0.5  # several changes in a row are told once
FIRST_WAIT_S, WAITS = 1.0, 7  # 1 s, 2 s, 4 s, ... 64 s: two minutes, as RFC 1996, 3.6, has it


@dataclass(frozen=True, slots=True)
class _Told:
    """What was sent to a secondary, and what its answer is to cover."""

    packet: bytes
    mac: bytes
    key: tsig.Key | None


class Notifier:
    """Tells all secondaries of each change, from a thread of its own."""

    def __init__(
        self,
        zone: Name,
        secondaries: tuple[Secondary, ...],
        keys: Mapping[Name, tsig.Key],
        *,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self._zone = zone
        self._secondaries = secondaries
        self._keys = keys
        self._first_wait_s = first_wait_s
        self._changed = threading.Condition()
        self._changes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="dns-notify", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Tell the secondaries that there is something new; returns at once."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Tell nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        told = 0
        while (change := self._next(told)) is not None:
            told = change
            if not self._settles(change, SETTLE_S):
                continue
            try:
                self._tell_all(change)
            except Exception:
                logger.exception("the secondaries could not be told of a change")

    def _next(self, told: int) -> int | None:
        """Wait for a change that was not told; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._changes > told)
            return None if self._closed else self._changes

    def _settles(self, change: int, wait_s: float) -> bool:
        """Wait; False at once if there is a newer change, or nobody is to be told any more."""
        with self._changed:
            newer = self._changed.wait_for(
                lambda: self._closed or self._changes > change, timeout=wait_s
            )
            return not newer

    def _tell_all(self, change: int) -> None:
        waiting = set(self._secondaries)
        for number in range(WAITS):
            wait_s = self._first_wait_s * 2**number
            waiting = {each for each in waiting if not self._tell(each, wait_s / len(waiting))}
            if not waiting or not self._settles(change, wait_s / 2):
                return
        for each in waiting:
            logger.warning("secondary %s port %d hears no NOTIFY", each.address, each.port)

    def _tell(self, secondary: Secondary, patience_s: float) -> bool:
        """Tell one secondary; say whether it has heard it."""
        told = self._message(secondary)
        family = socket.AF_INET6 if ":" in secondary.address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.settimeout(min(patience_s, self._first_wait_s))
                udp.connect((secondary.address, secondary.port))
                udp.send(told.packet)
                return _heard(udp.recv(4096), told)
        except OSError as error:
            logger.debug("NOTIFY to %s port %d: %s", secondary.address, secondary.port, error)
            return False

    def _message(self, secondary: Secondary) -> _Told:
        header = struct.pack("!6H", secrets.randbelow(1 << 16), NOTIFY | AA, 1, 0, 0, 0)
        packet = header + wire(self._zone) + struct.pack("!HH", SOA, IN)
        if not secondary.key:
            return _Told(packet, b"", None)
        key = self._keys[name_of(secondary.key)]
        return _Told(*tsig.sign_request(packet, key), key)


def _heard(reply: bytes, told: _Told) -> bool:
    """Say whether a packet is the answer to a NOTIFY, and signed if that was."""
    if len(reply) < HEADER_BYTES or reply[:2] != told.packet[:2]:
        return False
    flags = int.from_bytes(reply[2:4], "big")
    if not flags & QR or flags & OPCODE != NOTIFY or flags & 0xF:
        return False
    if told.key is None:
        return True
    try:
        at = tsig_in(reply)
        return bool(at) and tsig.check_reply(reply, at, told.key, told.mac)
    except FormatError:
        return False
