"""Guards guests against clients on their own bridge, where no router is passed.

Such a client asks by broadcast which card has an address (ARP, IPv6 neighbour discovery), and keeps
its packets until it is told. So the question is the reason to wake, and the client itself holds the
packet: when the guest answers its readiness probe, the question is answered in its name. A client
gives up after three questions, one a second; if the boot takes longer, it is answered shortly
before that, and its frames are held here until the guest is ready.

Nothing is changed on the host. The socket sees no other frames than those questions, by a filter in
the kernel, but for the moments in which frames are held. A guest whose network is up before its
service may answer such a client itself, and then refuse it: that cannot be seen from here.
"""

import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from orchestrator.errors import CannotGuard
from orchestrator.guards.base import Asked, Guarded, Listener, tell
from orchestrator.guards.frames import Question, program, question
from orchestrator.guards.held import HeldPackets
from orchestrator.guards.netlink import Address
from orchestrator.packet_filter import attach

log = logging.getLogger(__name__)

PATIENCE_S = 2.5  # Linux clients give up 3 s after their first question (mcast_solicit, arp(7))
AT_ONCE = 512  # frames taken in before others have their turn
NAP_S = 50e-6  # then, so that who waits for the lock gets it
MOST_CLIENTS = 256  # that are answered for one address

_ETH_P_ALL = 0x0003
_OUTGOING = 4  # linux/if_packet.h PACKET_OUTGOING
_SOL_PACKET, _ADD, _DROP, _PROMISCUOUS = 263, 1, 2, 1
_MOST_BYTES = 65536
_END, _GO_ON = b".", b"+"


@dataclass(slots=True)
class _Wanted:
    """A guarded address that was asked for, and by whom; `holding` once they were answered."""

    guarded: Guarded
    at: float
    questions: dict[tuple[bytes, Address], Question] = field(default_factory=dict)
    holding: bool = False

    @property
    def card(self) -> bytes:
        return _card(self.guarded)


class BridgedGuard:
    """Guards one host's guests on a bridge of this machine; raises `CannotGuard`."""

    how = "bridged"
    device = ""

    def __init__(self, host: str, bridge: str, listener: Listener) -> None:
        self._host, self._bridge, self._listener = host, bridge, listener
        self._lock = threading.RLock()
        self._guarded: dict[Address, Guarded] = {}
        self._wanted: dict[IPv4Address, _Wanted] = {}
        self._held = HeldPackets()
        self._promiscuous = False
        self._undo = ExitStack()
        with ExitStack() as failing:
            failing.callback(self._undo.close)
            self._open()
            failing.pop_all()
        self._thread = threading.Thread(
            target=self._run, name=f"edgewake-bridge-guard-{host}", daemon=True
        )
        self._thread.start()

    def _open(self) -> None:
        if not Path(f"/sys/class/net/{self._bridge}/bridge").exists():
            raise CannotGuard(f"{self._host}: {self._bridge} is no bridge of this machine")
        try:
            self._socket = self._listening()
            self._nudged, self._nudge = os.pipe()
        except OSError as error:
            raise CannotGuard(
                f"{self._host}: clients on bridge {self._bridge} cannot be heard: "
                f"{error.strerror or error}",
                hint="edgewake needs CAP_NET_RAW",
            ) from error
        self._undo.callback(os.close, self._nudge)
        self._undo.callback(os.close, self._nudged)
        self._undo.callback(self._hush)

    def _listening(self) -> socket.socket:
        with ExitStack() as failing:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            failing.callback(made.close)
            attach(made, program())
            made.bind((self._bridge, _ETH_P_ALL))
            self._index = socket.if_nametoindex(self._bridge)
            failing.pop_all()
        return made

    def _hush(self) -> None:
        self._socket.close()

    def _listen_anew(self) -> None:
        """Listen on a bridge that was made anew under the same name."""
        if socket.if_nametoindex(self._bridge) != self._index:
            old, self._socket = self._socket, self._listening()
            self._promiscuous = False
            old.close()
            os.write(self._nudge, _GO_ON)

    # --- the seam -----------------------------------------------------------------------------

    def set(self, guarded: Sequence[Guarded]) -> None:
        """Guard exactly these."""
        with self._lock:
            try:
                self._listen_anew()
            except OSError as error:
                raise CannotGuard(
                    f"{self._host}: clients on bridge {self._bridge} cannot be heard: {error}"
                ) from error
            self._guarded = {address: each for each in guarded for address in each.addresses}
            for gone in self._wanted.keys() - self._guarded.keys():
                self._forget(gone)

    def release(self, address: IPv4Address) -> None:
        """Answer those who asked, and send on what they sent."""
        with self._lock:
            guarded = self._guarded.get(address)
            if guarded is None:
                return
            asked = self._drain()
            for each in guarded.addresses:
                self._guarded.pop(each, None)
            if wanted := self._wanted.get(address):
                self._answer(wanted)
            for frame in self._forget(address):
                self._send(frame)
        tell(self._listener, asked)

    def refuse(self, address: IPv4Address) -> None:
        """Drop what is held, and go on guarding."""
        with self._lock:
            self._forget(address)

    def close(self) -> None:
        """Listen no more."""
        with self._lock:
            self._guarded = {}
            self._wanted.clear()
        if self._thread.is_alive():
            os.write(self._nudge, _END)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._undo.close()

    # --- frames -------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            poll = select.poll()  # anew each time, as the socket may be
            poll.register(self._socket, select.POLLIN)
            poll.register(self._nudged, select.POLLIN)
            ready = poll.poll(self._patience_left_ms())
            if any(file == self._nudged for file, _ in ready):
                if os.read(self._nudged, 1) == _END:
                    return
                continue
            with self._lock:
                asked = self._drain()
                self._hold_the_late()
            tell(self._listener, asked)
            time.sleep(NAP_S)

    def _patience_left_ms(self) -> float | None:
        with self._lock:
            waiting = [each.at for each in self._wanted.values() if not each.holding]
        if not waiting:
            return None
        return max(0.0, min(waiting) + PATIENCE_S - time.monotonic()) * 1000 + 1

    def _drain(self) -> list[Asked]:
        """Take in the frames that are there, not all of a flood; return who is asked for."""
        asked: list[Asked] = []
        for _ in range(AT_ONCE):
            try:
                frame, sender = self._socket.recvfrom(_MOST_BYTES)
            except BlockingIOError:
                return asked
            except OSError as error:  # the bridge went away; nobody asks there
                log.debug("%s: %s", self._bridge, error)
                return asked
            if sender[2] != _OUTGOING and (found := self._take_in(frame, time.monotonic())):
                asked.append(found)
        return asked

    def _take_in(self, frame: bytes, now: float) -> Asked | None:
        asked = question(frame)
        if asked is None:
            for address, wanted in self._wanted.items():
                if wanted.holding and frame[:6] == wanted.card:
                    self._held.keep(address, frame)
            return None
        guarded = self._guarded.get(asked.target)
        if guarded is None:
            return None
        known = self._wanted.get(guarded.address)
        wanted = known or _Wanted(guarded, now)
        self._wanted[guarded.address] = wanted
        if len(wanted.questions) < MOST_CLIENTS:
            wanted.questions[asked.card, asked.target] = asked
        if wanted.holding:
            self._send(asked.answer(wanted.card))
        if known:
            return None
        return Asked(guarded, f"{asked.source} for {asked.target}", now, asked.source)

    def _hold_the_late(self) -> None:
        """Answer those whose patience is nearly over, and hold what they send then."""
        now = time.monotonic()
        late = [
            each
            for each in self._wanted.values()
            if not each.holding and now >= each.at + PATIENCE_S
        ]
        for wanted in late:
            wanted.holding = True
        if late:
            self._watch_cards()
        for wanted in late:
            self._answer(wanted)

    def _answer(self, wanted: _Wanted) -> None:
        for asked in wanted.questions.values():
            self._send(asked.answer(wanted.card))

    def _forget(self, address: IPv4Address) -> list[bytes]:
        wanted = self._wanted.pop(address, None)
        if wanted is not None and wanted.holding:
            self._watch_cards()
        return self._held.take(address)

    def _watch_cards(self) -> None:
        """See the frames to cards of guests that are held for, and no others."""
        cards = [each.card for each in self._wanted.values() if each.holding]
        try:
            attach(self._socket, program(cards))
            if bool(cards) is not self._promiscuous:
                wish = struct.pack("=iHH8x", self._index, _PROMISCUOUS, 0)
                self._socket.setsockopt(_SOL_PACKET, _ADD if cards else _DROP, wish)
                self._promiscuous = bool(cards)
        except OSError as error:
            log.warning("frames on bridge %s cannot be held: %s", self._bridge, error)

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:
            log.warning("a frame could not be sent on bridge %s: %s", self._bridge, error)


def _card(guarded: Guarded) -> bytes:
    return bytes.fromhex(guarded.mac.replace(":", ""))
